"""What a batch of messages amounts to: numbers, gaps, new stores, resyncs."""

from dataclasses import replace

from entry_parts import PlayedEntry
from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.events.fleet import ObservationsLost
from homeostat.contracts.events.resources import ActionFinished, ResourceUp
from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import (
    Heartbeat,
    Intent,
    Observations,
    ResourceStatus,
    ResourceTransition,
    Snapshot,
    digest,
)
from homeostat.fleet.model import AgentState
from homeostat.ingest.entry import IngestState
from homeostat.kernel.journal import Seq
from set_clock import SECOND, node_mono, server_mono, wall

N1 = HostId("n1")
WEB = ResourceId("web")
UP, DOWN, STOPPED = ResourceState.UP, ResourceState.DOWN, ResourceState.STOPPED


def level(seq: int, state: ResourceState, resource: ResourceId = WEB) -> ResourceStatus:
    return ResourceStatus(
        resource, ResourceKind.SERVICE, Owner("blue"), "ocf:x:y", state, "because", wall(seq), seq
    )


def message(*transitions: ResourceTransition, boot: str = "b1", first: int = 1) -> Observations:
    return Observations(N1, boot, node_mono(1000), first, transitions)


def seen(seq: int, state: ResourceState, intended: Intent | None = None) -> ResourceTransition:
    return ResourceTransition(level(seq, state), node_mono(seq), intended)


def an_entry(world: IngestState, at_s: float = 2000) -> PlayedEntry:
    return PlayedEntry(world, wall_ns=wall(at_s), mono_ns=server_mono(at_s))


def settled(entry: PlayedEntry) -> PlayedEntry:
    entry.world.settle([Seq(number + 1) for number in range(len(entry.events))])
    return entry


def joined() -> IngestState:
    world = IngestState()
    settled_entry = an_entry(world)
    settled_entry.heartbeat(Heartbeat(N1, "b1", "i1", 0, digest({})))
    settled(settled_entry)
    return world


def take(world: IngestState, *messages: Observations) -> PlayedEntry:
    entry = an_entry(world)
    for each in messages:
        entry.observations(each, received_ns=server_mono(2000))
    return settled(entry)


def test_observations_are_acknowledged_up_to_the_last_one() -> None:
    entry = take(joined(), message(seen(1, UP), seen(2, DOWN)))
    assert entry.acknowledge == {N1: ("b1", 2)}
    assert [telling.transition for telling in entry.tellings] == ["raised"]


def test_what_comes_twice_counts_once_and_is_acknowledged_again() -> None:
    world = joined()
    take(world, message(seen(1, UP), seen(2, DOWN)))
    again = take(world, message(seen(1, UP), seen(2, DOWN)))
    assert not again.events
    assert not again.changes
    assert again.acknowledge == {N1: ("b1", 2)}


def test_a_gap_is_never_jumped_but_asked_for() -> None:
    world = joined()
    entry = take(world, message(seen(2, DOWN)))
    assert not entry.events
    assert not entry.acknowledge
    assert "observation 1 is missing" in entry.resync[N1]


def test_a_gap_that_the_node_admits_is_recorded_and_jumped() -> None:
    world = joined()
    entry = take(world, message(seen(5, DOWN), first=5))
    assert isinstance(entry.events[0].event, ObservationsLost)
    assert entry.events[0].event.count == 4
    assert entry.acknowledge == {N1: ("b1", 5)}
    assert N1 in entry.resync


def test_what_was_lost_for_good_does_not_excuse_a_gap_behind_it() -> None:
    entry = take(joined(), message(seen(7, DOWN), first=5))
    assert not entry.acknowledge
    assert not entry.tellings
    assert "observation 5 is missing" in entry.resync[N1]


