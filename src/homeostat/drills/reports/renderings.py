"""Renders reports on a terminal, as one HTML page, and as JUnit XML, all with the same figures.

Positions in the outage chart are percent of its width. A band is drawn from the earliest beginning to the
latest end of an outage, and within it, solid, the time that was out for sure. The page has no script, no
file beside it, and loads nothing from anywhere. In JUnit a run is a suite and a row a case, whose time is
the upper bound of the outage: FAIL is a `failure`; ERROR, ABORTED and INCONCLUSIVE are an `error`, since
none of them may look green; a row that does not decide and did not pass is `skipped`, with what it says.
"""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from xml.etree import ElementTree as Xml

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console
from rich.table import Table
from rich.text import Text

from homeostat.drills.model import Layer
from homeostat.drills.reports.model import DrillReport, EpisodeReport, LayerReport, RowReport
from homeostat.drills.reports.trends import RepeatedRow, statement
from homeostat.monitors.verdicts import Verdict


def span(ms: float | None) -> str:
    """`412 ms`, `4.97 s`; a dash for what is not known."""
    if ms is None:
        return "–"
    return f"{ms:.0f} ms" if abs(ms) < 1_000 else f"{ms / 1_000:.2f} s"


def bounds(row: RowReport) -> str:
    """`[380 ms, 421 ms]`, `at least 14.9 s` for what had not ended, nothing for what is no time."""
    return interval(row.lower_ms, row.upper_ms)


def interval(lower_ms: float | None, upper_ms: float | None, unmeasured: str = "") -> str:
    if lower_ms is None:
        return unmeasured
    if upper_ms is None:
        return f"at least {span(lower_ms)}"
    return f"[{span(lower_ms)}, {span(upper_ms)}]"


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


_BEFORE_SHARE = 0.06
_AFTER_SHARE = 1.12
_SHORTEST_MS = 1_000.0
_TICKS_MAX = 4
_DETECTED = 3
_VISIBLE = 0.35
"""Percent of the width: what is shorter could not be seen."""


@dataclass(frozen=True, slots=True)
class ChartBand:
    """One outage. `x`, `width`: all that may have been out; `sure_x`, `sure_width`: what was."""

    x: float
    width: float
    sure_x: float
    sure_width: float
    words: str


@dataclass(frozen=True, slots=True)
class ChartLane:
    """One monitor."""

    monitor: str
    layer: str
    bands: tuple[ChartBand, ...]
    words: str


@dataclass(frozen=True, slots=True)
class ChartMark:
    """A vertical line; `anchor` keeps its words within the picture."""

    x: float
    words: str
    anchor: str


@dataclass(frozen=True, slots=True)
class OutageChart:
    """Lanes, the user's first and the deepest last; marks; ticks of the time axis."""

    lanes: tuple[ChartLane, ...]
    marks: tuple[ChartMark, ...]
    ticks: tuple[ChartMark, ...]


