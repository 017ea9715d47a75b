"""A verdict is proven or it is not PASS; each reason by its name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.monitors.outage import Outage, ProbeAnswer, Sample, SamplingPlan, measure
from homeostat.monitors.verdicts import Operator, Verdict, VerdictReason, decide

MS = 1_000_000
LIMIT_MS = 5_000
WELL = measure(
    [Sample(at * MS, at * MS, (at + 1) * MS, ProbeAnswer.OK) for at in range(0, 2_000, 20)],
    SamplingPlan(20 * MS, 1_000 * MS, 2_000 * MS),
)


def out(lower_ms: float, upper_ms: float | None) -> Outage:
    return replace(WELL, lower_ms=lower_ms, upper_ms=upper_ms)


@pytest.mark.seed("000 the service outage time is less than 5s")
@pytest.mark.parametrize(
    ("lower", "upper", "operator", "verdict", "reason"),
    [
        (0, 20, "<", Verdict.PASS, VerdictReason.BELOW_LIMIT),
        (4_912, 4_966, "<", Verdict.PASS, VerdictReason.BELOW_LIMIT),
        (5_018, 5_060, "<", Verdict.FAIL, VerdictReason.NOT_BELOW_LIMIT),
        (4_980, 5_020, "<", Verdict.INCONCLUSIVE, VerdictReason.LIMIT_WITHIN_BOUNDS),
        (4_980, 5_000, "<", Verdict.INCONCLUSIVE, VerdictReason.LIMIT_WITHIN_BOUNDS),
        (4_980, 5_000, "<=", Verdict.PASS, VerdictReason.BELOW_LIMIT),
        (5_000, 5_040, "<", Verdict.FAIL, VerdictReason.NOT_BELOW_LIMIT),
        (5_000, 5_040, "<=", Verdict.INCONCLUSIVE, VerdictReason.LIMIT_WITHIN_BOUNDS),
        (6_000, None, "<", Verdict.FAIL, VerdictReason.NEVER_RECOVERED),
        (4_000, None, "<", Verdict.INCONCLUSIVE, VerdictReason.WINDOW_TOO_SHORT),
    ],
)
def test_verdict_and_reason(
    lower: float, upper: float | None, operator: Operator, verdict: Verdict, reason: VerdictReason
) -> None:
    decision = decide(out(lower, upper), LIMIT_MS, operator)
    assert (decision.verdict, decision.reason) == (verdict, reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"consistent": False}, VerdictReason.ESTIMATORS_DISAGREE),
        ({"baseline_samples": 19}, VerdictReason.NO_BASELINE),
        ({"baseline_failed": 1}, VerdictReason.BASELINE_FAILED),
        ({"answers": {ProbeAnswer.OK: 98, ProbeAnswer.CLIENT_ERROR: 2}}, VerdictReason.CLIENT_ERRORS),
    ],
)
def test_what_cannot_be_measured_is_an_error_and_never_a_pass(
    change: dict[str, object], reason: VerdictReason
) -> None:
    decision = decide(replace(WELL, **change), LIMIT_MS)  # type: ignore[arg-type]
    assert (decision.verdict, decision.reason) == (Verdict.ERROR, reason)


@pytest.mark.seed("000 each monitor is an independent process")
def test_a_lost_monitor_makes_it_an_error() -> None:
    assert decide(WELL, LIMIT_MS, monitor_lost=True).reason is VerdictReason.MONITOR_LOST
    assert decide(WELL, LIMIT_MS).verdict is Verdict.PASS


def test_a_prober_that_was_late_decides_nothing() -> None:
    decision = decide(replace(WELL, lateness_near_ms=21.0), LIMIT_MS)
    assert (decision.verdict, decision.reason) == (Verdict.INCONCLUSIVE, VerdictReason.PROBER_LATE)


def test_no_sample_at_all_is_an_error() -> None:
    assert (
        decide(measure([], SamplingPlan(20 * MS, 0, 1_000 * MS)), LIMIT_MS).reason
        is VerdictReason.NO_BASELINE
    )


@given(st.floats(0, 10_000), st.floats(0, 200), st.floats(0, 1))
def test_no_truth_within_the_bounds_is_judged_wrongly(lower: float, width: float, share: float) -> None:
    truth = min(lower + share * width, lower + width)
    verdict = decide(out(lower, lower + width), LIMIT_MS).verdict
    assert verdict is not Verdict.PASS or truth < LIMIT_MS
    assert verdict is not Verdict.FAIL or truth >= LIMIT_MS
