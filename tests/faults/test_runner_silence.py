"""A node that speaks while nobody looks at what runs there: a fault, and rows that are not believed."""

from __future__ import annotations

from test_host_down import N1, Story, tellings

from homeostat.contracts.health import ServerHealth
from homeostat.contracts.nouns import FaultKind, ResourceId
from homeostat.faults.runner_silence import LOOK_PATIENCE_S
from homeostat.resources.api import ShownState, shown_state

RAISED, CLEARED = (FaultKind.RUNNER_SILENT, "raised"), (FaultKind.RUNNER_SILENT, "cleared")
LATE = 5 + LOOK_PATIENCE_S


def shown(story: Story) -> tuple[ShownState, str]:
    topology = story.world.topology
    return shown_state(topology, topology.resources[ResourceId("a")], ServerHealth())


def test_a_runner_that_does_not_look_is_one_fault_and_what_runs_there_is_unknown() -> None:
    story = Story()
    assert not tellings(story.beat(5, "i1", looked=False))
    assert not tellings(story.beat(LATE - 1, "i1", looked=False))
    assert shown(story)[0] is ShownState.UP, "a start takes its time"
    first = story.beat(LATE, "i1", looked=False)
    assert tellings(first) == [RAISED]
    fault = first.tellings[0].fault
    assert (fault.about, fault.owner, fault.host) == ("runner/n1", "infrastructure", "n1")
    assert fault.reason == "its runner has not looked at what runs there for 20 s; see the log of its node"
    assert shown(story) == (ShownState.UNKNOWN, "the runner of its host n1 does not look at it; before: up")
    assert not tellings(story.beat(LATE + 1, "i1", looked=False))

    story.beat(LATE + 2, "i1")
    assert shown(story)[0] is ShownState.UP
    assert tellings(story.tick(LATE + 9)) == [CLEARED]


def test_another_start_of_the_node_neither_ends_nor_repeats_it() -> None:
    story = Story()
    story.beat(5, "i1", looked=False)
    story.beat(LATE, "i1", looked=False)
    assert RAISED not in tellings(story.beat(LATE + 1, "i2", looked=False))
    assert shown(story)[0] is ShownState.UNKNOWN
    assert CLEARED not in tellings(story.tick(LATE + 30))


def test_a_start_has_the_whole_patience() -> None:
    story = Story()
    story.beat(5, "i1", looked=False)
    assert RAISED not in tellings(story.beat(LATE + 1, "i2", looked=False))
    assert shown(story)[0] is ShownState.UP


def test_a_server_that_was_started_again_goes_on_with_the_fault() -> None:
    story = Story()
    story.beat(5, "i1", looked=False)
    story.beat(LATE, "i1", looked=False)
    story.world.topology.unlooked.clear()
    story.world.topology.blind.clear()
    assert not tellings(story.beat(LATE + 1, "i1", looked=False))
    assert shown(story)[0] is ShownState.UNKNOWN


def test_the_death_of_its_host_takes_its_place() -> None:
    story = Story()
    story.beat(5, "i1", looked=False)
    story.beat(LATE, "i1", looked=False)
    assert (FaultKind.RUNNER_SILENT, "superseded") in tellings(story.die(LATE + 5))


def test_a_node_that_does_not_say_is_believed() -> None:
    story = Story()
    story.beat(5, "i1", looked=None)
    assert not tellings(story.beat(LATE + 1, "i1", looked=None))
    assert shown(story)[0] is ShownState.UP and N1 not in story.world.topology.unlooked
