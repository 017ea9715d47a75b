"""The whole suite of the lab, once, with its numbers written down for docs/evidence/lab-drills.md."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from lab_drilled import DOCS, Tool, said
from running_lab import eventually, running

from homeostat.drills.shipped.injectors.node_disk import device_of

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DRILLS = 7
_HEAD = """# Every drill of the lab, once

Command: `.venv/bin/pytest tests/e2e/test_lab_suite.py -m slow -s`: it starts a lab, types
`homeostat drill suite run lab`, and writes this page. Bounds, first to last failure (as the source documents
reckon an outage) and latencies are of each run's own evidence; a latency is the 99th percentile, from the
moment at which a request was due.

"""


@pytest.mark.seed("000 the shipped drills of the lab in sequence, each with its own verdict")
def test_the_whole_suite(tmp_path: Path) -> None:
    with running(tmp_path / "lab") as lab:
        drill = Tool(lab)
        code, out, err = drill("suite", "run", "lab", "--json", within_s=900)
        assert out, err
        reports: list[dict[str, Any]] = json.loads(out)
        (DOCS / "evidence" / "lab-drills.md").write_text(page(reports))
        has_a_disk = device_of(lab.directory) is not None
        kept = {each["drill"]: each for each in reports}  # a run that was done again: the last counts
        assert len(kept) == DRILLS
        for each in kept.values():
            assert each["verification"]["sound"], said(each)
            unseen = each["drill"] == "disk-io-overload" and not has_a_disk
            assert each["verdict"] == ("ERROR" if unseen else "PASS"), said(each)
        assert code == (0 if has_a_disk else 12)
        eventually(lab.all_up, 60, "everything is up afterwards")
        assert drill("heal")[1].strip() == "Nothing to undo."


def page(reports: list[dict[str, Any]]) -> str:
    """The evidence of one run of the suite."""
    load = " ".join(f"{each:.0f}" for each in os.getloadavg())
    words = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} processors, loads at the end: {load}."
    parts = [_HEAD, words, "\n\n", header("drill", "on", "verdict", "noticed after", "brought back by")]
    for each in reports:
        marks = {mark["name"]: mark["at_ms"] for mark in each["marks"]}
        noticed = next((span(at_ms) for name, at_ms in marks.items() if name.startswith("noticed")), "-")
        back = "; ".join(each["brought_back"]) or "-"
        parts.append(line(each["drill"], ", ".join(each["victims"]), each["verdict"], noticed, back))
    for each in reports:
        parts.append(f"\n## {each['drill']}: {each['verdict']}\n\n{each['title']}. Run `{each['run']}`, ")
        parts.append(f"{each['injector']} on {', '.join(each['victims'])}.\n\n")
        columns = ("requirement", "row", "result", "bounds", "first to last", "samples")
        parts.append(header(*columns, "p99 before", "p99 during", "detail"))
        parts += [row_line(row) for row in each["rows"]]
    return "".join(parts)


def row_line(row: dict[str, Any]) -> str:
    """One requirement; one that does not decide in brackets."""
    bounds = "" if row["lower_ms"] is None else f"[{span(row['lower_ms'])}, {span(row['upper_ms'])}]"
    result = row["result"] if row["binding"] else f"({row['result']})"
    samples = "" if row["samples"] is None else str(row["samples"])
    before, during = span(row["latency_before_p99_ms"]), span(row["latency_during_p99_ms"])
    detail = row["detail"] or row["sentence"]
    literal = span(row["literal_ms"])
    return line(row["requirement"], row["what"], result, bounds, literal, samples, before, during, detail)


def line(*cells: str) -> str:
    """A row of a table; nothing in it says where this machine keeps its files."""
    plain = [re.sub(r"/\S*/(?=\S)", "", each.replace("|", "/")) for each in cells]
    return f"| {' | '.join(plain)} |\n"


def header(*names: str) -> str:
    """The head of a table."""
    return f"{line(*names)}|{'---|' * len(names)}\n"


def span(given_ms: float | None) -> str:
    """Milliseconds for people; nothing for what was not measured."""
    if given_ms is None:
        return ""
    return f"{given_ms:.0f} ms" if given_ms < 10_000 else f"{given_ms / 1000:.1f} s"
