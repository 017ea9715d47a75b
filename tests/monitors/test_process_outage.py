"""Bounds of a missing process: a model that knows the truth, and what must not count as recovery."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.kernel.processes import Identity
from homeostat.monitors.shipped.statements import ProcessChange, Sighting
from homeostat.monitors.verdicts import (
    ProcessOutage,
    ProcessPlan,
    ProcessState,
    Verdict,
    VerdictReason,
    decide_process,
    process_outage,
)

MS = 1_000_000
TICK = 10 * MS
LIMIT_MS = 30_000
PLAN = ProcessPlan(before_ns=1_000 * MS, until_ns=60_000 * MS, stable_ns=2_000 * MS)


def sighting(at_ms: float, change: ProcessChange, pid: int, born_ms: float = 0.0) -> Sighting:
    born = int(born_ms * MS) // TICK
    return Sighting(int(at_ms * MS) - 20 * MS, int(at_ms * MS), change, Identity(pid, born), born * TICK)


def present(at_ms: float, pid: int, born_ms: float = 0.0) -> Sighting:
    return sighting(at_ms, ProcessChange.PRESENT, pid, born_ms)


def gone(at_ms: float, pid: int, born_ms: float = 0.0) -> Sighting:
    return sighting(at_ms, ProcessChange.GONE, pid, born_ms)


@given(
    dies=st.integers(0, 500 * MS),
    sees_death=st.integers(0, 50 * MS),
    returns=st.integers(0, 20_000 * MS),
    looks=st.integers(TICK, 100 * MS),
)
def test_bounds_hold_the_truth(dies: int, sees_death: int, returns: int, looks: int) -> None:
    died, born = PLAN.before_ns + dies, PLAN.before_ns + dies + returns
    old, new = Identity(1, 0), Identity(2, born // TICK)
    found = process_outage(
        [
            Sighting(0, 1, ProcessChange.PRESENT, old, 0),
            Sighting(died, died + sees_death, ProcessChange.GONE, old, 0),
            Sighting(born, born + looks, ProcessChange.PRESENT, new, born // TICK * TICK),
        ],
        PLAN,
    )
    assert found.state is ProcessState.RECOVERED and found.upper_ms is not None
    assert found.lower_ms <= returns / MS <= found.upper_ms


def lost_and(*later: Sighting, workers: int = 1) -> ProcessOutage:
    """`workers` of one service are killed at 1000 ms; what is seen afterwards."""
    before = [present(10, pid) for pid in range(1, workers + 1)]
    deaths = [gone(1_002, pid) for pid in range(1, workers + 1)]
    return process_outage([*before, *deaths, *later], PLAN)


@pytest.mark.seed("000 killed processes are recovered on that controller within the interval")
def test_recovered_means_as_many_of_new_identity() -> None:
    found = lost_and(present(3_000, 11, 2_990), present(4_000, 12, 3_990), workers=2)
    assert found.state is ProcessState.RECOVERED
    assert (found.lower_ms, found.upper_ms) == (2_988, 3_000)
    assert [each.pid for each in found.recovered] == [11, 12]
    assert decide_process(found, LIMIT_MS).verdict is Verdict.PASS


@pytest.mark.seed("000 the process outage time is less than 30s")
@pytest.mark.parametrize(
    ("returned_ms", "verdict"),
    [(30_500, Verdict.PASS), (31_500, Verdict.FAIL), (31_000, Verdict.INCONCLUSIVE)],
)
def test_thirty_seconds(returned_ms: float, verdict: Verdict) -> None:
    assert decide_process(lost_and(present(returned_ms + 5, 2, returned_ms)), LIMIT_MS).verdict is verdict


def test_fewer_than_before_is_not_recovered() -> None:
    found = lost_and(present(3_000, 11, 2_990), workers=2)
    assert (found.state, found.upper_ms) == (ProcessState.NOT_RECOVERED, None)
    assert decide_process(found, LIMIT_MS).reason is VerdictReason.NEVER_RECOVERED


def test_a_crash_loop_is_no_recovery() -> None:
    found = lost_and(
        *(each for pid in range(2, 9) for each in (present(pid * 1_000, pid), gone(pid * 1_000 + 400, pid)))
    )
    assert (found.state, found.restarts) == (ProcessState.CRASH_LOOP, 7)
    assert decide_process(found, LIMIT_MS).verdict is Verdict.FAIL


def test_it_counts_from_the_worker_that_lasts() -> None:
    found = lost_and(present(2_000, 2, 1_990), gone(3_000, 2, 1_990), present(6_000, 3, 5_990))
    assert (found.state, found.restarts) == (ProcessState.RECOVERED, 1)
    assert found.lower_ms == pytest.approx(4_988)


def test_one_that_is_younger_than_stable_at_the_end_does_not_count() -> None:
    found = lost_and(present(59_000, 2, 58_990))
    assert found.state is ProcessState.NOT_RECOVERED


def test_the_same_pid_is_another_process_when_it_was_born_later() -> None:
    found = lost_and(present(3_000, 1, 2_990))
    assert found.state is ProcessState.RECOVERED
    assert found.recovered[0].start_ticks != found.died[0].start_ticks


@pytest.mark.seed("order pattern matches nothing: 0 PASS")
def test_nobody_there_or_nobody_killed_is_an_error() -> None:
    assert decide_process(process_outage([], PLAN), LIMIT_MS).reason is VerdictReason.NO_PROCESS
    unhurt = process_outage([present(10, 1), present(5_000, 2, 4_990)], PLAN)
    assert decide_process(unhurt, LIMIT_MS).reason is VerdictReason.NOBODY_DIED
    assert decide_process(unhurt, LIMIT_MS, monitor_lost=True).reason is VerdictReason.MONITOR_LOST


def test_zombies_are_named() -> None:
    assert [each.pid for each in lost_and(sighting(59_000, ProcessChange.ZOMBIE, 1)).zombies] == [1]
