"""The planner on cases that a greedy healer gets wrong, and against what must hold of every plan."""

from __future__ import annotations

import itertools
import time

import pytest
from tests.leases.plan_cases import (
    HOUR,
    broken_promises,
    full_cloud,
    greedy_missing,
    mixed_case,
    standing_clock,
)

from homeostat.contracts.nouns import HostId
from homeostat.leases.planner import Plan, PlanHost, PlanLabel, PlanRequest, PlanUnit, UnitKey, plan

BIG = PlanHost(HostId("big"), 8, 65536, 500)
LITTLE = PlanHost(HostId("little"), 4, 65536, 500)
BOTH = frozenset({BIG.id, LITTLE.id})


def solved(request: PlanRequest) -> Plan:
    result = plan(request, standing_clock)
    assert broken_promises(request, dict(result.places)) == []
    return result


def unit(name: str, start: float, end: float, hosts: frozenset[HostId] = BOTH, **more: object) -> PlanUnit:
    return PlanUnit(name, 0, start * HOUR, end * HOUR, hosts, **more)  # type: ignore[arg-type]


def test_who_needs_a_rare_host_gets_it() -> None:
    """Blazar gives the host with 8 CPUs to the first that asks, and the second stays missing."""
    request = PlanRequest((BIG, LITTLE), (unit("x", 0, 4), unit("y", 0, 4, frozenset({BIG.id}))))
    result = solved(request)
    assert greedy_missing(request) == 1
    assert (result.missing, result.label) == ((), PlanLabel.OPTIMAL)
    assert result.places == {UnitKey("x", 0): LITTLE.id, UnitKey("y", 0): BIG.id}
    assert not any(move.is_displaced for move in result.moves)


def test_a_pending_unit_makes_room() -> None:
    request = PlanRequest((BIG, LITTLE), (unit("p", 1, 4, host=BIG.id), unit("y", 0, 4, frozenset({BIG.id}))))
    result = solved(request)
    assert greedy_missing(request) == 1
    assert result.missing == ()
    assert [(str(move.unit), move.to_host, move.is_displaced) for move in result.moves] == [
        ("p#0", LITTLE.id, True),
        ("y#0", BIG.id, False),
    ]
    assert result.are_moves_fewest


@pytest.mark.parametrize("is_running", [True, False])
def test_a_fixed_unit_stays_and_the_proof_says_so(is_running: bool) -> None:
    blocking = unit("p", 0, 4, host=BIG.id, is_fixed=True, is_running=is_running)
    result = solved(PlanRequest((BIG, LITTLE), (blocking, unit("y", 0, 4, frozenset({BIG.id})))))
    assert result.missing == (UnitKey("y", 0),)
    assert (result.label, result.bound, result.proved_missing) == (PlanLabel.INFEASIBLE, 0, 1)
    assert result.sentence == "1 unit without a host; proved: no plan gives a host to any of them."


def test_nobody_loses_a_healthy_host_for_others() -> None:
    """Two short ones would fit where a long one is, but it has its host and keeps one."""
    only = frozenset({BIG.id})
    request = PlanRequest(
        (BIG,), (unit("long", 0, 4, only, host=BIG.id), unit("a", 0, 2, only), unit("b", 2, 4, only))
    )
    result = solved(request)
    assert result.places == {UnitKey("long", 0): BIG.id}
    assert len(result.missing) == 2


def test_the_nearest_start_comes_first() -> None:
    request = PlanRequest((BIG,), (unit("later", 2, 5), unit("sooner", 1, 4)))
    assert solved(request).missing == (UnitKey("later", 0),)
    assert solved(request).label is PlanLabel.OPTIMAL


def test_cleaning_keeps_a_distance_between_reservations() -> None:
    request = PlanRequest((BIG,), (unit("a", 0, 2), unit("b", 2, 4)), cleaning_s=60.0)
    assert len(solved(request).missing) == 1
    assert solved(PlanRequest((BIG,), request.units)).missing == ()


def shares(name: str, count: int, affinity: bool | None, **more: object) -> tuple[PlanUnit, ...]:
    return tuple(
        PlanUnit(name, number, 0.0, HOUR, BOTH, (2, 1024, 10), affinity=affinity, **more)  # type: ignore[arg-type]
        for number in range(count)
    )


def test_affinity_puts_all_on_one_host_or_none() -> None:
    together = solved(PlanRequest((BIG, LITTLE), shares("a", 4, True)))
    assert set(together.places.values()) == {BIG.id}
    too_many = solved(PlanRequest((BIG, LITTLE), shares("a", 5, True)))
    assert (len(too_many.missing), too_many.label) == (5, PlanLabel.INFEASIBLE)


def test_anti_affinity_spreads() -> None:
    apart = solved(PlanRequest((BIG, LITTLE), shares("a", 3, False)))
    assert sorted(apart.places.values()) == [BIG.id, LITTLE.id]
    assert len(apart.missing) == 1


def test_the_healthy_part_of_a_running_reservation_stays_with_its_affinity() -> None:
    kept = shares("a", 1, True, host=LITTLE.id, is_fixed=True)
    lost = PlanUnit("a", 1, 0.0, HOUR, BOTH, (2, 1024, 10), affinity=True)
    assert solved(PlanRequest((BIG, LITTLE), (*kept, lost))).places[lost.key] == LITTLE.id


def test_instances_and_whole_hosts_never_share_a_host() -> None:
    result = solved(PlanRequest((BIG,), (*shares("a", 1, None), unit("w", 0, 1))))
    assert len(result.missing) == 1


def test_instances_go_beside_others() -> None:
    request = PlanRequest((BIG, LITTLE), (*shares("old", 1, None, host=LITTLE.id), *shares("new", 1, None)))
    assert solved(request).places[UnitKey("new", 0)] == LITTLE.id


def test_a_fixed_unit_needs_its_host_named() -> None:
    with pytest.raises(ValueError, match="y#0: is_fixed without a host"):
        plan(PlanRequest((BIG,), (unit("y", 0, 1, is_fixed=True),)), standing_clock)


def test_without_hosts_everything_is_missing_and_proved() -> None:
    result = plan(PlanRequest((), (unit("y", 0, 1),)), standing_clock)
    assert (result.label, len(result.missing)) == (PlanLabel.INFEASIBLE, 1)


def test_the_same_request_gives_the_same_plan() -> None:
    assert plan(mixed_case(3), standing_clock) == plan(mixed_case(3), standing_clock)


def test_without_time_the_label_degrades_and_nothing_is_broken() -> None:
    for seed in range(20):
        request = mixed_case(seed)
        ticks = itertools.count(0.0, 10.0)
        result = plan(request, lambda ticks=ticks: next(ticks))  # type: ignore[misc]
        assert broken_promises(request, dict(result.places)) == []
        assert 0 <= result.bound <= len(result.missing)
        assert (result.label is PlanLabel.FEASIBLE) == (result.bound > 0)


def test_a_large_cloud_is_healed_at_once() -> None:
    request = full_cloud(5000, failed=50)
    before = time.process_time()
    result = plan(request, time.monotonic)
    used = time.process_time() - before
    assert (result.missing, result.label, len(result.moves)) == ((), PlanLabel.OPTIMAL, 100)
    assert not any(move.is_displaced for move in result.moves)
    assert used < 1.0, f"{used:.2f} s CPU"
