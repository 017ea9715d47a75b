"""Random mixed clouds, judged by HiGHS: no plan called optimal leaves more units missing than needed."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterable

import pytest
from tests.leases.highs_judge import Judge
from tests.leases.plan_cases import broken_promises, greedy_missing, mixed_case

from homeostat.leases.planner import PlanLabel, plan


def judged(seeds: Iterable[int], time_s: float) -> Counter[str]:
    """Plans and judges each case; counts labels, cases better than greedy, and those as good as possible."""
    seen: Counter[str] = Counter()
    for seed in seeds:
        request = dataclasses.replace(mixed_case(seed), time_s=time_s)
        result = plan(request, time.process_time)
        assert broken_promises(request, dict(result.places)) == [], seed
        fewest = Judge(request).fewest_missing()
        assert fewest is not None, seed
        missing = len(result.missing)
        assert result.proved_missing <= fewest <= missing, seed
        if result.label is PlanLabel.FEASIBLE:
            assert result.bound > 0
        else:
            assert missing == fewest, seed
        if result.label is PlanLabel.INFEASIBLE:
            assert missing == sum(
                not each.is_fixed and each.host not in each.hosts for each in request.units
            ), seed
        greedy = greedy_missing(request)
        assert missing <= greedy, seed
        seen.update({"cases": 1, result.label.value: 1, "fewer": missing < greedy, "best": missing == fewest})
    return seen


def test_mixed_clouds() -> None:
    seen = judged(range(4, 16), 0.5)
    assert seen["fewer"] >= 2
    assert seen["optimal"] + seen["infeasible"] >= 8


def test_ten_milliseconds_give_a_weaker_label_that_is_still_true() -> None:
    short, long = judged(range(5, 12), 0.01), judged(range(5, 12), 0.5)
    assert short["feasible"] > long["feasible"]


@pytest.mark.slow
def test_two_hundred_mixed_clouds() -> None:
    seen = judged(range(200), 2.0)
    print(dict(seen))
    assert seen["cases"] == 200
    assert seen["fewer"] >= 20
    assert seen["optimal"] + seen["infeasible"] >= 140
