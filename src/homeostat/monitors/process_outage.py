"""How long the processes of a service were missing: bounds from sightings of exact identities. Pure.

Both ends are on the clock of the node itself. The beginning lies between the moment just before the kill and
the first death that was seen; the end is the birth of the worker that made the set whole again, which the
kernel noted to a clock tick. Whole again means: as many workers as before, the new ones of new identity and
alive for the stable time. A zombie is dead; a worker that dies within its stable time is a restart and no
recovery.
Whether it answers is another question, and another monitor's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from homeostat.kernel.processes import Identity
from homeostat.monitors.sightings import Change, Sighting, line_of, read_sightings

__all__ = [
    "Change",
    "ProcessOutage",
    "ProcessPlan",
    "ProcessState",
    "Sighting",
    "line_of",
    "process_outage",
    "read_sightings",
]

_NS_PER_MS = 1_000_000
CRASH_LOOP_RESTARTS = 2


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """The bracket around the kill on the node's clock, the end of the window, and what counts as stable."""

    before_ns: int
    until_ns: int
    stable_ns: int
    tick_ns: int = 10_000_000


class ProcessState(StrEnum):
    """What became of the set."""

    NO_MATCH = "no process matched before the fault"
    NOT_KILLED = "none of the processes died"
    RECOVERED = "as many as before, alive for the stable time"
    CRASH_LOOP = "started again and again, and died each time"
    NOT_RECOVERED = "not as many as before"


@dataclass(frozen=True, slots=True)
class ProcessOutage:
    """Bounds of the time without the whole set; `upper_ms` None when it was not whole at the end."""

    state: ProcessState
    lower_ms: float
    upper_ms: float | None
    before: tuple[Identity, ...]
    died: tuple[Identity, ...]
    recovered: tuple[Identity, ...]
    restarts: int
    zombies: tuple[Identity, ...]


@dataclass(frozen=True, slots=True)
class _Life:
    identity: Identity
    born_ns: int
    seen_ns: int
    gone_ns: int | None

    def alive_at(self, at_ns: int) -> bool:
        return self.seen_ns <= at_ns and (self.gone_ns is None or self.gone_ns >= at_ns)


def process_outage(sightings: Iterable[Sighting], plan: ProcessPlan) -> ProcessOutage:
    """What the sightings say of one kill."""
    ordered = sorted((each for each in sightings if each.at_ns <= plan.until_ns), key=lambda each: each.at_ns)
    lives = _lives(ordered)
    before = [life for life in lives if life.alive_at(plan.before_ns)]
    died = [life for life in before if life.gone_ns is not None]
    new = [life for life in lives if life.seen_ns > plan.before_ns and life not in before]
    lasting = sorted((life for life in new if _lasts(life, plan)), key=lambda life: life.born_ns)
    restarts = sum(life.gone_ns is not None for life in new)
    lower_ms, upper_ms = 0.0, None
    if not before:
        state = ProcessState.NO_MATCH
    elif not died:
        state, upper_ms = ProcessState.NOT_KILLED, 0.0
    else:
        begun_ns = min(life.gone_ns for life in died if life.gone_ns is not None)
        if len(lasting) >= len(died):
            state, last = ProcessState.RECOVERED, lasting[len(died) - 1]
            lower_ms = max(0, last.born_ns - begun_ns) / _NS_PER_MS
            upper_ms = (min(last.born_ns + plan.tick_ns, last.seen_ns) - plan.before_ns) / _NS_PER_MS
        else:
            state = ProcessState.CRASH_LOOP if restarts >= CRASH_LOOP_RESTARTS else ProcessState.NOT_RECOVERED
            lower_ms = max(0, plan.until_ns - begun_ns) / _NS_PER_MS
    return ProcessOutage(
        state=state,
        lower_ms=lower_ms,
        upper_ms=upper_ms,
        before=tuple(life.identity for life in before),
        died=tuple(life.identity for life in died),
        recovered=tuple(life.identity for life in lasting),
        restarts=restarts,
        zombies=tuple(each.identity for each in ordered if each.change is Change.ZOMBIE),
    )


def _lasts(life: _Life, plan: ProcessPlan) -> bool:
    """Still there at the end of the window, and by then for the stable time."""
    return life.gone_ns is None and plan.until_ns - life.seen_ns >= plan.stable_ns


def _lives(ordered: Sequence[Sighting]) -> list[_Life]:
    gone = {each.identity: each.at_ns for each in reversed(ordered) if each.change is not Change.PRESENT}
    return [
        _Life(each.identity, each.born_ns, each.at_ns, gone.get(each.identity))
        for each in ordered
        if each.change is Change.PRESENT
    ]
