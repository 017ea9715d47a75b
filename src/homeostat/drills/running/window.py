"""When to operate, and when enough was measured. Pure: what was seen so far in, a moment or nothing out.

All moments are nanoseconds of the monitors' clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeostat.drills.fault import hold_ms
from homeostat.drills.model import Drill
from homeostat.monitors.outage import Outage

_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Felt:
    """What one monitor has seen of the fault."""

    failed: bool
    """At least once since the fault."""
    out: bool
    """It is out now."""
    back_ns: int | None
    """When it was back for the last time; None when it never was out."""


NOTHING = Felt(False, False, None)


def felt_of(outage: Outage) -> Felt:
    """Of a sampler."""
    ends = [each.until_ns for each in outage.episodes]
    back = [end for end in ends if end is not None]
    return Felt(bool(ends), None in ends, max(back, default=None))


def may_operate(
    drill: Drill, injected_ns: int, undone_ns: int | None, felt: Sequence[Felt], known_until_ns: int
) -> bool:
    """Whether the specified operations say something by now (the two-phase rule).

    Where a failure was seen, once it is over. Where none was up to `known_until_ns`, once the proven fault
    had its time to be felt: a call that succeeds before that shows nothing.
    """
    if undone_ns is None or any(each.out for each in felt):
        return False
    if any(each.failed for each in felt):
        return True
    return known_until_ns >= injected_ns + drill.window.effect_within_ms * _NS_PER_MS


def hold_until_ns(drill: Drill, injected_after_ns: int) -> int:
    """When a fault that lasts has lasted as long as the drill asks."""
    return injected_after_ns + round(hold_ms(drill.fault) * _NS_PER_MS)


def over_at_ns(
    drill: Drill, injected_after_ns: int, undone_ns: int | None, felt: Sequence[Felt]
) -> int | None:
    """When everything has been well for `settle`; None while something is out or not undone."""
    if undone_ns is None or any(each.out for each in felt):
        return None
    latest = max(
        injected_after_ns + round(drill.window.effect_within_ms * _NS_PER_MS),
        hold_until_ns(drill, injected_after_ns),
        undone_ns,
        *(each.back_ns for each in felt if each.back_ns is not None),
    )
    return latest + round(drill.window.settle_ms * _NS_PER_MS)


def longest_ns(drill: Drill, injected_after_ns: int) -> int:
    """When it is over in any case."""
    return injected_after_ns + round(drill.window.longest_ms * _NS_PER_MS)
