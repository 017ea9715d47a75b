"""What a dead host explains, what it does not, and that the reason is written down."""

from __future__ import annotations

from dataclasses import replace

import pytest
from entry_parts import PlayedEntry
from hypothesis import given
from hypothesis import strategies as st
from test_host_down import DOWN, N1, UP, Story, level, tellings

from homeostat.contracts.events.faults import FaultInhibited
from homeostat.contracts.faults import Fault
from homeostat.contracts.nouns import FaultKind, HostId, ResourceId
from homeostat.contracts.wire import Observations, ResourceTransition
from homeostat.faults.model import SUPERSEDED, Inhibition, inhibition, superseded
from homeostat.ingest.entry import IngestState
from homeostat.kernel.journal import Seq
from set_clock import node_mono

DEAD = Story().die(10).tellings[0].fault
BACK = replace(DEAD, up_ns=11)
LOST = Story().silence(10).tellings[0].fault
HOST_DOWN, RESOURCE_DOWN, AGENT_LOST = FaultKind.HOST_DOWN, FaultKind.RESOURCE_DOWN, FaultKind.AGENT_LOST


@pytest.mark.parametrize(
    ("kind", "there", "why"),
    [
        (RESOURCE_DOWN, None, None),
        (RESOURCE_DOWN, DEAD, Inhibition.HOST_DOWN),
        (RESOURCE_DOWN, BACK, Inhibition.HOST_SETTLING),
        (RESOURCE_DOWN, LOST, None),
        (HOST_DOWN, LOST, None),
        (HOST_DOWN, DEAD, None),
        (AGENT_LOST, DEAD, None),
        (FaultKind.EVIDENCE_LOST, DEAD, None),
    ],
)
def test_only_a_dead_host_explains_what_runs_there(
    kind: FaultKind, there: Fault | None, why: Inhibition | None
) -> None:
    assert inhibition(kind, there) is why


@given(st.sets(st.sampled_from("abcdef")), st.sets(st.sampled_from("abcdef")))
def test_a_death_ends_what_was_open_there_and_nothing_else(there: set[str], wrong: set[str]) -> None:
    faults = {
        f"resource/{name}": replace(DEAD, kind=RESOURCE_DOWN, about=f"resource/{name}") for name in wrong
    }
    found = superseded(N1, [ResourceId(name) for name in there], {**faults, "node/n2": LOST, "fleet": DEAD})
    assert {each.about for each in found} == {f"resource/{name}" for name in there & wrong}


def inhibited(entry: PlayedEntry) -> list[tuple[str, str]]:
    return [(d.event.about, d.event.reason) for d in entry.events if isinstance(d.event, FaultInhibited)]


@pytest.mark.seed("order a stated reason for what is inhibited by a dead host")
def test_what_its_node_says_is_written_down_once_with_the_reason() -> None:
    story = Story()
    fault = story.die(10).tellings[0].fault
    late = story.report(11, ("a", DOWN))
    assert not late.tellings
    assert inhibited(late) == [("resource/a", Inhibition.HOST_DOWN.value)]
    (event,) = (d for d in late.events if isinstance(d.event, FaultInhibited))
    assert event.trace == fault.trace, "it is in the chain of the host's fault"
    assert not inhibited(story.report(12, ("a", DOWN))), "once for each time"
    story.beat(20, "i2")
    back = story.report(21, ("a", UP), ("a", DOWN), ("b", DOWN))
    assert not back.tellings
    assert inhibited(back) == [(f"resource/{n}", Inhibition.HOST_SETTLING.value) for n in "ab"]


@pytest.mark.seed("order a resource fault already open when its host dies")
def test_a_fault_that_was_open_when_its_host_dies_ends_with_the_reason() -> None:
    story = Story()
    story.report(5, ("a", DOWN))
    death = story.die(10)
    assert tellings(death) == [(HOST_DOWN, "raised"), (RESOURCE_DOWN, "superseded")]
    raised, over = (each.fault for each in death.tellings)
    assert (over.cleared_reason, over.superseded_by) == (SUPERSEDED, raised.id)
    assert death.tellings[0].follows == (over.id,), "whoever heard of the one hears of the other"
    assert (over.outage_lower_ms, over.outage_ms) == (None, None), "no clock saw both ends"
    assert set(story.world.faults) == {"node/n1"}
    story.beat(20, "i2")
    story.report(21, ("a", DOWN), ("b", UP), ("c", UP))
    story.beat(54, "i2")
    assert tellings(story.tick(54)) == [(RESOURCE_DOWN, "raised"), (HOST_DOWN, "cleared")]


def test_a_fault_that_was_about_to_clear_does_not_clear_as_if_all_were_well() -> None:
    story = Story()
    story.report(5, ("a", DOWN))
    story.report(9.8, ("a", UP))
    assert tellings(death := story.die(10)) == [(HOST_DOWN, "raised"), (RESOURCE_DOWN, "superseded")]
    assert death.tellings[1].fault.cleared_reason == SUPERSEDED
    assert not story.tick(11).tellings


def test_what_fails_again_while_its_host_settles_is_still_told_with_the_host() -> None:
    story = Story()
    story.die(10)
    story.beat(20, "i2")
    open_there = replace(
        DEAD, kind=RESOURCE_DOWN, about="resource/a", up_ns=1, up_mono_ns=1, id="f-x", raised_seq=Seq(7)
    )  # type: ignore[arg-type]
    story.world.faults["resource/a"] = replace(open_there, state=open_there.state.CLEARING)
    flapped = story.report(21, ("a", DOWN))
    assert tellings(flapped) == [(RESOURCE_DOWN, "superseded")]
    assert inhibited(flapped)


def test_a_guest_that_runs_elsewhere_by_now_has_faults_of_its_own() -> None:
    story = Story()
    story.die(10)
    row = story.world.topology.resources[ResourceId("a")]
    story.world.topology.resources[ResourceId("a")] = replace(row, host=HostId("n2"))
    assert [each.about for each in superseded(N1, ["b"], story.world.faults)] == []  # type: ignore[list-item]
    story.world.topology.nodes[HostId("n2")] = replace(
        story.world.topology.nodes[N1], host=HostId("n2"), down_ns=None, acked_seq=story.seq
    )

    entry = story.entry(12)
    story.seq += 1
    seen = ResourceTransition(level("a", story.seq, DOWN), node_mono(story.seq))
    entry.observations(Observations(HostId("n2"), "b1", node_mono(10**6), 0, (seen,)), entry.mono_ns)
    assert tellings(entry) == [(RESOURCE_DOWN, "raised")]


@pytest.mark.seed("order no race at a start between what inhibits and what is inhibited")
def test_a_start_knows_the_dead_host_before_it_hears_of_what_ran_there() -> None:
    story = Story()
    story.die(10)
    before = story.world
    story.world = IngestState(
        before.topology, {each.about: each.held_until(0) for each in before.faults.values()}
    )
    first = story.report(11, ("a", DOWN), ("b", DOWN))
    assert not first.tellings
    assert len(inhibited(first)) == 2
