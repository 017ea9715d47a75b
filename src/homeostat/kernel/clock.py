"""The wall clock and the monotonic clock of this machine, and times as ISO 8601.

Wall time is for people and for ordering across machines; durations come from one monotonic clock on one
machine, and the two are never mixed. CLOCK_BOOTTIME goes on while the machine is suspended, so a deadline
on it is a real one.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What a decision may know of time."""

    def wall_ns(self) -> int:
        """Nanoseconds since the epoch, UTC; may step."""

    def mono_ns(self) -> int:
        """Nanoseconds on this machine's CLOCK_BOOTTIME; never steps back."""


class SystemClock:
    """The machine's own clocks."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def mono_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - in UTC; text is made of it in half of the time


def iso(at_ns: int) -> str:
    """Wall time as ISO 8601 in UTC with microseconds, `2026-01-02T03:04:05.000006Z`."""
    at = _NAIVE_EPOCH + timedelta(microseconds=at_ns // 1000)
    return at.isoformat(timespec="microseconds") + "Z"


def to_wall_ns(at: datetime) -> int:
    """Nanoseconds since the epoch of a moment with a time zone, exact to the microsecond."""
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000
