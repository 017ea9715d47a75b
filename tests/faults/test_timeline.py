"""From the journal's chain to checkpoints, costs and the picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timeline_parts import FAULT, Chain, host_down

from homeostat.faults.checkpoints import Numbering, Timeline
from homeostat.faults.timeline import timeline
from homeostat.faults.timeline_text import compare, comparison_table, draw

GOLDEN = Path(__file__).with_name("timeline_golden.txt")


def folded(chain: Chain, numbering: Numbering = Numbering.BLUEPRINT, consumer: str | None = None) -> Timeline:
    found = timeline(chain.events, FAULT, numbering, consumer)
    assert found is not None
    return found


def times(view: Timeline) -> dict[str, float | None]:
    return {each.id: each.ms for each in view.checkpoints}


@pytest.mark.seed("002 eleven checkpoints from host down to handled alarm")
def test_each_checkpoint_is_its_event_and_what_nobody_stamped_is_missing() -> None:
    view = folded(host_down())
    assert times(view) == {
        "0": None,
        "1": 0.0,
        "2": 0.0,
        "3": 11.0,
        "4": 14.0,
        "5": 15.0,
        "6": None,
        "7": None,
        "8": 16.0,
        "9": 20.0,
        "10": None,
    }
    assert view.consumer == "green", "who was told last"
    assert all(each.what for each in view.checkpoints)
    assert (view.first_told_ms, view.last_told_ms, view.resolved_ms) == (18.0, 20.0, 900.0)


@pytest.mark.seed("002 eleven checkpoints from host down to handled alarm")
def test_all_eleven_are_known_when_everybody_says_when() -> None:
    chain = Chain()
    killed = chain.add("FaultInjected", -700, by="admin", what="lab kill-host", origin="injector")
    chain.add("FaultInjected", -90_000, by="admin", origin="injector")
    raised = chain.raised("HostDown", seen_ms=-300, at_ms=0)
    blue = chain.queued(raised, "blue", 8)
    chain.act(raised, "mark_down", 9, 11)
    chain.act(raised, "set_error", 11, 14)
    chain.delivered(blue, 10, 10.7, 18, admitted=10.1, chosen=10.5, consumer_received=12, consumer_handled=15)
    view = folded(chain)
    expected = (-700, 0, 0, 11, 14, 10, 10.1, 10.5, 10.7, 12, 15)
    assert times(view) == {str(number): ms + 700 for number, ms in enumerate(expected)}
    assert [each.name for each in view.checkpoints if each.beside] == ["marked host down", "set VM error"]
    assert next(each for each in view.checkpoints if each.id == "0").event == killed
    assert view.total_ms == 715
    assert sum(cost.ms for cost in view.costs) == pytest.approx(715)
    assert sum(cost.percent for cost in view.costs) == pytest.approx(100, abs=0.5)
    assert [cost.ms for cost in view.costs] == sorted((cost.ms for cost in view.costs), reverse=True)
    assert view.told[0].handled_ms == 15
    assert {each.clock for each in view.checkpoints} == {"injector", "server", "consumer blue"}
    assert "?" not in draw(view.model_dump()).split("Component")[0]


@pytest.mark.seed(
    "002 the consumer is notified less than a second after the monitor detected, by their log lines"
)
def test_the_wait_for_the_second_witness_is_the_monitors_own() -> None:
    chain = Chain()
    chain.add("FaultInjected", -1500, by="admin", what="lab kill-host", origin="injector")
    raised = chain.raised("HostDown", seen_ms=-1200, at_ms=0)
    chain.delivered(chain.queued(raised, "blue", 0), 10, 12, 18)
    view = folded(chain)
    assert {cost.component: cost.ms for cost in view.costs}["monitor"] == 1500.0
    assert (view.waited_ms, view.first_told_ms) == (1200.0, 18.0)
    assert "first failed evidence 1200.000 ms before checkpoint 1" in draw(view.model_dump())


def test_a_host_that_was_broken_long_before_was_not_broken_by_that() -> None:
    chain = Chain()
    chain.add("FaultInjected", -61_000, by="admin", origin="injector")
    chain.add("FaultInjected", 5, by="admin", origin="injector")
    chain.raised("HostDown", seen_ms=0, at_ms=8)
    assert times(folded(chain))["0"] is None


def test_the_proof_of_concept_numbers_three_and_four_the_other_way_round() -> None:
    blueprint, poc = folded(host_down()), folded(host_down(), Numbering.POC)
    names = {each.id: each.name for each in poc.checkpoints}
    assert list(names) == [f"T{number:02d}" for number in range(10)]
    assert (names["T03"], names["T04"]) == ("set VM error", "marked host down")
    assert {each.name: each.ms for each in poc.checkpoints}.items() <= {
        each.name: each.ms for each in blueprint.checkpoints
    }.items()


@pytest.mark.seed("002 a table of components sorted by time cost from most to least")
def test_costs_are_sorted_and_make_up_the_whole() -> None:
    view = folded(host_down())
    assert [(cost.component, cost.ms, cost.percent) for cost in view.costs] == [
        ("inspector", 14.0, 70.0),
        ("notifier", 5.0, 25.0),
        ("controller", 1.0, 5.0),
    ]
    assert view.total_ms == 20.0


def test_a_consumer_can_be_chosen_and_one_that_was_not_told_has_no_timeline() -> None:
    assert times(folded(host_down(), consumer="blue"))["9"] == 18.0
    assert timeline(host_down().events, FAULT, consumer="red") is None
    assert timeline(host_down().events, "f-other") is None


def test_an_act_that_ends_after_the_telling_began_is_beside_the_way() -> None:
    view = folded(host_down(errors_ms=70))
    assert times(view)["4"] == 70.0
    assert [each.name for each in view.checkpoints if each.beside] == ["set VM error"]
    assert view.total_ms == 20.0
    assert {cost.component: cost.ms for cost in view.costs} == {
        "inspector": 11.0,
        "inspector + controller": 4.0,
        "notifier": 5.0,
    }


def test_a_failed_act_is_no_checkpoint() -> None:
    chain = Chain()
    raised = chain.raised("HostDown", 0, 8)
    chain.act(raised, "mark_down", 9, 10, outcome="failed")
    assert times(folded(chain))["3"] is None


def test_clocks_of_two_places_are_named_where_they_meet() -> None:
    chain = Chain()
    raised = chain.raised("ResourceDown", seen_ms=3, at_ms=3, kind="resource_down")
    chain.delivered(chain.queued(raised, "blue", 1), 2, 3, 4)
    view = folded(chain)
    spans = [(span.begin, span.end, span.ms, span.clocks_differ) for span in view.spans]
    assert spans[0] == ("1", "2", -2.0, True)
    assert not any(differ for _, _, _, differ in spans[1:])
    assert "two clocks, their difference included: 1-2" in draw(view.model_dump())


def test_a_notice_of_an_older_journal_has_only_its_answer() -> None:
    chain = Chain()
    raised = chain.raised("ResourceDown", 0, 0, kind="resource_down")
    chain.delivered(chain.queued(raised, "blue", 1), None, None, 4)
    view = folded(chain)
    assert (times(view)["5"], times(view)["8"], times(view)["9"]) == (None, None, 4.0)
    assert [cost.component for cost in view.costs] == ["inspector + controller + notifier", "inspector"]


def test_who_waits_and_who_was_given_up_is_said() -> None:
    chain = Chain()
    raised = chain.raised("AgentLost", 0, 0, kind="agent_lost")
    chain.queued(raised, "blue", 1)
    gone = chain.queued(raised, "green", 1)
    payload = chain.events[gone - 1].payload
    chain.add("NoticeGivenUp", 9, gone, key=payload["key"], subscription="green", attempts=3, reason="gone")
    view = folded(chain)
    assert [(each.subscription, each.state) for each in view.told] == [
        ("blue", "waiting"),
        ("green", "given up"),
    ]
    assert view.consumer is None
    assert view.total_ms == 1.0
    assert "green given up, 3 tries: gone" in draw(view.model_dump())


def test_a_fault_that_nobody_had_to_hear_of_is_drawn_too() -> None:
    chain = Chain()
    chain.raised("ResourceDown", 0, 0, kind="resource_down")
    view = folded(chain)
    assert view.total_ms is None
    assert "consumer: none" in draw(view.model_dump())


@pytest.mark.seed("002 timestamps split the notification time and are visualized as a timeline")
def test_the_picture_is_the_blueprints() -> None:
    drawn = draw(folded(host_down()).model_dump())
    assert drawn == GOLDEN.read_text()


def test_a_comparison_has_the_largest_difference_first() -> None:
    left, right = folded(host_down()).model_dump(), folded(host_down(errors_ms=70)).model_dump()
    rows = compare(left, right)
    assert [(row["component"], row["a_ms"], row["b_ms"], row["difference_ms"]) for row in rows] == [
        ("inspector + controller", None, 4.0, 4.0),
        ("inspector", 14.0, 11.0, -3.0),
        ("controller", 1.0, None, -1.0),
        ("notifier", 5.0, 5.0, 0.0),
        ("total", 20.0, 20.0, 0.0),
    ]
    assert "-3.000 ms" in "\n".join(comparison_table(left, right))


@given(
    st.lists(st.floats(-50, 10_000, allow_nan=False), min_size=5, max_size=5),
    st.sampled_from(list(Numbering)),
)
def test_whatever_the_clocks_say_the_costs_are_the_whole_and_it_can_be_drawn(
    moments: list[float], numbering: Numbering
) -> None:
    seen, queued, marked, offered, answered = moments
    chain = Chain()
    raised = chain.raised("ResourceDown", seen, seen, kind="resource_down")
    notice = chain.queued(raised, "blue", queued)
    chain.act(raised, "mark_down", marked, marked)
    chain.delivered(notice, offered, offered + 1, answered)
    view = folded(chain, numbering)
    assert view.total_ms == pytest.approx(sum(cost.ms for cost in view.costs), abs=0.01)
    assert view.total_ms == pytest.approx(answered - seen, abs=0.01)
    drawn = draw(view.model_dump())
    assert all(each.name in drawn for each in view.checkpoints)
