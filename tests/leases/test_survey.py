"""The N-1 table: what is called safe heals, what is at risk says why, and changes are followed at once."""

from __future__ import annotations

import dataclasses
import random
import time

import pytest
from tests.leases.highs_judge import Judge
from tests.leases.plan_cases import HOUR, broken_promises, busy_cloud, mixed_case, standing_clock

from homeostat.contracts.nouns import HostId
from homeostat.leases.planner import PlanHost, PlanRequest, PlanUnit, UnitKey, plan
from homeostat.leases.survey import Survey

A, B, C = (PlanHost(HostId(name), 8, 65536, 500) for name in "abc")


def unit(name: str, start: float, end: float, host: str, hosts: str = "abc", **more: object) -> PlanUnit:
    return PlanUnit(
        name,
        0,
        start * HOUR,
        end * HOUR,
        frozenset(map(HostId, hosts)),
        host=HostId(host),
        **more,  # type: ignore[arg-type]
    )


def after_death(request: PlanRequest, host: HostId) -> PlanRequest:
    """What healing plans for once the host has died: nothing runs there any more."""
    return dataclasses.replace(
        request,
        hosts=tuple(each for each in request.hosts if each.id != host),
        units=tuple(
            dataclasses.replace(each, host=None, is_fixed=False) if each.host == host else each
            for each in request.units
        ),
    )


def test_a_spare_host_makes_everybody_safe() -> None:
    survey = Survey(PlanRequest((A, B, C), (unit("x", 0, 2, "a"), unit("y", 1, 3, "b"))), standing_clock)
    assert [(each.reservation, each.is_safe) for each in survey.risks()] == [("x", True), ("y", True)]
    failure = survey.failure(A.id)
    assert failure is not None
    assert failure.places == {UnitKey("x", 0): C.id}
    assert survey.risk("x").reason == "Each of its hosts can be replaced."


def test_who_is_at_risk_is_told_by_whom_the_hosts_are_taken() -> None:
    survey = Survey(PlanRequest((A, B), (unit("x", 0, 2, "a"), unit("y", 1, 3, "b"))), standing_clock)
    risk = survey.risk("x")
    assert (risk.is_safe, risk.hosts) == (False, (A.id,))
    assert risk.reason == ("If a fails, x finds no host from 1970-01-01 00:00 to 1970-01-01 02:00: b has y.")
    failure = survey.failure(A.id)
    assert failure is not None
    assert failure.is_proved


def test_a_pending_one_that_can_move_makes_a_running_one_safe() -> None:
    units = (
        unit("runs", 0, 4, "a", "ab", is_fixed=True, is_running=True),
        unit("waits", 1, 4, "b"),
        unit("stays", 0, 4, "c", is_fixed=True),
    )
    assert not Survey(PlanRequest((A, B, C), units), standing_clock).risk("runs").is_safe
    free = Survey(PlanRequest((A, B, C), units[:2]), standing_clock).failure(A.id)
    assert free is not None
    assert free.places == {UnitKey("runs", 0): B.id, UnitKey("waits", 0): C.id}


def test_running_instances_with_affinity_move_together_or_not_at_all() -> None:
    pair = [
        PlanUnit("p", n, 0.0, HOUR, frozenset({A.id, B.id, C.id}), (4, 10, 1), A.id, n == 0, True, True)
        for n in (0, 1)
    ]
    half = PlanUnit("h", 0, 0.0, HOUR, frozenset({B.id}), (2, 10, 1), B.id, is_fixed=True)
    survey = Survey(PlanRequest((A, B, C), (*pair, half)), standing_clock)
    failure = survey.failure(A.id)
    assert failure is not None
    assert failure.places == {UnitKey("p", 0): C.id, UnitKey("p", 1): C.id}
    assert not Survey(PlanRequest((A, B), (*pair, half)), standing_clock).risk("p").is_safe


def test_a_change_is_followed() -> None:
    survey = Survey(PlanRequest((A, B), (unit("x", 0, 2, "a"), unit("y", 1, 3, "b"))), standing_clock)
    survey.change("y", [])
    assert survey.risk("x").is_safe
    with pytest.raises(KeyError):
        survey.risk("y")
    survey.change("z", [unit("z", 1, 2, "b")])
    assert not survey.risk("x").is_safe
    survey.change("z", [unit("z", 2, 3, "b")])
    assert survey.risk("x").is_safe


def test_what_is_not_looked_at_is_at_risk() -> None:
    ticks = iter(range(0, 1000, 10))
    survey = Survey(PlanRequest((A, B, C), (unit("x", 0, 2, "a"),), time_s=1.0), lambda: float(next(ticks)))
    assert survey.stale
    assert survey.risk("x").reason == "The failure of a is not looked at yet."


@pytest.mark.parametrize("seed", range(12))
def test_safe_and_at_risk_are_right_in_mixed_clouds(seed: int) -> None:
    """Safe is judged by the solver; at risk too, where it is called proved."""
    request = healthy(mixed_case(seed))
    survey = Survey(request, standing_clock)
    for host in request.hosts:
        failure = survey.failure(host.id)
        assert failure is not None
        dead = after_death(request, host.id)
        fewest = Judge(dead).fewest_missing()
        if not failure.stranded:
            kept = {each.key: each.host for each in dead.units if each.host is not None}
            assert broken_promises(dead, {**kept, **failure.places}) == []  # type: ignore[dict-item]
            assert fewest == 0
        elif failure.is_proved:
            assert fewest


def healthy(request: PlanRequest) -> PlanRequest:
    return dataclasses.replace(request, units=tuple(each for each in request.units if each.host is not None))


def test_a_thousand_hosts_are_surveyed_in_seconds_and_a_change_in_milliseconds() -> None:
    request = busy_cloud(1000, 5000)
    before = time.process_time()
    survey = Survey(request, time.process_time)
    used = time.process_time() - before
    risks = survey.risks()
    assert not survey.stale
    assert used < 5.0, f"{used:.2f} s CPU"
    assert 100 < sum(not each.is_safe for each in risks) < 1000
    chance = random.Random(4)
    spent = []
    for unit_ in chance.sample(request.units, 12):
        for units in ([], [dataclasses.replace(unit_, end_s=unit_.end_s - 1800)]):
            before = time.process_time()
            survey.change(unit_.reservation, units)
            spent.append(time.process_time() - before)
    assert sorted(spent)[len(spent) // 2] < 0.05, f"{spent} s CPU"
    safe = [each for each in survey.risks() if each.is_safe]
    current = dataclasses.replace(request, units=tuple(survey.units()), time_s=5.0)
    for risk in chance.sample(safe, 50):
        host = next(each.host for each in current.units if each.reservation == risk.reservation)
        assert host is not None
        dead = after_death(current, host)
        result = plan(dead, time.process_time)
        assert broken_promises(dead, dict(result.places)) == []
        assert risk.reservation not in {key.reservation for key in result.missing}
