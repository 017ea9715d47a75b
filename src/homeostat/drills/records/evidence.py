"""The evidence of a run as its verdict reads it, the recorder that writes it, and the ledger of what must
be undone.

The recorder notes every fact with its moment and shows progress on standard error: a line a step, and on a
terminal a live one, never part of the record. Moments are CLOCK_BOOTTIME, one clock that never goes back.

The ledger (ledger.jsonl) has faults and test objects, on disk before they are made, and what became of each.
Each line names the keeper that undoes it. Lines are data, one a step; a last line without its end is what a
killed tool leaves, and is left out.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar

from homeostat.drills.actions import CloudObjectKind
from homeostat.drills.model import Monitor
from homeostat.drills.records import facts
from homeostat.drills.records.history import HISTORY, LEDGER, Recording, read_log, read_plan
from homeostat.drills.shipped.keeper.machine import now_ns
from homeostat.kernel.errors import CorruptState
from homeostat.kernel.files import append_whole
from homeostat.kernel.processes import Identity, identify, is_alive
from homeostat.monitors.outage import Outage, Sample, measure, read_samples
from homeostat.monitors.outage import SamplingPlan as Sampling
from homeostat.monitors.shipped.statements import Sighting, read_sightings
from homeostat.monitors.verdicts import (
    ProcessOutage,
    ProcessPlan,
    ReferenceResult,
    process_outage,
    reference_result,
)

F = TypeVar("F", bound=facts.Fact)
_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class RunEvidence:
    """Plan, facts, and what each monitor saw. Frozen: asked twice it says the same."""

    plan: facts.RunPlan
    entries: tuple[facts.FactEntry, ...]
    samples: Mapping[str, tuple[Sample, ...]] = field(default_factory=dict)
    sightings: Mapping[str, tuple[Sighting, ...]] = field(default_factory=dict)

    def all(self, kind: type[F]) -> list[F]:
        return [each.fact for each in self.entries if isinstance(each.fact, kind)]

    def before(self, kind: type[F], later: type[facts.Fact]) -> list[F]:
        """Facts of a kind written down before the latest of another; all of them when there is none of it."""
        edge = max((each.number for each in self.entries if isinstance(each.fact, later)), default=None)
        return [
            each.fact
            for each in self.entries
            if isinstance(each.fact, kind) and (edge is None or each.number < edge)
        ]

    def last(self, kind: type[F]) -> F | None:
        found = self.all(kind)
        return found[-1] if found else None

    def at_ns(self, kind: type[facts.Fact]) -> int | None:
        """When the latest of a kind was written down."""
        return next((each.at_ns for each in reversed(self.entries) if isinstance(each.fact, kind)), None)

    def monitor(self, name: str) -> Monitor:
        """By its name in the drill; the drill's rules know that it is there."""
        return next(each for each in self.plan.drill.monitors if each.id == name)

    def ready(self, monitor: str) -> facts.MonitorReady | None:
        """When its baseline began; the last one counts, for what was clean may be broken before the fault."""
        return next(
            (each for each in reversed(self.all(facts.MonitorReady)) if each.monitor == monitor), None
        )

    def period_ms(self, monitor: str) -> float:
        """As it was run, which may be denser than the drill asks for."""
        planned = (each.period_ms for each in self.plan.monitors if each.id == monitor)
        return next(planned, self.monitor(monitor).period_ms)

    def outage(self, monitor: str) -> Outage | None:
        """What a sampler saw; None without the brackets of the measurement."""
        injected, ended, ready = self.last(facts.Injected), self.last(facts.WindowEnded), self.ready(monitor)
        if injected is None or ended is None or ready is None:
            return None
        period_ns = round(self.period_ms(monitor) * _NS_PER_MS)
        return measure(
            self.samples.get(monitor, ()),
            Sampling(period_ns, injected.before_ns, ended.until_ns, ready.since_ns),
        )

    def published(self, monitor: str, limit_ms: float) -> ReferenceResult | None:
        """What the published loop says of a client's calls; None without the brackets of the measurement."""
        ended, ready = self.last(facts.WindowEnded), self.ready(monitor)
        if ended is None or ready is None:
            return None
        return reference_result(self.samples.get(monitor, ()), ready.since_ns, ended.until_ns, limit_ms)

    def process(self, monitor: str) -> ProcessOutage | None:
        """What a watch of processes saw; None without the brackets of the measurement."""
        injected, ended = self.last(facts.Injected), self.last(facts.WindowEnded)
        if injected is None or ended is None:
            return None
        stable_ns = round(self.monitor(monitor).stable_ms * _NS_PER_MS)
        plan = ProcessPlan(injected.node_before_ns, ended.node_until_ns, stable_ns)
        return process_outage(self.sightings.get(monitor, ()), plan)


