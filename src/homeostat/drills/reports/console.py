"""A report on a terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from homeostat.drills.reports.model import DrillReport
from homeostat.drills.reports.words import bounds, heading, loads, remark, span

_COLOURS = {
    "PASS": "green",
    "FAIL": "red",
    "INCONCLUSIVE": "yellow",
    "ERROR": "magenta",
    "ABORTED": "magenta",
}
_PIPED_WIDTH = 160


def show(report: DrillReport) -> None:
    """To standard output."""
    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False)
    head = Text(report.verdict.value, style=f"bold {_COLOURS[report.verdict]}")
    head.append(f"  {report.drill}: {report.title}", style="default")
    console.print(head)
    hosts = ", ".join(report.victims) or "nobody"
    begun = f"run {report.run}, begun {report.began_at}"
    console.print(f"{begun}, {report.injector} on {hosts}, seed {report.seed}", markup=False)
    for line in heading(report):
        console.print(f"  {line}", markup=False)
    for line in report.because:
        console.print(f"  {line}", markup=False)
    console.print(_rows(report))
    for mark in report.marks:
        console.print(f"  {span(mark.at_ms):>9}  {mark.name}", markup=False)
    for line in report.brought_back:
        console.print(f"  brought back  {line}", markup=False)
    for step in report.cleanup:
        console.print(f"  clean-up {'ok' if step.ok else 'FAILED'}  {step.step}: {step.seen}", markup=False)
    if report.load:
        console.print(f"load of this machine {loads(report)}", markup=False)
    digest = report.evidence_sha256 or "none: the run was never frozen"
    console.print(f"evidence sha256 {digest}", markup=False)


def _rows(report: DrillReport) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("requirement", "what", "measured", "first to last", "samples", "late", "result", "why"):
        table.add_column(column, overflow="fold")
    for row in report.rows:
        result = Text(row.result.value, style=_COLOURS[row.result])
        if not row.binding:
            result = Text(f"({row.result.value})", style="dim")
        why = f"{row.sentence}; {remark(row)}" if remark(row) else row.sentence
        table.add_row(
            row.requirement,
            Text(row.what),
            Text(bounds(row)),
            span(row.literal_ms) if row.literal_ms is not None else "",
            "" if row.samples is None else str(row.samples),
            span(row.lateness_ms) if row.lateness_ms is not None else "",
            result,
            Text(why),
        )
    return table
