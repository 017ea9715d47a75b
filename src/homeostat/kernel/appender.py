"""The appender: the one writer of the journal and of every row that goes with it.

Coroutines hand in submissions; one thread owns one synchronous connection and takes all that wait, up to a
bound, into one transaction: one hop and one flush for many. It decides nothing about what is written.
Invariants: a receipt means that the submission is on the disk; submissions are committed in the order in
which they came; the queue is bounded and a full one makes callers wait, never drops; one that fails, fails
alone.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import assert_never

import structlog
from sqlalchemy import Engine

from homeostat.kernel.batch import BatchWriter, Prepared, prepare
from homeostat.kernel.clock import Clock
from homeostat.kernel.errors import CorruptState, Deposed, StoreFull, StoreUnavailable
from homeostat.kernel.files import BALLAST_BYTES, Ballast
from homeostat.kernel.journal import EventCatalogue, Receipt, Seq, Submission
from homeostat.kernel.loops import QueueRoom

_log = structlog.get_logger(__name__)

_LOOK_FOR_ROOM_S = 1.0
_REST_S = 0.05
"""So long without work, and SQLite's write-ahead log is put away, which nobody must wait for."""

Outcomes = Sequence[Receipt | Exception]
OnCommit = Callable[[float, float, int], None]
"""Seconds that the oldest submission waited, seconds that the transaction took, number of submissions."""


class Mode(Enum):
    """What the store can do now."""

    WRITABLE = "writable"
    FULL = "full"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class AppenderSettings:
    """`queue_bound` and `batch_bound` count submissions; what they weigh is bounded beside.

    A batch ends with the submission that brings it to `batch_rows` rows or `batch_bytes`. What waits has
    `queue_bytes` at most; a submission that is larger alone waits until nothing else does.
    `ballast` is a file on the database's disk, None when that disk is not ours (PostgreSQL). `stall_s` is how
    long a commit may take before the store counts as unavailable: too small and a slow disk stops the server.
    """

    ballast: Path | None = None
    ballast_bytes: int = BALLAST_BYTES
    queue_bound: int = 1024
    batch_bound: int = 256
    queue_bytes: int = 64 * 1024 * 1024
    batch_rows: int = 20_000
    batch_bytes: int = 16 * 1024 * 1024
    payload_limit_bytes: int = 4 * 1024 * 1024
    reconnect_first_s: float = 0.1
    reconnect_longest_s: float = 5.0
    stall_s: float = 10.0


@dataclass(frozen=True, slots=True)
class _Item:
    prepared: Prepared
    answer: asyncio.Future[Receipt]
    queued_ns: int
    size: int


@dataclass(frozen=True, slots=True)
class _RoomRequest:
    """Somebody who writes beside the appender found the disk full; `given` is whether he may try again."""

    given: asyncio.Future[bool]

    def answer(self, released: bool) -> None:
        if not self.given.done():
            self.given.set_result(released)


class Appender:
    """The one writer. Made, started, used and closed on one event loop."""

    def __init__(
        self,
        engine: Engine,
        catalogue: EventCatalogue,
        *,
        epoch: int | None,
        settings: AppenderSettings,
        clock: Clock,
    ) -> None:
        """`epoch` is that of our term, checked in every transaction; None for a tool that has no term."""
        self._catalogue, self._settings, self._clock = catalogue, settings, clock
        self._writer = BatchWriter(engine, epoch)
        self._ballast = Ballast(settings.ballast, settings.ballast_bytes) if settings.ballast else None
        self._queue: queue.SimpleQueue[_Item | _RoomRequest | None] = queue.SimpleQueue()
        self._room = QueueRoom(settings.queue_bound, settings.queue_bytes)
        self._advanced = asyncio.Event()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="appender", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = True
        self._head = Seq(0)
        # Written by the thread, read by the loop: one reference each, replaced whole.
        self._standing = (Mode.WRITABLE, "")
        self._busy_since_ns: int | None = None
        self._backoff_s = settings.reconnect_first_s
        self._retry_at_ns = 0
        self._on_commit: list[OnCommit] = []
        self._waiting = 0

    def start(self) -> None:
        """Connect, find the head, have the ballast, start the thread. StoreUnavailable, CorruptState.

        Blocks for as long as the connection takes (5 s at most). With too little room for the ballast it
        starts read-only.
        """
        self._loop = asyncio.get_running_loop()
        try:
            self._writer.open()
        except Exception:
            self._writer.close()
            raise
        self._head = Seq(self._writer.head)
        self._stand_connected()
        self._closed = False
        self._thread.start()

    async def close(self) -> None:
        """Commit what was handed in, then let the connection go."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await self._stopped.wait()
        self._thread.join()
        self._wake()

    @property
    def head(self) -> Seq:
        """The last committed sequence number, 0 for an empty journal."""
        return self._head

    @property
    def mode(self) -> Mode:
        return self._now()[0]

    @property
    def why(self) -> str:
        """One line for a person; empty while writable."""
        return self._now()[1]

    @property
    def waiting(self) -> int:
        """Submissions that were handed in and have no answer yet, those in the transaction included."""
        return self._waiting

    def on_commit(self, told: OnCommit) -> None:
        """Call `told` after every transaction, for those who measure; failed ones are measured too."""
        self._on_commit.append(told)

    async def append(self, submission: Submission) -> Receipt:
        """Commit; returns when it is on the disk.

        AlreadyDone for a re-run, Conflict or BadInput for a bad submission, Deposed, StoreFull (nothing was
        written), StoreUnavailable (nothing was, or the answer was lost: run it again), CorruptState. A
        cancelled caller does not know whether it was committed.
        """
        prepared = prepare(submission, self._catalogue, self._settings.payload_limit_bytes)
        size = prepared.size
        await self._room.acquire(size)
        loop = self._loop
        mode, why = self._now()
        if self._closed or loop is None or mode is Mode.UNAVAILABLE:
            self._room.release(size)
            raise StoreUnavailable(why or "the journal writer is not running")
        item = _Item(prepared, loop.create_future(), self._clock.mono_ns(), size)
        self._waiting += 1
        self._queue.put(item)
        return await item.answer

    async def make_room(self) -> bool:
        """Give the ballast back for who writes beside the appender; read-only from then on. False: none."""
        if self._closed or self._ballast is None:
            return False
        request = _RoomRequest(asyncio.get_running_loop().create_future())
        self._queue.put(request)
        return await request.given

    async def wait_beyond(self, seq: Seq) -> Seq:
        """The head, as soon as it is greater than `seq`. StoreUnavailable when the appender is closed."""
        while self._head <= seq:
            if self._closed:
                raise StoreUnavailable("the journal writer is not running")
            await self._advanced.wait()
        return self._head

    def _now(self) -> tuple[Mode, str]:
        since_ns = self._busy_since_ns
        if since_ns is not None:
            stalled_s = (self._clock.mono_ns() - since_ns) / 1e9
            if stalled_s > self._settings.stall_s:
                return Mode.UNAVAILABLE, f"the database has not answered for {stalled_s:.0f} s"
        return self._standing

    # ---- on the event loop, called from the thread ----

    def _resolve(
        self, batch: Sequence[_Item], outcomes: Outcomes, head: int, taken_ns: tuple[int, int]
    ) -> None:
        self._waiting -= len(batch)
        if head > self._head:
            self._head = Seq(head)
            self._wake()
        for item, outcome in zip(batch, outcomes, strict=True):
            self._room.release(item.size)
            if item.answer.done():
                continue  # the caller was cancelled
            if isinstance(outcome, Receipt):
                item.answer.set_result(outcome)
            else:
                item.answer.set_exception(outcome)
        begun_ns, ended_ns = taken_ns
        for told in self._on_commit:
            told((begun_ns - batch[0].queued_ns) / 1e9, (ended_ns - begun_ns) / 1e9, len(batch))

    def _wake(self) -> None:
        self._advanced.set()
        self._advanced = asyncio.Event()

    # ---- in the thread ----

    def _run(self) -> None:
        closing = False
        while not closing:
            batch, closing = self._take()
            if batch:
                self._busy_since_ns = begun_ns = self._clock.mono_ns()
                outcomes = self._settle([item.prepared for item in batch])
                self._busy_since_ns = None
                taken_ns = (begun_ns, self._clock.mono_ns())
                self._call(self._resolve, batch, outcomes, self._writer.head, taken_ns)
            elif self._standing[0] is Mode.WRITABLE and self._writer.untidy and not closing:
                with suppress(sqlite3.Error):  # the next commit meets whatever it is, and says so
                    self._writer.tidy()
            elif not closing:
                self._recover()
        self._writer.close()
        self._call(self._stopped.set)

    def _call(self, function: object, *values: object) -> None:
        assert self._loop is not None and callable(function)
        try:
            self._loop.call_soon_threadsafe(function, *values)
        except RuntimeError:
            _log.debug("the event loop is closed, nobody waits for this answer")

    def _take(self) -> tuple[list[_Item], bool]:
        """All that waits up to the bound, and whether to end. Nothing when it is time to reconnect."""
        batch: list[_Item] = []
        settings, rows, size = self._settings, 0, 0
        try:
            while (
                len(batch) < settings.batch_bound
                and rows < settings.batch_rows
                and size < settings.batch_bytes
            ):
                item = self._queue.get_nowait() if batch else self._queue.get(timeout=self._patience_s())
                if item is None:
                    return batch, True
                if isinstance(item, _RoomRequest):
                    self._give_room(item)
                    continue
                batch.append(item)
                rows += item.prepared.rows
                size += item.size
        except queue.Empty:
            pass
        return batch, False

    def _patience_s(self) -> float | None:
        match self._standing[0]:
            case Mode.WRITABLE:
                return _REST_S if self._writer.untidy else None
            case Mode.FULL:
                return _LOOK_FOR_ROOM_S
            case Mode.UNAVAILABLE:
                return max(0.0, (self._retry_at_ns - self._clock.mono_ns()) / 1e9)
            case _ as never:
                assert_never(never)

    def _settle(self, batch: Sequence[Prepared]) -> Outcomes:
        mode, why = self._standing
        try:
            match mode:
                case Mode.WRITABLE:
                    return self._write(batch)
                case Mode.FULL:
                    if self._ballast is not None and not self._ballast.create():
                        return [StoreFull(why) for _ in batch]
                    return self._write(batch)
                case Mode.UNAVAILABLE:
                    return [StoreUnavailable(why) for _ in batch]
                case _ as never:
                    assert_never(never)
        except Exception as error:  # whatever it is, this thread lives on and every caller gets an answer
            return self._refuse(batch, error)

    def _write(self, batch: Sequence[Prepared]) -> Outcomes:
        try:
            outcomes = self._writer.write(batch)
        except StoreFull as error:
            return self._write_without_ballast(batch, error)
        self._stand(Mode.WRITABLE, "")
        return outcomes

    def _write_without_ballast(self, batch: Sequence[Prepared], full: StoreFull) -> Outcomes:
        """This batch may have the ballast's room; whatever comes after waits until a person has made more."""
        outcomes: Outcomes = [StoreFull(str(full)) for _ in batch]
        if self._ballast is None:
            self._stand(Mode.FULL, str(full))
            return outcomes
        if self._ballast.release():
            with suppress(StoreFull):
                outcomes = self._writer.write(batch)
        self._stand(Mode.FULL, self._why_full(self._ballast))
        return outcomes

    def _give_room(self, request: _RoomRequest) -> None:
        released = False
        if self._ballast is not None and self._standing[0] is not Mode.UNAVAILABLE:
            with suppress(OSError):
                released = self._ballast.release()
            self._stand(Mode.FULL, self._why_full(self._ballast))
        self._call(request.answer, released)

    def _refuse(self, batch: Sequence[Prepared], error: Exception) -> Outcomes:
        """The transaction is gone. Deposed says so for ever; anything else is mended by a new connection."""
        if isinstance(error, Deposed):
            return [Deposed(str(error)) for _ in batch]
        self._lose(error)
        kind = CorruptState if isinstance(error, CorruptState) else StoreUnavailable
        return [kind(self._standing[1]) for _ in batch]

    def _lose(self, error: Exception) -> None:
        self._writer.close()
        self._stand(Mode.UNAVAILABLE, str(error) or type(error).__name__)
        self._retry_at_ns = self._clock.mono_ns() + int(self._backoff_s * 1e9)
        self._backoff_s = min(2 * self._backoff_s, self._settings.reconnect_longest_s)

    def _recover(self) -> None:
        if self._standing[0] is Mode.UNAVAILABLE:
            self._reconnect()
        elif self._ballast is not None:
            # Nobody may want to write for long, and the health must not wait for that.
            with suppress(OSError):
                if self._ballast.create():
                    self._stand(Mode.WRITABLE, "")

    def _reconnect(self) -> None:
        try:
            self._writer.open()
            self._stand_connected()
        except Exception as error:
            self._lose(error)
        else:
            self._backoff_s = self._settings.reconnect_first_s

    def _stand_connected(self) -> None:
        if self._ballast is not None and not self._ballast.create():
            self._stand(Mode.FULL, self._why_full(self._ballast))
        else:
            self._stand(Mode.WRITABLE, "")

    def _stand(self, mode: Mode, why: str) -> None:
        if self._standing[0] is not mode:
            level = _log.info if mode is Mode.WRITABLE else _log.error
            level("the store is " + mode.value, why=why)
        self._standing = (mode, why)

    def _why_full(self, ballast: Ballast) -> str:
        free_mib, needed_mib = (size / 2**20 for size in (ballast.free_bytes, 2 * ballast.size_bytes))
        return (
            f"{ballast.path.parent}: {free_mib:.0f} MiB free, the store is read-only until more than "
            f"{needed_mib:.0f} MiB are free; make room"
        )
