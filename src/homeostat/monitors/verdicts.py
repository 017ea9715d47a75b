"""Verdicts on the bounds of an outage, each with its reason by name; the outage of a set of processes.
Pure.

PASS is said only when it is proven: the whole interval lies on the good side of the limit. When the interval
holds the limit, nobody knows, and the verdict says so.

The time that a service's processes were missing has its bounds from sightings of exact identities, on the
clock of the node itself. The beginning lies between the moment just before the kill and the first death that
was seen; the end is the birth of the worker that made the set whole again, which the kernel noted to a clock
tick. Whole again means: as many workers as before, the new ones of new identity and alive for the stable
time. A zombie is dead; a worker that dies within its stable time is a restart and no recovery. Whether it
answers is another question, and another monitor's.

The command-line loop of the source document's reference tool (OPNFV) computes from the same calls

    outage = end of the last failing call - begin of the first failing call,  and it fails above the limit

That is a number for comparison, never a verdict of ours: it is wrong by up to a call in either direction,
and an outage between two calls is none. Calls that we killed at their deadline count as failing ones; that
loop waits for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, assert_never

from homeostat.kernel.processes import Identity
from homeostat.monitors.outage import FAILED, Outage, ProbeAnswer, Sample
from homeostat.monitors.shipped.statements import ProcessChange, Sighting

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
    CRASH_LOOP = "restarted again and again, and died each time"
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
    ordered = sorted((each for each in sightings if each.at_ns <= plan.until_ns), key=lambda each: each.at_ns)
    lives = _lives(ordered)
    before = [life for life in lives if life.alive_at(plan.before_ns)]
    died = [life for life in before if life.gone_ns is not None]
    new = [life for life in lives if life.seen_ns > plan.before_ns and life not in before]
    # Still there at the end of the window, and by then for the stable time.
    there = (life for life in new if life.gone_ns is None and plan.until_ns - life.seen_ns >= plan.stable_ns)
    lasting = sorted(there, key=lambda life: life.born_ns)
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
        zombies=tuple(each.identity for each in ordered if each.change is ProcessChange.ZOMBIE),
    )


def _lives(ordered: Sequence[Sighting]) -> list[_Life]:
    gone = {
        each.identity: each.at_ns for each in reversed(ordered) if each.change is not ProcessChange.PRESENT
    }
    return [
        _Life(each.identity, each.born_ns, each.at_ns, gone.get(each.identity))
        for each in ordered
        if each.change is ProcessChange.PRESENT
    ]


BASELINE_SAMPLES_MIN = 20
"""Fewer good samples before the fault say too little of the usual round trip."""
CLIENT_ERRORS_SHARE_MAX = 0.01


class Verdict(StrEnum):
    """What a drill or a check of it ends with; only PASS is a success."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"
    ABORTED = "ABORTED"


class VerdictReason(StrEnum):
    """Why a measurement ended with this verdict; the value is the sentence for people."""

    BELOW_LIMIT = "even the upper bound keeps the limit"
    NOT_BELOW_LIMIT = "even the lower bound breaks the limit"
    NEVER_RECOVERED = "it was still out when the window ended, and longer than the limit"
    LIMIT_WITHIN_BOUNDS = "the limit lies within the bounds: set a shorter monitor period"
    WINDOW_TOO_SHORT = "it was still out when the window ended, before the limit was reached"
    PROBER_LATE = "the prober itself was late by more than its period"
    NO_BASELINE = "too few samples before the fault"
    BASELINE_FAILED = "the service was not well before the fault"
    CLIENT_ERRORS = "the prober could not ask: its own machine refused"
    ESTIMATORS_DISAGREE = "the two ways to reckon the outage contradict each other: a bug"
    NO_PROCESS = "no process matched before the fault"
    NOBODY_DIED = "none of the processes died: the fault had no effect"
    MONITOR_LOST = "a monitor died, froze or fell silent"


Operator = Literal["<", "<="]


@dataclass(frozen=True, slots=True)
class ReasonedVerdict:
    """A verdict and the reason for it."""

    verdict: Verdict
    reason: VerdictReason