def outage_chart(report: DrillReport) -> OutageChart:
    """From shortly before the fault to shortly after the last thing that happened."""
    ends = [
        *(mark.at_ms for mark in report.marks),
        *(_end(each, report) for layer in report.layers for each in layer.episodes),
        _SHORTEST_MS,
    ]
    last_ms = max(ends)
    from_ms, to_ms = -last_ms * _BEFORE_SHARE, last_ms * _AFTER_SHARE

    def at(ms: float) -> float:
        return round(min(100.0, max(0.0, (ms - from_ms) / (to_ms - from_ms) * 100)), 3)

    depth = {layer.value: number for number, layer in enumerate(Layer)}
    layers = sorted(report.layers, key=lambda layer: -depth[layer.layer])
    lanes = tuple(_lane(layer, report, at) for layer in layers)
    marks = tuple(
        _mark(at(mark.at_ms), mark.name if not mark.at_ms else f"{mark.name} {span(mark.at_ms)}")
        for mark in sorted(report.marks, key=lambda mark: mark.at_ms)
    )
    step = _step(to_ms)
    inside = [number * step for number in range(int(to_ms // step) + 1)]
    return OutageChart(lanes, marks, tuple(_mark(at(ms), span(ms) if ms else "0") for ms in inside))


def _end(episode: EpisodeReport, report: DrillReport) -> float:
    if episode.until_ms is not None:
        return episode.until_ms
    return max(report.window_ms or 0.0, episode.from_ms + episode.lower_ms)


def _lane(layer: LayerReport, report: DrillReport, at: Callable[[float], float]) -> ChartLane:
    bands = tuple(_band(each, report, at) for each in layer.episodes)
    if not layer.samples:
        words = "no samples"
    elif not bands:
        words = "never seen out"
    else:
        more = " ..." if len(bands) > _DETECTED else ""
        words = ", ".join(band.words for band in bands[:_DETECTED]) + more
    return ChartLane(layer.monitor, layer.layer, bands, words)


def _band(episode: EpisodeReport, report: DrillReport, at: Callable[[float], float]) -> ChartBand:
    """What was out for sure stands in the middle of what may have been."""
    end_ms = _end(episode, report)
    slack_ms = max(0.0, end_ms - episode.from_ms - episode.lower_ms)
    sure_from_ms = episode.from_ms + (slack_ms / 2 if episode.until_ms is not None else slack_ms)
    x, sure_x = at(episode.from_ms), at(sure_from_ms)
    width = max(_VISIBLE, at(end_ms) - x)
    sure_width = at(sure_from_ms + episode.lower_ms) - sure_x
    if episode.upper_ms is None:
        words = f"at least {span(episode.lower_ms)}, had not ended"
    else:
        words = f"{span(episode.lower_ms)} to {span(episode.upper_ms)}"
    return ChartBand(x, round(width, 3), sure_x, round(max(0.0, sure_width), 3), words)


def _mark(x: float, words: str) -> ChartMark:
    return ChartMark(x, words, "start" if x < 6 else "end" if x > 90 else "middle")


def _step(span_ms: float) -> float:
    """A round distance of ticks, so that there are few of them."""
    for power in count():
        for factor in (1, 2, 5):
            step = float(factor * 10**power)
            if span_ms / step <= _TICKS_MAX:
                return step
    raise AssertionError("unreachable")


_COLOURS = {
    "PASS": "green",
    "FAIL": "red",
    "INCONCLUSIVE": "yellow",
    "ERROR": "magenta",
    "ABORTED": "magenta",
}
_PIPED_WIDTH = 160


def print_report(report: DrillReport) -> None:
    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False)
    head = Text(report.verdict.value, style=f"bold {_COLOURS[report.verdict]}")
    head.append(f"  {report.drill}: {report.title}", style="default")
    console.print(head)
    hosts = ", ".join(report.victims) or "no host"
    begun = f"run {report.run}, began {report.began_at}"
    console.print(f"{begun}, {report.injector} on {hosts}, seed {report.seed}", markup=False)
    for line in heading(report):
        console.print(f"  {line}", markup=False)
    for line in report.because:
        console.print(f"  {line}", markup=False)
    console.print(_row_table(report))
    for mark in report.marks:
        console.print(f"  {span(mark.at_ms):>9}  {mark.name}", markup=False)
    for line in report.brought_back:
        console.print(f"  recovered  {line}", markup=False)
    for step in report.cleanup:
        console.print(f"  clean-up {'ok' if step.ok else 'FAILED'}  {step.step}: {step.seen}", markup=False)
    if report.load:
        console.print(f"load of this machine {loads(report)}", markup=False)
    digest = report.evidence_sha256 or "none: the run ended before its verdict"
    console.print(f"evidence sha256 {digest}", markup=False)


def _row_table(report: DrillReport) -> Table:
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


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("homeostat.drills"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"span": span, "bounds": bounds, "limit": limit, "remark": remark}
    made.filters |= {"heading": heading, "loads": loads}
    return made


def html_page(reports: Sequence[DrillReport], repeats: Sequence[RepeatedRow] = ()) -> str:
    template = _templates().get_template("report.html")
    stated = [(each, statement(each)) for each in repeats]
    return template.render(runs=[(each, outage_chart(each)) for each in reports], repeats=stated)


_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(reports: Sequence[DrillReport]) -> str:
    root = Xml.Element("testsuites", {"name": "homeostat drills"})
    for report in reports:
        root.append(_suite(report))
    for figure in ("tests", "failures", "errors", "skipped"):
        root.set(figure, str(sum(int(suite.get(figure, "0")) for suite in root)))
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(report: DrillReport) -> Xml.Element:
    cases = [_case(report, row) for row in report.rows]
    if not report.verification.sound:
        cases.append(_unsound(report))
    suite = Xml.Element(
        "testsuite",
        {
            "name": _xml_text(f"{report.suite or 'drills'}.{report.drill}"),
            "tests": str(len(cases)),
            "failures": str(sum(case.find("failure") is not None for case in cases)),
            "errors": str(sum(case.find("error") is not None for case in cases)),
            "skipped": str(sum(case.find("skipped") is not None for case in cases)),
            "time": f"{(report.window_ms or 0.0) / 1_000:.3f}",
            "timestamp": report.began_at[:19],
            "hostname": _xml_text(socket.gethostname()),
        },
    )
    properties = Xml.SubElement(suite, "properties")
    facts = {
        "run": report.run,
        "verdict": report.verdict.value,
        "victims": ",".join(report.victims),
        "seed": str(report.seed),
        "evidence_sha256": report.evidence_sha256 or "",
    }
    properties_of = [
        *(("deviation", each) for each in report.deviations),
        *(("left_out", f"{each.monitor}: {each.why}") for each in report.left_out),
        *((f"load_1m_{each.when}", f"{each.load_1m:.2f}") for each in report.load),
    ]
    for name, value in (*properties_of, *facts.items()):
        Xml.SubElement(properties, "property", {"name": name, "value": _xml_text(value)})
    suite.extend(cases)
    return suite


def _case(report: DrillReport, row: RowReport) -> Xml.Element:
    case = Xml.Element(
        "testcase",
        {
            "name": _xml_text(f"{row.requirement} {row.what}"),
            "classname": _xml_text(f"{report.suite or 'drills'}.{report.drill}"),
            "time": f"{(row.upper_ms or 0.0) / 1_000:.3f}",
        },
    )
    message = _xml_text(f"{row.sentence} {bounds(row)} {limit(row)}".strip())
    if row.result is Verdict.PASS:
        return case
    if not row.binding:
        Xml.SubElement(
            case, "skipped", {"message": _xml_text(f"{row.weight}, {row.result.value}: {message}")}
        )
        return case
    kind = "failure" if row.result is Verdict.FAIL else "error"
    found = Xml.SubElement(case, kind, {"type": f"{row.result.value}.{row.reason}", "message": message})
    found.text = _xml_text(remark(row))
    return case


def _unsound(report: DrillReport) -> Xml.Element:
    name = {"name": "the run is what it was", "classname": f"drills.{report.drill}", "time": "0.000"}
    case = Xml.Element("testcase", name)
    lines = [*report.verification.changes, *report.verification.differences]
    attributes = {
        "type": "ERROR.NOT_SOUND",
        "message": _xml_text(lines[0] if lines else "it was never frozen"),
    }
    Xml.SubElement(case, "error", attributes).text = _xml_text("\n".join(lines))
    return case


def _xml_text(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
