"""One-time links and sessions, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from sqlalchemy import select

from homeostat.components import catalogue
from homeostat.kernel.access import Caller, Role, Token, hash_token, insert_token, remove_token
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.database import journal
from homeostat.kernel.errors import NotAllowed
from homeostat.kernel.journal import Submission
from homeostat.web.sessions import Links, Sessions, Visitor, session_table
from store_parts import Store

BLUE = Caller("blue-eyes", Role.VIEWER, "blue")


@dataclass
class SetClock:
    """A clock that a test sets."""

    now_ns: int = 1_700_000_000_000_000_000

    def wall_ns(self) -> int:
        return self.now_ns

    def mono_ns(self) -> int:
        return self.now_ns

    def pass_s(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


@dataclass
class Opened:
    """Sessions on a database with one token in it."""

    appender: Appender
    sessions: Sessions
    clock: SetClock
    store: Store


@pytest.fixture
async def opened(store: Store) -> AsyncIterator[Opened]:
    appender = Appender(
        store.engine, catalogue(), epoch=None, settings=AppenderSettings(), clock=SystemClock()
    )
    appender.start()
    clock = SetClock()
    row = Token(BLUE.name, hash_token("hs_blue"), BLUE.role, BLUE.owner, 0)
    await appender.append(Submission("t", changes=(insert_token(row),)))
    yield Opened(appender, Sessions(appender, store.readers, clock), clock, store)
    await appender.close()


def test_a_link_works_once_and_carries_role_and_project() -> None:
    links = Links(SetClock())
    secret, _ = links.make(BLUE)
    assert links.take(secret) == BLUE
    assert links.take(secret) is None
    assert links.take("guessed") is None


def test_a_link_is_over_after_a_minute() -> None:
    clock = SetClock()
    links = Links(clock)
    early, late = links.make(BLUE)[0], links.make(BLUE)[0]
    clock.pass_s(59.9)
    assert links.take(early) == BLUE
    clock.pass_s(0.2)
    assert links.take(late) is None


def test_links_that_nobody_uses_are_forgotten_and_consumers_get_none() -> None:
    links = Links(SetClock())
    first = links.make(BLUE)[0]
    for _ in range(1000):
        links.make(BLUE)
    assert links.take(first) is None
    with pytest.raises(NotAllowed, match="consumer"):
        links.make(Caller("pager", Role.CONSUMER, "blue"))


async def test_a_session_is_found_until_it_is_closed(opened: Opened) -> None:
    visitor = await opened.sessions.open(BLUE)
    found = await opened.sessions.find(visitor.secret)
    assert found == visitor
    assert await opened.sessions.find(visitor.secret + "x") is None
    assert await opened.sessions.find(None) is None
    await opened.sessions.close(visitor)
    assert await opened.sessions.find(visitor.secret) is None


async def test_a_session_is_over_after_twelve_hours_and_then_forgotten(opened: Opened) -> None:
    visitor = await opened.sessions.open(BLUE)
    opened.clock.pass_s(12 * 3600 - 1)
    assert await opened.sessions.find(visitor.secret) is not None
    opened.clock.pass_s(1)
    assert await opened.sessions.find(visitor.secret) is None
    await opened.sessions.open(BLUE)
    assert len(opened.store.rows(select(session_table))) == 1


async def test_a_session_ends_with_its_token(opened: Opened) -> None:
    visitor = await opened.sessions.open(BLUE)
    await opened.appender.append(Submission("t", changes=(remove_token(BLUE.name),)))
    assert await opened.sessions.find(visitor.secret) is None
    stronger = Token(BLUE.name, hash_token("hs_new"), Role.ADMIN, "blue", 0)
    await opened.appender.append(Submission("t", changes=(insert_token(stronger),)))
    assert await opened.sessions.find(visitor.secret) is None, "a session must not gain what the token gained"


async def test_neither_table_nor_journal_holds_what_the_browser_holds(opened: Opened) -> None:
    visitor = await opened.sessions.open(BLUE)
    kept = repr(opened.store.rows(select(session_table))) + repr(opened.store.rows(select(journal)))
    assert visitor.secret not in kept
    assert visitor.csrf not in kept
    assert visitor.secret not in repr(visitor)


def test_a_write_needs_the_csrf_token_of_its_own_session() -> None:
    mine, other = Visitor(BLUE, "a" * 43), Visitor(BLUE, "b" * 43)
    mine.check(mine.csrf)
    for wrong in ("", other.csrf, mine.secret, "é"):
        with pytest.raises(NotAllowed, match="CSRF"):
            mine.check(wrong)
