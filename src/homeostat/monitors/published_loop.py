"""What the command-line loop of the source document's reference tool says, from the same calls. Pure.

    outage = end of the last failing call - begin of the first failing call,  and it fails above the limit

A number for comparison, never a verdict of ours: it is wrong by up to a call in either direction, and an
outage between two calls is none. Calls that we killed at their deadline count as failing ones; that loop
waits for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from homeostat.monitors.samples import FAILED, Sample
from homeostat.monitors.verdicts import Verdict

_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Published:
    """Its number and what it would have said."""

    outage_ms: float
    verdict: Verdict


def published(calls: Iterable[Sample], from_ns: int, until_ns: int, limit_ms: float) -> Published:
    """Over the calls that began within the window. A limit that is just reached passes there."""
    failed = [each for each in calls if from_ns <= each.sent_ns <= until_ns and each.answer in FAILED]
    outage_ms = 0.0
    if failed:
        outage_ms = (max(each.done_ns for each in failed) - min(each.sent_ns for each in failed)) / _NS_PER_MS
    return Published(outage_ms, Verdict.FAIL if outage_ms > limit_ms else Verdict.PASS)
