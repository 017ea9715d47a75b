"""The journal's pages: newest first, whole, searched alike in table and stream, and only one's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from homeostat.contracts.events import CATALOGUE
from homeostat.contracts.events.access import TokenIssued
from homeostat.contracts.events.fleet import HostJoined
from homeostat.contracts.events.resources import ActionIntended, ResourceUp
from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.fleet.model import Resource, Topology
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.journal import Draft, Seq, Submission
from homeostat.kernel.reader import Journal
from homeostat.web.search import JournalPages, Search, matches
from store_parts import Store

ADMIN, BLUE = Caller("admin", Role.ADMIN, "infrastructure"), Caller("b", Role.VIEWER, "blue")
SLY = Caller("sly", Role.OPERATOR, "infrastructure")


def resource(name: str, owner: str) -> Resource:
    kind, state = ResourceKind.GUEST, ResourceState.UP
    return Resource(ResourceId(name), HostId("n1"), kind, Owner(owner), "ocf:x:y", state, "", 0, 1)


TOPOLOGY = Topology()
TOPOLOGY.adopt(resources=[resource("mine", "blue"), resource("theirs", "green")])


def up(name: str, owner: str) -> Draft:
    event = ResourceUp(ResourceId(name), HostId("n1"), ResourceKind.GUEST, Owner(owner), "it's 100% up", 1)
    return Draft(event, f"resource/{name}", 1, "node/n1", "t")


@dataclass
class Filled:
    """A journal with events of three projects."""

    pages: JournalPages


@pytest.fixture
async def filled(store: Store) -> AsyncIterator[Filled]:
    appender = Appender(store.engine, CATALOGUE, epoch=None, settings=AppenderSettings(), clock=SystemClock())
    appender.start()
    drafts = [Draft(HostJoined(HostId("n1"), "boot"), "node/n1", 1, "node/n1", "t")]
    for name, owner in (("mine", "blue"), ("theirs", "green")) * 300:
        drafts.append(up(name, owner))
        intent = ActionIntended(f"{name}-{len(drafts)}", "restart", "node/n1", 5, "died")
        drafts.append(Draft(intent, f"resource/{name}", 1, "node/n1", "t"))
    drafts.append(Draft(TokenIssued("t", "viewer", Owner("blue")), "token/t", 1, "access", "t"))
    await appender.append(Submission("t", tuple(drafts)))
    await appender.close()
    yield Filled(JournalPages(Journal(store.readers, CATALOGUE), store.readers))


async def everything(filled: Filled, caller: Caller, search: Search) -> list[int]:
    seqs: list[int] = []
    before: int | None = None
    while True:
        found = await filled.pages.page(caller, TOPOLOGY, search, before, 60)
        seqs += [each.seq for each in found.events]
        if found.older is None:
            return seqs
        before = found.older


async def test_pages_together_are_everything_newest_first(filled: Filled) -> None:
    assert await everything(filled, ADMIN, Search()) == list(range(1202, 0, -1))


async def test_a_project_sees_its_own_and_nothing_of_hosts_and_tokens(filled: Filled) -> None:
    seqs = await everything(filled, BLUE, Search())
    assert len(seqs) == 600
    events = await filled.pages.journal.read(Seq(0), 2000)
    assert {event.subject for event in events if event.seq in set(seqs)} == {"resource/mine"}
    assert await everything(filled, SLY, Search()) == []


@pytest.mark.parametrize(
    "search",
    [
        Search(kind="ResourceUp"),
        Search(subject="RESOURCE/MINE"),
        Search(text="100% UP"),
        Search(text="%"),
        Search(text="_oi"),
        Search(text="BOOT"),
        Search(kind="ActionIntended", subject="theirs", text="restart"),
        Search(text="no such thing"),
    ],
)
async def test_the_stream_finds_what_the_table_finds(filled: Filled, search: Search) -> None:
    events = await filled.pages.journal.read(Seq(0), 2000)
    by_stream = [event.seq for event in reversed(events) if matches(search, event)]
    assert await everything(filled, ADMIN, search) == by_stream
