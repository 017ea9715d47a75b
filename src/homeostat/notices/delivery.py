"""The delivery loop: takes due notices from the queue, sends them under a deadline, appends outcomes.

This is the order and the number of workers: what is offered is admitted to `send_queue`, and a bounded
number of workers take from it. One attempt, what follows from it and how notices end is `attempts`.

Delivery is at least once, with the same key and the same body each time. Invariants: a notice is sent only
after the commit that queued it; `cleared` is sent only after the outcome of `raised` is committed; what
ended in the journal is not sent again; nothing here waits for one consumer while another could be notified.

What is in memory can be lost at any moment: `run` begins with the pending rows of the outbox, the backlog,
and reads them again for each destination of which more wait than memory may hold. While a destination is
*behind* its notices come from there only, so that their order is kept; one whose end was committed is not
brought back by a read that began before. Attempts and next times are written now and then: this spares a new
server attempts that were made already, and is no guarantee.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, TypeVar

import structlog

from homeostat.contracts.nouns import FaultId, Owner
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import DatabaseReader
from homeostat.kernel.errors import HomeostatError, RetryLater
from homeostat.kernel.journal import JournalAppender, Submission
from homeostat.kernel.loops import Backoff
from homeostat.notices import outbox, requests, store
from homeostat.notices.attempts import (
    AttemptRunner,
    DeliveryDependencies,
    DeliveryOutcomes,
    OutcomeListener,
    OutcomeWriter,
)
from homeostat.notices.delivery_window import NO_DELIVERY, DeliveryWindow, ProjectDelivery
from homeostat.notices.model import FaultLookup, FaultPicture, Notice, NoticeState, parts_of
from homeostat.notices.requests import GivenUp, GiveUpReason, NoticeGroups
from homeostat.notices.send_queue import DueNotice, SendLimits, SendQueue
from homeostat.notices.settings import NoticesSettings
from homeostat.notices.targets import place_of

AdmitNotice = Callable[[Notice, FaultPicture | None], bool]
"""Takes a notice into memory, one that is there already too; False when there is no room."""

T = TypeVar("T")

_ROWS_AT_ONCE = 500
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 2.0
_log = structlog.get_logger("notices")


class Backlog:
    """Which destinations are behind, and the loop that catches up. Used on one event loop."""

    def __init__(
        self,
        readers: DatabaseReader,
        recall: FaultLookup,
        admit: AdmitNotice,
        has_room: Callable[[str], bool],
    ) -> None:
        """`has_room` says whether it is worth reading for one again."""
        self._readers, self._recall, self._admit, self._has_room = readers, recall, admit, has_room
        self._behind: set[str] = set()
        self._missed: set[str] = set()
        self._reading: str | None = None
        self._ended: set[str] = set()
        self._look = asyncio.Event()

    def is_behind(self, destination: str) -> bool:
        return destination in self._behind

    def fell_behind(self, destination: str) -> None:
        """The outbox holds notices for this destination that memory does not."""
        self._behind.add(destination)
        self._missed.add(destination)
        self._look.set()

    def ended(self, notice: Notice) -> None:
        if notice.destination == self._reading:
            self._ended.add(notice.key)
        if notice.destination in self._behind:
            self._look.set()

    async def run(self) -> None:
        """Find who is behind, then catch up for ever."""
        for name in await _read_until_answered(partial(self._readers.read, store.with_pending)):
            self.fell_behind(name)
        while True:
            await self._look.wait()
            self._look.clear()
            for name in sorted(self._behind):
                if self._has_room(name):
                    await self._catch_up(name)

    async def _catch_up(self, name: str) -> None:
        after = 0
        while True:
            self._missed.discard(name)
            self._reading = name
            self._ended.clear()
            query = partial(store.pending_of, name=name, after=after, limit=_ROWS_AT_ONCE)
            rows = await _read_until_answered(partial(self._readers.read, query))
            wanted = sorted({row.fault for row in rows})
            pictures = await _read_until_answered(partial(self._recall, wanted)) if wanted else {}
            self._reading = None
            for row in rows:
                if row.key not in self._ended and not self._admit(row, pictures.get(row.fault)):
                    return
                after = store.seq_of(row)
            if len(rows) < _ROWS_AT_ONCE and name not in self._missed:
                self._behind.discard(name)
                return


async def _read_until_answered(act: Callable[[], Awaitable[T]]) -> T:
    """Again and again while the store says RetryLater."""
    backoff = Backoff(_FIRST_WAIT_S, _LONGEST_WAIT_S)
    while True:
        try:
            return await act()
        except RetryLater as error:
            _log.warning("the outbox cannot be read", reason=str(error))
            await asyncio.sleep(backoff.next_s())


class AttemptProgress:
    """What was written last of each notice in a send queue."""

    def __init__(self, send_queue: SendQueue, appender: JournalAppender, clock: Clock) -> None:
        self._send_queue, self._appender, self._clock = send_queue, appender, clock
        self._noted: dict[str, int] = {}

    async def run(self, every_s: float) -> None:
        """Write for ever; what cannot be written now is written the next time."""
        while True:
            await asyncio.sleep(every_s)
            with contextlib.suppress(RetryLater):
                await self.append()

    async def append(self) -> None:
        """Write attempts and next times of what was tried since the last time, at most one submission."""
        ahead_ns = self._clock.wall_ns() - self._clock.mono_ns()
        tried = [
            (due, at_ns)
            for due, at_ns in self._send_queue.progress()
            if self._noted.get(due.key) != due.attempts
        ]
        if tried:
            rows = [(due.key, due.attempts, at_ns + ahead_ns) for due, at_ns in tried]
            await self._appender.append(Submission(loop=outbox.LOOP, changes=(store.note_progress(rows),)))
            self._noted.update((due.key, due.attempts) for due, _ in tried)

    def ended(self, key: str) -> None:
        self._noted.pop(key, None)


_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class DeliveryFigures:
    """How delivery stands now. `suspects` are destinations whose last attempt failed."""

    waiting: int
    in_flight: int
    uncommitted: int
    suspects: tuple[str, ...]


class Delivery:
    """One for a server. `run` is its only task; all calls are made on that event loop."""

    BOARD: ClassVar[type[SendQueue]] = SendQueue

    def __init__(self, parts: DeliveryDependencies, settings: NoticesSettings) -> None:
        self._parts, self._settings = parts, settings
        self._results = DeliveryOutcomes(parts.clock, settings.told_window_s)
        self._on_queued: list[Callable[[], None]] = []
        self._wake = asyncio.Event()
        self._begin()

    def offer(self, notices: Sequence[Notice], pictures: Mapping[FaultId, FaultPicture]) -> None:
        """Notices whose commit is known, from `outbox.settled`, with what they say. Returns at once."""
        offered_ns = self._parts.clock.mono_ns()
        for notice in notices:
            name = notice.destination
            if notice.state is not NoticeState.PENDING:
                continue
            picture = pictures.get(notice.fault)
            if self._backlog.is_behind(name) or not self._admit(notice, picture, offered_ns):
                self._backlog.fell_behind(name)
        self._tell_queued()

    def catch_up(self, destinations: Iterable[str]) -> None:
        """The outbox may hold notices for these that were never offered."""
        for name in destinations:
            self._backlog.fell_behind(name)
        self._tell_queued()

    def release(self, subscription: str) -> None:
        """This subscription was changed or removed: look at its notices now, not at the next back-off."""
        self._send_queue.release(subscription)
        self._parcels.release(subscription)
        self._wake.set()

    def figures(self) -> DeliveryFigures:
        """How delivery stands now."""
        return DeliveryFigures(
            waiting=len(self._send_queue) - len(self._sends) - len(self._outcomes),
            in_flight=len(self._sends),
            uncommitted=len(self._outcomes),
            suspects=self._send_queue.suspects(),
        )

    @property
    def window(self) -> DeliveryWindow:
        """What was delivered lately."""
        return self._results.window

    @property
    def started_ns(self) -> int:
        """When this delivery was made (wall)."""
        return self._results.started_ns

    def by_project(self) -> Mapping[Owner, ProjectDelivery]:
        """What was delivered lately, who does not answer now, and what is due now, by project."""
        clock, queue = self._parts.clock, self._send_queue
        found = dict(self.window.by_project(clock.wall_ns()))
        now = [(name, ProjectDelivery(silent=frozenset({parts_of(name)[0]}))) for name in queue.suspects()]
        now += [
            (name, ProjectDelivery(overdue_ms=late_ns / 1e6))
            for name, late_ns in queue.overdue(clock.mono_ns()).items()
        ]
        for name, more in now:
            subscription = self._parts.subscriptions.find(parts_of(name)[0])
            if subscription is not None:  # what waits for one that was removed is given up
                owner = subscription.owner
                found[owner] = found.get(owner, NO_DELIVERY).merge(more)
        return found

    def on_end(self, listener: OutcomeListener) -> None:
        self._results.on_end(listener)

    def on_queued(self, listener: Callable[[], None]) -> None:
        self._on_queued.append(listener)

    def _tell_queued(self) -> None:
        for listener in self._on_queued:
            listener()

    async def run(self) -> None:
        """Deliver until cancelled; then send nothing new and commit what ended, for a bounded time."""
        self._begin()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._backlog.run(), name="notices-refill")
                group.create_task(self._outcomes.run(), name="notices-outcomes")
                group.create_task(
                    self._progress.run(self._settings.progress_every_s), name="notices-progress"
                )
                group.create_task(self._dispatch(), name="notices-dispatch")
        finally:
            await self._wind_up()

    def _begin(self) -> None:
        """Forget all; what is pending is read from the outbox."""
        settings, parts = self._settings, self._parts
        self._send_queue = self.BOARD(
            SendLimits(
                per_subscription=settings.sends_per_subscription,
                per_place=settings.sends_per_host,
                suspects=max(1, settings.workers // 2),
                circuit_after=settings.circuit_after,
                waiting=settings.waiting_per_subscription,
            )
        )
        self._parcels = NoticeGroups(settings.body_bytes_max)
        self._progress = AttemptProgress(self._send_queue, parts.appender, parts.clock)
        self._backlog = Backlog(parts.readers, parts.recall, self._admit, self._has_room_for)
        self._outcomes = OutcomeWriter(parts.appender, self._close)
        self._sending = AttemptRunner(
            parts, settings, self._send_queue, self._parcels, self._outcomes, self._results, self._wake.set
        )
        self._sends: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None
        self._stopping = False

    def _has_room_for(self, destination: str) -> bool:
        return 2 * self._send_queue.waiting(destination) <= self._settings.waiting_per_subscription

    def _admit(self, notice: Notice, picture: FaultPicture | None, offered_ns: int | None = None) -> bool:
        now_ns = self._parts.clock.mono_ns()
        # Wall clocks only for the part of its age that was before this process; never negative.
        age_ns = max(0, self._parts.clock.wall_ns() - notice.queued_ns)
        due = DueNotice(
            notice=notice,
            picture=picture,
            admitted_ns=now_ns,
            give_up_ns=now_ns + round(self._settings.give_up_after_s * _NS) - age_ns,
            attempts=notice.attempts,
            offered_ns=offered_ns,
        )
        subscription = self._parts.subscriptions.find(notice.subscription)
        endpoint = None if subscription is None else subscription.endpoint(notice.endpoint)
        self._wake.set()
        if subscription is None or endpoint is None:
            return self._send_queue.add(due, "")
        wished_ns = requests.wait_ns(subscription, endpoint)
        due = replace(due, wished_ns=wished_ns)
        return self._send_queue.add(due, place_of(endpoint.url), now_ns + wished_ns)

    async def _dispatch(self) -> None:
        while self._broken is None:
            self._wake.clear()
            now_ns = self._parts.clock.mono_ns()
            self._give_up_old(now_ns)
            while self._is_free() and (due := self._send_queue.take(now_ns)) is not None:
                task = asyncio.create_task(self._send_on(due), name="notices-send")
                self._sends.add(task)
                task.add_done_callback(self._landed)
            next_ns = self._send_queue.next_ns() if self._is_free() else None
            wait_s = None if next_ns is None else max(0.0, (next_ns - self._parts.clock.mono_ns()) / _NS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
        raise self._broken

    def _is_free(self) -> bool:
        return len(self._sends) < self._settings.workers and self._has_room()

    def _has_room(self) -> bool:
        return len(self._outcomes) < self._settings.outcomes_waiting and not self._stopping

    def _give_up_old(self, now_ns: int) -> None:
        for due in self._send_queue.expired(now_ns):
            self._sending.give_up(due, GivenUp(GiveUpReason.TOO_OLD), due.attempts)

    async def _send_on(self, first: DueNotice) -> None:
        """Send this one and whatever may go after it: a task for each would cost as much again."""
        due: DueNotice | None = first
        while due is not None:
            await self._sending.attempt(due)
            now_ns = self._parts.clock.mono_ns()
            self._give_up_old(now_ns)
            due = self._send_queue.take(now_ns) if self._has_room() else None
            next_ns = self._send_queue.next_ns()
            if next_ns is not None and next_ns <= now_ns and self._is_free():
                self._wake.set()  # more may go than we are

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._sends.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._broken = task.exception()
        self._wake.set()

    def _close(self, due: DueNotice) -> None:
        self._send_queue.closed(due)
        self._parcels.ended(due.key)
        self._progress.ended(due.key)
        self._backlog.ended(due.notice)
        self._wake.set()

    async def _wind_up(self) -> None:
        self._stopping = True
        try:
            async with asyncio.timeout(self._settings.stop_timeout_s):
                if self._sends:
                    await asyncio.wait(set(self._sends))
                await self._outcomes.flush()
                await self._progress.append()
        except (TimeoutError, HomeostatError) as error:
            _log.warning("not all deliveries were recorded; these notices are sent again", reason=repr(error))
        finally:
            sends = set(self._sends)
            for task in sends:
                task.cancel()
            await asyncio.gather(*sends, return_exceptions=True)
