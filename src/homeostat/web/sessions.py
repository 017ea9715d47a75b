"""The sessions of browsers, made from one-time links, and their table.

A link lives in the memory of the server that made it, for a minute, and works once. A session is in the
table, so it outlives a restart of the server; it holds no more than the token that asked for the link, and
ends with it. The table has hashes only: what a browser holds is in no table, no journal and no log.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Connection, and_, bindparam, delete, insert, select

from homeostat.contracts.events.fleet import ConsoleClosed, ConsoleOpened
from homeostat.contracts.nouns import Owner
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import DatabaseReader, record_table, token
from homeostat.kernel.errors import NotAllowed
from homeostat.kernel.journal import JournalAppender, NewEvent, RowChange, Submission
from homeostat.kernel.records import row_of


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that was let in by a one-time link. Times are the server's wall clock."""

    hash: str
    token: str
    role: Role
    owner: str
    opened_ns: int
    expires_ns: int


session_table = record_table("console_session", Session, key="hash")


def hash_secret(secret: str) -> str:
    """What the table keeps. The secret is 256 random bits, so one round is enough."""
    return hashlib.sha256(b"console session " + secret.encode(errors="surrogatepass")).hexdigest()


def remove_session(digest: str) -> RowChange:
    """The session ends with the commit; no error when there is none."""
    return RowChange(
        delete(session_table).where(session_table.c.hash == bindparam("gone")), ({"gone": digest},)
    )


def remove_expired(now_ns: int) -> RowChange:
    statement = delete(session_table).where(session_table.c.expires_ns <= bindparam("now"))
    return RowChange(statement, ({"now": now_ns},))


def find_session(connection: Connection, secret: str, now_ns: int) -> Caller | None:
    """Who sits at the browser.

    None when the session is not known or over, or when the token that opened it was revoked or changed since.
    """
    table = session_table.c
    query = (
        select(table.token, table.role, table.owner)
        .join(
            token, and_(token.c.name == table.token, token.c.role == table.role, token.c.owner == table.owner)
        )
        .where(table.hash == hash_secret(secret), table.expires_ns > now_ns)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else Caller(row.token, Role(row.role), row.owner)


LINK_S = 60
SESSION_S = 12 * 3600
_LINKS_MAX = 1000
_LOOP = "console"


class Links:
    """One-time secrets that are not used yet, by their hash."""

    def __init__(self, clock: Clock, valid_s: float = LINK_S) -> None:
        self._clock, self._valid_ns = clock, round(valid_s * 1e9)
        self._kept: OrderedDict[str, tuple[Caller, int]] = OrderedDict()

    def make(self, caller: Caller) -> tuple[str, int]:
        """A secret for this caller and when it is over, wall nanoseconds. NotAllowed for a consumer."""
        if caller.role is Role.CONSUMER:
            raise NotAllowed(
                "a consumer cannot use the dashboard; use a token of an administrator, operator or viewer"
            )
        secret = secrets.token_urlsafe(32)
        self._kept[hash_secret(secret)] = (caller, self._clock.mono_ns() + self._valid_ns)
        if len(self._kept) > _LINKS_MAX:
            self._kept.popitem(last=False)
        return secret, self._clock.wall_ns() + self._valid_ns

    def take(self, secret: str) -> Caller | None:
        """Whose link it was; None when it is not known, too old, or used: it is used from now on."""
        caller, until_ns = self._kept.pop(hash_secret(secret), (None, 0))
        return caller if self._clock.mono_ns() < until_ns else None


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who sits at the browser. `csrf` is what a write from one of our own pages brings along."""

    caller: Caller
    secret: str = field(repr=False)

    @property
    def csrf(self) -> str:
        """Follows from the session's secret, so nothing has to be kept; reveals nothing of it."""
        return hashlib.sha256(b"console csrf " + self.secret.encode(errors="surrogatepass")).hexdigest()

    def check(self, given: str) -> None:
        """NotAllowed unless the write came from a page that we made for this session."""
        if not hmac.compare_digest(given.encode(errors="replace"), self.csrf.encode()):
            raise NotAllowed("the form is out of date (CSRF token); reload the page and try again")


class Sessions:
    """Opened, found and closed."""

    def __init__(
        self, appender: JournalAppender, readers: DatabaseReader, clock: Clock, valid_s: float = SESSION_S
    ) -> None:
        self._appender, self._readers, self._clock, self._valid_s = appender, readers, clock, valid_s

    async def open(self, caller: Caller) -> Visitor:
        visitor, now_ns = Visitor(caller, secrets.token_urlsafe(32)), self._clock.wall_ns()
        row = Session(
            hash=hash_secret(visitor.secret),
            token=caller.name,
            role=caller.role,
            owner=caller.owner,
            opened_ns=now_ns,
            expires_ns=now_ns + round(self._valid_s * 1e9),
        )
        event = ConsoleOpened(caller.name, caller.role.value, Owner(caller.owner))
        changes = (remove_expired(now_ns), RowChange(insert(session_table), (row_of(row),)))
        await self._appender.append(Submission(_LOOP, (self._draft(event, caller),), changes))
        return visitor

    async def find(self, secret: str | None) -> Visitor | None:
        if not secret:
            return None
        caller = await self._readers.read(partial(find_session, secret=secret, now_ns=self._clock.wall_ns()))
        return None if caller is None else Visitor(caller, secret)

    async def close(self, visitor: Visitor) -> None:
        """The cookie is worth nothing from now on."""
        draft = self._draft(ConsoleClosed(visitor.caller.name), visitor.caller)
        change = remove_session(hash_secret(visitor.secret))
        await self._appender.append(Submission(_LOOP, (draft,), (change,)))

    def _draft(self, event: object, caller: Caller) -> NewEvent:
        return NewEvent(event, f"token/{caller.name}", self._clock.wall_ns(), "console", uuid.uuid4().hex)
