"""The base of all modules of a run: its order and dependencies, early end, and background tasks.

A person, the server or an abort condition ends a run. The one who asks says who and why. Asking again
changes nothing: the undo that is under way goes on, kept whole by `shielded`. One drill at a time runs from
one state directory, with or without a server; the file `halted` there stops them all.

The background tasks renew the claim, listen for reactions of our server and watch for collateral damage.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from homeostat.drills.model import Drill, Quiesce
from homeostat.drills.planning.blast_radius import CollateralEndpoint, down_too_long
from homeostat.drills.planning.preflight import Preflight
from homeostat.drills.planning.service_client import ServiceClient
from homeostat.drills.records.evidence import DrillProgress, RunRecorder
from homeostat.drills.records.facts import LeftOut
from homeostat.drills.running.announcement import Announcer
from homeostat.drills.shipped.keeper.machine import now_ns
from homeostat.drills.site import Site
from homeostat.drills.transports.connections import Transports
from homeostat.kernel.errors import HomeostatError, RetryLater

T = TypeVar("T")


class RunEnded(Exception):
    """The run goes no further; what is broken is undone first."""


class Stopped(RunEnded):
    """Somebody or an abort condition ended it."""

    def __init__(self, by: str, why: str) -> None:
        super().__init__(f"{by}: {why}")
        self.by, self.why = by, why


class NotBegun(RunEnded):
    """A precondition, guard or proof says no. `said`: whether the history has it already."""

    def __init__(self, where: str, what: str, *, said: bool = False) -> None:
        super().__init__(f"{where}: {what}")
        self.where, self.what, self.said = where, what, said


class MonitorGone(RunEnded):
    """A monitor is lost, so nothing more can be measured."""


class StopRequest:
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
        await self._event.wait()
        assert self.reason is not None
        return self.reason


@asynccontextmanager
async def signals_stop(stop: StopRequest) -> AsyncIterator[None]:
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


async def shielded(act: Awaitable[T]) -> T:
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


class BackgroundTasks:
    """Tasks beside the run, and the first reason to end it. `async with`: they end with it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._trouble: asyncio.Future[RunEnded | Exception] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> BackgroundTasks:
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


LOCK, HALTED = "lock", "halted"
TAKEN = "{path}: a drill runs here, pid {pid}; one drill at a time (`homeostat drill halt` ends it)"
"""Of the lock of a folder of runs, when another tool has it."""


def halt_reason(folder: Path) -> str | None:
    """Who halted drills here and why; None when they may run."""
    try:
        return (folder / HALTED).read_text().strip() or "somebody"
    except FileNotFoundError:
        return None


def halt(folder: Path, words: str) -> None:
    """No drill begins here, and the one that runs ends and undoes, until `resume`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / HALTED).write_text(words + "\n")


def resume(folder: Path) -> bool:
    """Let drills run again; whether they had been halted."""
    was = halt_reason(folder) is not None
    with suppress(FileNotFoundError):
        (folder / HALTED).unlink()
    return was


RENEW_S = 1.0
NOTICE_S = 0.25
COLLATERAL_S = 0.5


async def keep_claim(announcing: Announcer, runs: Path, beside: BackgroundTasks) -> None:
    """Say every second that we live; ends the run when drills are halted, here or there."""
    while True:
        words = halt_reason(runs)
        if words is not None:
            beside.end(Stopped("a person", words))
        try:
            told = await announcing.renew()
        except HomeostatError as error:
            told = str(error)
        if told is not None:
            beside.end(Stopped("our own server", told))
        await asyncio.sleep(RENEW_S)


class ReactionListener:
    """What our own fault manager noticed, and who brought what back, into the history."""

    def __init__(self, announcing: Announcer, book: RunRecorder) -> None:
        self._announcing, self._book = announcing, book

    async def listen(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            with suppress(RetryLater):  # the claim's own deadline ends the run
                await self.ask()
            await asyncio.sleep(NOTICE_S)

    async def ask(self) -> None:
        """Once. RetryLater."""
        for each in await shielded(self._announcing.noticed()):
            self._book.note(each)


async def watch_collateral(
    asker: ServiceClient,
    watched: Sequence[CollateralEndpoint],
    beside: BackgroundTasks,
    clock_ns: Callable[[], int] = now_ns,
) -> None:
    """Ask everything that the drill does not mean; ends the run when one of it is out for too long."""
    down_since: dict[str, int] = {}
    while True:
        answers = await asyncio.gather(*(asker.serves(each.url) for each in watched))
        for each, asked in zip(watched, answers, strict=True):
            if asked.ok:
                down_since.pop(each.name, None)
                continue
            at_ns = clock_ns()
            since_ns = down_since.setdefault(each.name, at_ns)
            if down_too_long(since_ns, at_ns, each.at_most_ms):
                out_s = (at_ns - since_ns) / 1e9
                why = f"{each.name}, which it does not mean, has been out for {out_s:.1f} s: {asked.seen}"
                beside.end(Stopped("an abort condition", why))
        await asyncio.sleep(COLLATERAL_S)


@dataclass(frozen=True, slots=True)
class RunDependencies:
    """What every run of a site shares. `runs`: the folder of their folders."""

    site: Site
    transports: Transports
    asker: ServiceClient
    runs: Path
    stop: StopRequest
    progress: DrillProgress

    @property
    def looking(self) -> Preflight:
        return Preflight(self.site, self.transports, self.asker)


@dataclass(frozen=True, slots=True)
class RunOrder:
    """One run as it was ordered. `victim` None: the rule found none, for the reason in `unfit`."""

    drill: Drill
    victim: str | None
    seed: int
    suite: str | None = None
    strict_steps: bool = False
    quiesce: Quiesce | None = None
    denser: int = 0
    unfit: str | None = None
    left_out: tuple[LeftOut, ...] = ()
    """Of the drill's file; `drill` is without it."""
