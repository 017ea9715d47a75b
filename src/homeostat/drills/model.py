"""The model of a drill and a suite, as their files define them. Frozen and checked; no behaviour, no I/O.

The aliases are the words of the file (`period: 20ms` is `period_ms`). Rules that need more than one field
are in `language/rules`, what a run leaves behind is in `records/facts`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal, get_args

from pydantic import Discriminator, Field, Tag

from homeostat.drills.actions import (
    CloudOperation,
    DrillFault,
    DrillPart,
    Host,
    Milliseconds,
    Name,
    Phase,
    Share,
)
from homeostat.monitors.outage import RESOLUTION_SHARE_MAX

COMMAND = r"^[a-z][a-z-]*( [a-z][a-z-]*)* list$"
"""Of a monitor of kind cli: it only looks, so its last word is list."""
PROJECT = "{project_id}"
"""In the path of a monitor: the project of its token."""
CLI_BASELINE = 2
"""So many good calls of a client are its baseline: each takes seconds."""


Requirement = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
"""The id of the statement that a check answers: `R1.11`."""
Text = Annotated[str, Field(min_length=1, max_length=200)]

Operator = Literal["<", "<="]


class Weight(StrEnum):
    """Whether a check decides."""

    BINDING = "binding"
    STEP = "step"
    """A limit named only in a step of the document: shown, and binding with `--strict-steps`."""
    INFORMATIVE = "informative"


class Layer(StrEnum):
    """What a monitor looks at, the deepest first: an outage belongs to the deepest layer that shows it."""

    HOST = "host"
    PROCESS = "process"
    BACKEND = "backend"
    BALANCER = "balancer"
    SERVICE = "service"
    USER = "user"


@dataclass(frozen=True, slots=True)
class DrillTarget(DrillPart):
    """One thing by name. `on: victim` is what of the service runs on the host that the fault hits."""

    service: Name | None = None
    host: Host | None = None
    url: Annotated[str, Field(pattern=r"^(http|tcp)://[^\s/]+")] | None = None
    on: Literal["endpoint", "victim"] = "endpoint"


@dataclass(frozen=True, slots=True)
class Monitor(DrillPart):
    """One independent process that asks one target, at a fixed rate, whatever earlier answers do.

    But for kind cli, which asks as people do: one call after the other.
    """

    id: Name
    kind: Literal["tcp", "http", "process", "cli"]
    layer: Layer
    target: DrillTarget
    path: Annotated[str, Field(pattern=r"^/\S*$")] = "/"
    period_ms: Annotated[Milliseconds, Field(alias="period")] = 20.0
    deadline_ms: Annotated[Milliseconds, Field(alias="deadline")] = 1_000.0
    stable_ms: Annotated[Milliseconds, Field(alias="stable")] = 2_000.0
    """Of kind process: how long a new worker must have lived to count as recovered."""
    token: bool = False
    """Of kind http: asked with a token of the site's cloud, got once for the whole run."""
    command: Annotated[str, Field(pattern=COMMAND)] | None = None
    """Of kind cli: what the cloud's own client is asked, one call after the other: `server list`."""
    optional: bool = False
    """Left out, and said so, at a site that does not have the service."""


@dataclass(frozen=True, slots=True)
class Redundancy(DrillPart):
    """More than one back end serves, or the drill would prove nothing."""

    kind: Literal["redundancy"]
    requirement: Requirement
    service: Name
    at_least: Annotated[int, Field(ge=1, le=1000)] = 2


@dataclass(frozen=True, slots=True)
class FreeSpace(DrillPart):
    """So much room on the disk that is hit."""

    kind: Literal["free_space"]
    requirement: Requirement
    at_least_gib: Annotated[float, Field(gt=0)]


@dataclass(frozen=True, slots=True)
class NoOpenFaults(DrillPart):
    """Nothing is broken before we break something."""

    kind: Literal["no_open_faults"]
    requirement: Requirement


