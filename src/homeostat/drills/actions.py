"""The actions of a drill as its file describes them: the fault that is injected and the operations on a
cloud.

Records with their validation, no I/O; `model` puts them together with monitors and requirements.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer

from homeostat.contracts.nouns import DRILL_NAME

Name = Annotated[str, Field(pattern=DRILL_NAME)]


class DrillPart:
    """A part of a drill or suite file, in which an unknown field is an error."""

    __slots__ = ()
    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)


Host = Annotated[str, Field(min_length=1, max_length=253)]


_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000}
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m)")
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)%")
DURATION_ACCEPTED = "a number and a unit: 20ms, 4.5s or 2m"


def duration_ms(value: object) -> float:
    """Milliseconds of `20ms`, `4.5s`, `2m`; ValueError for anything else, also for a bare number."""
    found = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(DURATION_ACCEPTED)
    return float(Fraction(found[1]) * _UNITS_MS[found[2]])


def duration_text(span: float) -> str:
    """The shortest of these words: 5000 -> `5s`."""
    unit = "m" if span >= 60_000 and span % 60_000 == 0 else "s" if span >= 1_000 else "ms"
    return f"{span / _UNITS_MS[unit]:.6f}".rstrip("0").rstrip(".") + unit


def share_of(value: object) -> float:
    """0.05 of `5%`; ValueError for anything else, also for a bare number."""
    found = _SHARE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("a share: 5%")
    return float(Fraction(found[1]) / 100)


def share_text(share: float) -> str:
    """0.05 -> `5%`."""
    return f"{share * 100:.3f}".rstrip("0").rstrip(".") + "%"


Duration = Annotated[float, BeforeValidator(duration_ms), PlainSerializer(duration_text)]
Milliseconds = Annotated[Duration, Field(gt=0)]
Share = Annotated[float, BeforeValidator(share_of), PlainSerializer(share_text), Field(gt=0, le=0.5)]


class VictimChoice(StrEnum):
    """Which of the candidates is hit. Never by chance: the same seed, the same target."""

    FIRST = "first"
    """The first by name."""
    SEEDED = "seeded"
    EACH = "each"
    """One run for each."""
    HOLDER = "holder"
    """The one that holds the address at that moment."""
    NON_HOLDER = "non-holder"


@dataclass(frozen=True, slots=True)
class Victim(DrillPart):
    """What the fault hits: a service on one host, chosen by rule; or one host by name."""

    service: Name | None = None
    host: Host | None = None
    choose: VictimChoice = VictimChoice.SEEDED


@dataclass(frozen=True, slots=True)
class KillFault(DrillPart):
    """End the exact processes that were found."""

    injector: Literal["kill"]
    target: Victim
    signal: Literal["SIGKILL", "SIGTERM"] = "SIGKILL"
    collateral: bool = False
    """Whether a process that serves others, too, may be hit."""


@dataclass(frozen=True, slots=True)
class FreezeFault(DrillPart):
    """Stop the processes for a while, then let them go on."""

    injector: Literal["freeze"]
    target: Victim
    hold_ms: Annotated[Milliseconds, Field(alias="hold")]


@dataclass(frozen=True, slots=True)
class CpuFault(DrillPart):
    """One busy worker pinned to every CPU that is allowed."""

    injector: Literal["cpu"]
    target: Victim
    hold_ms: Annotated[Milliseconds, Field(alias="hold")]


@dataclass(frozen=True, slots=True)
class DiskFault(DrillPart):
    """Direct writes into one bounded file, in a folder on the service's own data device."""

    injector: Literal["disk"]
    target: Victim
    hold_ms: Annotated[Milliseconds, Field(alias="hold")]
    folder: Annotated[str, Field(pattern=r"^/\S*$")] | None = None
    """On the host that is hit; on the disk of the service's own data when it is not given."""
    file_mib_max: Annotated[int, Field(ge=1, le=2048)] = 1024
    free_gib_floor: Annotated[float, Field(gt=0)] = 1.0
    """Never less room than this."""


@dataclass(frozen=True, slots=True)
class NetworkFault(DrillPart):
    """Cut a host off, or make it slow to reach."""

    injector: Literal["network"]
    target: Victim
    hold_ms: Annotated[Milliseconds, Field(alias="hold")]
    effect: Literal["cut", "latency"] = "cut"
    latency_ms: Annotated[Milliseconds, Field(alias="latency")] = 100.0
    device: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$")] | None = None
    """What is slowed down or cut; latency cannot do without."""
    ports: tuple[Annotated[int, Field(ge=1, le=65_535)], ...] = ()
    """Cut only these TCP ports."""


