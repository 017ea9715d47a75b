"""The history of a run as it is written: every fact with its moment, on one clock that never goes back."""

from __future__ import annotations

import os
import time
from typing import Literal

from homeostat.drills.progress import Progress
from homeostat.drills.records.facts import (
    Aborted,
    Broke,
    EffectSeen,
    Fact,
    FaultNoticed,
    Injected,
    Injecting,
    LoadSeen,
    MonitorLost,
    OperationDone,
    OperationLeftOut,
    PreconditionSeen,
    Undone,
)
from homeostat.drills.records.history import Recording


def now_ns() -> int:
    """CLOCK_BOOTTIME of this machine, the monitors' clock."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def load_seen(when: Literal["begin", "end"]) -> LoadSeen:
    """How busy this machine is now."""
    one, five, fifteen = (round(each, 2) for each in os.getloadavg())
    return LoadSeen(when, one, five, fifteen, os.cpu_count() or 1)


class Book:
    """Notes facts, and tells people the ones that they wait for."""

    def __init__(self, recording: Recording, progress: Progress) -> None:
        self.recording, self._progress = recording, progress

    def note(self, fact: Fact) -> None:
        """On disk when this returns."""
        self.recording.note(fact, now_ns())
        if (words := _words(fact)) is not None:
            self._progress.say(words)


def _words(fact: Fact) -> str | None:
    match fact:
        case PreconditionSeen(held=held, seen=seen):
            return f"{'before' if held else 'NOT as it must be before'}: {seen}"
        case Injecting():
            return "injecting; its undo is on disk"
        case Injected(hit=hit):
            return f"injected: {', '.join(hit) or 'nothing'}"
        case EffectSeen(proven=proven, seen=seen):
            return f"effect {'proven' if proven else 'NOT proven'}: {seen}"
        case Undone(proven=proven, seen=seen):
            return f"{'undone' if proven else 'NOT UNDONE'}: {seen}"
        case FaultNoticed(fault=fault, kind=kind):
            return f"noticed by our own fault manager: {kind} {fault}"
        case OperationDone(operation=operation, phase="before" | "while_held" | "after", ok=ok, seen=seen):
            return f"operation {operation}: {'done' if ok else 'FAILED'}, {seen}"
        case OperationLeftOut(operation=operation, phase="after", why=why):
            return f"operation {operation} is left out: {why}"
        case MonitorLost(monitor=monitor, why=why):
            return f"monitor {monitor} is LOST: {why}"
        case Aborted(by=by, why=why):
            return f"aborted by {by}: {why}"
        case Broke(where=where, what=what):
            return f"{where}: {what}"
        case _:
            return None
