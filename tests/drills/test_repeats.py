"""What many runs prove together: exact, and never more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.drills.reports.trends import RepeatedRow, failure_upper, quantile_upper, runs_needed, statement
from homeostat.monitors.verdicts import Verdict


@pytest.mark.seed("order 59 clean runs: 95th percentile below the limit with 95 % confidence")
def test_fifty_nine_clean_runs() -> None:
    uppers = [float(at) for at in range(1, 60)]
    assert runs_needed() == 59
    assert quantile_upper(uppers) == 59.0
    assert quantile_upper(uppers[:58]) is None
    said = statement(RepeatedRow("d", "outage", 5_000, (Verdict.PASS,) * 59, tuple(uppers)))
    assert said == (
        "all 59 runs passed; the 95th percentile is at most 59 ms, "
        "below the limit of 5000 ms, with 95 % confidence"
    )


@pytest.mark.parametrize(("runs", "bound"), [(1, 0.95), (10, 0.2589), (30, 0.0950), (59, 0.0495)])
def test_n_clean_runs_bound_the_probability_of_a_failure(runs: int, bound: float) -> None:
    assert failure_upper(runs, 0) == pytest.approx(bound, abs=1e-4)


@pytest.mark.parametrize(("runs", "failures", "bound"), [(10, 1, 0.3942), (20, 2, 0.2826), (100, 5, 0.1023)])
def test_failures_are_bounded_exactly(runs: int, failures: int, bound: float) -> None:
    assert failure_upper(runs, failures) == pytest.approx(bound, abs=1e-4)


def test_more_runs_allow_the_second_largest() -> None:
    assert quantile_upper([float(at) for at in range(1, 94)]) == 92.0
    assert quantile_upper([float(at) for at in range(1, 93)]) == 92.0


def test_an_outage_that_never_ended_bounds_nothing() -> None:
    assert quantile_upper([1.0] * 58 + [None]) is None
    assert quantile_upper([1.0] * 92 + [None]) == 1.0


def test_what_did_not_all_pass_claims_no_percentile() -> None:
    results = (Verdict.PASS,) * 58 + (Verdict.INCONCLUSIVE,)
    said = statement(RepeatedRow("d", "outage", 5_000, results, (1.0,) * 59))
    assert "58 of 59 runs passed" in said
    assert "percentile" not in said
    few = statement(RepeatedRow("d", "outage", 5_000, (Verdict.PASS,) * 10, (1.0,) * 10))
    assert "at most 25.9% do not" in few
    assert "needs 59 runs" in few


@given(st.integers(1, 200), st.data())
def test_the_bound_is_above_what_was_seen_and_shrinks_with_more_runs(runs: int, data: st.DataObject) -> None:
    failures = data.draw(st.integers(0, runs))
    bound = failure_upper(runs, failures)
    assert failures / runs <= bound <= 1
    assert failure_upper(runs + 10, failures) <= bound
