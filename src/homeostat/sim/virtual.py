"""Virtual time: an event loop that jumps to the next moment at which something happens, and clocks on it.

No thread and no socket: what would run in a thread runs at once, and its answer comes after a seeded delay.
The same seed gives the same run, to the last event.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH_NS = 1_800_000_000_000_000_000
"""The wall clock at the beginning of every run."""
_ANSWER_MOST_S = 0.004


class Stalled(Exception):
    """Nothing will ever happen again, and somebody still waits."""


class _Jump(selectors.SelectSelector):
    """Sleeps by moving the time."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Nothing is ever ready; the time passes."""
        if timeout is None:
            raise Stalled("every task waits for something that nobody will do")
        self.now_s += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop of one run."""

    def __init__(self, chance: Random) -> None:
        self._jump = _Jump()
        self._chance = chance
        super().__init__(self._jump)

    def time(self) -> float:
        """Seconds since the run began."""
        return self._jump.now_s

    def run_in_executor(  # type: ignore[override]
        self, _executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Do it now, let the caller know a little later."""
        answer: asyncio.Future[T] = self.create_future()
        try:
            value = func(*args)
        except Exception as error:
            failure = error
            self._later(answer, lambda: answer.set_exception(failure))
        else:
            self._later(answer, lambda: answer.set_result(value))
        return answer

    def _later(self, answer: asyncio.Future[Any], settle: Callable[[], None]) -> None:
        def arrive() -> None:
            if not answer.done():
                settle()

        self.call_later(self._chance.uniform(0, _ANSWER_MOST_S), arrive)


@dataclass(frozen=True, slots=True)
class SimClock:
    """The clocks of one machine: wall clocks disagree by `skew_ns`, monotonic ones by `booted_ns`."""

    loop: asyncio.AbstractEventLoop
    skew_ns: int = 0
    booted_ns: int = 0

    def wall_ns(self) -> int:
        return EPOCH_NS + round(self.loop.time() * 1e9) + self.skew_ns

    def mono_ns(self) -> int:
        return round(self.loop.time() * 1e9) + self.booted_ns
