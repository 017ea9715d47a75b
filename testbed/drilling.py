"""One drill on the running cloud, through the product's own command line, and what it left behind.

A tool that is told to end undoes what it broke first; it gets the time for that. If it does not even do that,
`drill heal` undoes it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from homeostat.drills.records.history import MANIFEST
from homeostat.drills.verdicts.judgement import EXIT_CODES
from homeostat.kernel.files import read_json
from homeostat.kernel.processes import die_with_parent
from testbed.failures import TestbedFailed

_HOMEOSTAT = [str(Path(sys.executable).with_name("homeostat"))]
_UNDONE_WITHIN_S = 120.0
_HEALED_WITHIN_S = 120.0


class DrillFailed(TestbedFailed):
    """The command ended without a run, or without a report of one."""


@dataclass(frozen=True, slots=True)
class Drilled:
    """One run: its report, as the product tells it, and how it was on the machine meanwhile."""

    report: dict[str, Any]
    page: str
    context: dict[str, Any]


class Drilling:
    """Drills one site; runs lie below `directory`."""

    def __init__(self, site: Path, directory: Path) -> None:
        self._site, self._directory = site, directory

    def run(self, drill: str, *, seed: int, within_s: float) -> list[Drilled]:
        """Every run that came of it, in order: the product repeats by itself what was only too coarse.

        DrillFailed when none came of it; what the command said is on stderr.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        before = set(self._folders())
        words = ["drill", "run", drill, "--site", str(self._site), "--seed", str(seed)]
        with _observed() as observed:
            code = self._drill([*words, "--dir", str(self._directory), "--json"], within_s)
        found = sorted(set(self._folders()) - before)
        if not found or code not in EXIT_CODES.values():
            self.heal()
        if not found:
            raise DrillFailed(f"drill {drill}: ended with {code} and left no run; see above what it said")
        about = {"command": " ".join(["homeostat", *words[:3], *words[5:]]), **observed}
        return [self._drilled(each, about) for each in found]

    def heal(self) -> None:
        """Undo what a tool left that could not do it itself."""
        argv = [*_HOMEOSTAT, "drill", "heal", "--site", str(self._site), "--dir", str(self._directory)]
        subprocess.run(argv, check=False, timeout=_HEALED_WITHIN_S, preexec_fn=die_with_parent())

    def _folders(self) -> list[Path]:
        return [each.parent for each in (self._directory / "drills").glob("r-*/plan.json")]

    def _drill(self, words: Sequence[str], within_s: float) -> int:
        """What it says goes to our own stderr; its report is read from the files."""
        child = subprocess.Popen(
            [*_HOMEOSTAT, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is ours: it gets one order to end, not two
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
        try:
            return child.wait(within_s)
        except subprocess.TimeoutExpired:
            _end(child)
            return child.returncode
        except BaseException:
            _end(child)
            raise

    def _drilled(self, folder: Path, context: dict[str, Any]) -> Drilled:
        report = json.loads(self._report(folder, "json"))
        manifest = read_json(folder / MANIFEST) or {}
        return Drilled(report, self._report(folder, "html"), {**context, "manifest": manifest})

    def _report(self, folder: Path, form: str) -> str:
        """The command ends with the code of the verdict, which is no error of its own."""
        argv = [*_HOMEOSTAT, "drill", "report", str(folder), "--format", form]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, preexec_fn=die_with_parent())
        if done.returncode not in EXIT_CODES.values():
            raise DrillFailed(f"{folder}: no report of it: {done.stderr.strip()}")
        return done.stdout


def _end(child: subprocess.Popen[bytes]) -> None:
    """Tell it to end and let it undo; a second order would not hasten that."""
    child.send_signal(signal.SIGINT)
    try:
        child.wait(_UNDONE_WITHIN_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@contextmanager
def _observed() -> Iterator[dict[str, Any]]:
    """What the machine did meanwhile; filled in at the end."""
    seen: dict[str, Any] = {"began_at": datetime.now(UTC).isoformat(timespec="seconds")}
    seen["load_before"] = round(os.getloadavg()[0], 2)
    began, ticks = time.monotonic(), _ticks()
    try:
        yield seen
    finally:
        busy, whole = (now - then for now, then in zip(_ticks(), ticks, strict=True))
        seen["took_s"] = round(time.monotonic() - began, 1)
        seen["load_after"] = round(os.getloadavg()[0], 2)
        seen["cpu_busy"] = round(busy / max(whole, 1), 3)


def _ticks() -> tuple[int, int]:
    """Of all processors since boot: busy ones, and all."""
    fields = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    whole, idle = sum(fields), fields[3] + fields[4]
    return whole - idle, whole
