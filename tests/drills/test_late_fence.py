"""The undo of a host that somebody may switch off again: looked at until nobody is on the way any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from played_run import shipped

from homeostat.drills.records.evidence import Ledger, RunRecorder, StderrProgress
from homeostat.drills.records.facts import RunPlan, Undone
from homeostat.drills.records.history import HISTORY, Recording, read_log
from homeostat.drills.running.injection import FaultInjection, LateFenceCheck
from homeostat.monitors.shipped.process_watch import WatchConfig
from homeostat.monitors.supervision import MonitorCommand


class Rack:
    """The machine at which n2 is switched. A fence is on the way for so many questions, then it strikes."""

    def __init__(self, fence_after: int | None) -> None:
        self.host, self.is_on, self.asked, self.fence_after = "up", False, 0, fence_after

    async def on_the_way(self) -> str | None:
        self.asked += 1
        if self.fence_after is None or self.asked > self.fence_after:
            return None
        if self.asked == self.fence_after:
            self.is_on = False
        return "our own server: n2 is fence"

    async def verb(self, verb: str, record: dict[str, Any]) -> dict[str, Any]:
        section: dict[str, Any] = {"undone": self.is_on, "within_deadline": True}
        if verb == "undo":
            again = {"again": "on"} if "undo" in record and not self.is_on else {}
            self.is_on = True
            section = {"reason": "asked", "steps": [], **again}
        return {**record, verb: section}

    async def renew(self, fault: str) -> None: ...

    async def heal(self) -> list[dict[str, Any]]:
        return []

    async def status(self) -> dict[str, Any]:
        return {"open": [], "halted": False}

    async def clock_ns(self) -> int:
        return 0

    async def holds(self, profile: str, how: str, endpoint: str) -> bool:
        return False

    def watch(self, config: WatchConfig, folder: Path) -> MonitorCommand:
        raise NotImplementedError

    async def close(self) -> None: ...


async def undone(rack: Rack, folder: Path, within_s: float) -> Undone:
    plan = RunPlan("r-1", shipped("host-down"), 0, ("n2",), (), 0)
    breaking = FaultInjection(rack, {"fault": "r-1", "injector": "node_power"})  # type: ignore[arg-type]
    with Recording.begin(folder, plan) as recording, Ledger(folder) as ledger:
        late = LateFenceCheck(rack.on_the_way, stays_s=0.1)
        book = RunRecorder(recording, StderrProgress())
        said = await breaking.undo(book, ledger, within_s, expected=True, late=late)
    assert [each.fact for each in read_log(folder / HISTORY)] == [said], "once, at its end"
    return said


async def test_a_fence_after_the_undo_is_undone_too(tmp_path: Path) -> None:
    rack = Rack(fence_after=1)
    said = await undone(rack, tmp_path / "r-1", within_s=30)
    assert said.proven and rack.is_on
    assert said.seen.endswith("somebody did the same again: undone 1 more"), said


async def test_without_a_fence_it_is_undone_once(tmp_path: Path) -> None:
    rack = Rack(fence_after=None)
    said = await undone(rack, tmp_path / "r-1", within_s=30)
    assert said.proven and rack.is_on and "again" not in said.seen
    assert rack.asked > 1, "it has to stay so"


@pytest.mark.parametrize("within_s", [0.0, 0.5])
async def test_nobody_waits_for_ever_for_a_fence_that_never_ends(tmp_path: Path, within_s: float) -> None:
    said = await undone(Rack(fence_after=10_000), tmp_path / "r-1", within_s)
    assert said.proven and said.seen.endswith("our own server: n2 is fence"), said
