"""Runs the named tasks of a process in one group and restarts what crashed; loop lag; garbage collection.

This is not a scheduler: it starts what it is given, once each, and starts again what crashed. Invariants:
every task has a name; an error that repeating cannot help (GiveUp) stops the whole group and reaches the
caller as it was raised; a stop cancels every task and waits for each.

Python's collector of cyclic garbage is kept from pausing the loop in the middle of a storm. A full
collection looks at every object that lives: 0.1 s with the rows of ten thousand guests in memory, and by
default a storm of faults allocates enough to start one. We make few cycles, mostly with exceptions.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog

from homeostat.kernel.errors import GiveUp

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0
HEALTHY_AFTER_S = 30.0
"""A task that ran this long starts again with the first back-off."""
REPORTED_WITHIN_S = 5.0
"""How long `on_crash` may take; the restart must not hang on the journal."""

OnCrash = Callable[[str, BaseException], Awaitable[None]]
_log = structlog.get_logger("loops")


@dataclass(frozen=True, slots=True)
class Task:
    """One part of a process. With `forever`, returning counts as a crash."""

    name: str
    run: Callable[[], Awaitable[None]]
    forever: bool = False


class TaskEnded(Exception):
    """A task that runs for ever returned, or was cancelled by something that is not its group."""


class Backoff:
    """Waits that double from `first_s` to `max_s`. Seconds."""

    def __init__(self, first_s: float = BACKOFF_FIRST_S, max_s: float = BACKOFF_MAX_S) -> None:
        self._first_s, self._max_s = first_s, max_s
        self._next_s = first_s

    def next_s(self) -> float:
        """How long to wait now; the following wait is twice as long."""
        wait_s = self._next_s
        self._next_s = min(wait_s * 2, self._max_s)
        return wait_s

    def reset(self) -> None:
        """Begin again at the first wait."""
        self._next_s = self._first_s


async def log_only(name: str, error: BaseException) -> None:
    """An `on_crash` for processes without a journal: the log line is already written."""


async def run_tasks(tasks: Sequence[Task], *, stopping: asyncio.Event, on_crash: OnCrash = log_only) -> None:
    """Run all tasks until `stopping` is set or all have finished.

    A crash is logged with the task's name, given to `on_crash`, and the task starts again after 0.1 .. 5 s.
    Raises the GiveUp (Deposed among them) that ended a task, after all others have been cancelled.
    """
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(stopping.wait(), name="stopping")
            running = [group.create_task(_keep(task, on_crash), name=task.name) for task in tasks]
            watch.add_done_callback(lambda _: _cancel(running))
            group.create_task(_release(running, watch), name="finished")
    except BaseExceptionGroup as errors:
        raise _reason(errors) from None


async def _release(running: list[asyncio.Task[None]], watch: asyncio.Task[Literal[True]]) -> None:
    """End the watch when nothing is left to be stopped."""
    if running:
        await asyncio.wait(running)
    watch.cancel()


def _cancel(running: list[asyncio.Task[None]]) -> None:
    for task in running:
        task.cancel()


async def _keep(task: Task, on_crash: OnCrash) -> None:
    backoff = Backoff()
    while True:
        started_s = asyncio.get_running_loop().time()
        error = await _run_once(task)
        if error is None:
            return
        if asyncio.get_running_loop().time() - started_s >= HEALTHY_AFTER_S:
            backoff.reset()
        wait_s = backoff.next_s()
        _log.error("internal loop crashed, started again", loop=task.name, wait_s=wait_s, exc_info=error)
        await _report(on_crash, task.name, error)
        await asyncio.sleep(wait_s)


async def _run_once(task: Task) -> BaseException | None:
    """What the task died of, None when it is finished. GiveUp and our own cancellation pass through."""
    try:
        await task.run()
    except GiveUp:
        raise
    except asyncio.CancelledError as error:
        # A cancelled future somewhere below looks like our own stop; only the task itself knows better.
        current = asyncio.current_task()
        if current is None or current.cancelling():
            raise
        return TaskEnded(f"{task.name}: cancelled from inside").with_traceback(error.__traceback__)
    except BaseExceptionGroup as errors:
        reason = _reason(errors)
        if isinstance(reason, GiveUp):
            raise reason from errors
        return _unless_stopping(errors)
    except Exception as error:
        return _unless_stopping(error)
    return TaskEnded(f"{task.name}: returned, but runs for ever") if task.forever else None


def _unless_stopping(error: BaseException) -> BaseException:
    """A task group in which something failed while it was being cancelled tells of the failure only."""
    current = asyncio.current_task()
    if current is not None and current.cancelling():
        raise asyncio.CancelledError from error
    return error


async def _report(on_crash: OnCrash, name: str, error: BaseException) -> None:
    try:
        async with asyncio.timeout(REPORTED_WITHIN_S):
            await on_crash(name, error)
    except GiveUp:
        raise
    except Exception as failure:
        _log.error("a crash could not be recorded", loop=name, reason=repr(failure))


def _reason(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error that says why the group ended: a GiveUp before anything else."""
    flat: list[BaseException] = []
    waiting: list[BaseException] = [errors]
    while waiting:
        error = waiting.pop(0)
        if isinstance(error, BaseExceptionGroup):
            waiting.extend(error.exceptions)
        else:
            flat.append(error)
    return next((error for error in flat if isinstance(error, GiveUp)), flat[0])


class QueueRoom:
    """Lets submissions in, in the order in which they come, within two bounds."""

    def __init__(self, count_max: int, bytes_max: int) -> None:
        self._count_max, self._bytes_max = count_max, bytes_max
        self._count = self._bytes = 0
        self._turn, self._freed = asyncio.Lock(), asyncio.Event()

    async def acquire(self, size: int) -> None:
        async with self._turn:
            while self._count >= self._count_max or (self._count and self._bytes + size > self._bytes_max):
                self._freed.clear()
                await self._freed.wait()
            self._count += 1
            self._bytes += size

    def release(self, size: int) -> None:
        self._count -= 1
        self._bytes -= size
        self._freed.set()


class LoopLag:
    """How late this process's event loop runs: the worst of the last `window_s`, in seconds.

    Its owner uses it to doubt itself: what looks silent to a process that did not run may not be.
    """

    def __init__(self, period_s: float = 0.1, window_s: float = 10.0) -> None:
        self._period_s, self._window_s = period_s, window_s
        self._seen: deque[tuple[float, float]] = deque()
        self._due_s: float | None = None

    async def run(self) -> None:
        """Measure for ever."""
        try:
            while True:
                self._due_s = time.monotonic() + self._period_s
                await asyncio.sleep(self._period_s)
                now_s = time.monotonic()
                self._seen.append((now_s, max(0.0, now_s - self._due_s)))
                self._forget(now_s)
        finally:
            self._due_s = None

    @property
    def worst_s(self) -> float:
        """The longest lag in the window, a lag that is still going on included."""
        now_s = time.monotonic()
        self._forget(now_s)
        going_on_s = 0.0 if self._due_s is None else now_s - self._due_s
        return max(going_on_s, 0.0, *(lag_s for _, lag_s in self._seen))

    def _forget(self, now_s: float) -> None:
        while self._seen and self._seen[0][0] < now_s - self._window_s:
            self._seen.popleft()


_YOUNG, _MIDDLE, _OLD = 100_000, 20, 50
"""New objects before the young ones are looked at; that often before older ones are. A thousand faults make
about 40 000 and nobody waits for a look at them: it takes 10 ms, and is had in `rest`."""
_WORTH = 10_000


def tune_garbage_collector() -> None:
    """What lives now is not looked at again; the rest is, but rarely. To be called once, after loading."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)


def collect_garbage_if_due() -> None:
    """Look at what is new, when that is much: when nobody waits. 3 ms, after a storm 15 ms."""
    young, middle, old = gc.get_count()
    if young >= _WORTH and gc.get_threshold()[0] == _YOUNG:
        # The collector itself looks at older ones only when there are too many young ones, which is now rare.
        gc.collect(2 if old > _OLD else 1 if middle > _MIDDLE else 0)
