"""The facts that a run records, one a line, and the plan that it followed. No I/O, no judgement.

The class name of a fact is its stored kind: renaming one makes old runs unreadable. Moments are
CLOCK_BOOTTIME nanoseconds: of the host of the monitors, or, where a name begins with `node_`, of the host
that was hit. The two are never subtracted from each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from homeostat.drills.actions import Phase
from homeostat.drills.model import Drill
from homeostat.kernel.errors import CorruptState

FORMAT = 1


@dataclass(frozen=True, slots=True)
class MonitorPlan:
    """One monitor process. `file` is relative to the run's folder."""

    id: str
    file: str
    period_ms: float


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A monitor that is optional and could not be had at this site."""

    monitor: str
    why: str
    decided: tuple[str, ...] = ()
    """The requirements of the checks that it would have decided about, beside others."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What was going to be done, resolved, and written before anything was."""

    run: str
    drill: Drill
    seed: int
    victims: tuple[str, ...]
    """The hosts that the rule chose."""
    monitors: tuple[MonitorPlan, ...]
    began_at_ns: int
    """Wall time, for people."""
    strict_steps: bool = False
    suite: str | None = None
    deviations: tuple[str, ...] = ()
    """In what site and run are not what a document asks for."""
    left_out: tuple[LeftOut, ...] = ()
    """What the drill's file has besides, and this run has not."""


@dataclass(frozen=True, slots=True)
class PreconditionSeen:
    """`number`: its place in the drill's list."""

    number: int
    held: bool
    seen: str


@dataclass(frozen=True, slots=True)
class MonitorReady:
    """Its baseline is there; samples before `since_ns` are none of it."""

    monitor: str
    since_ns: int


@dataclass(frozen=True, slots=True)
class MonitorEnded:
    """It ended in order, everything of it is on disk."""

    monitor: str


@dataclass(frozen=True, slots=True)
class MonitorLost:
    """It died, froze or fell silent."""

    monitor: str
    why: str


@dataclass(frozen=True, slots=True)
class DependantsSeen:
    """Whose data lies on the disk that is hit, of the services that count, and whose beside it."""

    device: str
    on_it: tuple[str, ...]
    beside: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HolderSeen:
    """The hosts that said that they hold the address of a service; the `silent` ones could not be asked."""

    service: str
    when: Phase
    hosts: tuple[str, ...]
    silent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadSeen:
    """How busy the machine of the monitors was: the load averages over 1, 5 and 15 minutes, and its CPUs."""

    when: Literal["begin", "end"]
    load_1m: float
    load_5m: float
    load_15m: float
    cpus: int


@dataclass(frozen=True, slots=True)
class ListeningForFaults:
    """From now on we hear what our own fault manager raises; without this its silence says nothing."""


@dataclass(frozen=True, slots=True)
class Injecting:
    """Its undo is on disk; now it begins."""


@dataclass(frozen=True, slots=True)
class Injected:
    """The fault began between the two moments. `hit`: the exact things, each in words."""

    before_ns: int
    after_ns: int
    node_before_ns: int
    node_after_ns: int
    hit: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EffectSeen:
    """Whether the fault did what it should, and what was measured."""

    proven: bool
    seen: str


@dataclass(frozen=True, slots=True)
class OperationDone:
    """One operation; `ended_ns` also of one that was given up."""

    operation: str
    phase: Phase
    began_ns: int
    ended_ns: int
    ok: bool
    seen: str


@dataclass(frozen=True, slots=True)
class OperationLeftOut:
    """One that is optional, and that this cloud cannot have."""

    operation: str
    phase: Phase
    why: str


@dataclass(frozen=True, slots=True)
class FaultNoticed:
    """Our own fault manager raised a fault for it: not yet at `after_ns`, done by `by_ns`."""

    fault: str
    kind: str
    after_ns: int
    by_ns: int


@dataclass(frozen=True, slots=True)
class BroughtBack:
    """Who brought what back: the runner, the cloud, its own supervisor."""

    what: str
    by: str


@dataclass(frozen=True, slots=True)
class ToolRestarted:
    """The drill itself started something: that is no recovery."""

    what: str


@dataclass(frozen=True, slots=True)
class Undone:
    """Whether the fault is gone, and how that was seen."""

    proven: bool
    seen: str


@dataclass(frozen=True, slots=True)
class WindowEnded:
    """Nothing after these moments is measured."""

    until_ns: int
    node_until_ns: int


@dataclass(frozen=True, slots=True)
class Aborted:
    """Somebody or an abort condition ended it."""

    by: str
    why: str


@dataclass(frozen=True, slots=True)
class Broke:
    """Something of ours failed."""

    where: str
    what: str


@dataclass(frozen=True, slots=True)
class CleanedUp:
    """One step of the clean-up, after the verdict."""

    step: str
    ok: bool
    seen: str


Fact = (
    PreconditionSeen
    | MonitorReady
    | MonitorEnded
    | MonitorLost
    | DependantsSeen
    | HolderSeen
    | LoadSeen
    | ListeningForFaults
    | Injecting
    | Injected
    | EffectSeen
    | OperationDone
    | OperationLeftOut
    | FaultNoticed
    | BroughtBack
    | ToolRestarted
    | Undone
    | WindowEnded
    | Aborted
    | Broke
    | CleanedUp
)


@dataclass(frozen=True, slots=True)
class FactEntry:
    """A numbered fact, counted from 1."""

    number: int
    at_ns: int
    fact: Fact


_KINDS: Mapping[str, type[Fact]] = {kind.__name__: kind for kind in Fact.__args__}


def encode(entry: FactEntry) -> bytes:
    line = {"n": entry.number, "at_ns": entry.at_ns, "fact": type(entry.fact).__name__, **asdict(entry.fact)}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes, where: str) -> FactEntry:
    """The entry of a line; CorruptState says where there is none."""
    try:
        values = json.loads(line)
        number, at_ns = int(values.pop("n")), int(values.pop("at_ns"))
        kind = _KINDS[values.pop("fact")]
        if values.keys() != {each.name for each in fields(kind)}:
            raise ValueError(f"not the fields of {kind.__name__}")
        given: dict[str, Any] = {
            name: tuple(each) if isinstance(each, list) else each for name, each in values.items()
        }
        return FactEntry(number, at_ns, kind(**given))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptState(f"{where} is not a fact of a run ({error})") from None
