"""How a browser gets in: a one-time link becomes a session, a session becomes a caller.

A link lives in the memory of the server that made it, for a minute, and works once. A session is in the
table, so it outlives a restart of the server; it holds no more than the token that asked for the link, and
ends with it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial

from homeostat.contracts.events.access import ConsoleClosed, ConsoleOpened
from homeostat.contracts.nouns import Owner
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import Clock
from homeostat.kernel.errors import NotAllowed
from homeostat.kernel.journal import Draft, Submission
from homeostat.notices.outcomes import Appends
from homeostat.notices.subscriptions import Reads
from homeostat.web import store

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
                "a consumer has no dashboard; use a token of an administrator, operator or viewer"
            )
        secret = secrets.token_urlsafe(32)
        self._kept[store.hash_secret(secret)] = (caller, self._clock.mono_ns() + self._valid_ns)
        if len(self._kept) > _LINKS_MAX:
            self._kept.popitem(last=False)
        return secret, self._clock.wall_ns() + self._valid_ns

    def take(self, secret: str) -> Caller | None:
        """Whose link it was; None when it is not known, too old, or used: it is used from now on."""
        caller, until_ns = self._kept.pop(store.hash_secret(secret), (None, 0))
        return caller if self._clock.mono_ns() < until_ns else None


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who sits at the browser. `csrf` is what a write from one of our own pages brings along."""

    caller: Caller
    secret: str = field(repr=False)

    @property
    def csrf(self) -> str:
        """Follows from the session's secret, so nothing has to be kept; tells nothing about it."""
        return hashlib.sha256(b"console csrf " + self.secret.encode(errors="surrogatepass")).hexdigest()

    def check(self, given: str) -> None:
        """NotAllowed unless the write came from a page that we made for this session."""
        if not hmac.compare_digest(given.encode(errors="replace"), self.csrf.encode()):
            raise NotAllowed(
                "this did not come from a page of yours (CSRF token); reload the page and try again"
            )


class Sessions:
    """Opened, found and closed."""

    def __init__(self, appender: Appends, readers: Reads, clock: Clock, valid_s: float = SESSION_S) -> None:
        self._appender, self._readers, self._clock, self._valid_s = appender, readers, clock, valid_s

    async def open(self, caller: Caller) -> Visitor:
        """A new session of a caller whose link was good."""
        visitor, now_ns = Visitor(caller, secrets.token_urlsafe(32)), self._clock.wall_ns()
        row = store.Session(
            hash=store.hash_secret(visitor.secret),
            token=caller.name,
            role=caller.role,
            owner=caller.owner,
            opened_ns=now_ns,
            expires_ns=now_ns + round(self._valid_s * 1e9),
        )
        event = ConsoleOpened(caller.name, caller.role.value, Owner(caller.owner))
        changes = (store.remove_expired(now_ns), store.insert_session(row))
        await self._appender.append(Submission(_LOOP, (self._draft(event, caller),), changes))
        return visitor

    async def find(self, secret: str | None) -> Visitor | None:
        """The session that a browser's cookie stands for, if it is one."""
        if not secret:
            return None
        caller = await self._readers.read(partial(store.find, secret=secret, now_ns=self._clock.wall_ns()))
        return None if caller is None else Visitor(caller, secret)

    async def close(self, visitor: Visitor) -> None:
        """The cookie is worth nothing from now on."""
        draft = self._draft(ConsoleClosed(visitor.caller.name), visitor.caller)
        change = store.remove_session(store.hash_secret(visitor.secret))
        await self._appender.append(Submission(_LOOP, (draft,), (change,)))

    def _draft(self, event: object, caller: Caller) -> Draft:
        return Draft(event, f"token/{caller.name}", self._clock.wall_ns(), "console", uuid.uuid4().hex)
