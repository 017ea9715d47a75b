"""The monitors of one run: the clean baseline, and what they have seen of the fault so far."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from homeostat.drills.model import (
    Drill,
    Monitor,
    ProcessRecovery,
    Quiesce,
    ServiceOutage,
    Weight,
    baseline_samples,
)
from homeostat.drills.planning.preparation import resolution_of, undecidable
from homeostat.drills.records.book import Book, now_ns
from homeostat.drills.records.facts import Injected, MonitorEnded, MonitorLost, MonitorPlan, MonitorReady
from homeostat.drills.running.following import Baseline, FollowedSampler, FollowedWatch
from homeostat.drills.running.stopping import MonitorGone, NotBegun
from homeostat.drills.running.window import NOTHING, Felt, felt_of
from homeostat.monitors.process_outage import ProcessState
from homeostat.monitors.supervision import Monitors

LOOK_S = 0.1
_FRESH_MS = 3_000.0
"""A baseline must reach up to so shortly before the fault; samples are on disk twice a second."""
_NS_PER_MS = 1_000_000


class Measuring:
    """What the run asks its monitors."""

    def __init__(self, drill: Drill, plans: Mapping[str, MonitorPlan], folder: Path) -> None:
        self._drill = drill
        self._since: dict[str, int] = {}
        self._samplers = {
            each.id: FollowedSampler(
                each.id, folder / plans[each.id].file, plans[each.id].period_ms, each.deadline_ms
            )
            for each in drill.monitors
            if each.kind != "process"
        }
        self._baselines = {each.id: baseline_samples(drill, each) for each in drill.monitors}
        # A call of a client lasts as long as it lasts: what it will say is not waited for.
        self._closed = {each.id for each in drill.monitors if each.kind == "cli"}
        self._fresh_ns = {each.id: round(_fresh_ms(each) * _NS_PER_MS) for each in drill.monitors}
        self._watches = {
            each.id: FollowedWatch(each.id, folder / plans[each.id].file, each.stable_ms)
            for each in drill.monitors
            if each.kind == "process"
        }

    async def ready(self, monitors: Monitors, book: Book, within_s: float, quiesce: Quiesce | None) -> None:
        """The barrier: every monitor lives, has seen nothing but good answers, and can decide its limits.

        MonitorGone or NotBegun when that is not so in time. With `quiesce`, all is green for that long.
        """
        end_s = time.monotonic() + within_s
        if not await monitors.ready(within_s):
            raise MonitorGone
        while (wrong := self._not_ready(quiesce)) is not None:
            if time.monotonic() > end_s:
                raise NotBegun("baseline", f"not within {within_s:g} s: {wrong}")
            await asyncio.sleep(LOOK_S)
        for name in (*self._samplers, *self._watches):
            book.note(MonitorReady(name, self._since.setdefault(name, now_ns())))

    async def steady(self, book: Book, within_s: float) -> None:
        """Once more, as late as can be: a baseline that a bad moment has broken meanwhile begins again."""
        before, end_s = dict(self._since), time.monotonic() + within_s
        while (wrong := self._not_ready(None)) is not None:
            if time.monotonic() > end_s:
                raise NotBegun(
                    "baseline", f"broken before the fault, and not whole in {within_s:g} s: {wrong}"
                )
            await asyncio.sleep(LOOK_S)
        for name, each in self._samplers.items():
            good_ns = each.good_since_ns()
            if good_ns is not None and good_ns <= before[name]:
                self._since[name] = before[name]
            else:
                book.note(MonitorReady(name, self._since[name]))

    def _not_ready(self, quiesce: Quiesce | None) -> str | None:
        """Why the fault may not come yet."""
        rows: dict[str, Baseline] = {}
        at_ns = now_ns()
        for name, each in self._samplers.items():
            each.look()
            row = each.baseline(0, self._baselines[name])
            if row is None or at_ns - row.until_ns > self._fresh_ns[name]:
                return f"{name} has not seen {self._baselines[name]} good answers in a row"
            rows[name] = row
            if quiesce is not None:
                green_ns = each.good_since_ns()
                if green_ns is None or at_ns - green_ns < quiesce.green_for_ms * _NS_PER_MS:
                    return f"{name} has not been green for {quiesce.green_for_ms / 1000:g} s"
        apart = {
            name: resolution_of(self._samplers[name].period_ms, row.lateness_ms, row.rho_ms)
            for name, row in rows.items()
        }
        cannot = undecidable(self._drill, apart)
        if cannot:
            return "; ".join(cannot)
        self._since.update({name: row.since_ns for name, row in rows.items()})
        return None

    def look(self) -> bool:
        """Read what the monitors have written since; whether there is anything to reckon with anew."""
        return any([each.look() for each in self._samplers.values()]) or not self._samplers

    @property
    def known_until_ns(self) -> int:
        """Up to when everything is known."""
        open_loops = (each for name, each in self._samplers.items() if name not in self._closed)
        return min((each.known_until_ns for each in open_loops), default=now_ns())

    def felt(self, injected: Injected, until_ns: int, node_until_ns: int) -> list[Felt]:
        """What everything that a check asks about has seen up to then, whether it decides or not."""
        names = [
            name for each in self._drill.checks if isinstance(each, ServiceOutage) for name in each.monitors
        ]
        watched = [each.monitor for each in self._drill.checks if isinstance(each, ProcessRecovery)]
        return [
            *(self._felt_by(name, injected, until_ns) for name in dict.fromkeys(names)),
            *(self._gone(name, injected, node_until_ns) for name in dict.fromkeys(watched)),
        ]

    def felt_by_users(self, injected: Injected) -> list[Felt]:
        """By the endpoints that decide, up to now; by every deciding monitor when no endpoint is asked."""
        deciding = [
            name
            for each in self._drill.checks
            if isinstance(each, ServiceOutage) and each.weight is Weight.BINDING
            for name in each.monitors
        ]
        targets = {each.id: each.target for each in self._drill.monitors}
        endpoints = [name for name in deciding if targets[name].on == "endpoint"]
        at_ns = now_ns()
        return [self._felt_by(name, injected, at_ns) for name in dict.fromkeys(endpoints or deciding)]

    def _felt_by(self, name: str, injected: Injected, until_ns: int) -> Felt:
        return felt_of(self._samplers[name].outage(self._since[name], injected.before_ns, until_ns))

    def _gone(self, name: str, injected: Injected, node_until_ns: int) -> Felt:
        outage = self._watches[name].outage(injected.node_before_ns, node_until_ns)
        match outage.state:
            case ProcessState.NO_MATCH | ProcessState.NOT_KILLED:
                return NOTHING
            case ProcessState.RECOVERED:
                back_ns = injected.before_ns + round((outage.upper_ms or 0.0) * _NS_PER_MS)
                return Felt(True, False, back_ns)
            case ProcessState.CRASH_LOOP | ProcessState.NOT_RECOVERED:
                return Felt(True, True, None)


def _fresh_ms(monitor: Monitor) -> float:
    return _FRESH_MS + (monitor.period_ms + monitor.deadline_ms if monitor.kind == "cli" else 0.0)


async def end_monitors(monitors: Monitors, book: Book) -> None:
    """Stop all of them; each has ended in order, or is lost."""
    for each in await monitors.stop():
        if each.lost is not None:
            book.note(MonitorLost(each.name, each.lost.value))
        else:
            book.note(MonitorEnded(each.name))
