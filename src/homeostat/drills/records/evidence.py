"""What a verdict may rest on, from the files of a run, ready to be asked. Pure but for `read_evidence`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from homeostat.drills.model import Monitor
from homeostat.drills.records.facts import Entry, Fact, Injected, MonitorReady, Plan, WindowEnded
from homeostat.drills.records.history import HISTORY, read_log, read_plan
from homeostat.monitors.outage import Outage, measure
from homeostat.monitors.outage import Plan as Sampling
from homeostat.monitors.process_outage import (
    ProcessOutage,
    ProcessPlan,
    Sighting,
    process_outage,
    read_sightings,
)
from homeostat.monitors.published_loop import Published, published
from homeostat.monitors.samples import Sample, read_samples

F = TypeVar("F", bound=Fact)
_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Evidence:
    """Plan, facts, and what each monitor saw. Frozen: asked twice it says the same."""

    plan: Plan
    entries: tuple[Entry, ...]
    samples: Mapping[str, tuple[Sample, ...]] = field(default_factory=dict)
    sightings: Mapping[str, tuple[Sighting, ...]] = field(default_factory=dict)

    def all(self, kind: type[F]) -> list[F]:
        """Facts of a kind, in order."""
        return [each.fact for each in self.entries if isinstance(each.fact, kind)]

    def before(self, kind: type[F], later: type[Fact]) -> list[F]:
        """Facts of a kind written down before the latest of another; all of them when there is none of it."""
        edge = max((each.number for each in self.entries if isinstance(each.fact, later)), default=None)
        return [
            each.fact
            for each in self.entries
            if isinstance(each.fact, kind) and (edge is None or each.number < edge)
        ]

    def last(self, kind: type[F]) -> F | None:
        """The latest of a kind."""
        found = self.all(kind)
        return found[-1] if found else None

    def at_ns(self, kind: type[Fact]) -> int | None:
        """When the latest of a kind was written down."""
        return next((each.at_ns for each in reversed(self.entries) if isinstance(each.fact, kind)), None)

    def monitor(self, name: str) -> Monitor:
        """By its name in the drill; the drill's rules know that it is there."""
        return next(each for each in self.plan.drill.monitors if each.id == name)

    def ready(self, monitor: str) -> MonitorReady | None:
        """When its baseline began; the last one counts, for what was clean may be broken before the fault."""
        return next((each for each in reversed(self.all(MonitorReady)) if each.monitor == monitor), None)

    def period_ms(self, monitor: str) -> float:
        """As it was run, which may be denser than the drill asks for."""
        planned = (each.period_ms for each in self.plan.monitors if each.id == monitor)
        return next(planned, self.monitor(monitor).period_ms)

    def outage(self, monitor: str) -> Outage | None:
        """What a sampler saw; None without the brackets of the measurement."""
        injected, ended, ready = self.last(Injected), self.last(WindowEnded), self.ready(monitor)
        if injected is None or ended is None or ready is None:
            return None
        period_ns = round(self.period_ms(monitor) * _NS_PER_MS)
        return measure(
            self.samples.get(monitor, ()),
            Sampling(period_ns, injected.before_ns, ended.until_ns, ready.since_ns),
        )

    def published(self, monitor: str, limit_ms: float) -> Published | None:
        """What the published loop says of a client's calls; None without the brackets of the measurement."""
        ended, ready = self.last(WindowEnded), self.ready(monitor)
        if ended is None or ready is None:
            return None
        return published(self.samples.get(monitor, ()), ready.since_ns, ended.until_ns, limit_ms)

    def process(self, monitor: str) -> ProcessOutage | None:
        """What a watch of processes saw; None without the brackets of the measurement."""
        injected, ended = self.last(Injected), self.last(WindowEnded)
        if injected is None or ended is None:
            return None
        stable_ns = round(self.monitor(monitor).stable_ms * _NS_PER_MS)
        plan = ProcessPlan(injected.node_before_ns, ended.node_until_ns, stable_ns)
        return process_outage(self.sightings.get(monitor, ()), plan)


def read_evidence(folder: Path) -> Evidence:
    """From the files alone. A monitor without a file saw nothing; CorruptState for what cannot be read."""
    plan = read_plan(folder)
    kinds = {each.id: each.kind for each in plan.drill.monitors}
    files = {each.id: folder / each.file for each in plan.monitors if each.id in kinds}
    return Evidence(
        plan,
        read_log(folder / HISTORY),
        {name: read_samples(path) for name, path in files.items() if kinds[name] != "process"},
        {name: read_sightings(path) for name, path in files.items() if kinds[name] == "process"},
    )
