"""Sends what is due. Wait, take from the board, send under a deadline, append the outcome.

This is who is sent to and when: what is offered is admitted to the board, and a bounded number of workers
take from it. One attempt and what follows from it is `sending`, how notices end is `endings`.

Delivery is at least once, with the same key and the same body each time. Invariants: a notice is sent only
after the commit that queued it; `cleared` is sent only after the outcome of `raised` is committed; what
ended in the journal is not sent again; nothing here waits for one consumer while another could be told.

What is in memory can be lost at any moment: `run` begins with the pending rows of the outbox, and reads them
again for each subscription of which more wait than memory may hold.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import structlog

from homeostat.contracts.nouns import FaultId
from homeostat.kernel.errors import HomeostatError
from homeostat.notices import grouping
from homeostat.notices.board import Board, Due, Limits
from homeostat.notices.endings import Endings, OnEnd
from homeostat.notices.grouping import Parcels
from homeostat.notices.model import FaultPicture, Notice, NoticeState
from homeostat.notices.outcomes import Outcomes
from homeostat.notices.parts import DeliveryParts
from homeostat.notices.progress import Progress
from homeostat.notices.refill import Refill
from homeostat.notices.schedule import GivenUp, GiveUpReason
from homeostat.notices.sending import Sending
from homeostat.notices.settings import NoticesSettings
from homeostat.notices.targets import place_of

_log = structlog.get_logger("notices")
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Figures:
    """How delivery stands. `slowest_ms` is from offer to 2xx, the worst of the last 1000; None: none yet."""

    waiting: int
    in_flight: int
    uncommitted: int
    suspects: tuple[str, ...]
    slowest_ms: float | None


class Delivery:
    """One for a server. `run` is its only task; all calls are made on that event loop."""

    BOARD: ClassVar[type[Board]] = Board

    def __init__(self, parts: DeliveryParts, settings: NoticesSettings) -> None:
        self._parts, self._settings = parts, settings
        self._endings = Endings(parts.clock)
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
            if self._refill.is_behind(name) or not self._admit(notice, picture, offered_ns):
                self._refill.fell_behind(name)
        self._tell_queued()

    def catch_up(self, destinations: Iterable[str]) -> None:
        """The outbox may hold notices for these that were never offered."""
        for name in destinations:
            self._refill.fell_behind(name)
        self._tell_queued()

    def release(self, subscription: str) -> None:
        """This subscription was changed or removed: look at its notices now, not at the next back-off."""
        self._board.release(subscription)
        self._parcels.release(subscription)
        self._wake.set()

    def figures(self) -> Figures:
        """How delivery stands now."""
        return Figures(
            waiting=len(self._board) - len(self._sends) - len(self._outcomes),
            in_flight=len(self._sends),
            uncommitted=len(self._outcomes),
            suspects=self._board.suspects(),
            slowest_ms=self._endings.slowest_ms,
        )

    def on_end(self, told: OnEnd) -> None:
        """Call `told` whenever a notice ends, for those who count."""
        self._endings.on_end(told)

    def on_queued(self, told: Callable[[], None]) -> None:
        """Call `told` whenever the outbox has, or may have, new notices."""
        self._on_queued.append(told)

    def _tell_queued(self) -> None:
        for told in self._on_queued:
            told()

    async def run(self) -> None:
        """Deliver until cancelled; then send nothing new and commit what ended, for a bounded time."""
        self._begin()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._refill.run(), name="notices-refill")
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
        self._board = self.BOARD(
            Limits(
                per_subscription=settings.sends_per_subscription,
                per_place=settings.sends_per_host,
                suspects=max(1, settings.workers // 2),
                circuit_after=settings.circuit_after,
                waiting=settings.waiting_per_subscription,
            )
        )
        self._parcels = Parcels(settings.body_bytes_max)
        self._progress = Progress(self._board, parts.appender, parts.clock)
        self._refill = Refill(parts.readers, parts.recall, self._admit, self._has_room_for)
        self._outcomes = Outcomes(parts.appender, self._close)
        self._sending = Sending(
            parts, settings, self._board, self._parcels, self._outcomes, self._endings, self._wake.set
        )
        self._sends: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None
        self._stopping = False

    def _has_room_for(self, destination: str) -> bool:
        return 2 * self._board.waiting(destination) <= self._settings.waiting_per_subscription

    def _admit(self, notice: Notice, picture: FaultPicture | None, offered_ns: int | None = None) -> bool:
        now_ns = self._parts.clock.mono_ns()
        # Wall clocks only for the part of its age that was before this process; never negative.
        age_ns = max(0, self._parts.clock.wall_ns() - notice.queued_ns)
        due = Due(
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
            return self._board.add(due, "")
        not_before_ns = now_ns + grouping.wait_ns(subscription, endpoint)
        return self._board.add(due, place_of(endpoint.url), not_before_ns)

    async def _dispatch(self) -> None:
        while self._broken is None:
            self._wake.clear()
            now_ns = self._parts.clock.mono_ns()
            self._give_up_old(now_ns)
            while self._is_free() and (due := self._board.take(now_ns)) is not None:
                task = asyncio.create_task(self._send_on(due), name="notices-send")
                self._sends.add(task)
                task.add_done_callback(self._landed)
            next_ns = self._board.next_ns() if self._is_free() else None
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
        for due in self._board.expired(now_ns):
            self._sending.give_up(due, GivenUp(GiveUpReason.TOO_OLD), due.attempts)

    async def _send_on(self, first: Due) -> None:
        """Send this one and whatever may go after it: a task for each would cost as much again."""
        due: Due | None = first
        while due is not None:
            await self._sending.attempt(due)
            now_ns = self._parts.clock.mono_ns()
            self._give_up_old(now_ns)
            due = self._board.take(now_ns) if self._has_room() else None
            next_ns = self._board.next_ns()
            if next_ns is not None and next_ns <= now_ns and self._is_free():
                self._wake.set()  # more may go than we are

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._sends.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._broken = task.exception()
        self._wake.set()

    def _close(self, due: Due) -> None:
        self._board.closed(due)
        self._parcels.ended(due.key)
        self._progress.ended(due.key)
        self._refill.ended(due.notice)
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
            _log.warning("not all outcomes are written; these notices are sent again", reason=repr(error))
        finally:
            sends = set(self._sends)
            for task in sends:
                task.cancel()
            await asyncio.gather(*sends, return_exceptions=True)
