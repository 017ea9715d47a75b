"""What many runs of one drill say together: exact bounds, no assumption on the distribution. Pure.

* Of n independent runs, k failed: the Clopper-Pearson upper bound of the failure probability; for k = 0 it is
  1 - (1 - confidence)^(1/n).
* The smallest order statistic of the runs' upper bounds that is above the quantile with that confidence. Of
  59 runs the largest bounds the 95th percentile with 95 %: 1 - 0.95^59 = 0.952. With fewer there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from homeostat.monitors.verdicts import Verdict

QUANTILE = 0.95
CONFIDENCE = 0.95
_BISECTIONS = 60


@dataclass(frozen=True, slots=True)
class Repeats:
    """One row over many runs. An upper bound is None where an outage had not ended."""

    drill: str
    what: str
    limit_ms: float | None
    results: tuple[Verdict, ...]
    uppers_ms: tuple[float | None, ...]


def runs_needed(quantile: float = QUANTILE, confidence: float = CONFIDENCE) -> int:
    """The fewest runs whose largest value bounds the quantile: 59 for 95 % and 95 %."""
    return math.ceil(math.log(1 - confidence) / math.log(quantile) - 1e-12)


def failure_upper(runs: int, failures: int, confidence: float = CONFIDENCE) -> float:
    """The exact one-sided upper bound of the probability that a run fails; 1 when nothing is known."""
    if runs <= 0 or failures >= runs:
        return 1.0
    if failures == 0:
        return 1.0 - math.exp(math.log(1.0 - confidence) / runs)
    low, high = failures / runs, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _at_most(failures, runs, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def quantile_upper(
    uppers_ms: Sequence[float | None], quantile: float = QUANTILE, confidence: float = CONFIDENCE
) -> float | None:
    """What the quantile is at most, with that confidence. None: too few runs, or one that never ended."""
    ordered = sorted(math.inf if each is None else each for each in uppers_ms)
    for rank, upper in enumerate(ordered, start=1):
        if _at_most(rank - 1, len(ordered), quantile) >= confidence:
            return upper if math.isfinite(upper) else None
    return None


def statement(repeats: Repeats) -> str:
    """One sentence that says no more than the runs prove."""
    runs, passed = len(repeats.results), sum(each is Verdict.PASS for each in repeats.results)
    percent, sure = f"{QUANTILE * 100:g}th percentile", f"{CONFIDENCE * 100:g} % confidence"
    if passed < runs:
        failing = failure_upper(runs, runs - passed)
        return f"{passed} of {runs} runs passed; at most {failing:.1%} do not, with {sure}"
    upper = quantile_upper(repeats.uppers_ms) if len(repeats.uppers_ms) == runs else None
    if upper is None:
        least = runs_needed()
        return (
            f"all {runs} runs passed; at most {failure_upper(runs, 0):.1%} do not, with {sure} "
            f"(the {percent} needs {least} runs)"
        )
    kept = repeats.limit_ms is not None and upper < repeats.limit_ms
    below = f", below the limit of {repeats.limit_ms:g} ms" if kept else ""
    return f"all {runs} runs passed; the {percent} is at most {upper:.0f} ms{below}, with {sure}"


def _at_most(successes: int, trials: int, probability: float) -> float:
    """P(Binomial(trials, probability) <= successes), summed exactly in logarithms."""
    if probability <= 0:
        return 1.0
    if probability >= 1:
        return 1.0 if successes >= trials else 0.0
    log_p, log_q = math.log(probability), math.log1p(-probability)
    total = 0.0
    for number in range(successes + 1):
        choose = math.lgamma(trials + 1) - math.lgamma(number + 1) - math.lgamma(trials - number + 1)
        total += math.exp(choose + number * log_p + (trials - number) * log_q)
    return min(1.0, total)
