"""The monitors of a run: their commands, the clean baseline, and what they have seen of the fault so far.

The monitors' files are read while they grow, whole lines only, from where the verdict will read them, and
with the same pure functions as the verdict, so the two cannot drift apart. Tokens are got and processes
looked up here; nothing is started here.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from homeostat.drills import model
from homeostat.drills.clouds.connection import CloudToken, issue_token
from homeostat.drills.planning.preflight import RunPlace, client_configs, sampler_configs, watch_config
from homeostat.drills.planning.preparation import cloud_of, undecidable_limits
from homeostat.drills.records.evidence import RunRecorder
from homeostat.drills.records.facts import Injected, MonitorEnded, MonitorLost, MonitorPlan, MonitorReady
from homeostat.drills.running.cancellation import MonitorGone, NotBegun, RunDependencies
from homeostat.drills.running.injection import NO_EFFECT, ObservedEffect, observed_effect
from homeostat.drills.shipped.keeper.machine import now_ns
from homeostat.drills.site import Site
from homeostat.kernel.errors import BadInput
from homeostat.monitors.outage import Outage, ProbeAnswer, Sample, measure, resolution_ms, samples_of
from homeostat.monitors.outage import SamplingPlan as Sampling
from homeostat.monitors.shipped.statements import read_sightings
from homeostat.monitors.supervision import MonitorCommand, Monitors, monitor_command
from homeostat.monitors.verdicts import ProcessOutage, ProcessPlan, ProcessState, process_outage

_NS_PER_MS = 1_000_000


@dataclass(slots=True)
class _Tail:
    """The lines that a file has got since it was last asked."""

    path: Path
    _at: int = 0

    def lines(self) -> list[str]:
        try:
            with self.path.open("rb") as file:
                file.seek(self._at)
                new = file.read()
        except FileNotFoundError:
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._at += len(whole)
        return whole.decode().splitlines(keepends=True)


@dataclass(frozen=True, slots=True)
class ObservedBaseline:
    """An unbroken row of good samples up to now. `since_ns`: when its first one was due."""

    since_ns: int
    until_ns: int
    samples: int
    lateness_ms: float
    rho_ms: float


class FollowedSampler:
    """One sampler's file."""

    def __init__(self, name: str, path: Path, period_ms: float, deadline_ms: float) -> None:
        self.name, self.period_ms = name, period_ms
        self._deadline_ns = round(deadline_ms * _NS_PER_MS)
        self._tail = _Tail(path)
        self._samples: list[Sample] = []

    def look(self) -> bool:
        """Read what is new; whether anything is."""
        new = samples_of(self._tail.lines(), str(self._tail.path))
        self._samples += new
        return bool(new)

    @property
    def known_until_ns(self) -> int:
        """Up to when everything that was due is known: a sample is written at its end, within its deadline.

        0 before the first sample.
        """
        return max(0, self._samples[-1].scheduled_ns - self._deadline_ns) if self._samples else 0

    def baseline(self, from_ns: int, samples: int) -> ObservedBaseline | None:
        """The last so many samples in a row, all good, none due before then; None while there are not."""
        row = [each for each in self._samples[-samples:] if each.scheduled_ns >= from_ns]
        if len(row) < samples or any(each.answer is not ProbeAnswer.OK for each in row):
            return None
        return ObservedBaseline(
            since_ns=min(each.scheduled_ns for each in row),
            until_ns=max(each.done_ns for each in row),
            samples=len(row),
            lateness_ms=max(each.lateness_ns for each in row) / _NS_PER_MS,
            rho_ms=max(each.done_ns - each.sent_ns for each in row) / _NS_PER_MS,
        )

    def good_since_ns(self) -> int | None:
        """When the unbroken row of good samples began that reaches to now; None when the last one is bad."""
        since_ns: int | None = None
        for each in reversed(self._samples):
            if each.answer is not ProbeAnswer.OK:
                break
            since_ns = each.scheduled_ns
        return since_ns

    def outage(self, since_ns: int, fault_ns: int, until_ns: int) -> Outage:
        period_ns = round(self.period_ms * _NS_PER_MS)
        return measure(self._samples, Sampling(period_ns, fault_ns, until_ns, since_ns))


@dataclass(frozen=True, slots=True)
class FollowedWatch:
    """One process watch's file; a few lines, so it is read whole."""

    name: str
    path: Path
    stable_ms: float

    def outage(self, node_before_ns: int, node_now_ns: int) -> ProcessOutage:
        """What has been seen so far, on the clock of its host."""
        plan = ProcessPlan(node_before_ns, node_now_ns, round(self.stable_ms * _NS_PER_MS))
        return process_outage(read_sightings(self.path), plan)


LOOK_S = 0.1
_FRESH_MS = 3_000.0
"""A baseline must reach up to so shortly before the fault; samples are on disk twice a second."""


