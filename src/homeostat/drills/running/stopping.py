"""How a run is ended early: by a person, the server or a condition; and acts that are not cut short.

Whoever asks says who and why. Asking again changes nothing: the undo that is under way goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class Ended(Exception):
    """The run goes no further; what is broken is undone first."""


class Stopped(Ended):
    """Somebody or an abort condition ended it."""

    def __init__(self, by: str, why: str) -> None:
        super().__init__(f"{by}: {why}")
        self.by, self.why = by, why


class NotBegun(Ended):
    """A precondition, guard or proof says no. `said`: whether the history has it already."""

    def __init__(self, where: str, what: str, *, said: bool = False) -> None:
        super().__init__(f"{where}: {what}")
        self.where, self.what, self.said = where, what, said


class MonitorGone(Ended):
    """A monitor is lost, so nothing more can be measured."""


class Stop:
    """Whether everything is to end, who said so first, and why."""

    def __init__(self, heard: Callable[[str], None] = lambda _: None) -> None:
        self._event, self._heard = asyncio.Event(), heard
        self.reason: Stopped | None = None

    def ask(self, by: str, why: str) -> None:
        """End what runs, undo, begin nothing more."""
        if self.reason is not None:
            self._heard(f"{by}: it is ending already; what is broken is undone first")
            return
        self.reason = Stopped(by, why)
        self._heard(f"{by}: {why}; undoing")
        self._event.set()

    async def wait(self) -> Stopped:
        """Until somebody asks."""
        await self._event.wait()
        assert self.reason is not None
        return self.reason


@asynccontextmanager
async def signals_stop(stop: Stop) -> AsyncIterator[None]:
    """SIGINT, SIGTERM and SIGHUP ask to stop, every time; in the main thread."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stop.ask, number.name, "a person ended the drill")
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def to_its_end(act: Awaitable[T]) -> T:
    """The act is not cut short; who cancels meanwhile is obeyed after it."""
    task = asyncio.ensure_future(act)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
        except Exception:
            break
    if cancelled:
        with contextlib.suppress(Exception):
            task.result()
        raise asyncio.CancelledError
    return task.result()


class Beside:
    """Tasks beside the run, and the first reason to end it. `async with`: they end with it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._trouble: asyncio.Future[Ended | Exception] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Beside:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._trouble.cancel()

    def start(self, act: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Let it run until the end of the run; what it raises ends the run."""
        task = asyncio.create_task(act, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def end(self, reason: Exception) -> None:
        """End the run; the first reason stays."""
        if not self._trouble.done():
            self._trouble.set_result(reason)

    async def watched(self, act: Coroutine[Any, Any, T]) -> T:
        """Its result, or the reason to end the run as soon as there is one."""
        task = asyncio.create_task(act)
        try:
            both: list[asyncio.Future[Any]] = [task, self._trouble]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if self._trouble.done():
                raise self._trouble.result()
            return task.result()
        finally:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.end(error if isinstance(error, Exception) else RuntimeError(repr(error)))
