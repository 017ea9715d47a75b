"""Several runs of one drill: series of outage bounds, and what the runs prove together. Pure.

No assumption is made on the distribution.

A series is one binding row with a limit, as the newest run has it, over all runs that have it. What several
runs prove is said over every run that is there, passed or not: choosing among them would prove nothing.

* Of n independent runs, k failed: the Clopper-Pearson upper bound of the failure probability; for k = 0 it is
  1 - (1 - confidence)^(1/n).
* The smallest order statistic of the runs' upper bounds that is above the quantile with that confidence. Of
  59 runs the largest bounds the 95th percentile with 95 %: 1 - 0.95^59 = 0.952. With fewer there is none.

The picture of a trend: the position of each run's outage, in percent across and percent down. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, Field

from homeostat.drills.reports.model import DrillReport, RowReport
from homeostat.monitors.verdicts import Verdict
from homeostat.web.page_route import duration

QUANTILE = 0.95
CONFIDENCE = 0.95
_BISECTIONS = 60


@dataclass(frozen=True, slots=True)
class RepeatedRow:
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


def statement(repeats: RepeatedRow) -> str:
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


class TrendPoint(BaseModel):
    """One run. Without bounds nothing was measured; `upper_ms` null with a lower bound: it had not ended."""

    run: str
    began_at: str
    verdict: Verdict
    lower_ms: float | None
    upper_ms: float | None


class Trend(BaseModel):
    """One row of a drill over its runs, oldest first."""

    drill: str
    title: str
    requirement: str
    what: str
    monitor: str | None
    limit_ms: float
    points: list[TrendPoint]
    statement: str = Field(description="The statement that all runs together support; empty for one run.")


def trends_of(reports: Sequence[DrillReport]) -> list[Trend]:
    """The series of one drill; `reports` are its runs, oldest first."""
    if not reports:
        return []
    return [_trend(reports, row) for row in reports[-1].rows if row.binding and row.limit_ms is not None]


def _trend(reports: Sequence[DrillReport], row: RowReport) -> Trend:
    assert row.limit_ms is not None, "chosen for it"
    return Trend(
        drill=reports[-1].drill,
        title=reports[-1].title,
        requirement=row.requirement,
        what=row.what,
        monitor=row.monitor,
        limit_ms=row.limit_ms,
        points=[_point(report, _same(report, row)) for report in reports],
        statement=statement(_repeated(reports, row)) if len(reports) > 1 else "",
    )


def _point(report: DrillReport, row: RowReport | None) -> TrendPoint:
    return TrendPoint(
        run=report.run,
        began_at=report.began_at,
        verdict=report.verdict,
        lower_ms=None if row is None else row.lower_ms,
        upper_ms=None if row is None else row.upper_ms,
    )


def _same(report: DrillReport, row: RowReport) -> RowReport | None:
    same = (each for each in report.rows if (each.what, each.monitor) == (row.what, row.monitor))
    return next(same, None)


def repeats_of(reports: Sequence[DrillReport]) -> list[RepeatedRow]:
    """Of each drill that was run more than once: every binding row with a limit, over its runs.

    A run that is no proof as a whole is none for any of its rows: its verdict counts, not the row's result.
    """
    found: list[RepeatedRow] = []
    for drill in dict.fromkeys(report.drill for report in reports):
        runs = [report for report in reports if report.drill == drill]
        if len(runs) < 2:
            continue
        found += [_repeated(runs, row) for row in runs[0].rows if row.binding and row.limit_ms is not None]
    return found


def _repeated(runs: Sequence[DrillReport], row: RowReport) -> RepeatedRow:
    same = [_same(report, row) for report in runs]
    verdicts = tuple(report.verdict for report in runs)
    uppers = tuple(None if each is None else each.upper_ms for each in same)
    return RepeatedRow(runs[0].drill, row.what, row.limit_ms, verdicts, uppers)


_HEADROOM = 1.15
"""The scale above the highest value, so that it does not touch the edge."""
_THIN = 2.5
"""Percent of the height: what is lower could not be seen."""
_WIDEST, _GAP = 4.0, 0.75


@dataclass(frozen=True, slots=True)
class TrendBar:
    """One run, from lower to upper bound; `open`: it had not ended. Without height it is a mark."""

    run: str
    x: float
    width: float
    y: float
    height: float
    kind: str
    open: bool
    words: str


@dataclass(frozen=True, slots=True)
class TrendPicture:
    """`limit_y` is where the limit is drawn; `words` says the newest run to who cannot see the picture."""

    bars: tuple[TrendBar, ...]
    limit_y: float
    words: str


def trend_picture(trend: Trend) -> TrendPicture:
    """Oldest on the left; time goes by runs and not by days."""
    values = [each for point in trend.points for each in (point.lower_ms, point.upper_ms) if each is not None]
    top_ms = max(trend.limit_ms, *values, 1.0) * _HEADROOM if values else trend.limit_ms * _HEADROOM
    step = min(100.0 / max(1, len(trend.points)), _WIDEST)
    bars = tuple(
        _bar(point, (number * step, step * _GAP), top_ms) for number, point in enumerate(trend.points)
    )
    newest = trend.points[-1]
    count = f"{len(bars)} {'run' if len(bars) == 1 else 'runs'}"
    words = f"{count}; newest {_bar_text(newest)}, {newest.verdict.value}"
    return TrendPicture(bars, round(100 - trend.limit_ms / top_ms * 100, 2), words)


def _bar(point: TrendPoint, place: tuple[float, float], top_ms: float) -> TrendBar:
    x, width = (round(each, 3) for each in place)
    kind = {Verdict.PASS: "pass", Verdict.FAIL: "fail"}.get(point.verdict, "none")
    words = f"{point.run}, {point.began_at[:19].replace('T', ' ')}: {_bar_text(point)}, {point.verdict.value}"
    if point.lower_ms is None:
        return TrendBar(point.run, x, width, 100.0, 0.0, kind, False, words)
    upper_ms = top_ms if point.upper_ms is None else point.upper_ms
    height = max(_THIN, (upper_ms - point.lower_ms) / top_ms * 100)
    y = min(100 - height, max(0.0, 100 - upper_ms / top_ms * 100))
    return TrendBar(point.run, x, width, round(y, 2), round(height, 2), kind, point.upper_ms is None, words)


def _bar_text(point: TrendPoint) -> str:
    if point.lower_ms is None:
        return "not measured"
    if point.upper_ms is None:
        return f"at least {duration(point.lower_ms)}"
    return f"{duration(point.lower_ms)} to {duration(point.upper_ms)}"
