"""The checkpoints between a failure and its notices, and the records that a timeline is made of. No
decisions.

Names, numbers and bands are the performance profiler's (source: OPNFV Doctor, blueprint "Performance
Profiler"); its proof of concept numbers them T00 .. T09 and has 3 and 4 the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum

from pydantic import BaseModel


class Numbering(StrEnum):
    """Whose numbers the checkpoints carry."""

    BLUEPRINT = "blueprint"
    POC = "poc"


_NO_CLOUD = "no act at a cloud: the fault is of no host, or the component is not armed"
_NOT_TOLD = "no notice was delivered, or an older version wrote the journal"


class CheckpointKind(Enum):
    """(number in the blueprint, its name, band, why it may be missing)."""

    HOST_DOWN = (0, "host down", "monitor", "nobody who was there said when it happened")
    RAW_FAILURE = (1, "raw failure", "monitor", "the journal has no record of what the fault began with")
    FOUND_AFFECTED = (2, "found affected", "inspector", "no notice was due, so no consumer was looked up")
    MARKED_HOST_DOWN = (3, "marked host down", "inspector", _NO_CLOUD)
    SET_VM_ERROR = (4, "set VM error", "inspector", _NO_CLOUD)
    NOTIFIED_VM_ERROR = (5, "notified VM error", "controller", _NOT_TOLD)
    TRANSFORMED_EVENT = (6, "transformed event", "notifier", _NOT_TOLD)
    EVALUATED_EVENT = (7, "evaluated event", "notifier", _NOT_TOLD)
    FIRED_ALARM = (8, "fired alarm", "notifier", "no notice was sent and accepted")
    RECEIVED_ALARM = (9, "received alarm", "notifier", "no consumer has answered")
    HANDLED_ALARM = (10, "handled alarm", "consumer", "the consumer did not say when it was done")

    def __init__(self, number: int, label: str, band: str, why_missing: str) -> None:
        self.number, self.label, self.band, self.why_missing = number, label, band, why_missing


ALIASES: Mapping[str, str] = {
    "monitor": "sample monitor",
    "inspector": "sample inspector",
    "controller": "nova",
    "notifier": "ceilometer, aodh",
    "consumer": "",
}
"""Our bands in the words of the blueprint."""

BESIDE = (CheckpointKind.MARKED_HOST_DOWN, CheckpointKind.SET_VM_ERROR)
"""Acts: people are told at once and not after them, so these may run beside the way of the notice."""

ORDERS: Mapping[Numbering, tuple[tuple[str, CheckpointKind], ...]] = {
    Numbering.BLUEPRINT: tuple((str(step.number), step) for step in CheckpointKind),
    Numbering.POC: tuple(
        (f"T{at:02d}", step)
        for at, step in enumerate(
            (
                *tuple(CheckpointKind)[:3],
                CheckpointKind.SET_VM_ERROR,
                CheckpointKind.MARKED_HOST_DOWN,
                *tuple(CheckpointKind)[5:10],
            )
        )
    ),
}


class Checkpoint(BaseModel):
    """`ms` counts from the first one known; `clock` is where it was stamped. All None: not known, see `what`.

    `beside` is true for an act that ended when the consumer was being told already.
    """

    id: str
    name: str
    at: str | None
    ms: float | None
    clock: str | None
    event: int | None
    what: str
    beside: bool = False


class CheckpointSpan(BaseModel):
    """Between two checkpoints that are known, one after the other. `clocks_differ`: see the module."""

    begin: str
    end: str
    ms: float
    bands: list[str]
    clocks_differ: bool


class Cost(BaseModel):
    """A band, or several that cannot be told apart, and what it took of the whole."""

    component: str
    alias: str
    ms: float
    percent: float


class ConsumerDelays(BaseModel):
    """One consumer. Milliseconds from checkpoint 1, None for what is not known or did not happen.

    `received_ms` is when its answer was there, on our clock; `handled_ms` what it says of itself, on its own.
    """

    subscription: str
    state: str
    handed_over_ms: float | None
    fired_ms: float | None
    received_ms: float | None
    handled_ms: float | None
    attempts: int
    reason: str = ""


class Timeline(BaseModel):
    """One fault. `consumer` is whose checkpoints 5, 8 and 9 these are: who was told last, if none was chosen.

    `first_told_ms`, `last_told_ms` and `resolved_ms` count from checkpoint 1, `total_ms` from the first known
    to the last known checkpoint. `first_evidence_at` is the first thing that was seen, `waited_ms` how long
    it was until the evidence was enough: checkpoint 1. The outage was between the bounds, null where nobody
    knows; of a fault that is superseded nothing is resolved.
    """

    fault: str
    kind: str
    about: str
    numbering: Numbering
    consumer: str | None
    checkpoints: list[Checkpoint]
    spans: list[CheckpointSpan]
    costs: list[Cost]
    told: list[ConsumerDelays]
    first_told_ms: float | None
    last_told_ms: float | None
    first_evidence_at: str
    waited_ms: float
    resolved_ms: float | None
    total_ms: float | None
    outage_lower_ms: float | None = None
    outage_upper_ms: float | None = None
    superseded_by: str | None = None
