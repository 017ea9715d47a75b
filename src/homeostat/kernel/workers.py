"""A pool of processes for work that would hold up the event loop: planners, solvers.

Each worker is a fresh interpreter (never a fork of the server) that does one piece of work at a time and is
kept for the next one. Every end of a piece of work is a value: done, failed or crashed, late, cancelled.
Invariants: a worker whose work is late or no longer wanted is killed, whatever it does; the death of a worker
ends its own work only; no worker outlives the process that started it, not even kill -9; arguments, results
and what waits are bounded in bytes.

The function is named (`package.module:function`) and gets one plain record, which is pickled, as its result
is. Both happen on the event loop: 1 MiB of records takes it some milliseconds. Whoever has more to plan with
lets the function read it for itself. What a function prints goes to stderr.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import re
import signal
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import BinaryIO

from homeostat.kernel.errors import BadInput, RetryLater
from homeostat.kernel.processes import die_with_parent

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_HEAD = struct.Struct(">?Q")
"""Before each message: whether it went well, and its length in bytes."""
_REASON_MAX = 500


@dataclass(frozen=True, slots=True)
class WorkDone:
    """The function returned."""

    value: object


@dataclass(frozen=True, slots=True)
class WorkTimedOut:
    """It was not done within its deadline, the time that it waited for a worker included."""

    deadline_s: float


@dataclass(frozen=True, slots=True)
class WorkCrashed:
    """The function raised, cannot be found, returned too much or what cannot be read, or its process died."""

    reason: str


@dataclass(frozen=True, slots=True)
class WorkCancelled:
    """The pool was closed."""


WorkOutcome = WorkDone | WorkTimedOut | WorkCrashed | WorkCancelled


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """`processes` work at once; so many more wait as their arguments have `waiting_bytes_max` together."""

    processes: int = 2
    bytes_max: int = 1024 * 1024
    waiting_bytes_max: int = 8 * 1024 * 1024
    waiting_max: int = 256


class Workers:
    """One pool. Used from one event loop, within `async with`."""

    def __init__(self, settings: WorkerSettings | None = None) -> None:
        self._settings = settings or WorkerSettings()
        self._free = asyncio.Semaphore(self._settings.processes)
        self._idle: list[asyncio.subprocess.Process] = []
        self._reaping: set[asyncio.Task[int]] = set()
        self._working: set[asyncio.Task[WorkOutcome]] = set()
        self._waiting = self._waiting_bytes = 0
        self._closed = False

    async def __aenter__(self) -> Workers:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def waiting(self) -> int:
        return self._waiting

    async def run(self, function: str, argument: object, *, deadline_s: float) -> WorkOutcome:
        """Calls `package.module:function` with the argument in a worker.

        BadInput: a reference or an argument that cannot be sent. RetryLater: too much waits already.
        Cancelling the caller kills the work.
        """
        message = self._packed(function, argument)
        if self._closed:
            return WorkCancelled()
        work = asyncio.create_task(self._within(message, deadline_s), name=f"work {function}")
        self._working.add(work)
        work.add_done_callback(self._working.discard)
        try:
            return await work
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if self._closed and (current is None or not current.cancelling()):
                return WorkCancelled()
            work.cancel()
            raise

    async def close(self) -> None:
        """Kill every worker; whoever waits gets WorkCancelled."""
        self._closed = True
        working = list(self._working)
        for work in working:
            work.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        while self._idle:
            self._kill(self._idle.pop())
        await asyncio.gather(*self._reaping, return_exceptions=True)

    def _packed(self, function: str, argument: object) -> bytes:
        if not _REFERENCE.fullmatch(function):
            raise BadInput("function", function, "a name such as package.module:function")
        try:
            message = pickle.dumps((function, argument), pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise BadInput("argument", type(argument).__name__, f"a plain record ({error})") from error
        size, settings = len(message), self._settings
        if size > settings.bytes_max:
            raise BadInput("argument", f"{size} bytes", f"at most {settings.bytes_max}")
        if self._free.locked() and (
            self._waiting >= settings.waiting_max or self._waiting_bytes + size > settings.waiting_bytes_max
        ):
            raise RetryLater(f"{self._waiting} pieces of work wait for a worker; try again later")
        return message

    async def _within(self, message: bytes, deadline_s: float) -> WorkOutcome:
        try:
            async with asyncio.timeout(deadline_s), self._turn(len(message)), self._worker() as worker:
                return await self._exchange(worker, message)
        except TimeoutError:
            return WorkTimedOut(deadline_s)
        except (EOFError, OSError) as error:
            return WorkCrashed(str(error))

    @contextlib.asynccontextmanager
    async def _turn(self, size: int) -> AsyncIterator[None]:
        self._waiting += 1
        self._waiting_bytes += size
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
            self._waiting_bytes -= size
        try:
            yield
        finally:
            self._free.release()

    @contextlib.asynccontextmanager
    async def _worker(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """A worker for one piece of work. It is kept only when the work ended in good order."""
        worker = await self._hired()
        try:
            yield worker
        except BaseException:
            self._kill(worker)
            raise
        self._idle.append(worker)

    async def _hired(self) -> asyncio.subprocess.Process:
        while self._idle:
            worker = self._idle.pop()
            if worker.returncode is None:
                return worker
        # Without preexec_fn, which would make the start a fork of the whole server: the child asks for its
        # own death.
        starting = asyncio.create_task(
            asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "homeostat.kernel.workers"),
                *(str(os.getpid()), str(self._settings.bytes_max)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=self._settings.bytes_max + _HEAD.size,
            )
        )
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # Or a process would be left that nobody knows.
            starting.add_done_callback(self._drop_started)
            raise

    def _drop_started(self, starting: asyncio.Task[asyncio.subprocess.Process]) -> None:
        if not starting.cancelled() and starting.exception() is None:
            self._kill(starting.result())

    async def _exchange(self, worker: asyncio.subprocess.Process, message: bytes) -> WorkOutcome:
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.write(_HEAD.pack(True, len(message)) + message)
        try:
            await worker.stdin.drain()
            well, size = _HEAD.unpack(await worker.stdout.readexactly(_HEAD.size))
            if size > self._settings.bytes_max:
                raise EOFError(f"a worker answered with {size} bytes")
            body = await worker.stdout.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError(_death(await worker.wait())) from error
        return _result(body) if well else WorkCrashed(body.decode(errors="replace"))

    def _kill(self, worker: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            worker.kill()
        if worker.stdin is not None:
            worker.stdin.close()
        reaping = asyncio.create_task(worker.wait(), name="worker's end")
        self._reaping.add(reaping)
        reaping.add_done_callback(self._reaping.discard)


def _result(body: bytes) -> WorkOutcome:
    try:
        return WorkDone(pickle.loads(body))
    except Exception as error:  # a class of its own may raise anything here
        return WorkCrashed(f"its result cannot be read: {type(error).__name__}: {error}"[:_REASON_MAX])


def _death(code: int) -> str:
    if code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with status {code}"


def serve_work(parent: int, bytes_max: int) -> None:
    """The worker's side: does what comes in on stdin, one after the other, until that ends."""
    die_with_parent(parent=parent)()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what a function prints must not stand between the answers
    for message in _messages(requests):
        well, body = _worked(message, bytes_max)
        answers.write(_HEAD.pack(well, len(body)) + body)
        answers.flush()


def _messages(stream: BinaryIO) -> Iterator[bytes]:
    while len(head := stream.read(_HEAD.size)) == _HEAD.size:
        yield stream.read(_HEAD.unpack(head)[1])


def _worked(message: bytes, bytes_max: int) -> tuple[bool, bytes]:
    """Whether it went well, and the result or the reason."""
    try:
        function, argument = pickle.loads(message)
        module, _, name = function.partition(":")
        body = pickle.dumps(getattr(import_module(module), name)(argument), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        return False, f"{type(error).__name__}: {error}"[:_REASON_MAX].encode(errors="replace")
    if len(body) > bytes_max:
        return False, f"the result has {len(body)} bytes; at most {bytes_max} are carried".encode()
    return True, body


if __name__ == "__main__":
    serve_work(int(sys.argv[1]), int(sys.argv[2]))
