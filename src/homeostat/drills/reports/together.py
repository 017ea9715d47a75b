"""Several reports side by side: the rows of one drill that its runs have in common. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from homeostat.drills.reports.model import DrillReport, RowReport
from homeostat.drills.verdicts.repeats import Repeats


def repeats_of(reports: Sequence[DrillReport]) -> list[Repeats]:
    """Of each drill that was run more than once: every binding row with a limit, over its runs.

    A run that is no proof as a whole is none for any of its rows: its verdict counts, not the row's result.
    """
    found = []
    for drill in dict.fromkeys(report.drill for report in reports):
        runs = [report for report in reports if report.drill == drill]
        if len(runs) < 2:
            continue
        for row in runs[0].rows:
            if row.binding and row.limit_ms is not None:
                same = [_same(report, row) for report in runs]
                found.append(
                    Repeats(
                        drill,
                        row.what,
                        row.limit_ms,
                        tuple(report.verdict for report in runs),
                        tuple(None if each is None else each.upper_ms for each in same),
                    )
                )
    return found


def _same(report: DrillReport, row: RowReport) -> RowReport | None:
    return next((each for each in report.rows if (each.what, each.monitor) == (row.what, row.monitor)), None)
