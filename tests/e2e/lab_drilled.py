"""`homeostat drill` as a person types it, against a running lab."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from running_lab import Lab, eventually

DOCS = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True)
class Tool:
    """The command line with one lab's directory."""

    lab: Lab

    def start(self, *words: str) -> subprocess.Popen[str]:
        """It runs beside us."""
        argv = [sys.executable, "-m", "homeostat.cli", "drill", *words]
        return subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "HOMEOSTAT_DIR": str(self.lab.directory)},
            cwd=self.lab.directory,
        )

    def __call__(self, *words: str, within_s: float = 120) -> tuple[int, str, str]:
        """Exit code, what it printed, what it said."""
        process = self.start(*words)
        try:
            out, err = process.communicate(timeout=within_s)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=60)
        return process.returncode, out, err

    def report(self, *words: str, within_s: float = 120) -> tuple[int, dict[str, Any]]:
        """Exit code and the report of one run."""
        code, out, err = self(*words, "--json", within_s=within_s)
        assert out, err
        given: dict[str, Any] = json.loads(out)
        return code, given

    def runs(self) -> list[Path]:
        """The folders of all runs, the oldest first."""
        return sorted(each.parent for each in self.lab.directory.glob("drills/*/plan.json"))

    def facts(self, run: Path, kind: str) -> list[dict[str, Any]]:
        """What a run has written down of one kind."""
        history = run / "history.jsonl"
        lines = history.read_text().splitlines(keepends=True) if history.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [each for each in found if each["fact"] == kind]

    def injected(self, before: int) -> Path:
        """The folder of the run after so many, once its fault stands."""

        def stands() -> Path | None:
            fresh = self.runs()[before:]
            return fresh[0] if fresh and self.facts(fresh[0], "Injected") else None

        run = eventually(stands, 60, "a fault is injected")
        assert run is not None
        return run


def rows(report: dict[str, Any], words: str) -> list[dict[str, Any]]:
    """The rows whose name has these words."""
    return [row for row in report["rows"] if words in row["what"]]


def said(report: dict[str, Any]) -> str:
    """Every row in a line, for a test that fails."""
    return "\n".join(
        f"{row['result']} {row['what']}: {row['sentence']} {row['detail']}" for row in report["rows"]
    )


def drill_in_docs() -> str:
    """The first drill that docs/drills.md shows whole."""
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / "drills.md").read_text(), re.DOTALL)
    return next(str(each) for each in blocks if each.startswith("drill:"))