def read_evidence(folder: Path) -> RunEvidence:
    """From the files alone. A monitor without a file saw nothing; CorruptState for what cannot be read."""
    plan = read_plan(folder)
    kinds = {each.id: each.kind for each in plan.drill.monitors}
    files = {each.id: folder / each.file for each in plan.monitors if each.id in kinds}
    return RunEvidence(
        plan,
        read_log(folder / HISTORY),
        {name: read_samples(path) for name, path in files.items() if kinds[name] != "process"},
        {name: read_sightings(path) for name, path in files.items() if kinds[name] == "process"},
    )


class DrillProgress(Protocol):
    """Who is told of each step."""

    def say(self, text: str) -> None: ...


class StderrProgress:
    """Lines with the seconds since the start; on a terminal, with a sign that it goes on. `with`."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._status = None
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True, highlight=False).status("")

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def say(self, text: str) -> None:
        line = f"{time.monotonic() - self._began_s:7.1f} s  {text}"
        if self._status is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._status.console.print(line, markup=False)
            self._status.update(text)


def load_seen(when: Literal["begin", "end"]) -> facts.LoadSeen:
    one, five, fifteen = (round(each, 2) for each in os.getloadavg())
    return facts.LoadSeen(when, one, five, fifteen, os.cpu_count() or 1)


class RunRecorder:
    """Notes facts, and tells people the ones that they wait for."""

    def __init__(self, recording: Recording, progress: DrillProgress) -> None:
        self.recording, self._progress = recording, progress

    def note(self, fact: facts.Fact) -> None:
        self.recording.note(fact, now_ns())
        if (words := _words(fact)) is not None:
            self._progress.say(words)


def _words(fact: facts.Fact) -> str | None:
    match fact:
        case facts.PreconditionSeen(held=held, seen=seen):
            return f"{'before' if held else 'NOT as it must be before'}: {seen}"
        case facts.Injecting():
            return "injecting; its undo is on disk"
        case facts.Injected(hit=hit):
            return f"injected: {', '.join(hit) or 'nothing'}"
        case facts.EffectSeen(proven=proven, seen=seen):
            return f"effect {'proven' if proven else 'NOT proven'}: {seen}"
        case facts.Undone(proven=proven, seen=seen):
            return f"{'undone' if proven else 'NOT UNDONE'}: {seen}"
        case facts.FaultNoticed(fault=fault, kind=kind):
            return f"noticed by Homeostat: {kind} {fault}"
        case facts.OperationDone(
            operation=operation, phase="before" | "while_held" | "after", ok=ok, seen=seen
        ):
            return f"operation {operation}: {'done' if ok else 'FAILED'}, {seen}"
        case facts.OperationLeftOut(operation=operation, phase="after", why=why):
            return f"operation {operation} is left out: {why}"
        case facts.MonitorLost(monitor=monitor, why=why):
            return f"monitor {monitor} is LOST: {why}"
        case facts.Aborted(by=by, why=why):
            return f"aborted by {by}: {why}"
        case facts.Broke(where=where, what=what):
            return f"{where}: {what}"
        case _:
            return None


class Ledger:
    """The ledger of a run while it runs; each line is on disk when the call returns."""

    def __init__(self, folder: Path) -> None:
        """A new one, or what a dead tool left, without the line that it did not end."""
        flags, left = os.O_WRONLY | os.O_APPEND | os.O_CREAT, _lines(folder / LEDGER)
        self._file = os.fdopen(os.open(folder / LEDGER, flags, 0o600), "wb", buffering=0)
        self._file.truncate(sum(map(len, left)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def began(self, site: str) -> None:
        """Who runs this: whether it still lives is what `heal` asks."""
        me = identify(os.getpid())
        assert me is not None
        self._add({"kind": "tool", "site": site, "pid": me.pid, "start_ticks": me.start_ticks})

    def to_undo(self, host: str, record: Mapping[str, Any]) -> None:
        """A fault that is about to be injected by this host; its keeper undoes it at the deadline."""
        self._add(
            {
                "kind": "undo",
                "fault": record["fault"],
                "host": host,
                "injector": record["injector"],
                "deadline_s": record["deadline_s"],
                "by": f"the undo keeper of {host}",
                "undo": record["plan"]["undo"],
            }
        )

    def undone(self, fault: str, seen: str) -> None:
        self._add({"kind": "undone", "fault": fault, "seen": seen})

    def made(self, url: str) -> None:
        """A test object that exists because of us."""
        self._add({"kind": "made", "url": url})

    def deleted(self, url: str) -> None:
        self._add({"kind": "deleted", "url": url})

    def creating(self, cloud: str, what: CloudObjectKind, name: str, within_s: float) -> None:
        """A thing in a cloud that is about to be asked for: it is found by its name, whatever came of it."""
        until_ns = time.time_ns() + round(within_s * 1e9)
        self._add({"kind": "creating", "cloud": cloud, "what": what, "name": name, "until_ns": until_ns})

    def answered(self, what: CloudObjectKind, name: str) -> None:
        """The cloud has said yes or no to it: from now on the list tells whether it is there."""
        self._add({"kind": "answered", "what": what, "name": name})

    def gone(self, what: CloudObjectKind, name: str) -> None:
        """Nothing of that name is in the list any more."""
        self._add({"kind": "gone", "what": what, "name": name})

    def _add(self, line: Mapping[str, Any]) -> None:
        append_whole(self._file.fileno(), json.dumps(line, ensure_ascii=False).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class PendingUndo:
    """One fault that was about to be injected."""

    fault: str
    host: str


@dataclass(frozen=True, slots=True)
class CloudLeftover:
    """One thing in a cloud that was asked for. `until_ns`: nobody heard an answer; the request may have been
    sent up to then, by the wall clock."""

    cloud: str
    what: CloudObjectKind
    name: str
    until_ns: int | None


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What a ledger says is left."""

    site: str | None
    tool: Identity | None
    faults: tuple[PendingUndo, ...]
    objects: tuple[str, ...]
    """The newest first."""
    in_cloud: tuple[CloudLeftover, ...] = ()
    """The newest first: what is made of others goes before them."""

    @property
    def tool_lives(self) -> bool:
        """Whether the process that writes this ledger still runs."""
        return self.tool is not None and is_alive(self.tool)


