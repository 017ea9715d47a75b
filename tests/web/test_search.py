"""The journal's pages: newest first, whole, searched alike in table and stream, and only one's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from homeostat.components import catalogue, journal_view
from homeostat.contracts.events.faults import FaultRaised
from homeostat.contracts.events.fleet import (
    HostBack,
    HostDown,
    HostFenced,
    HostJoined,
    HostMarked,
    TokenIssued,
)
from homeostat.contracts.events.resources import ActionFinished, ActionIntended, ResourceUp
from homeostat.contracts.faults import Fault, FaultState
from homeostat.contracts.nouns import (
    INFRASTRUCTURE,
    FaultId,
    FaultKind,
    HostId,
    Mark,
    Owner,
    ResourceId,
    ResourceKind,
    ResourceState,
    Severity,
)
from homeostat.faults.model import encode_affected
from homeostat.faults.store import fault_raised
from homeostat.fleet.model import Resource
from homeostat.fleet.store import resource_change
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.journal import Journal, NewEvent, Seq, Submission
from homeostat.web.stream import JournalPages, JournalSearch, matches
from store_parts import Store

ADMIN, BLUE = Caller("admin", Role.ADMIN, "infrastructure"), Caller("b", Role.VIEWER, "blue")
GREEN = Caller("g", Role.VIEWER, "green")
SLY = Caller("sly", Role.OPERATOR, "infrastructure")


def resource(name: str, owner: str) -> Resource:
    kind, state = ResourceKind.GUEST, ResourceState.UP
    return Resource(ResourceId(name), HostId("n1"), kind, Owner(owner), "ocf:x:y", state, "", 0, 1)


RESOURCES = [resource("mine", "blue"), resource("theirs", "green")]
DOWN = Fault(
    id=FaultId("f-1"),
    kind=FaultKind.HOST_DOWN,
    severity=Severity.CRITICAL,
    about="node/n1",
    owner=INFRASTRUCTURE,
    reason="silent",
    state=FaultState.OPEN,
    raised_seq=Seq(1),
    trace="n1/down",
    raised_ns=1,
    raised_mono_ns=None,
    affected=encode_affected(RESOURCES[:1]),
)


def up(name: str, owner: str) -> NewEvent:
    event = ResourceUp(ResourceId(name), HostId("n1"), ResourceKind.GUEST, Owner(owner), "it's 100% up", 1)
    return NewEvent(event, f"resource/{name}", 1, "node/n1", "t")


@dataclass
class Filled:
    """A journal with events of three projects."""

    pages: JournalPages


@asynccontextmanager
async def appending(store: Store) -> AsyncIterator[Appender]:
    appender = Appender(
        store.engine, catalogue(), epoch=None, settings=AppenderSettings(), clock=SystemClock()
    )
    appender.start()
    yield appender
    await appender.close()


@pytest.fixture
async def filled(store: Store) -> AsyncIterator[Filled]:
    drafts = [NewEvent(HostJoined(HostId("n1"), "boot"), "node/n1", 1, "node/n1", "t")]
    for name, owner in (("mine", "blue"), ("theirs", "green")) * 300:
        drafts.append(up(name, owner))
        intent = ActionIntended(f"{name}-{len(drafts)}", "restart", "node/n1", 5, "died")
        drafts.append(NewEvent(intent, f"resource/{name}", 1, "node/n1", "t"))
    drafts.append(NewEvent(TokenIssued("t", "viewer", Owner("blue")), "token/t", 1, "access", "t"))
    rows = tuple(resource_change(row, is_new=True) for row in RESOURCES)
    async with appending(store) as appender:
        await appender.append(Submission("t", tuple(drafts), rows))
    yield Filled(JournalPages(Journal(store.readers, catalogue()), store.readers, journal_view().visible))


async def everything(filled: Filled, caller: Caller, search: JournalSearch) -> list[int]:
    seqs: list[int] = []
    before: int | None = None
    while True:
        found = await filled.pages.page(caller, search, before, 60)
        seqs += [each.seq for each in found.events]
        if found.older is None:
            return seqs
        before = found.older


async def test_pages_together_are_everything_newest_first(filled: Filled) -> None:
    assert await everything(filled, ADMIN, JournalSearch()) == list(range(1202, 0, -1))


async def test_a_project_sees_its_own_and_nothing_of_hosts_and_tokens(filled: Filled) -> None:
    seqs = await everything(filled, BLUE, JournalSearch())
    assert len(seqs) == 600
    events = await filled.pages.journal.read(Seq(0), 2000)
    assert {event.subject for event in events if event.seq in set(seqs)} == {"resource/mine"}
    assert await everything(filled, SLY, JournalSearch()) == []


@pytest.mark.parametrize(
    "search",
    [
        JournalSearch(kind="ResourceUp"),
        JournalSearch(subject="RESOURCE/MINE"),
        JournalSearch(text="100% UP"),
        JournalSearch(text="%"),
        JournalSearch(text="_oi"),
        JournalSearch(text="BOOT"),
        JournalSearch(kind="ActionIntended", subject="theirs", text="restart"),
        JournalSearch(text="no such thing"),
    ],
)
async def test_the_stream_finds_what_the_table_finds(filled: Filled, search: JournalSearch) -> None:
    events = await filled.pages.journal.read(Seq(0), 2000)
    by_stream = [event.seq for event in reversed(events) if matches(search, event)]
    assert await everything(filled, ADMIN, search) == by_stream


async def the_death(store: Store, trace: str) -> None:
    """A dead host in the journal as the fault path writes it, with all that is done about it."""
    n1, node = HostId("n1"), "node/n1"
    raised = FaultRaised(DOWN.id, DOWN.kind, DOWN.severity, node, INFRASTRUCTURE, "silent", 1)
    events: list[tuple[str, object]] = [
        (node, HostDown(n1, "silent", 1)),
        ("fault/f-1", raised),
        (node, ActionIntended("fence-1", "fence", "fleet/fencing", 5, "down")),
        (node, ActionFinished("fence-1", "ok", 5.0, "green's guest was still there")),
        (node, HostFenced(n1, "command", "green's guest was still there")),
        ("cloud/n1", HostMarked(n1, Mark.SET_ERROR, "local")),
        (node, HostBack(n1, "speaks", 2)),
        ("resource/mine", ActionIntended("start-1", "start", "resources", 5, "its host is fenced")),
        ("resource/theirs", ActionIntended("start-2", "start", "resources", 5, "its host is fenced")),
    ]
    async with appending(store) as appender:
        drafts = tuple(NewEvent(event, subject, 1, "faults", trace) for subject, event in events)
        await appender.append(Submission("faults", drafts, (fault_raised(DOWN),)))


@pytest.mark.seed("order every read filtered by owner: of a dead host a project sees what is its own")
async def test_a_project_sees_that_its_host_died_and_nothing_of_others_there(
    filled: Filled, store: Store
) -> None:
    await the_death(store, DOWN.trace)

    async def seen(caller: Caller, since: int = 1202) -> list[tuple[str, str]]:
        events = await filled.pages.journal.read(Seq(since), 100)
        return [(each.kind, each.subject) for each in await filled.pages.seen_by(caller, events)]

    assert await seen(BLUE) == [
        ("HostDown", "node/n1"),
        ("FaultRaised", "fault/f-1"),
        ("HostMarked", "cloud/n1"),
        ("HostBack", "node/n1"),
        ("ActionIntended", "resource/mine"),
    ]
    assert await seen(GREEN) == [("ActionIntended", "resource/theirs")], "nothing of it ran there"
    assert await seen(SLY) == []
    assert len(await seen(ADMIN)) == 9
    assert await everything(filled, BLUE, JournalSearch(text="green")) == [], "nor can it be searched for"


async def test_a_death_that_no_fault_tells_of_is_for_administrators(filled: Filled, store: Store) -> None:
    await the_death(store, "another story")
    events = await filled.pages.journal.read(Seq(1202), 1)
    assert [each.kind for each in await filled.pages.seen_by(ADMIN, events)] == ["HostDown"]
    assert await filled.pages.seen_by(BLUE, events) == []
