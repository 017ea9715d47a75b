"""What a batch of messages amounts to: numbers, gaps, new stores, resyncs."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.events.fleet import ObservationsLost
from homeostat.contracts.events.resources import ActionFinished, ResourceUp
from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import (
    Heartbeat,
    Intent,
    Levels,
    Observations,
    ResourceLevel,
    Transition,
    digest,
)
from homeostat.faults.decision import World
from homeostat.faults.entry import Entry
from homeostat.fleet.model import AgentState
from homeostat.kernel.journal import Seq

SECOND = 1_000_000_000
N1 = HostId("n1")
WEB = ResourceId("web")
UP, DOWN, STOPPED = ResourceState.UP, ResourceState.DOWN, ResourceState.STOPPED


def level(seq: int, state: ResourceState, resource: ResourceId = WEB) -> ResourceLevel:
    return ResourceLevel(
        resource, ResourceKind.SERVICE, Owner("blue"), "ocf:x:y", state, "because", seq * SECOND, seq
    )


def message(*transitions: Transition, boot: str = "b1", first: int = 1) -> Observations:
    return Observations(N1, boot, 1000 * SECOND, first, transitions)


def seen(seq: int, state: ResourceState, intended: Intent | None = None) -> Transition:
    return Transition(level(seq, state), seq * SECOND, intended)


def an_entry(world: World) -> Entry:
    return Entry(world, wall_ns=2000 * SECOND, mono_ns=2000 * SECOND, clear_after_s=0.5)


def settled(entry: Entry) -> Entry:
    entry.world.settle([Seq(number + 1) for number in range(len(entry.events))])
    return entry


def joined() -> World:
    world = World()
    settled_entry = an_entry(world)
    settled_entry.heartbeat(Heartbeat(N1, "b1", "i1", 0, digest({})))
    settled(settled_entry)
    return world


def take(world: World, *messages: Observations) -> Entry:
    entry = an_entry(world)
    for each in messages:
        entry.observations(each, received_ns=2000 * SECOND)
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
    world = World()
    entry = an_entry(world)
    entry.heartbeat(Heartbeat(N1, "b1", "i1", 500, digest({WEB: UP}), first=501))
    assert N1 in entry.resync
    entry = an_entry(world)
    entry.levels(Levels(N1, "b1", "i1", 500, (level(500, UP),), first=501))
    assert world.topology.resources[WEB].state is UP
    entry = settled(an_entry(world))
    entry.heartbeat(Heartbeat(N1, "b1", "i1", 500, digest({WEB: UP}), first=501))
    assert not entry.resync
    assert take(world, message(seen(501, DOWN), first=501)).acknowledge == {N1: ("b1", 501)}


def test_an_idle_node_with_a_store_of_a_new_name_is_followed_again() -> None:
    world = joined()
    take(world, message(seen(1, UP)))
    entry = an_entry(world)
    entry.levels(Levels(N1, "b2", "i1", 9, (level(8, DOWN),), first=10))
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
    entry.observations(Observations(n2, "c1", 1000 * SECOND, 1, (seen(1, DOWN),)), 2000 * SECOND)
    entry.levels(Levels(n2, "c1", "j1", 1, (level(1, DOWN),), first=2))
    assert not entry.tellings
    assert (world.topology.resources[WEB].host, world.topology.resources[WEB].state) == (N1, UP)
    assert entry.acknowledge == {n2: ("c1", 1)}, "it would come for ever"
    assert "n2 speaks of web" in entry.refused[0]
    world.topology.nodes[N1] = replace(world.topology.nodes[N1], agent=AgentState.LOST)
    entry.observations(Observations(n2, "c1", 1000 * SECOND, 1, (seen(2, UP),)), 2000 * SECOND)
    assert world.topology.resources[WEB].host == n2, "a resource may move away from a node that is gone"


def test_a_node_nobody_knows_is_asked_for_everything() -> None:
    assert N1 in take(World(), message(seen(1, UP))).resync


def test_a_resync_corrects_only_what_no_transition_will_tell() -> None:
    world = joined()
    take(world, message(seen(1, UP)))
    entry = an_entry(world)
    entry.levels(Levels(N1, "b1", "i1", 2, (level(2, DOWN),)))
    assert not entry.events, "transition 2 is still to come"
    world.topology.resources[WEB] = replace(world.topology.resources[WEB], state=DOWN)
    entry.levels(Levels(N1, "b1", "i1", 1, (level(1, UP),)))
    assert world.topology.resources[WEB].state is UP


def test_a_resource_that_is_no_longer_configured_is_stopped_not_forgotten() -> None:
    world = joined()
    take(world, message(seen(1, DOWN)))
    entry = an_entry(world)
    entry.levels(Levels(N1, "b1", "i1", 1, ()))
    assert world.topology.resources[WEB].state is STOPPED
    assert [telling.transition for telling in entry.tellings] == ["cleared"]


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
    entry.levels(Levels(N1, "b1", "i1", 1, (level(1, DOWN),)))
    assert entry.events == []
    assert world.topology.resources[WEB].state is UP
