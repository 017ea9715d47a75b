"""How figures of a report are said, the same on a terminal, in a page and in XML. Pure."""

from __future__ import annotations

from homeostat.drills.reports.model import DrillReport, RowReport


def span(ms: float | None) -> str:
    """`412 ms`, `4.97 s`; a dash for what is not known."""
    if ms is None:
        return "–"
    return f"{ms:.0f} ms" if abs(ms) < 1_000 else f"{ms / 1_000:.2f} s"


def bounds(row: RowReport) -> str:
    """`[380 ms, 421 ms]`, `at least 14.9 s` for what had not ended, nothing for what is no time."""
    if row.lower_ms is None:
        return ""
    if row.upper_ms is None:
        return f"at least {span(row.lower_ms)}"
    return f"[{span(row.lower_ms)}, {span(row.upper_ms)}]"


def published(row: RowReport) -> str:
    """What a client's calls alone would have said."""
    if row.literal_result is None:
        return ""
    return f"the published loop over the same calls: {span(row.literal_ms)}, {row.literal_result.value}"


def heading(report: DrillReport) -> list[str]:
    """What stands before anything else: in what this is not what the document asks for."""
    return [
        *(f"deviation: {each}" for each in report.deviations),
        *(f"left out: {each.monitor}, {each.why}" for each in report.left_out),
    ]


def loads(report: DrillReport) -> str:
    """`0.80 at the begin, 1.20 at the end (1 minute, 2 CPUs)`."""
    said = ", ".join(f"{each.load_1m:.2f} at the {each.when}" for each in report.load)
    return f"{said} (1 minute, {report.load[0].cpus} CPUs)" if report.load else ""


def limit(row: RowReport) -> str:
    """`< 5.00 s`."""
    return "" if row.limit_ms is None or row.operator is None else f"{row.operator} {span(row.limit_ms)}"


def slower(row: RowReport) -> str:
    """What a user felt although nothing was out: the 99th percentile before and during, when it doubled."""
    before, during = row.latency_before_p99_ms, row.latency_during_p99_ms
    if not before or during is None or during < 2 * before:
        return ""
    return f"p99 {span(before)} before, {span(during)} during"


def remark(row: RowReport) -> str:
    """Everything else that is worth saying."""
    parts = [row.detail, published(row), slower(row), f"deepest layer out: {row.layer}" if row.layer else ""]
    if row.episodes and row.episodes > 1:
        parts.append(
            f"{row.episodes} episodes, {span(row.total_lower_ms)} to {span(row.total_upper_ms)} in all"
        )
    return "; ".join(part for part in parts if part)
