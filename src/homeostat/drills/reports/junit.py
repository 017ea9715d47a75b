"""Reports as JUnit XML, for what already reads that: one suite a run, one case a row.

FAIL is a `failure`; ERROR, ABORTED and INCONCLUSIVE are an `error`, since none of them may look green; a row
that does not decide and did not pass is `skipped`, with what it says.
The time of a case is the upper bound of the outage.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from xml.etree import ElementTree as Xml

from homeostat.drills.reports.model import DrillReport, RowReport
from homeostat.drills.reports.words import bounds, limit, remark
from homeostat.monitors.verdicts import Verdict

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(reports: Sequence[DrillReport]) -> str:
    """One document."""
    root = Xml.Element("testsuites", {"name": "homeostat drills"})
    for report in reports:
        root.append(_suite(report))
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(report: DrillReport) -> Xml.Element:
    cases = [_case(report, row) for row in report.rows]
    if not report.verification.sound:
        cases.append(_unsound(report))
    suite = Xml.Element(
        "testsuite",
        {
            "name": _text(f"{report.suite or 'drills'}.{report.drill}"),
            "tests": str(len(cases)),
            "failures": str(sum(case.find("failure") is not None for case in cases)),
            "errors": str(sum(case.find("error") is not None for case in cases)),
            "skipped": str(sum(case.find("skipped") is not None for case in cases)),
            "time": f"{(report.window_ms or 0.0) / 1_000:.3f}",
            "timestamp": report.began_at[:19],
            "hostname": _text(socket.gethostname()),
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
    told = [
        *(("deviation", each) for each in report.deviations),
        *(("left_out", f"{each.monitor}: {each.why}") for each in report.left_out),
        *((f"load_1m_{each.when}", f"{each.load_1m:.2f}") for each in report.load),
    ]
    for name, value in (*told, *facts.items()):
        Xml.SubElement(properties, "property", {"name": name, "value": _text(value)})
    suite.extend(cases)
    return suite


def _case(report: DrillReport, row: RowReport) -> Xml.Element:
    case = Xml.Element(
        "testcase",
        {
            "name": _text(f"{row.requirement} {row.what}"),
            "classname": _text(f"{report.suite or 'drills'}.{report.drill}"),
            "time": f"{(row.upper_ms or 0.0) / 1_000:.3f}",
        },
    )
    message = _text(f"{row.sentence} {bounds(row)} {limit(row)}".strip())
    if row.result is Verdict.PASS:
        return case
    if not row.binding:
        Xml.SubElement(case, "skipped", {"message": _text(f"{row.weight}, {row.result.value}: {message}")})
        return case
    kind = "failure" if row.result is Verdict.FAIL else "error"
    told = Xml.SubElement(case, kind, {"type": f"{row.result.value}.{row.reason}", "message": message})
    told.text = _text(remark(row))
    return case


def _unsound(report: DrillReport) -> Xml.Element:
    name = {"name": "the run is what it was", "classname": f"drills.{report.drill}", "time": "0.000"}
    case = Xml.Element("testcase", name)
    lines = [*report.verification.changes, *report.verification.differences]
    told = {"type": "ERROR.NOT_SOUND", "message": _text(lines[0] if lines else "it was never frozen")}
    Xml.SubElement(case, "error", told).text = _text("\n".join(lines))
    return case


def _text(text: str) -> str:
    """Without what XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)