def test_an_idle_node_is_known_again_to_a_server_with_a_new_database() -> None:
    world = IngestState()
    entry = an_entry(world)
    entry.heartbeat(Heartbeat(N1, "b1", "i1", 500, digest({WEB: UP}), first=501))
    assert N1 in entry.resync
    entry = an_entry(world)
    entry.levels(Snapshot(N1, "b1", "i1", 500, (level(500, UP),), first=501))
    assert world.topology.resources[WEB].state is UP
    entry = settled(an_entry(world))
    entry.heartbeat(Heartbeat(N1, "b1", "i1", 500, digest({WEB: UP}), first=501))
    assert not entry.resync
    assert take(world, message(seen(501, DOWN), first=501)).acknowledge == {N1: ("b1", 501)}


def test_an_idle_node_with_a_store_of_a_new_name_is_followed_again() -> None:
    world = joined()
    take(world, message(seen(1, UP)))
    entry = an_entry(world)
    entry.levels(Snapshot(N1, "b2", "i1", 9, (level(8, DOWN),), first=10))
    assert world.topology.nodes[N1].boot == "b2"
    assert world.topology.nodes[N1].acked_seq == 9
    assert [telling.transition for telling in entry.tellings] == ["raised"]


def test_a_new_store_starts_from_one_and_its_open_acts_end_unknown() -> None:
    world = joined()
    take(world, message(seen(1, UP), seen(2, DOWN, Intent("web-1", "restart", 20, "died"))))
    assert set(world.topology.actions) == {"web-1"}
    entry = take(world, message(seen(1, UP), boot="b2"))
    ends = [draft.event for draft in entry.events if isinstance(draft.event, ActionFinished)]
    assert [(end.action, end.outcome) for end in ends] == [("web-1", "unknown")]
    assert any(isinstance(draft.event, ResourceUp) for draft in entry.events)
    assert not world.topology.actions
    assert entry.acknowledge == {N1: ("b2", 1)}


def test_a_node_does_not_speak_of_what_another_one_watches() -> None:
    world, n2 = joined(), HostId("n2")
    take(world, message(seen(1, UP)))
    entry = an_entry(world)
    entry.heartbeat(Heartbeat(n2, "c1", "j1", 0, digest({})))
    entry.observations(Observations(n2, "c1", node_mono(1000), 1, (seen(1, DOWN),)), server_mono(2000))
    entry.levels(Snapshot(n2, "c1", "j1", 1, (level(1, DOWN),), first=2))
    assert not entry.tellings
    assert (world.topology.resources[WEB].host, world.topology.resources[WEB].state) == (N1, UP)
    assert entry.acknowledge == {n2: ("c1", 1)}, "it would come for ever"
    assert "n2 reports web" in entry.refused[0]
    world.topology.nodes[N1] = replace(world.topology.nodes[N1], agent=AgentState.LOST)
    entry.observations(Observations(n2, "c1", node_mono(1000), 1, (seen(2, UP),)), server_mono(2000))
    assert world.topology.resources[WEB].host == n2, "a resource may move away from a node that is gone"


def test_a_node_nobody_knows_is_asked_for_everything() -> None:
    assert N1 in take(IngestState(), message(seen(1, UP))).resync


def test_a_resync_corrects_only_what_no_transition_will_tell() -> None:
    world = joined()
    take(world, message(seen(1, UP)))
    entry = an_entry(world)
    entry.levels(Snapshot(N1, "b1", "i1", 2, (level(2, DOWN),)))
    assert not entry.events, "transition 2 is still to come"
    world.topology.resources[WEB] = replace(world.topology.resources[WEB], state=DOWN)
    entry.levels(Snapshot(N1, "b1", "i1", 1, (level(1, UP),)))
    assert world.topology.resources[WEB].state is UP


def test_a_resource_that_is_no_longer_configured_is_stopped_not_forgotten() -> None:
    world = joined()
    take(world, message(seen(1, DOWN)))
    entry = an_entry(world)
    entry.levels(Snapshot(N1, "b1", "i1", 1, ()))
    assert world.topology.resources[WEB].state is STOPPED
    assert [telling.transition for telling in entry.tellings] == ["cleared"]


