"""A node that cannot write its observation store: a fault of its own, and rows that are not trusted."""

from __future__ import annotations

from entry_parts import PlayedEntry
from sqlalchemy import select
from test_fault_path import join, running
from test_host_down import DOWN, N1, Story, level, tellings

from homeostat.contracts.events.fleet import NodeStoreFull, NodeStoreWritable
from homeostat.contracts.events.resources import ActionIntended
from homeostat.contracts.health import ServerHealth
from homeostat.contracts.nouns import FaultKind, ResourceId, ResourceState, SetPointState
from homeostat.contracts.wire import (
    Goodbye,
    Heartbeat,
    Intent,
    Observations,
    ResourceTransition,
    Subjects,
    digest,
)
from homeostat.faults.deciders import FaultDeciders
from homeostat.faults.host_removal import on_host_removed
from homeostat.faults.settings import FaultsSettings
from homeostat.faults.store import fault_table
from homeostat.fleet.set_points import set_points
from homeostat.resources.api import ShownState, shown_state
from set_clock import SetClock, node_mono
from store_parts import Store, until

FULL = "/var/lib/homeostat: the disk is full, 0 KiB are free"


def say(story: Story, at_s: float, store: str, *, digest: str | None = None) -> PlayedEntry:
    entry = story.entry(at_s)
    known = story.world.topology.digest(N1) if digest is None else digest
    entry.heartbeat(Heartbeat(N1, "b1", "i1", story.seq, known, store=store))
    entry.tick()
    return story.settled(entry)


def test_a_full_store_is_one_fault_until_it_can_be_written_again() -> None:
    story = Story()
    first = say(story, 5, FULL)
    assert first.events[0].event == NodeStoreFull(N1, FULL)
    assert tellings(first) == [(FaultKind.NODE_STORE_FULL, "raised")]
    fault = first.tellings[0].fault
    assert (fault.about, fault.owner, fault.host, fault.reason) == ("store/n1", "infrastructure", "n1", FULL)
    assert not say(story, 6, FULL + " still").events
    assert say(story, 7, "").events[0].event == NodeStoreWritable(N1)
    assert tellings(story.tick(9)) == [(FaultKind.NODE_STORE_FULL, "cleared")]
    assert not say(story, 10, "").events


def test_it_stands_beside_other_faults_of_the_host_and_ends_with_its_death() -> None:
    story = Story()
    say(story, 5, FULL)
    assert (FaultKind.AGENT_LOST, "raised") in tellings(story.silence(9))
    died = tellings(story.die(12))
    assert (FaultKind.NODE_STORE_FULL, "superseded") in died
    assert (FaultKind.HOST_DOWN, "raised") in died
    assert "store/n1" not in story.world.faults


def test_a_host_that_is_removed_takes_everything_that_is_known_of_its_store_with_it() -> None:
    story = Story()
    story.report(3, *((name, ResourceState.STOPPED) for name in "abc"))
    say(story, 4, FULL, digest="another one")
    stopped = story.entry(5)
    stopped.goodbye(Goodbye(N1, "i1"))
    story.settled(stopped)
    entry = story.entry(6)
    entry.take(lambda state, now: on_host_removed(state, N1, (False, "admin"), now))
    assert tellings(story.settled(entry)) == [(FaultKind.NODE_STORE_FULL, "cleared")]
    topology = story.world.topology
    assert (story.world.faults, topology.full, topology.untold) == ({}, {}, set())


async def test_a_server_that_starts_knows_which_stores_are_full(store: Store) -> None:
    """The node has been silent since then, so nobody says it again."""
    async with running(store) as here:
        await join(here, "n1")
        here.bus.say(Subjects(N1).heartbeat, Heartbeat(N1, "b1", "i1", 0, digest({}), store=FULL))
        await until(lambda: bool(store.rows(select(fault_table.c.id))))
    read = await FaultDeciders(FaultsSettings()).load(store.readers, SetClock(1000))
    assert (read.topology.full, read.topology.untold) == ({N1: FULL}, {N1})
    (row,) = [row for row in set_points(read.topology, "") if "store" in row.promise]
    assert row.standing is SetPointState.BROKEN


def test_status_does_not_call_it_kept() -> None:
    story = Story()

    def kept() -> list[SetPointState]:
        return [row.standing for row in set_points(story.world.topology, "") if "store" in row.promise]

    assert kept() == [SetPointState.KEPT]
    say(story, 5, FULL)
    assert kept() == [SetPointState.BROKEN]
    say(story, 6, "")
    assert kept() == [SetPointState.KEPT]


def test_what_a_full_node_did_not_tell_yet_makes_its_rows_unknown() -> None:
    story = Story()
    row = story.world.topology.resources[ResourceId("a")]
    say(story, 5, FULL)
    assert shown_state(story.world.topology, row, ServerHealth())[0] is ShownState.UP, (
        "the node knows what the rows say"
    )
    say(story, 6, FULL, digest="another one")
    state, reason = shown_state(story.world.topology, row, ServerHealth())
    assert state is ShownState.UNKNOWN
    assert reason == "the store of its node on n1 is full; before: up"
    say(story, 7, FULL)
    assert shown_state(story.world.topology, row, ServerHealth())[0] is ShownState.UP


def test_the_server_says_how_far_it_knows_to_a_node_that_asks() -> None:
    story = Story()
    entry = story.entry(5)
    entry.heartbeat(Heartbeat(N1, "b1", "i2", 1, "", asks=True))
    assert entry.acknowledge == {N1: ("b1", story.seq)}
    entry = story.entry(6)
    entry.heartbeat(Heartbeat(N1, "another", "i3", 1, "", asks=True))
    assert entry.acknowledge == {}, "of another store nothing is known"
    assert N1 in entry.resync


def test_that_an_intent_was_not_on_a_disk_is_journaled_with_it() -> None:
    story = Story()
    entry = story.entry(5)
    intent = Intent("a-1", "restart", 20.0, "it died", uncommitted=True)
    died = ResourceTransition(level("a", story.seq + 1, DOWN), node_mono(4), intent)
    entry.observations(Observations(N1, "b1", node_mono(5), 0, (died,)), entry.mono_ns)
    (event,) = [each.event for each in entry.events if isinstance(each.event, ActionIntended)]
    assert event.uncommitted
