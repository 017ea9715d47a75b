"""From the bounds of an outage to a verdict, with its reason by name. Pure.

PASS is said only when it is proven: the whole interval lies on the good side of the limit. When the interval
holds the limit, nobody knows, and that is what is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, assert_never

from homeostat.monitors.outage import Outage
from homeostat.monitors.process_outage import ProcessOutage, ProcessState
from homeostat.monitors.samples import Answer

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


class Reason(StrEnum):
    """Why a measurement ended with this verdict; the value is the sentence for people."""

    BELOW_LIMIT = "even the upper bound keeps the limit"
    NOT_BELOW_LIMIT = "even the lower bound breaks the limit"
    NEVER_RECOVERED = "it was still out when the window ended, and longer than the limit"
    LIMIT_WITHIN_BOUNDS = "the limit lies within the bounds: sample more densely"
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
class Decision:
    """A verdict and the reason for it."""

    verdict: Verdict
    reason: Reason


def decide(
    outage: Outage,
    limit_ms: float,
    operator: Operator = "<",
    *,
    monitor_lost: bool = False,
    baseline_min: int = BASELINE_SAMPLES_MIN,
) -> Decision:
    """Whether the longest outage kept the limit. `monitor_lost`: its supervisor gave a monitor up."""
    error = _error(outage, baseline_min, monitor_lost=monitor_lost)
    if error is not None:
        return Decision(Verdict.ERROR, error)
    if outage.lateness_near_ms > outage.period_ms:
        return Decision(Verdict.INCONCLUSIVE, Reason.PROBER_LATE)
    return compared(outage.lower_ms, outage.upper_ms, limit_ms, operator)


def decide_process(
    outage: ProcessOutage, limit_ms: float, operator: Operator = "<", *, monitor_lost: bool = False
) -> Decision:
    """Whether the processes were whole again within the limit."""
    if monitor_lost:
        return Decision(Verdict.ERROR, Reason.MONITOR_LOST)
    match outage.state:
        case ProcessState.NO_MATCH:
            return Decision(Verdict.ERROR, Reason.NO_PROCESS)
        case ProcessState.NOT_KILLED:
            return Decision(Verdict.ERROR, Reason.NOBODY_DIED)
        case ProcessState.RECOVERED | ProcessState.CRASH_LOOP | ProcessState.NOT_RECOVERED:
            return compared(outage.lower_ms, outage.upper_ms, limit_ms, operator)


def compared(lower_ms: float, upper_ms: float | None, limit_ms: float, operator: Operator) -> Decision:
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
        return Decision(Verdict.PASS, Reason.BELOW_LIMIT)
    if broken:
        reason = Reason.NEVER_RECOVERED if upper_ms is None else Reason.NOT_BELOW_LIMIT
        return Decision(Verdict.FAIL, reason)
    reason = Reason.WINDOW_TOO_SHORT if upper_ms is None else Reason.LIMIT_WITHIN_BOUNDS
    return Decision(Verdict.INCONCLUSIVE, reason)


def _error(outage: Outage, baseline_min: int, *, monitor_lost: bool) -> Reason | None:
    asked = sum(outage.answers.values())
    if monitor_lost:
        return Reason.MONITOR_LOST
    if not outage.consistent:
        return Reason.ESTIMATORS_DISAGREE
    if outage.baseline_samples < baseline_min:
        return Reason.NO_BASELINE
    if outage.baseline_failed:
        return Reason.BASELINE_FAILED
    if outage.answers.get(Answer.CLIENT_ERROR, 0) > CLIENT_ERRORS_SHARE_MAX * asked:
        return Reason.CLIENT_ERRORS
    return None