def test_what_is_missing_in_a_later_snapshot_is_left_to_the_transitions_before_it() -> None:
    """Transition 2 is on its way, and may say why the resource went away, and under which act."""
    world = joined()
    take(world, message(seen(1, DOWN)))
    entry = an_entry(world)
    entry.levels(Snapshot(N1, "b1", "i1", 2, ()))
    assert world.topology.resources[WEB].state is DOWN
    assert not entry.tellings


def test_only_the_acts_about_a_removed_resource_are_closed_with_it() -> None:
    world, db = joined(), ResourceId("db")
    began = Intent("db-1", "restart", 20, "died")
    other = ResourceTransition(level(2, DOWN, db), node_mono(2), began)
    take(world, message(seen(1, DOWN, Intent("web-1", "restart", 20, "died")), other))
    entry = an_entry(world)
    entry.levels(Snapshot(N1, "b1", "i1", 2, (level(2, DOWN, db),)))
    ends = [draft.event.action for draft in entry.events if isinstance(draft.event, ActionFinished)]
    assert ends == ["web-1"]
    assert set(world.topology.actions) == {"db-1"}


def test_a_different_digest_asks_for_a_resync_and_the_same_one_does_not() -> None:
    world = joined()
    take(world, message(seen(1, UP)))
    entry = an_entry(world)
    entry.heartbeat(Heartbeat(N1, "b1", "i1", 1, digest({WEB: UP})))
    assert not entry.resync
    entry.heartbeat(Heartbeat(N1, "b1", "i1", 1, digest({WEB: DOWN})))
    assert N1 in entry.resync


@given(st.lists(st.sampled_from([UP, DOWN]), min_size=1, max_size=12), st.randoms())
def test_lost_doubled_and_reordered_messages_change_nothing_in_the_end(
    states: list[ResourceState], choose: object
) -> None:
    """The node sends everything that is not acknowledged again, until it is."""
    import random

    assert isinstance(choose, random.Random)
    story = [seen(seq, state) for seq, state in enumerate(states, 1)]
    straight, tormented = joined(), joined()
    calm = [(t.fault.id, t.transition) for t in take(straight, message(*story)).tellings]
    told, acked = list[tuple[str, str]](), 0
    for _ in range(100):
        first = choose.randint(0, len(story))
        entry = take(tormented, message(*story[first : first + choose.randint(0, 4)]))
        told += [(telling.fault.id, telling.transition) for telling in entry.tellings]
        if N1 in entry.acknowledge:
            acked = max(acked, entry.acknowledge[N1][1])
    rest = take(tormented, message(*story[acked:]))
    told += [(telling.fault.id, telling.transition) for telling in rest.tellings]
    assert told == calm
    assert tormented.faults.keys() == straight.faults.keys()


def test_an_answer_to_a_resync_that_was_overtaken_changes_nothing() -> None:
    world = joined()
    take(world, message(seen(1, DOWN), seen(2, UP)))
    entry = an_entry(world)
    entry.levels(Snapshot(N1, "b1", "i1", 1, (level(1, DOWN),)))
    assert entry.events == []
    assert world.topology.resources[WEB].state is UP


def test_how_long_ago_it_was_seen_is_counted_back_from_when_it_came_in() -> None:
    """It waited for 998 s at its node: what has been right since then is over at once."""
    world = joined()
    entry = take(world, message(seen(1, DOWN), seen(2, UP)))
    entry.tick()
    assert [telling.transition for telling in entry.tellings] == ["raised", "cleared"]


def test_a_stamp_of_the_boot_before_does_not_lie_in_the_future() -> None:
    """The node was booted after it had seen this: its clock is now behind the stamp."""
    world = joined()
    booted = Observations(N1, "b1", 3 * SECOND, 1, (seen(1, DOWN), seen(2, UP)))
    assert not [each for each in take(world, booted).tellings if each.transition == "cleared"]
    later = an_entry(world, 2000.6)
    later.tick()
    assert [telling.transition for telling in later.tellings] == ["cleared"]
