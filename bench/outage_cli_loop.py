"""The command-line loop of OPNFV Yardstick's availability monitor, as published; our own re-creation.

One call after the other without a pause, success or failure, and

    outage = end of the last failing call - begin of the first failing call

Nothing else: no deadline, no schedule. Clock and call are passed in, so that a test can show in virtual time that
it errs as the closed form says: M = k L with k = ceil((T - u) / L), 0 when the outage ends before the first request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the command: begun, ended, and whether its exit code was 0. Seconds of any one clock."""

    begun_s: float
    ended_s: float
    good: bool


def loop(call: Callable[[], bool], clock: Callable[[], float], until_s: float) -> list[Call]:
    """Call back to back until then."""
    calls: list[Call] = []
    while (begun_s := clock()) < until_s:
        good = call()
        calls.append(Call(begun_s, clock(), good))
    return calls


def outage_s(calls: Iterable[Call]) -> float:
    """What that monitor reports."""
    failed = [call for call in calls if not call.good]
    return max(call.ended_s for call in failed) - min(call.begun_s for call in failed) if failed else 0.0
