"""Calls that block, each in a thread of its own, so that none can hold up the run or the end of the program.

A thread cannot be ended. Who gives a call up does not wait for it; `ended` waits for those that were given
up, because what they ask for may still be made.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from homeostat.kernel.errors import RetryLater

T = TypeVar("T")
GRACE_S = 1.0
"""A call ends by itself at its time; so much later it is given up."""


class Calls:
    """The calls of one run."""

    def __init__(self) -> None:
        self._threads: set[threading.Thread] = set()

    async def call(self, act: Callable[[float], T], within_s: float) -> T:
        """Its result; it is told its time. RetryLater when it is not over then; cancelled, it goes on."""
        if within_s <= 0:
            raise RetryLater("no time was left to ask")
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()
        self._threads = {each for each in self._threads if each.is_alive()}
        thread = threading.Thread(
            target=_run, args=(partial(act, within_s), outcome, loop), name="cloud call", daemon=True
        )
        self._threads.add(thread)
        thread.start()
        try:
            async with asyncio.timeout(within_s + GRACE_S):
                return await outcome
        except TimeoutError:
            raise RetryLater(f"no answer within {within_s:g} s") from None

    async def ended(self, within_s: float) -> bool:
        """Whether every call is over, those that were given up as well."""
        end_s = time.monotonic() + within_s
        for thread in tuple(self._threads):
            await asyncio.to_thread(thread.join, max(0.0, end_s - time.monotonic()))
        return not any(each.is_alive() for each in self._threads)


def _run(act: Callable[[], T], outcome: asyncio.Future[T], loop: asyncio.AbstractEventLoop) -> None:
    try:
        value = act()
    except Exception as error:
        _tell(loop, _raised, outcome, error)
    else:
        _tell(loop, _returned, outcome, value)


def _tell(loop: asyncio.AbstractEventLoop, tell: Callable[..., None], *words: object) -> None:
    with contextlib.suppress(RuntimeError):  # the program has ended its loop meanwhile
        loop.call_soon_threadsafe(tell, *words)


def _returned(outcome: asyncio.Future[T], value: T) -> None:
    if not outcome.done():
        outcome.set_result(value)


def _raised(outcome: asyncio.Future[T], error: Exception) -> None:
    if not outcome.done():
        outcome.set_exception(error)
