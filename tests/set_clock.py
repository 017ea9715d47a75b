"""Times and a clock that a test sets. Wall clock and monotonic clocks never show the same number.

With one number on all clocks a test cannot see that the code took the wrong one. Here the wall clock is fifty
years ahead, and the machines of the server and of the node were booted at different times.
"""

from __future__ import annotations

from dataclasses import dataclass

SECOND = 1_000_000_000
_WALL_S, _SERVER_S, _NODE_S = 1_700_000_000, 5_000_000, 70_000


def wall(at_s: float) -> int:
    """Second `at_s` of the story, on the wall clock of everybody."""
    return round((_WALL_S + at_s) * SECOND)


def server_mono(at_s: float) -> int:
    """The same moment on the monotonic clock of the server."""
    return round((_SERVER_S + at_s) * SECOND)


def node_mono(at_s: float) -> int:
    """The same moment on the monotonic clock of the node."""
    return round((_NODE_S + at_s) * SECOND)


@dataclass
class SetClock:
    """The clocks of a server, at second `now_s` of the story."""

    now_s: float = 0.0

    def wall_ns(self) -> int:
        return wall(self.now_s)

    def mono_ns(self) -> int:
        return server_mono(self.now_s)

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds
