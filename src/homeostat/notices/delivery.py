"""Sends what is due. Wait, take from the board, send under a deadline, append the outcome.

Delivery is at least once, with the same key and the same body each time. Invariants: a notice is sent only
after the commit that queued it; `cleared` is sent only after the outcome of `raised` is committed; what
ended in the journal is not sent again; nothing here waits for one consumer while another could be told.

What is in memory can be lost at any moment: `run` begins with the pending rows of the outbox, and reads them
again for each subscription of which more wait than memory may hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import assert_never

import structlog

from homeostat.contracts.nouns import FaultId
from homeostat.kernel.clock import Clock
from homeostat.kernel.errors import HomeostatError, RetryLater
from homeostat.kernel.journal import Submission
from homeostat.notices import grouping, outbox, signing, store
from homeostat.notices.board import Board, Due, Limits
from homeostat.notices.body import Frame
from homeostat.notices.group_rendering import ENVELOPE_BYTES, render_group
from homeostat.notices.grouping import Parcels
from homeostat.notices.matching import may_hear_of
from homeostat.notices.model import Endpoint, FaultPicture, Notice, NoticeState, Subscription
from homeostat.notices.outcomes import Appends, Outcomes
from homeostat.notices.refill import Recall, Refill
from homeostat.notices.renderers import render
from homeostat.notices.schedule import (
    Attempt,
    Delivered,
    GivenUp,
    GiveUpReason,
    Retry,
    is_refused_as_it_is,
    judge,
)
from homeostat.notices.settings import NoticesSettings
from homeostat.notices.subscriptions import Reads, Subscriptions
from homeostat.notices.targets import place_of
from homeostat.ports import Answered, NoAnswer, Post, Reply, Transport

_log = structlog.get_logger("notices")

OnEnd = Callable[[NoticeState, float | None], None]
"""How a notice ended, and when it was told, how many seconds that took from the commit to the answer."""

Whom = tuple[Subscription, Endpoint]
_TOLD_KEPT = 1_000
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class DeliveryParts:
    """What a delivery stands on. `jitter` returns numbers in [0, 1)."""

    appender: Appends
    readers: Reads
    subscriptions: Subscriptions
    transport: Transport
    recall: Recall
    clock: Clock
    jitter: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class Figures:
    """How delivery stands. `slowest_ms` is from offer to 2xx, the worst of the last 1000; None: none yet."""

    waiting: int
    in_flight: int
    uncommitted: int
    suspects: tuple[str, ...]
    slowest_ms: float | None


@dataclass(frozen=True, slots=True)
class Parcel:
    """Notices that go out in one POST, and the body of each."""

    whom: Whom
    dues: tuple[Due, ...]
    bodies: tuple[bytes, ...]


class Delivery:
    """One for a server. `run` is its only task; all calls are made on that event loop."""

    def __init__(self, parts: DeliveryParts, settings: NoticesSettings) -> None:
        self._parts, self._settings = parts, settings
        self._told_ms: deque[float] = deque(maxlen=_TOLD_KEPT)
        self._on_end: list[OnEnd] = []
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
            slowest_ms=max(self._told_ms, default=None),
        )

    def on_end(self, told: OnEnd) -> None:
        """Call `told` whenever a notice ends, for those who count."""
        self._on_end.append(told)

    def on_queued(self, told: Callable[[], None]) -> None:
        """Call `told` whenever the outbox has, or may have, new notices."""
        self._on_queued.append(told)

    def _tell_queued(self) -> None:
        for told in self._on_queued:
            told()

    def _tell_end(self, state: NoticeState, took_s: float | None) -> None:
        for told in self._on_end:
            told(state, took_s)

    async def run(self) -> None:
        """Deliver until cancelled; then send nothing new and commit what ended, for a bounded time."""
        self._begin()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._refill.run(), name="notices-refill")
                group.create_task(self._outcomes.run(), name="notices-outcomes")
                group.create_task(self._note_progress(), name="notices-progress")
                group.create_task(self._dispatch(), name="notices-dispatch")
        finally:
            await self._wind_up()

    def _begin(self) -> None:
        """Forget all; what is pending is read from the outbox."""
        settings, parts = self._settings, self._parts
        self._board = Board(
            Limits(
                per_subscription=settings.sends_per_subscription,
                per_place=settings.sends_per_host,
                suspects=max(1, settings.workers // 2),
                circuit_after=settings.circuit_after,
                waiting=settings.waiting_per_subscription,
            )
        )
        self._parcels = Parcels(settings.body_bytes_max)
        self._refill = Refill(parts.readers, parts.recall, self._admit, self._has_room_for)
        self._outcomes = Outcomes(parts.appender, self._close)
        self._sends: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None
        self._stopping = False
        self._noted: dict[str, int] = {}

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
            self._end(due, GivenUp(GiveUpReason.TOO_OLD), due.attempts)

    async def _send_on(self, first: Due) -> None:
        """Send this one and whatever may go after it: a task for each would cost as much again."""
        due: Due | None = first
        while due is not None:
            parcel = self._parcel(due)
            await (self._attempt(due) if parcel is None else self._attempt_together(parcel))
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

    async def _attempt(self, due: Due) -> None:
        """One send and what follows from it. What nobody expected counts as no answer: others must go on."""
        subscription = self._parts.subscriptions.find(due.notice.subscription)
        obstacle = _obstacle(due, subscription, self._parts.clock.wall_ns())
        if isinstance(obstacle, GiveUpReason):
            self._board.closing(due)
            self._end(due, GivenUp(obstacle), due.attempts)
            await asyncio.sleep(0)  # there may be thousands of them
            return
        chosen_ns = self._parts.clock.mono_ns()
        try:
            sent_ns, reply = await self._send(due, *obstacle)
        except Exception as error:
            _log.exception("a notice could not be sent", notice=due.key)
            sent_ns, reply = 0, NoAnswer(f"our own error: {type(error).__name__}")
        self._conclude((due,), (chosen_ns, sent_ns), reply)

    def _parcel(self, lead: Due) -> Parcel | None:
        """What travels with a notice that was just taken; None when notices for there travel alone."""
        subscription = self._parts.subscriptions.find(lead.notice.subscription)
        endpoint = None if subscription is None else subscription.endpoint(lead.notice.endpoint)
        if subscription is None or endpoint is None or not grouping.is_grouped(subscription, endpoint):
            return None
        now_ns = self._parts.clock.wall_ns()

        def body_of(due: Due) -> bytes | None:
            found = _obstacle(due, subscription, now_ns)
            return None if isinstance(found, GiveUpReason) else self._body(due, *found)

        dues = self._parcels.gather(self._board, lead, subscription.group_by, body_of)
        return None if dues is None else Parcel((subscription, endpoint), *dues)

    async def _attempt_together(self, parcel: Parcel) -> None:
        """One send of several notices: all of them arrive, or none."""
        subscription, endpoint = parcel.whom
        chosen_ns = self._parts.clock.mono_ns()
        body = render_group(parcel.bodies)
        at_s = self._parts.clock.wall_ns() // _NS
        headers = signing.headers(subscription.secret, subscription.key_id, at_s, "", body)
        del headers[signing.KEY_HEADER]  # each notice has its own, in the body
        headers[grouping.COUNT_HEADER] = str(len(parcel.dues))
        sent_ns = self._parts.clock.mono_ns()
        try:
            reply = await self._parts.transport.post(Post(endpoint.url, headers, body))
        except Exception as error:
            _log.exception("notices could not be sent", notice=parcel.dues[0].key, count=len(parcel.dues))
            reply = NoAnswer(f"our own error: {type(error).__name__}")
        self._parcels.tried(parcel.dues, refused=is_refused_as_it_is(reply))
        self._conclude(parcel.dues, (chosen_ns, sent_ns), reply)

    async def _send(self, due: Due, whom: Whom, picture: FaultPicture) -> tuple[int, Reply]:
        """When it went out, on the monotonic clock, and what came back."""
        subscription, endpoint = whom
        body = self._body(due, whom, picture)
        at_s = self._parts.clock.wall_ns() // _NS
        headers = signing.headers(subscription.secret, subscription.key_id, at_s, due.key, body)
        sent_ns = self._parts.clock.mono_ns()
        return sent_ns, await self._parts.transport.post(Post(endpoint.url, headers, body))

    def _body(self, due: Due, whom: Whom, picture: FaultPicture) -> bytes:
        settings, (subscription, endpoint) = self._settings, whom
        frame = Frame(
            due.notice.destination,
            subscription.name,
            subscription.owner,
            settings.body_bytes_max - (ENVELOPE_BYTES if grouping.is_grouped(*whom) else 0),
            settings.public_url,
        )
        return render(endpoint.format, frame, picture, due.notice.transition)

    def _conclude(self, dues: tuple[Due, ...], began_ns: tuple[int, int], reply: Reply) -> None:
        """What becomes of notices that were sent together, the first of them as the board knows it.

        `began_ns`: when it was their turn and when they were sent, on the monotonic clock.
        """
        now_ns = self._parts.clock.mono_ns()
        due, along = dues[0], dues[1:]
        # One that is too old alone is found by the board.
        left_s = (max(each.give_up_ns for each in dues) - now_ns) / _NS
        attempt = Attempt(due.attempts + 1, left_s, len(dues))
        verdict = judge(reply, attempt, self._parts.jitter(), self._settings)
        match verdict:
            case Delivered():
                assert isinstance(reply, Answered), "only an answer is a delivery"
                self._board.succeeded(due)
                for each in dues:
                    self._told(each, each.attempts + 1, began_ns, (reply, now_ns))
            case Retry(wait_s=wait_s, reason=reason):
                _log.info("a notice is sent again", notice=due.key, wait_s=round(wait_s, 3), reason=reason)
                next_ns = now_ns + round(wait_s * _NS)
                self._wake.set()  # it may be due before anything else is
                self._board.failed(due, next_ns)
                for each in along:
                    self._board.failed_along(each, next_ns)
            case GivenUp():
                self._board.closing(due)
                for each in dues:
                    self._end(each, verdict, each.attempts + 1)
            case _:
                assert_never(verdict)

    def _told(self, due: Due, attempts: int, began_ns: tuple[int, int], answer: tuple[Answered, int]) -> None:
        """See `_conclude`; `answer` with the moment at which it was noticed."""
        (chosen_ns, sent_ns), (reply, now_ns) = began_ns, answer
        answered_ns = now_ns if reply.answered_mono_ns is None else reply.answered_mono_ns
        took_ns = answered_ns - due.admitted_ns
        self._told_ms.append(took_ns / 1e6)
        self._tell_end(NoticeState.DELIVERED, took_ns / _NS)
        # One reading of both clocks for all, or the order of what happened could be lost between them.
        ahead_ns = self._parts.clock.wall_ns() - self._parts.clock.mono_ns()
        offered_ns = due.admitted_ns if due.offered_ns is None else due.offered_ns
        times = outbox.Times(
            offered_ns=offered_ns + ahead_ns,
            admitted_ns=due.admitted_ns + ahead_ns,
            chosen_ns=chosen_ns + ahead_ns,
            sent_ns=sent_ns + ahead_ns,
            answered_ns=answered_ns + ahead_ns,
            consumer=reply.consumer_ns,
        )
        self._outcomes.add(due, partial(outbox.delivered, due.notice, attempts, times))

    def _end(self, due: Due, verdict: GivenUp, attempts: int) -> None:
        at_ns = self._parts.clock.wall_ns()
        self._tell_end(NoticeState.GIVEN_UP, None)
        _log.warning("a notice is given up", notice=due.key, attempts=attempts, reason=str(verdict))
        self._outcomes.add(due, partial(outbox.given_up, due.notice, attempts, at_ns, str(verdict)))

    def _close(self, due: Due) -> None:
        self._board.closed(due)
        self._parcels.ended(due.key)
        self._noted.pop(due.key, None)
        self._refill.ended(due.notice)
        self._wake.set()

    async def _note_progress(self) -> None:
        while True:
            await asyncio.sleep(self._settings.progress_every_s)
            with contextlib.suppress(RetryLater):
                await self._append_progress()

    async def _append_progress(self) -> None:
        """Write attempts and next times of what was tried since the last time, at most one submission."""
        clock = self._parts.clock
        ahead_ns = clock.wall_ns() - clock.mono_ns()
        tried = [
            (due, at_ns) for due, at_ns in self._board.progress() if self._noted.get(due.key) != due.attempts
        ]
        if tried:
            rows = [(due.key, due.attempts, at_ns + ahead_ns) for due, at_ns in tried]
            await self._parts.appender.append(
                Submission(loop=outbox.LOOP, changes=(store.note_progress(rows),))
            )
            self._noted.update((due.key, due.attempts) for due, _ in tried)

    async def _wind_up(self) -> None:
        self._stopping = True
        try:
            async with asyncio.timeout(self._settings.stop_timeout_s):
                if self._sends:
                    await asyncio.wait(set(self._sends))
                await self._outcomes.flush()
                await self._append_progress()
        except (TimeoutError, HomeostatError) as error:
            _log.warning("not all outcomes are written; these notices are sent again", reason=repr(error))
        finally:
            sends = set(self._sends)
            for task in sends:
                task.cancel()
            await asyncio.gather(*sends, return_exceptions=True)


def _obstacle(
    due: Due, subscription: Subscription | None, now_ns: int
) -> GiveUpReason | tuple[Whom, FaultPicture]:
    """Why there is nothing to send, or to whom and what."""
    if subscription is None:
        return GiveUpReason.SUBSCRIPTION_REMOVED
    if due.picture is None:
        return GiveUpReason.FAULT_FORGOTTEN
    # A name may be taken again by another project while notices of the first one wait.
    if due.notice.owner != subscription.owner or not may_hear_of(subscription, due.picture):
        return GiveUpReason.NOT_YOURS
    if subscription.is_expired(now_ns):
        return GiveUpReason.SUBSCRIPTION_EXPIRED
    endpoint = subscription.endpoint(due.notice.endpoint)
    if endpoint is None:
        return GiveUpReason.ENDPOINT_REMOVED
    return (subscription, endpoint), due.picture
