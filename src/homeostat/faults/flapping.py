"""What goes wrong and right again and again is one fault, not many. Pure.

After `max` faults of one subject within `window_s` the next one is raised as *flapping*: it is told once, and
stays open until its subject has been right for the whole window. Only for what stands for itself: a host that
flaps would hide what runs there, and a doubt about all hosts is no subject. Times are the source's wall
clock, as the faults carry it; they are compared with each other, in windows of minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeostat.contracts.nouns import FaultKind

KINDS = frozenset({FaultKind.RESOURCE_DOWN, FaultKind.AGENT_LOST})
KEPT = 100
"""Faults of a subject that are remembered; `faults.flap_max` is never more."""


@dataclass(frozen=True, slots=True)
class FlapLimits:
    """`max` 0: nothing ever flaps."""

    max: int = 0
    window_s: float = 60.0


NEVER = FlapLimits()


def remembered(raised_ns: Sequence[int], now_ns: int) -> tuple[int, ...]:
    """The times at which faults of one subject were raised, with one more."""
    return (*raised_ns, now_ns)[-KEPT - 1 :]


def count_within(raised_ns: Sequence[int], now_ns: int, limits: FlapLimits) -> int:
    """How many of them are not older than the window."""
    if not raised_ns:
        return 0
    since_ns = now_ns - round(limits.window_s * 1e9)
    return sum(each > since_ns for each in raised_ns)


def is_flapping(kind: FaultKind, earlier: int, limits: FlapLimits) -> bool:
    """Whether a fault that was raised after `earlier` others within the window is one that flaps."""
    return limits.max > 0 and kind in KINDS and earlier >= limits.max


def reason_of(reason: str, earlier: int, limits: FlapLimits) -> str:
    """What is told of a fault that flaps."""
    return f"{reason}; flapping: {earlier + 1} times in {limits.window_s:g} s, open until right for as long"