Precondition = Annotated[Redundancy | FreeSpace | NoOpenFaults, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class Baseline(DrillPart):
    """What must have been seen before the fault: so many answers of each monitor, all good."""

    samples: Annotated[int, Field(ge=20, le=100_000)] = 50


@dataclass(frozen=True, slots=True)
class Window(DrillPart):
    """How long is measured after the fault: until all is well for `settle`, at most `longest`."""

    effect_within_ms: Annotated[Milliseconds, Field(alias="effect_within")] = 2_000.0
    """So late may the proven fault first be felt; before that nobody says that it was not felt."""
    settle_ms: Annotated[Milliseconds, Field(alias="settle")] = 3_000.0
    longest_ms: Annotated[Milliseconds, Field(alias="longest")] = 40_000.0


@dataclass(frozen=True, slots=True)
class Operation(DrillPart):
    """What a user does. Within its deadline it is asked again until it answers as expected."""

    id: Name
    target: DrillTarget
    kind: Literal["http"] = "http"
    method: Literal["GET", "POST", "PUT", "DELETE"] = "GET"
    path: Annotated[str, Field(pattern=r"^/\S*$")] = "/"
    status: Annotated[int, Field(ge=100, le=599)] = 200
    deadline_ms: Annotated[Milliseconds, Field(alias="deadline")] = 60_000.0


def kind(given: object) -> str | None:
    """Of an operation: `http` when it does not say."""
    return given.get("kind", "http") if isinstance(given, dict) else getattr(given, "kind", None)


Step = Operation | CloudOperation
AnyOperation = Annotated[
    Annotated[Operation, Tag("http")] | Annotated[CloudOperation, Tag("cloud")], Discriminator(kind)
]


@dataclass(frozen=True, slots=True)
class Operations(DrillPart):
    """`before` the monitors begin: set-up; `during` the fault for information; `while_held` and `after`
    recovery, each in its order, binding."""

    before: tuple[AnyOperation, ...] = ()
    """One that fails ends the run before anything is broken: an ERROR, no verdict about the fault."""
    during: tuple[AnyOperation, ...] = ()
    while_held: tuple[AnyOperation, ...] = ()
    """Once, from the proven effect of a fault with a `hold` on, and all of it before that fault is undone."""
    after: tuple[AnyOperation, ...] = ()

    @property
    def by_phase(self) -> dict[Phase, tuple[Step, ...]]:
        return {phase: getattr(self, phase) for phase in get_args(Phase)}

    @property
    def all(self) -> tuple[Step, ...]:
        return tuple(step for steps in self.by_phase.values() for step in steps)


@dataclass(frozen=True, slots=True)
class ServiceOutage(DrillPart):
    """The upper bound of the longest episode of each of these monitors keeps the limit."""

    kind: Literal["service_outage"]
    requirement: Requirement
    monitors: Annotated[tuple[Name, ...], Field(min_length=1)]
    limit_ms: Annotated[Milliseconds, Field(alias="limit")]
    operator: Operator = "<"
    weight: Weight = Weight.BINDING
    resolution: Share = RESOLUTION_SHARE_MAX
    """So far apart, as a share of the limit, may the bounds be before the fault. Whatever it is, only an
    upper bound below the limit passes."""


@dataclass(frozen=True, slots=True)
class ProcessRecovery(DrillPart):
    """As many workers as before, of new identity, alive for the stable time, within the limit."""

    kind: Literal["process_recovery"]
    requirement: Requirement
    monitor: Name
    limit_ms: Annotated[Milliseconds, Field(alias="limit")]
    operator: Operator = "<"
    weight: Weight = Weight.BINDING


@dataclass(frozen=True, slots=True)
class Noticed(DrillPart):
    """Our own fault manager raised a fault for what was broken, within the limit."""

    kind: Literal["noticed"]
    requirement: Requirement
    limit_ms: Annotated[Milliseconds, Field(alias="limit")]
    operator: Operator = "<"
    weight: Weight = Weight.BINDING


@dataclass(frozen=True, slots=True)
class Dependant(DrillPart):
    """Something that is monitored, or that it uses, has its data on the disk that was hit."""

    kind: Literal["dependant"]
    requirement: Requirement


@dataclass(frozen=True, slots=True)
class HolderMoved(DrillPart):
    """The address of a service went to another host, by what the hosts say."""

    kind: Literal["holder_moved"]
    requirement: Requirement
    service: Name
    weight: Weight = Weight.BINDING


@dataclass(frozen=True, slots=True)
class OperationsDone(DrillPart):
    """Every operation `while_held` and `after` the fault was carried out, in order and without error."""

    kind: Literal["operations"]
    requirement: Requirement


@dataclass(frozen=True, slots=True)
class Proof(DrillPart):
    """What every run must prove, asked for or not. A file may only say under which requirement."""

    kind: Literal["effect", "undo", "monitors", "window"]
    requirement: Requirement


Check = Annotated[
    ServiceOutage | ProcessRecovery | Noticed | OperationsDone | Dependant | HolderMoved | Proof,
    Field(discriminator="kind"),
]


@dataclass(frozen=True, slots=True)
class Cleanup(DrillPart):
    """After the verdict: start what does not run, delete what the drill created."""

    kind: Literal["restart_if_down", "delete_test_objects"]
    service: Name | None = None


@dataclass(frozen=True, slots=True)
class Drill(DrillPart):
    """One file: what must hold, what is broken, what is measured, and what follows from it."""

    id: Annotated[Name, Field(alias="drill")]
    title: Text
    fault: DrillFault
    monitors: Annotated[tuple[Monitor, ...], Field(min_length=1)]
    checks: Annotated[tuple[Check, ...], Field(min_length=1)]
    aliases: tuple[Text, ...] = ()
    references: tuple[Text, ...] = ()
    preconditions: tuple[Precondition, ...] = ()
    baseline: Baseline = field(default_factory=Baseline)
    window: Window = field(default_factory=Window)
    operations: Operations = field(default_factory=Operations)
    cleanup: tuple[Cleanup, ...] = ()


def baseline_samples(drill: Drill, monitor: Monitor) -> int:
    """So many good answers of this monitor in a row come before the fault."""
    return CLI_BASELINE if monitor.kind == "cli" else drill.baseline.samples


def deciding_monitors(drill: Drill) -> tuple[str, ...]:
    """Of the service outages whose check is binding, each once."""
    binding = (
        each for each in drill.checks if isinstance(each, ServiceOutage) and each.weight is Weight.BINDING
    )
    return tuple(dict.fromkeys(name for each in binding for name in each.monitors))


@dataclass(frozen=True, slots=True)
class Quiesce(DrillPart):
    """Between two drills: every monitor is green for so long, or the next one is not begun."""

    green_for_ms: Annotated[Milliseconds, Field(alias="green_for")] = 3_000.0
    within_ms: Annotated[Milliseconds, Field(alias="within")] = 60_000.0


@dataclass(frozen=True, slots=True)
class Suite(DrillPart):
    """Drills in order, each with its own set-up; a failed one does not affect the next."""

    id: Annotated[Name, Field(alias="suite")]
    title: Text
    drills: Annotated[tuple[Name, ...], Field(min_length=1)]
    quiesce: Quiesce = field(default_factory=Quiesce)
