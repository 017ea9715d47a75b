"""Two clocks, and never a mixture of them.

Wall time is for people and for ordering across machines; durations come from one monotonic clock on one
machine. CLOCK_BOOTTIME goes on while the machine is suspended, so a deadline on it is a real one.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What a decision may know of time."""

    def wall_ns(self) -> int:
        """Nanoseconds since the epoch, UTC; may step."""
        ...

    def mono_ns(self) -> int:
        """Nanoseconds on this machine's CLOCK_BOOTTIME; never steps back."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def mono_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
