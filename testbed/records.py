"""The folder of evidence: for each attempt the product's own report, as JSON and as a page, and its context.

    CASE/RUN.ATTEMPT.json          the report, as `homeostat drill report -f json` says it
    CASE/RUN.ATTEMPT.html          the same as a page
    CASE/RUN.ATTEMPT.context.json  variant, load, hashes of the run's files, among them every sample

The report is written last: what has one is complete. Raw samples stay outside, known by their hashes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from homeostat.kernel.errors import CorruptState
from homeostat.kernel.files import read_json, write_json
from homeostat.monitors.verdicts import Verdict

_NAME = re.compile(r"(\d+)\.(\d+)\.json")


@dataclass(frozen=True, slots=True)
class Record:
    """One attempt. `report` keeps docs/drill-report.schema.json; `context` is ours."""

    case: str
    run: int
    attempt: int
    report: dict[str, Any]
    context: dict[str, Any]

    @property
    def verdict(self) -> Verdict:
        return Verdict(self.report["verdict"])


def path_of(folder: Path, case: str, run: int, attempt: int) -> Path:
    """Of the report as JSON."""
    return folder / case / f"{run}.{attempt}.json"


def keep(folder: Path, record: Record, page: str) -> None:
    """On disk when this returns; cut off before, the attempt is not there."""
    path = path_of(folder, record.case, record.run, record.attempt)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".html").write_text(page, encoding="utf-8")
    write_json(path.with_suffix(".context.json"), record.context)
    write_json(path, record.report)
    for each in (path, path.with_suffix(".context.json")):
        each.chmod(0o644)


def read_records(folder: Path) -> list[Record]:
    """Every attempt, in order. CorruptState for a file that is not one."""
    found = []
    for path in folder.glob("*/*.json"):
        if (named := _NAME.fullmatch(path.name)) is not None:
            report, context = read_json(path), read_json(path.with_suffix(".context.json"))
            if report is None or context is None or "verdict" not in report:
                raise CorruptState(
                    f"{path}: it is no report with its context; remove it, and it is run again"
                )
            found.append(Record(path.parent.name, int(named[1]), int(named[2]), report, context))
    return sorted(found, key=lambda each: (each.case, each.run, each.attempt))


def verdicts_of(records: Sequence[Record]) -> dict[tuple[str, int], list[Verdict]]:
    """What each attempt of each run said, in order."""
    said: dict[tuple[str, int], list[Verdict]] = {}
    for each in records:
        said.setdefault((each.case, each.run), []).append(each.verdict)
    return said
