"""The term: which server leads. Takes it, renews it, and stops the server the moment it may be another's.

The term is one row with an epoch that only grows. Appends read the row FOR SHARE and a takeover updates it,
so that a takeover waits for the appends before it and every append after it sees the new epoch. Expiry goes
by the database's clock, never by a server's.

With SQLite there is one machine and one lock on a file beside the database: whoever gets it knows that its
predecessor is dead. With PostgreSQL a standby waits until the term has expired.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field

import structlog
from sqlalchemy import ColumnElement, Connection, Double, Engine, case, cast, func, literal, or_, update
from sqlalchemy.dialects import postgresql, sqlite

from homeostat.kernel.clock import Clock
from homeostat.kernel.database import sqlite_file, term
from homeostat.kernel.errors import Deposed, RetryLater, StoreFull
from homeostat.kernel.files import hold_lock


def acquire_term(
    engine: Engine, holder: str, ttl_s: float, *, predecessor_is_dead: bool = False, at_least: int = 1
) -> int | None:
    """Take the term for `ttl_s` seconds: the new epoch, or None while another's has not run out.

    `predecessor_is_dead` is a proof, not a guess (we hold the file lock of its database). The same holder may
    take its own term again, and gets a new epoch. `at_least` (the time, say) keeps the epochs of a database
    that is new or was restored above those that nodes remember from the one before it.
    """
    with engine.begin() as connection:
        now = _database_now(connection)
        first = (postgresql if engine.dialect.name == "postgresql" else sqlite).insert(term)
        nobody = {"id": 1, "epoch": 0, "holder": "", "expires_at": 0.0}
        connection.execute(first.values(nobody).on_conflict_do_nothing(index_elements=["id"]))
        following = case((term.c.epoch >= at_least, term.c.epoch + 1), else_=at_least)
        # One statement: PostgreSQL waits for the row and then looks at the condition again.
        taken = (
            update(term)
            .where(term.c.id == 1)
            .where(or_(term.c.expires_at <= now, term.c.holder == holder, literal(predecessor_is_dead)))
            .values(epoch=following, holder=holder, expires_at=now + ttl_s)
            .returning(term.c.epoch)
        )
        return connection.execute(taken).scalar()


def renew_term(engine: Engine, holder: str, epoch: int, ttl_s: float) -> bool:
    """Keep the term for another `ttl_s` seconds from now; False when somebody took it."""
    with engine.begin() as connection:
        return _extend(connection, holder, epoch, _database_now(connection) + ttl_s)


def release_term(engine: Engine, holder: str, epoch: int) -> bool:
    """Let the term run out at once; False when somebody took it."""
    with engine.begin() as connection:
        return _extend(connection, holder, epoch, literal(0.0))


def _extend(connection: Connection, holder: str, epoch: int, until: ColumnElement[float]) -> bool:
    ours = (term.c.id == 1) & (term.c.epoch == epoch) & (term.c.holder == holder)
    return connection.execute(update(term).where(ours).values(expires_at=until)).rowcount == 1


def _database_now(connection: Connection) -> ColumnElement[float]:
    """The database's clock in seconds, read when the row is ours and not when we began to wait."""
    if connection.dialect.name == "postgresql":
        return cast(func.extract("epoch", func.clock_timestamp()), Double)
    return (func.julianday("now", type_=Double) - 2440587.5) * 86400.0


_log = structlog.get_logger("leadership")

STANDBY_POLL_S = 0.5


@dataclass(slots=True)
class _Until:
    """When our term ends on our monotonic clock, if it is not renewed; None before it was renewed."""

    at_ns: int | None = None


async def _no_room() -> bool:
    return False


@dataclass(slots=True)
class Leadership:
    """Our term. `ttl_s` is how long it lasts without being renewed.

    `trouble` is why it could not be renewed the last time, in one line; empty while it could. `make_room`
    is asked once when the disk is full, before a renewal is given up: whether there is room now.
    """

    engine: Engine
    holder: str
    epoch: int
    ttl_s: float
    clock: Clock
    trouble: str = ""
    make_room: Callable[[], Awaitable[bool]] = _no_room
    _until: _Until = field(default_factory=lambda: _Until())

    @classmethod
    @asynccontextmanager
    async def of(cls, engine: Engine, holder: str, ttl_s: float, clock: Clock) -> AsyncIterator[Leadership]:
        """Wait until the term is ours, give it back in the end. AlreadyRunning: the file is taken."""
        path = sqlite_file(engine)
        taken = "{path}: another server, process {pid}, has this database; stop it or use another one"
        lock = nullcontext() if path is None else hold_lock(path.with_name(path.name + ".lock"), taken)
        with lock:
            if path is None:
                epoch = await _wait_for_term(engine, holder, ttl_s, clock)
            else:
                least = _at_least(clock)
                found = acquire_term(engine, holder, ttl_s, predecessor_is_dead=True, at_least=least)
                assert found is not None, "a dead predecessor cannot refuse"
                epoch = found
            leader = cls(engine, holder, epoch, ttl_s, clock)
            try:
                yield leader
            finally:
                await leader._release()

    def left_s(self) -> float:
        """How long nobody else can lead: an act must have its effect before that. 0 when nobody knows."""
        if self._is_locked:
            return math.inf
        return 0.0 if self._until.at_ns is None else (self._until.at_ns - self.clock.mono_ns()) / 1e9

    async def keep(self) -> None:
        """Renew every third of the term; Deposed when it is lost, or when nobody knows any more."""
        deadline_ns = self._deadline_ns()
        while True:
            await asyncio.sleep(self.ttl_s / 3)
            asked_ns = self._deadline_ns()
            try:
                ours = await self._renew()
            except RetryLater as error:
                _log.warning("leadership could not be renewed", error=str(error))
                self.trouble = f"leadership cannot be renewed: {error}"
                if self._is_locked or self.clock.mono_ns() < deadline_ns:
                    continue
                ours = False
            if not ours:
                raise Deposed(f"this server no longer leads (epoch {self.epoch}); another one does")
            deadline_ns = self._until.at_ns = asked_ns
            self.trouble = ""

    async def _renew(self) -> bool:
        """Whether the term is ours for longer. RetryLater."""
        try:
            return await self._renew_once()
        except StoreFull:
            if not await self.make_room():
                raise
            return await self._renew_once()

    async def _renew_once(self) -> bool:
        return await asyncio.to_thread(renew_term, self.engine, self.holder, self.epoch, self.ttl_s)

    @property
    def _is_locked(self) -> bool:
        """Whether a lock of ours on the file keeps others out, so that a full disk deposes nobody."""
        return sqlite_file(self.engine) is not None

    def _deadline_ns(self) -> int:
        return self.clock.mono_ns() + round(self.ttl_s * 1e9)

    async def _release(self) -> None:
        try:
            await asyncio.to_thread(release_term, self.engine, self.holder, self.epoch)
        except RetryLater as error:
            _log.info("the term was not given back; it expires", error=str(error))


def _at_least(clock: Clock) -> int:
    """Seconds since 1970: a server with a new database is not taken for one that was deposed long ago."""
    return clock.wall_ns() // 10**9


async def _wait_for_term(engine: Engine, holder: str, ttl_s: float, clock: Clock) -> int:
    waited = False
    while True:
        epoch = await asyncio.to_thread(acquire_term, engine, holder, ttl_s, at_least=_at_least(clock))
        if epoch is not None:
            return epoch
        if not waited:
            _log.info("standing by: another server leads")
            waited = True
        await asyncio.sleep(STANDBY_POLL_S)