@dataclass(frozen=True, slots=True)
class PowerOffFault(DrillPart):
    """Switch a whole host off, and on again."""

    injector: Literal["host_off"]
    target: Victim
    hold_ms: Annotated[Milliseconds, Field(alias="hold")]


DrillFault = Annotated[
    KillFault | FreezeFault | CpuFault | DiskFault | NetworkFault | PowerOffFault,
    Field(discriminator="injector"),
]


def hold_ms(fault: KillFault | FreezeFault | CpuFault | DiskFault | NetworkFault | PowerOffFault) -> float:
    """How long the fault lasts before it is undone; 0 for one that is an instant."""
    return 0.0 if isinstance(fault, KillFault) else fault.hold_ms


CloudObjectKind = Literal["image", "flavor", "server", "network", "router", "volume"]
CloudAction = Literal["create", "active", "there", "delete", "gone", "list"]
Phase = Literal["before", "during", "while_held", "after"]
CLOUD_OBJECT_KINDS: tuple[CloudObjectKind, ...] = get_args(CloudObjectKind)


@dataclass(frozen=True, slots=True)
class CloudOperation(DrillPart):
    """One step, each with a deadline of its own. Names are made up: of the run, never of the file."""

    id: Name
    kind: Literal["cloud"]
    does: CloudAction
    """`create`, `delete` and `list` ask once. `active` looks until it is (ERROR: failed at once), `there`
    until the list has it, `gone` until the list has it no more."""
    what: CloudObjectKind
    """`active`, `there`, `delete` and `gone`: the one that an earlier `create` made."""
    ram_mib: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    """Of a flavor that is made; 512 when it is not said."""
    deadline_ms: Annotated[Milliseconds, Field(alias="deadline")] = 60_000.0
    optional: bool = False
    """An extension: reported beside, never binding, left out where the cloud has no such service."""


MAKES_SERVER: tuple[CloudObjectKind, ...] = ("image", "flavor")
"""Objects that this run must have made before it can make a server."""


def is_extension(operation: object) -> bool:
    """Whether it is an extension; an operation of another kind never is."""
    return isinstance(operation, CloudOperation) and operation.optional


@dataclass(slots=True)
class CreatedObjects:
    """What the steps so far have made, to say what is wrong with the next one.

    `rounds`: those that go round and round make their own each time, and leave alone what was there before.
    """

    there: set[CloudObjectKind] = field(default_factory=set)
    rounds: bool = False
    own: set[CloudObjectKind] = field(default_factory=set)
    deleted: set[CloudObjectKind] = field(default_factory=set)
    optional: set[CloudObjectKind] = field(default_factory=set)

    def wrong(self, step: CloudOperation, phase: Phase) -> tuple[str, str] | None:
        """The field that is wrong and what would be accepted there; None, and the step counts as done."""
        what = step.what
        if step.optional and phase == "before":
            return "optional", "false: nothing that is set up can be left out"
        if step.optional and phase == "while_held":
            return "optional", "false: an extension is asked for after the fault"
        if step.ram_mib is not None and (step.does, what) != ("create", "flavor"):
            return "ram_mib", "only where a flavor is created"
        if step.does != "list" and what in self.optional and not step.optional:
            return "optional", f"true: the {what} that it is about is optional itself"
        match step.does:
            case "create":
                return self._create(step)
            case "active" if what == "flavor":
                return "what", "another thing: a flavor has no status"
            case "active" | "there" if what not in self.there:
                return "does", f"create of {what} before it"
            case "delete" if what not in (self.own if self.rounds else self.there):
                return "does", f"create of {what} before it" + (", in the same round" if self.rounds else "")
            case "delete":
                self.there.discard(what)
                self.deleted.add(what)
            case "gone" if what not in self.deleted:
                return "does", f"delete of {what} before it"
        return None

    def _create(self, step: CloudOperation) -> tuple[str, str] | None:
        what = step.what
        if what in self.own:
            return "what", f"one {what} in a drill: its name is of the run"
        missing = [each for each in MAKES_SERVER if each not in self.there] if what == "server" else []
        if missing:
            return "what", f"create of {' and '.join(missing)} before it: a server is made of this run's own"
        self.own.add(what)
        self.there.add(what)
        if step.optional:
            self.optional.add(what)
        return None