class RunMeasurement:
    """What the run asks its monitors."""

    def __init__(self, drill: model.Drill, plans: Mapping[str, MonitorPlan], folder: Path) -> None:
        self._drill = drill
        self._since: dict[str, int] = {}
        self._samplers = {
            each.id: FollowedSampler(
                each.id, folder / plans[each.id].file, plans[each.id].period_ms, each.deadline_ms
            )
            for each in drill.monitors
            if each.kind != "process"
        }
        self._baselines = {each.id: model.baseline_samples(drill, each) for each in drill.monitors}
        # A call of a client lasts as long as it lasts: what it will say is not waited for.
        self._closed = {each.id for each in drill.monitors if each.kind == "cli"}
        self._fresh_ns = {each.id: round(_FRESH_MS * _NS_PER_MS) for each in drill.monitors}
        for each in drill.monitors:
            if each.id in self._closed:
                self._fresh_ns[each.id] += round((each.period_ms + each.deadline_ms) * _NS_PER_MS)
        self._watches = {
            each.id: FollowedWatch(each.id, folder / plans[each.id].file, each.stable_ms)
            for each in drill.monitors
            if each.kind == "process"
        }

    async def ready(
        self, monitors: Monitors, book: RunRecorder, within_s: float, quiesce: model.Quiesce | None
    ) -> None:
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

    async def steady(self, book: RunRecorder, within_s: float) -> None:
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

    def _not_ready(self, quiesce: model.Quiesce | None) -> str | None:
        """Why the fault may not come yet."""
        rows: dict[str, ObservedBaseline] = {}
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
                    return f"{name} has not answered well for {quiesce.green_for_ms / 1000:g} s"
        apart = {
            name: resolution_ms(self._samplers[name].period_ms, row.lateness_ms, row.rho_ms)
            for name, row in rows.items()
        }
        cannot = undecidable_limits(self._drill, apart)
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

    def felt(self, injected: Injected, until_ns: int, node_until_ns: int) -> list[ObservedEffect]:
        """What everything that a check asks about has seen up to then, whether it decides or not."""
        names = [
            name
            for each in self._drill.checks
            if isinstance(each, model.ServiceOutage)
            for name in each.monitors
        ]
        watched = [each.monitor for each in self._drill.checks if isinstance(each, model.ProcessRecovery)]
        return [
            *(self._felt_by(name, injected, until_ns) for name in dict.fromkeys(names)),
            *(self._gone(name, injected, node_until_ns) for name in dict.fromkeys(watched)),
        ]

    def felt_by_users(self, injected: Injected) -> list[ObservedEffect]:
        """By the endpoints that decide, up to now; by every deciding monitor when no endpoint is asked."""
        deciding = model.deciding_monitors(self._drill)
        targets = {each.id: each.target for each in self._drill.monitors}
        endpoints = [name for name in deciding if targets[name].on == "endpoint"]
        at_ns = now_ns()
        return [self._felt_by(name, injected, at_ns) for name in endpoints or deciding]

    def _felt_by(self, name: str, injected: Injected, until_ns: int) -> ObservedEffect:
        return observed_effect(self._samplers[name].outage(self._since[name], injected.before_ns, until_ns))

    def _gone(self, name: str, injected: Injected, node_until_ns: int) -> ObservedEffect:
        outage = self._watches[name].outage(injected.node_before_ns, node_until_ns)
        match outage.state:
            case ProcessState.NO_MATCH | ProcessState.NOT_KILLED:
                return NO_EFFECT
            case ProcessState.RECOVERED:
                back_ns = injected.before_ns + round((outage.upper_ms or 0.0) * _NS_PER_MS)
                return ObservedEffect(True, False, back_ns)
            case ProcessState.CRASH_LOOP | ProcessState.NOT_RECOVERED:
                return ObservedEffect(True, True, None)


async def end_monitors(monitors: Monitors, book: RunRecorder) -> None:
    """Stop all of them; each has ended in order, or is lost."""
    for each in await monitors.stop():
        if each.lost is not None:
            book.note(MonitorLost(each.name, each.lost.value))
        else:
            book.note(MonitorEnded(each.name))


ORDERS = "orders"
"""Below the folder of runs: what hosts and monitors are given, while it is needed."""


def has_cloud_client(site: Site) -> bool:
    """Whether the command-line client of the site's cloud is on this machine."""
    return site.cloud is not None and shutil.which(site.cloud.client) is not None


async def monitor_commands(
    parts: RunDependencies, drill: model.Drill, places: RunPlace, plans: dict[str, MonitorPlan]
) -> list[MonitorCommand]:
    """Every monitor; a watch of processes looks for what is there now. BadInput, GiveUp."""
    scratch = parts.runs / ORDERS
    issued = await _issued(parts, drill)
    commands = [monitor_command(each, scratch) for each in sampler_configs(places, drill, plans, issued)]
    for config in client_configs(places, drill, plans):
        if not has_cloud_client(parts.site):
            remedy = "OpenStack's command-line client (python-openstackclient) by this name or path"
            raise BadInput("cloud.client", config.argv[0], f"{remedy}, for the monitor {config.name}")
        commands.append(monitor_command(config, scratch))
    for monitor in drill.monitors:
        if monitor.kind == "process":
            presence = parts.site.services[str(monitor.target.service)].hosts[places.victim]
            name = f"look-{places.folder.name}-{monitor.id}"
            matched = await parts.looking.matched(places.victim, presence.profile, name)
            config_ = watch_config(monitor, plans[monitor.id], str(places.folder), matched)
            commands.append(parts.transports[places.victim].watch(config_, scratch))
    return commands


async def _issued(parts: RunDependencies, drill: model.Drill) -> CloudToken | None:
    """One token for the whole run, when a monitor asks with it."""
    asking = next((each.id for each in drill.monitors if each.token), None)
    if asking is None:
        return None
    cloud = cloud_of(parts.site, asking)
    parts.progress.say(f"getting a token of cloud {cloud.name}")
    issued = await issue_token(cloud)
    issued.outlasts(cloud, parts.site.drills.ready_within_s + drill.window.longest_ms / 1000, time.time())
    return issued
