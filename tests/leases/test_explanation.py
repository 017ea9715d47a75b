"""Why there is no host, in sentences, and the smallest change that helps, judged by another solver."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import pytest
from tests.leases.highs_judge import Judge
from tests.leases.plan_cases import HOUR, mixed_case, standing_clock

from homeostat.contracts.nouns import HostId
from homeostat.leases.explanation import (
    Change,
    EarlierEnd,
    FewerUnits,
    HostsMore,
    applied,
    candidates,
    explain,
)
from homeostat.leases.planner import PlanHost, PlanRequest, PlanUnit, plan

A, B = (PlanHost(HostId(name), 8, 65536, 500) for name in "ab")


def unit(name: str, start: float, end: float, host: str = "", number: int = 0, **more: object) -> PlanUnit:
    hosts = frozenset({A.id, B.id})
    return PlanUnit(
        name, number, start * HOUR, end * HOUR, hosts, host=HostId(host) if host else None, **more
    )  # type: ignore[arg-type]


def test_the_sentences_name_reservations_hosts_and_hours() -> None:
    request = PlanRequest(
        (A, B), (unit("x", 0, 6, "a", is_fixed=True), unit("y", 0, 9, "b"), unit("want", 4, 8)), time_s=60.0
    )
    explanation = explain(request, "want", 0.0, standing_clock)
    assert explanation.change == EarlierEnd("x", 2, 2.0, 4 * HOUR)
    assert explanation.is_smallest_proved
    assert explanation.sentences == (
        "want lacks a host for 1 unit from 1970-01-01 04:00 to 1970-01-01 08:00; "
        "2 reservable hosts satisfy its requirements.",
        "a is reserved by x from 1970-01-01 00:00 to 1970-01-01 06:00 and cannot move.",
        "b is reserved by y from 1970-01-01 00:00 to 1970-01-01 09:00.",
        "Ending x 2 hours earlier, at 1970-01-01 04:00, would heal it.",
        "Proved: no smaller change does.",
    )


def test_a_host_more_is_named_where_nothing_shorter_helps() -> None:
    request = PlanRequest((A,), (unit("x", 0, 6, "a", is_fixed=True), unit("want", 0, 1)), time_s=60.0)
    explanation = explain(request, "want", 0.0, standing_clock)
    assert explanation.change == HostsMore(A.id, 1, 1.0)
    assert explanation.change.sentence == "One host more like a would heal it."


def test_a_minimum_is_lowered_where_there_is_no_host_to_copy() -> None:
    nothing = dataclasses.replace(unit("want", 0, 1), hosts=frozenset({HostId("c")}))
    explanation = explain(PlanRequest((A,), (nothing,), time_s=60.0), "want", 0.0, standing_clock)
    assert explanation.change == FewerUnits("want", 1, 1.0)


def test_nothing_ends_before_now() -> None:
    request = PlanRequest((A,), (unit("x", 0, 6, "a", is_fixed=True), unit("want", 4, 8)))
    ends = [each.end_s for each in candidates(request, "want", 3 * HOUR) if isinstance(each, EarlierEnd)]
    assert min(ends) > 3 * HOUR


@pytest.mark.parametrize(
    ("name", "says"), [("nobody", "not in the request"), ("x", "none of its units lacks")]
)
def test_only_what_lacks_a_host_is_explained(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        explain(PlanRequest((A,), (unit("x", 0, 6, "a"),)), name, 0.0, standing_clock)


def unhealed(seeds: Iterator[int], hosts: int) -> Iterator[tuple[PlanRequest, str]]:
    """Situations after healing: the plan's places are the present ones, and one reservation lacks hosts."""
    for seed in seeds:
        request = mixed_case(seed, hosts=hosts, time_s=1.0)
        result = plan(request, time.process_time)
        if not result.missing or result.bound:
            continue
        name = result.missing[0].reservation
        units = [
            dataclasses.replace(each, host=result.places.get(each.key))
            for each in request.units
            if each.key in result.places or each.reservation == name
        ]
        yield dataclasses.replace(request, units=tuple(units), time_s=10.0), name


def largest_smaller(changes: list[Change], change: Change) -> Iterator[Change]:
    """Of each kind the largest that is smaller than the change: if that does not heal, none below it does."""
    largest: dict[tuple[object, ...], Change] = {}
    for each in changes:
        if each.size_h < change.size_h:
            largest[type(each), each.like if isinstance(each, HostsMore) else each.reservation] = each
    yield from largest.values()


def test_fifty_smallest_changes_heal_and_nothing_smaller_does() -> None:
    proved = 0
    for request, name in unhealed(iter(range(1000)), hosts=5):
        explanation = explain(request, name, 0.0, time.process_time)
        change = explanation.change
        assert change is not None
        assert Judge(applied(request, change)).fewest_missing() == 0
        if not explanation.is_smallest_proved:
            continue
        for smaller in largest_smaller(candidates(request, name, 0.0), change):
            assert Judge(applied(request, smaller)).fewest_missing() != 0, (smaller, change)
        proved += 1
        if proved == 50:
            return
    pytest.fail(f"only {proved} cases")
