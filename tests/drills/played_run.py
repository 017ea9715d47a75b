"""A run of the service-down drill, made by hand: what a clean one leaves, to be spoilt by tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from homeostat.drills.language.catalogue import read_catalogue
from homeostat.drills.model import Drill
from homeostat.drills.records.evidence import RunEvidence
from homeostat.drills.records.facts import (
    CleanedUp,
    EffectSeen,
    Fact,
    FactEntry,
    FaultNoticed,
    Injected,
    Injecting,
    ListeningForFaults,
    MonitorEnded,
    MonitorPlan,
    MonitorReady,
    OperationDone,
    PreconditionSeen,
    RunPlan,
    Undone,
    WindowEnded,
)
from homeostat.drills.records.history import SAMPLES, Recording
from homeostat.drills.verdicts.evaluation import judge
from homeostat.drills.verdicts.judgement import judgement_record
from homeostat.kernel.processes import Identity
from homeostat.monitors.outage import ProbeAnswer, Sample, sample_line
from homeostat.monitors.shipped.statements import ProcessChange, Sighting, sighting_line

MS = 1_000_000
FAULT_MS, UNTIL_MS, PERIOD_MS = 3_000, 18_000, 20


def shipped(name: str) -> Drill:
    """A drill that comes with us."""
    found = read_catalogue().drill(name).found
    assert isinstance(found, Drill)
    return found


def sampled(out_from_ms: float, out_to_ms: float, until_ms: int = UNTIL_MS) -> tuple[Sample, ...]:
    """A sampler of a service that refuses from then to then and otherwise answers within 1 ms."""
    return tuple(
        Sample(
            at * MS,
            at * MS,
            (at + 1) * MS,
            ProbeAnswer.REFUSED if out_from_ms <= at < out_to_ms else ProbeAnswer.OK,
        )
        for at in range(0, until_ms + 1, PERIOD_MS)
    )


def watched(back_ms: float | None, until_ms: int = UNTIL_MS) -> tuple[Sighting, ...]:
    """A process that dies with the fault and is there again after so long, or never."""
    old, new = Identity(100, 1), Identity(200, 2)
    seen = [
        Sighting(0, 0, ProcessChange.PRESENT, old, 0),
        Sighting(FAULT_MS * MS, (FAULT_MS + 1) * MS, ProcessChange.GONE, old, 0),
    ]
    if back_ms is not None:
        born_ns = round((FAULT_MS + back_ms) * MS)
        seen.append(Sighting(born_ns, born_ns + 5 * MS, ProcessChange.PRESENT, new, born_ns))
    assert until_ms
    return tuple(seen)


def clean_facts() -> list[tuple[float, Fact]]:
    """When, in ms, and what."""
    fault, after, until = FAULT_MS * MS, (FAULT_MS + 1) * MS, UNTIL_MS * MS
    monitors = ("web", "web-there", "processes")
    return [
        (0, PreconditionSeen(0, True, "3 of 3 back ends answer")),
        (0, PreconditionSeen(1, True, "none")),
        *((2_500, MonitorReady(name, 0)) for name in monitors),
        (2_600, ListeningForFaults()),
        (2_999, Injecting()),
        (3_001, Injected(fault, after, fault, after, ("web-n2: pid 100",))),
        (3_010, EffectSeen(True, "pid 100 is gone")),
        (3_200, FaultNoticed("f-0123456789ab", "resource_down", fault, fault + 40 * MS)),
        (4_000, Undone(True, "a kill leaves nothing to undo")),
        (6_100, OperationDone("canary", "during", 3_100 * MS, 3_140 * MS, True, "200")),
        (6_200, OperationDone("ask", "after", 6_100 * MS, 6_150 * MS, True, "200")),
        (18_001, WindowEnded(until, until)),
        *((18_100, MonitorEnded(name)) for name in monitors),
    ]


@dataclass
class Played:
    """A clean run; change what a test is about, then ask for `evidence`."""

    drill: Drill = field(default_factory=lambda: shipped("service-down"))
    facts: list[tuple[float, Fact]] = field(default_factory=clean_facts)
    samples: dict[str, tuple[Sample, ...]] = field(
        default_factory=lambda: {"web": sampled(3_000, 3_400), "web-there": sampled(3_000, 3_600)}
    )
    sightings: dict[str, tuple[Sighting, ...]] = field(default_factory=lambda: {"processes": watched(300)})
    strict_steps: bool = False

    def without(self, *kinds: type[Fact]) -> Played:
        """Without these facts."""
        return replace(self, facts=[each for each in self.facts if not isinstance(each[1], kinds)])

    def changed(self, kind: type[Fact], change: Callable[[Fact], Fact]) -> Played:
        """With every fact of a kind made anew."""
        facts = [(at, change(fact) if isinstance(fact, kind) else fact) for at, fact in self.facts]
        return replace(self, facts=facts)

    def also(self, at_ms: float, fact: Fact) -> Played:
        """With one more, in its place."""
        return replace(self, facts=sorted([*self.facts, (at_ms, fact)], key=lambda each: each[0]))

    @property
    def plan(self) -> RunPlan:
        monitors = tuple(
            MonitorPlan(each.id, f"{SAMPLES}/{each.id}.jsonl", each.period_ms) for each in self.drill.monitors
        )
        return RunPlan("r-1", self.drill, 7, ("n2",), monitors, 1_795_000_000_000_000_000, self.strict_steps)

    @property
    def evidence(self) -> RunEvidence:
        entries = tuple(
            FactEntry(number, round(at * MS), fact) for number, (at, fact) in enumerate(self.facts, start=1)
        )
        return RunEvidence(self.plan, entries, self.samples, self.sightings)

    def recorded(self, folder: Path) -> Recording:
        """The same on disk, not frozen yet."""
        recording = Recording.begin(folder, self.plan)
        for at, fact in self.facts:
            recording.note(fact, round(at * MS))
        for name, samples in self.samples.items():
            _write(folder / SAMPLES / f"{name}.jsonl", map(sample_line, samples))
        for name, sightings in self.sightings.items():
            _write(folder / SAMPLES / f"{name}.jsonl", map(sighting_line, sightings))
        return recording


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(lines))


def finished(folder: Path, played: Played | None = None) -> Path:
    """A run on disk, judged and cleaned up."""
    played = played or Played()
    recording = played.recorded(folder)
    recording.freeze(judgement_record(judge(played.evidence)))
    recording.cleaned_up(CleanedUp("restart_if_down web", True, "it runs"), 19_000 * MS)
    recording.close()
    return folder


def rewritten(path: Path, text: str) -> None:
    """Over a file that is read-only."""
    path.chmod(0o600)
    path.write_text(text)