def decide(
    outage: Outage,
    limit_ms: float,
    operator: Operator = "<",
    *,
    monitor_lost: bool = False,
    baseline_min: int = BASELINE_SAMPLES_MIN,
) -> ReasonedVerdict:
    """Whether the longest outage kept the limit. `monitor_lost`: its supervisor gave a monitor up."""
    error = _error(outage, baseline_min, monitor_lost=monitor_lost)
    if error is not None:
        return ReasonedVerdict(Verdict.ERROR, error)
    if outage.lateness_near_ms > outage.period_ms:
        return ReasonedVerdict(Verdict.INCONCLUSIVE, VerdictReason.PROBER_LATE)
    return compared(outage.lower_ms, outage.upper_ms, limit_ms, operator)


def decide_process(
    outage: ProcessOutage, limit_ms: float, operator: Operator = "<", *, monitor_lost: bool = False
) -> ReasonedVerdict:
    if monitor_lost:
        return ReasonedVerdict(Verdict.ERROR, VerdictReason.MONITOR_LOST)
    match outage.state:
        case ProcessState.NO_MATCH:
            return ReasonedVerdict(Verdict.ERROR, VerdictReason.NO_PROCESS)
        case ProcessState.NOT_KILLED:
            return ReasonedVerdict(Verdict.ERROR, VerdictReason.NOBODY_DIED)
        case ProcessState.RECOVERED | ProcessState.CRASH_LOOP | ProcessState.NOT_RECOVERED:
            return compared(outage.lower_ms, outage.upper_ms, limit_ms, operator)


def compared(lower_ms: float, upper_ms: float | None, limit_ms: float, operator: Operator) -> ReasonedVerdict:
    """The bounds of a time against its limit. `upper_ms` None: it has not ended."""
    match operator:
        case "<":
            kept = upper_ms is not None and upper_ms < limit_ms
            broken = lower_ms >= limit_ms
        case "<=":
            kept = upper_ms is not None and upper_ms <= limit_ms
            broken = lower_ms > limit_ms
        case _:
            assert_never(operator)
    if kept:
        return ReasonedVerdict(Verdict.PASS, VerdictReason.BELOW_LIMIT)
    if broken:
        reason = VerdictReason.NEVER_RECOVERED if upper_ms is None else VerdictReason.NOT_BELOW_LIMIT
        return ReasonedVerdict(Verdict.FAIL, reason)
    reason = VerdictReason.WINDOW_TOO_SHORT if upper_ms is None else VerdictReason.LIMIT_WITHIN_BOUNDS
    return ReasonedVerdict(Verdict.INCONCLUSIVE, reason)


def _error(outage: Outage, baseline_min: int, *, monitor_lost: bool) -> VerdictReason | None:
    asked = sum(outage.answers.values())
    if monitor_lost:
        return VerdictReason.MONITOR_LOST
    if not outage.consistent:
        return VerdictReason.ESTIMATORS_DISAGREE
    if outage.baseline_samples < baseline_min:
        return VerdictReason.NO_BASELINE
    if outage.baseline_failed:
        return VerdictReason.BASELINE_FAILED
    if outage.answers.get(ProbeAnswer.CLIENT_ERROR, 0) > CLIENT_ERRORS_SHARE_MAX * asked:
        return VerdictReason.CLIENT_ERRORS
    return None


@dataclass(frozen=True, slots=True)
class ReferenceResult:
    """Its number and what it would have said."""

    outage_ms: float
    verdict: Verdict


def reference_result(
    calls: Iterable[Sample], from_ns: int, until_ns: int, limit_ms: float
) -> ReferenceResult:
    """Over the calls that began within the window. A limit that is just reached passes there."""
    failed = [each for each in calls if from_ns <= each.sent_ns <= until_ns and each.answer in FAILED]
    outage_ms = 0.0
    if failed:
        outage_ms = (max(each.done_ns for each in failed) - min(each.sent_ns for each in failed)) / _NS_PER_MS
    return ReferenceResult(outage_ms, Verdict.FAIL if outage_ms > limit_ms else Verdict.PASS)