def read_leftovers(folder: Path) -> Leftovers:
    """What is left of a run. CorruptState for a line that is none."""
    path = folder / LEDGER
    site, tool = None, None
    faults: dict[str, PendingUndo] = {}
    objects: dict[str, None] = {}
    in_cloud: dict[tuple[CloudObjectKind, str], CloudLeftover] = {}
    for number, line in enumerate(_lines(path), start=1):
        try:
            said = json.loads(line)
            match said["kind"]:
                case "tool":
                    site, tool = said["site"], Identity(int(said["pid"]), int(said["start_ticks"]))
                case "undo":
                    faults[said["fault"]] = PendingUndo(said["fault"], said["host"])
                case "undone":
                    faults.pop(said["fault"], None)
                case "made":
                    objects[said["url"]] = None
                case "deleted":
                    objects.pop(said["url"], None)
                case "creating":
                    asked = CloudLeftover(said["cloud"], said["what"], said["name"], int(said["until_ns"]))
                    in_cloud[asked.what, asked.name] = asked
                case "answered":
                    key = said["what"], said["name"]
                    in_cloud[key] = replace(in_cloud[key], until_ns=None)
                case "gone":
                    in_cloud.pop((said["what"], said["name"]), None)
                case other:
                    raise ValueError(f"kind {other!r}")
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptState(f"{path}: line {number} is no line of a ledger ({error})") from None
    newest_first = tuple(reversed(in_cloud.values()))
    return Leftovers(site, tool, tuple(faults.values()), tuple(reversed(objects)), newest_first)


def _lines(path: Path) -> list[bytes]:
    try:
        found = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [line for line in found if line.endswith(b"\n")]
