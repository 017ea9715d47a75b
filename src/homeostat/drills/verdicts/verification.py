"""Whether an old run still says what it said: files against hashes, the verdict against the evidence.

Reads only the run's folder: no database, no server, and not the report.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from homeostat.drills.records.evidence import Evidence, read_evidence
from homeostat.drills.records.history import Files, files_of, read_verdict
from homeostat.drills.verdicts.checkers import judge
from homeostat.drills.verdicts.judgement import Judgement, judgement_record
from homeostat.monitors.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Verified:
    """`recorded`: what was said then, None when the run ended before. `differences`: one line each."""

    evidence: Evidence
    files: Files
    judgement: Judgement
    recorded: Verdict | None
    differences: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Nothing was changed, and the evidence still says what was said then."""
        return self.recorded is not None and not self.files.changes and not self.differences


def verify(folder: Path) -> Verified:
    """Recompute a verdict from the files alone. NotFound, or CorruptState for what cannot be read."""
    files = files_of(folder)
    evidence = read_evidence(folder)
    judgement = judge(evidence)
    record = read_verdict(folder)
    recorded, differences = None, []
    if record is not None and record.get("verdict") in Verdict.__members__:
        recorded = Verdict(record["verdict"])
        now = judgement_record(judgement)
        if recorded is not judgement.verdict:
            differences.append(f"the verdict was {recorded}, the evidence says {judgement.verdict}")
        if record.get("rows") != now["rows"]:
            differences += _rows(record.get("rows"), now["rows"])
    elif record is not None:
        differences.append(f"verdict.json: {record.get('verdict')!r} is no verdict")
    return Verified(evidence, files, judgement, recorded, tuple(differences))


def _rows(then: object, now: list[dict[str, object]]) -> list[str]:
    """What is said otherwise, a line a row."""
    if not isinstance(then, list) or len(then) != len(now):
        count = len(then) if isinstance(then, list) else "no"
        return [f"there were {count} rows, the evidence gives {len(now)}"]
    found = []
    for number, (old, new) in enumerate(zip(then, now, strict=True), start=1):
        fields = sorted(name for name in new if not isinstance(old, dict) or old.get(name) != new[name])
        if fields:
            found.append(f"row {number}, {new['requirement']} {new['what']}: {', '.join(fields)} differ")
    return found
