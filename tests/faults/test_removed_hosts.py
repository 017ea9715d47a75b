"""A host is removed for good: refused while it lives or a guest would be lost with it."""

from __future__ import annotations

import pytest
from entry_parts import PlayedEntry
from sqlalchemy import text
from test_fault_path import join, running
from test_guests import MOVE, N1, N2, STOPPED, UP, Site
from test_host_down import Story

from homeostat.contracts.events.faults import FaultCleared
from homeostat.contracts.events.fleet import HostJoined, HostRemoved
from homeostat.contracts.nouns import HostId, ResourceState
from homeostat.contracts.wire import Goodbye
from homeostat.faults.host_removal import on_host_removed
from homeostat.faults.hosts import on_host_down
from homeostat.fleet.store import load_topology
from homeostat.fleet.suspicion import Death
from homeostat.kernel.errors import Conflict, NotFound
from store_parts import Store, until


def forget(entry: PlayedEntry, host: HostId, *, answers: bool = False) -> PlayedEntry:
    entry.take(lambda state, now: on_host_removed(state, host, (answers, "admin"), now))
    return entry


def test_a_host_that_is_down_goes_with_its_rows_and_its_faults_and_joins_anew() -> None:
    story = Story()
    story.die(10)
    entry = story.settled(forget(story.entry(20), N1))
    (cleared, removed) = [draft.event for draft in entry.events]
    assert isinstance(cleared, FaultCleared) and "admin removed its host n1" in cleared.reason
    assert removed == HostRemoved(N1, "admin", ("a", "b", "c"))
    topology = story.world.topology
    assert not topology.nodes and not topology.resources and not list(topology.on_host(N1))
    assert not story.world.faults
    again = story.beat(30, "i2")
    assert isinstance(again.events[0].event, HostJoined)
    assert topology.nodes[N1].acked_seq == 0


@pytest.mark.parametrize("how", ["speaks", "answers", "may run guests"])
def test_a_host_that_may_live_is_not_forgotten(how: str) -> None:
    story = Story()
    if how != "speaks":
        entry = story.entry(5)
        entry.goodbye(Goodbye(N1, "i1"))
        story.settled(entry)
    with pytest.raises(Conflict, match="it lives" if how != "may run guests" else "may run a, b, c"):
        forget(story.entry(6), N1, answers=how == "answers")
    assert N1 in story.world.topology.nodes


def test_a_host_that_was_stopped_with_everything_on_it_and_that_nobody_probes_is_forgotten() -> None:
    story = Story()
    story.report(3, *((name, ResourceState.STOPPED) for name in "abc"))
    entry = story.entry(5)
    entry.goodbye(Goodbye(N1, "i1"))
    story.settled(entry)
    forget(story.entry(6), N1)
    assert not story.world.topology.nodes


def test_no_guest_is_lost_with_the_row_of_its_host() -> None:
    site = Site()
    site.die(N1)
    with pytest.raises(Conflict, match="guests are assigned to it: g"):
        forget(site.entry(), N1)
    site.place(MOVE)
    site.settled(forget(site.entry(), N1))
    assert N1 not in site.world.topology.nodes
    assert site.row.host == N2
    assert site.report(N2, UP, 2).events
    assert not site.report(N2, STOPPED, 2).failed


def test_a_host_that_is_not_known_is_not_forgotten() -> None:
    with pytest.raises(NotFound):
        forget(Story().entry(5), HostId("n9"))


async def test_its_rows_are_gone_and_it_joins_anew(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1", "n2")
        await here.path.record(
            lambda state, now: on_host_down(state, N1, Death("silent", now.wall_ns, now.mono_ns), now)
        )
        await here.path.record(lambda state, now: on_host_removed(state, N1, (False, "admin"), now))
        assert set((await store.readers.read(load_topology)).nodes) == {N2}
        assert not store.rows(text("SELECT id FROM fault WHERE state != 'cleared'"))
        await join(here, "n1")
        await until(lambda: bool(store.rows(text("SELECT host FROM node WHERE host = 'n1'"))))
    known = await store.readers.read(load_topology)
    assert known.nodes[N1].down_ns is None
    assert kinds_in_the_journal(store) == ["HostJoined", "HostJoined", "HostRemoved", "HostJoined"]


def kinds_in_the_journal(store: Store) -> list[str]:
    wanted = "SELECT kind FROM journal WHERE kind IN ('HostJoined', 'HostRemoved') ORDER BY seq"
    return [row.kind for row in store.rows(text(wanted))]
