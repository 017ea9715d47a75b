"""The outages of one drill over its runs, and what they prove together. Pure.

A series is one binding row with a limit, as the newest run has it, over all runs that have it. What several
runs prove is said over every run that is there, passed or not: choosing among them would prove nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field

from homeostat.drills.reports.model import DrillReport, RowReport
from homeostat.drills.verdicts.repeats import Repeats, statement
from homeostat.monitors.verdicts import Verdict


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
    statement: str = Field(description="What all runs prove together; empty for one run.")


def trends_of(reports: Sequence[DrillReport]) -> list[Trend]:
    """The series of one drill; `reports` are its runs, oldest first."""
    if not reports:
        return []
    return [_trend(reports, row) for row in reports[-1].rows if row.binding and row.limit_ms is not None]


def _trend(reports: Sequence[DrillReport], row: RowReport) -> Trend:
    assert row.limit_ms is not None, "chosen for it"
    found = [(report, _same(report, row)) for report in reports]
    uppers = tuple(None if each is None else each.upper_ms for _, each in found)
    verdicts = tuple(report.verdict for report in reports)
    together = Repeats(reports[0].drill, row.what, row.limit_ms, verdicts, uppers)
    return Trend(
        drill=reports[-1].drill,
        title=reports[-1].title,
        requirement=row.requirement,
        what=row.what,
        monitor=row.monitor,
        limit_ms=row.limit_ms,
        points=[_point(report, each) for report, each in found],
        statement=statement(together) if len(reports) > 1 else "",
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
