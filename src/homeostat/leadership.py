"""Holding the term: take it, renew it, and stop the moment it may be somebody else's.

With SQLite there is one machine and one lock on the file: whoever gets it knows that its predecessor is dead.
With PostgreSQL a standby waits until the term has expired by the database's clock.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Engine

from homeostat.contracts.events import CATALOGUE
from homeostat.contracts.events.fleet import TermTaken
from homeostat.kernel import term
from homeostat.kernel.appender import Appender
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers, has_schema, open_engine, sqlite_file, upgrade
from homeostat.kernel.errors import Deposed, RetryLater
from homeostat.kernel.journal import Draft, Submission
from homeostat.kernel.locks import only_owner
from homeostat.kernel.reader import Journal
from homeostat.notices.outcomes import Appends
from homeostat.settings import ServerSettings

log = structlog.get_logger("leadership")

STANDBY_POLL_S = 0.5


@dataclass(slots=True)
class _Until:
    """When our term ends on our monotonic clock, if it is not renewed; None before it was renewed."""

    at_ns: int | None = None


@dataclass(slots=True)
class Leadership:
    """Our term. `ttl_s` is how long it lasts without being renewed.

    `trouble` is why it could not be renewed the last time, in one line; empty while it could.
    """

    engine: Engine
    holder: str
    epoch: int
    ttl_s: float
    clock: Clock
    trouble: str = ""
    _until: _Until = field(default_factory=lambda: _Until())

    @classmethod
    @asynccontextmanager
    async def of(cls, engine: Engine, holder: str, ttl_s: float, clock: Clock) -> AsyncIterator[Leadership]:
        """Wait until the term is ours, give it back in the end. AlreadyRunning: the file is taken."""
        path = sqlite_file(engine)
        if path is None:
            leader = cls(engine, holder, await _wait_for_term(engine, holder, ttl_s, clock), ttl_s, clock)
            try:
                yield leader
            finally:
                await leader._release()
            return
        taken = "{path}: another server, process {pid}, has this database; stop it or use another one"
        with only_owner(path.with_name(path.name + ".lock"), taken):
            epoch = term.acquire(engine, holder, ttl_s, predecessor_is_dead=True, at_least=_at_least(clock))
            assert epoch is not None, "a dead predecessor cannot refuse"
            leader = cls(engine, holder, epoch, ttl_s, clock)
            try:
                yield leader
            finally:
                await leader._release()

    async def announce(self, appender: Appends) -> None:
        """Write down who leads."""
        at_ns, subject = self.clock.wall_ns(), f"term/{self.epoch}"
        draft = Draft(TermTaken(self.epoch, self.holder), subject, at_ns, "server", subject)
        await appender.append(Submission("term", (draft,)))

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
                ours = await asyncio.to_thread(term.renew, self.engine, self.holder, self.epoch, self.ttl_s)
            except RetryLater as error:
                log.warning("the term could not be renewed", error=str(error))
                self.trouble = f"the term cannot be renewed: {error}"
                if self._is_locked or self.clock.mono_ns() < deadline_ns:
                    continue
                ours = False
            if not ours:
                raise Deposed(f"term {self.epoch} is not ours any more; another server leads")
            deadline_ns = self._until.at_ns = asked_ns
            self.trouble = ""

    @property
    def _is_locked(self) -> bool:
        """Whether a lock of ours on the file keeps others out, so that a full disk deposes nobody."""
        return sqlite_file(self.engine) is not None

    def _deadline_ns(self) -> int:
        return self.clock.mono_ns() + round(self.ttl_s * 1e9)

    async def _release(self) -> None:
        try:
            await asyncio.to_thread(term.release, self.engine, self.holder, self.epoch)
        except RetryLater as error:
            log.info("the term was not given back; it expires", error=str(error))


def _at_least(clock: Clock) -> int:
    """Seconds since 1970: a server with a new database is not taken for one that was deposed long ago."""
    return clock.wall_ns() // 10**9


async def _wait_for_term(engine: Engine, holder: str, ttl_s: float, clock: Clock) -> int:
    waited = False
    while True:
        epoch = await asyncio.to_thread(term.acquire, engine, holder, ttl_s, at_least=_at_least(clock))
        if epoch is not None:
            return epoch
        if not waited:
            log.info("standing by: another server leads")
            waited = True
        await asyncio.sleep(STANDBY_POLL_S)


@dataclass(frozen=True, slots=True)
class Store:
    """The database, as its leader has it."""

    leader: Leadership
    appender: Appender
    readers: Readers
    journal: Journal


@asynccontextmanager
async def open_store(settings: ServerSettings, clock: Clock) -> AsyncIterator[Store]:
    """The term, the schema at this version, the one writer, and readers.

    The schema waits for the term: a newer standby must not change it under the server that still leads.
    """
    engine, reading = open_engine(settings.database_url), open_engine(settings.database_url, read_only=True)
    holder = f"{socket.gethostname()}/{os.getpid()}"
    try:
        if not has_schema(engine):
            upgrade(settings.database_url)
        async with Leadership.of(engine, holder, settings.term.ttl_s, clock) as leader:
            upgrade(settings.database_url)
            appender = Appender(
                engine, CATALOGUE, epoch=leader.epoch, settings=settings.appender_settings(), clock=clock
            )
            appender.start()
            readers = Readers(reading)
            try:
                await leader.announce(appender)
                yield Store(leader, appender, readers, Journal(readers, CATALOGUE))
            finally:
                await appender.close()
                readers.close()
    finally:
        engine.dispose()
        reading.dispose()
