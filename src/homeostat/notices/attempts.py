"""The outcomes of deliveries: made and counted when a notice ends, appended to the journal off the path.

A consumer that was notified never waits for our disk. Many outcomes are one submission, or a commit of
several where one of them is refused. What was being committed when the writer was cancelled is committed
again by `flush`: the journal knows what it holds. Invariants: an end is counted once, when it happens and
not when it is committed; an outcome says the same each time it is made, since it is made again when its
commit is not known.

One attempt to deliver: sends a notice taken from the queue and applies what the answer means.

Which notice is taken when, and by how many workers, is `delivery`; what a POST holds is `requests`; what an
answer means is `retry_policy`. Invariants: notices of one POST share its fate; an unexpected error counts
as no answer, and never ends more than this attempt: others must go on.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, assert_never

import structlog

from homeostat.contracts.events.notices import NoticeDelivered
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import DatabaseReader
from homeostat.kernel.errors import AlreadyDone, BadInput, HomeostatError, RetryLater
from homeostat.kernel.journal import JournalAppender, Receipt, Submission, group_changes
from homeostat.kernel.loops import Backoff
from homeostat.notices import outbox, requests
from homeostat.notices.delivery_window import DeliveredNotice, DeliveryWindow
from homeostat.notices.model import FaultLookup, FaultPicture, NoticeState
from homeostat.notices.send_queue import DueNotice, SendQueue
from homeostat.notices.settings import NoticesSettings
from homeostat.notices.subscriptions import Subscriptions
from homeostat.ports import NoWebhookReply, Transport, WebhookReply, WebhookResult

_AT_ONCE = 256
_GATHER_S, _GATHER_LONGEST_S = 0.005, 0.2
"""In a storm a commit for each few outcomes would take the time of those that still wait."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 2.0
_log = structlog.get_logger("notices")


NoticeOutcome = Callable[[], Submission]
"""Makes what is written of an end, the same each time."""


class OutcomeWriter:
    """Outcomes on their way into the journal. Used on one event loop."""

    def __init__(self, appender: JournalAppender, on_committed: Callable[[DueNotice], None]) -> None:
        self._appender, self._on_committed = appender, on_committed
        self._waiting: deque[tuple[DueNotice, NoticeOutcome]] = deque()
        self._there = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, due: DueNotice, outcome: NoticeOutcome) -> None:
        """To be committed soon; then `on_committed` is called."""
        self._waiting.append((due, outcome))
        self._there.set()

    async def run(self) -> None:
        """Commit for ever."""
        while True:
            await self._there.wait()
            self._there.clear()
            await self.flush(gather=True)

    async def _gather(self) -> None:
        """Wait while more and more end: a storm of notices is sent first, and recorded then."""
        loop = asyncio.get_running_loop()
        count, until_s = 0, loop.time() + _GATHER_LONGEST_S
        while count < len(self._waiting) and loop.time() < until_s:
            count = len(self._waiting)
            await asyncio.sleep(_GATHER_S)

    async def flush(self, *, gather: bool = False) -> None:
        """Commit all that waits, however often the store says later. Not while `run` runs.

        With `gather` it waits a little before each commit. Deposed and CorruptState go to the caller.
        """
        backoff = Backoff(_FIRST_WAIT_S, _LONGEST_WAIT_S)
        while self._waiting:
            if gather and len(self._waiting) < _AT_ONCE:
                await self._gather()
            batch = list(islice(self._waiting, _AT_ONCE))
            answers = await self._append([outcome() for _, outcome in batch])
            again = []
            for (due, outcome), answer in zip(batch, answers, strict=True):
                self._waiting.popleft()
                if self._is_settled(due, answer):
                    self._on_committed(due)
                else:
                    again.append((due, outcome))
            if again:
                self._waiting.extendleft(reversed(again))
                await asyncio.sleep(backoff.next_s())
            else:
                backoff.reset()

    async def _append(self, all_of_them: Sequence[Submission]) -> Sequence[Receipt | BaseException]:
        """As one submission, which costs a tenth; one by one where the journal will not have them so.

        One that is there already, or refused, must not take the others with it.
        """
        if len(all_of_them) > 1:
            events = tuple(draft for each in all_of_them for draft in each.events)
            changes = group_changes(change for each in all_of_them for change in each.changes)
            try:
                receipt = await self._appender.append(Submission(all_of_them[0].loop, events, changes))
            except RetryLater as error:
                return [error] * len(all_of_them)
            except HomeostatError as error:
                _log.info("outcomes are written one by one", reason=str(error))
            else:
                return [receipt] * len(all_of_them)
        return await asyncio.gather(
            *(self._appender.append(each) for each in all_of_them), return_exceptions=True
        )

    def _is_settled(self, due: DueNotice, answer: Receipt | BaseException) -> bool:
        match answer:
            case Receipt() | AlreadyDone():
                return True
            case RetryLater():
                return False
            case BadInput():
                # Somebody changed the tables by hand; sending it again would not cure that.
                _log.error(
                    "the outcome of a notice was refused by the journal", notice=due.key, reason=str(answer)
                )
                return True
            case _:
                raise answer


OutcomeListener = Callable[[NoticeState, float | None], None]
"""How a notice ended, and when it was delivered, how many seconds that took from the commit to the answer."""

_CONSUMERS_FAULT = frozenset({requests.GiveUpReason.GONE, requests.GiveUpReason.TOO_OLD})
_NS_IN_S = 1_000_000_000


class DeliveryOutcomes:
    """Of one delivery, for as long as its process lives. `started_ns` is when that began (wall)."""

    def __init__(self, clock: Clock, window_s: float) -> None:
        self._clock = clock
        self.started_ns = clock.wall_ns()
        self.window = DeliveryWindow(window_s)
        self._on_end: list[OutcomeListener] = []

    def on_end(self, listener: OutcomeListener) -> None:
        self._on_end.append(listener)

    def _notify(self, state: NoticeState, took_s: float | None) -> None:
        for listener in self._on_end:
            listener(state, took_s)

    def delivered(
        self, due: DueNotice, attempts: int, began_ns: tuple[int, int], answer: tuple[WebhookReply, int]
    ) -> NoticeOutcome:
        """Count one that was delivered; what is written of it.

        `began_ns`: when it was its turn and when it was sent; `answer` with the moment at which it was
        noticed; all on the monotonic clock.
        """
        (chosen_ns, sent_ns), (reply, now_ns) = began_ns, answer
        answered_ns = now_ns if reply.answered_mono_ns is None else reply.answered_mono_ns
        took_ns = answered_ns - due.admitted_ns
        self._notify(NoticeState.DELIVERED, took_ns / _NS_IN_S)
        # One reading of both clocks for all, or the order of what happened could be lost between them.
        ahead_ns = self._clock.wall_ns() - self._clock.mono_ns()
        offered_ns = due.admitted_ns if due.offered_ns is None else due.offered_ns
        self.window.delivered(
            DeliveredNotice(
                due.notice.owner,
                due.notice.destination,
                self._due_since_ns(due, ahead_ns),
                answered_ns + ahead_ns,
                attempts,
            )
        )
        received_ns, handled_ns = reply.consumer_ns
        event = NoticeDelivered(
            due.key,
            due.notice.subscription,
            attempts,
            offered_ns=offered_ns + ahead_ns,
            admitted_ns=due.admitted_ns + ahead_ns,
            chosen_ns=chosen_ns + ahead_ns,
            sent_ns=sent_ns + ahead_ns,
            consumer_received_ns=received_ns,
            consumer_handled_ns=handled_ns,
        )
        return partial(outbox.delivered_submission, due.notice, event, answered_ns + ahead_ns)

    def _due_since_ns(self, due: DueNotice, ahead_ns: int) -> int | None:
        """When it was committed (wall); None when that was before this process, which saw nothing of it."""
        if due.offered_ns is not None:
            return due.offered_ns + ahead_ns + due.wished_ns
        return due.notice.queued_ns + due.wished_ns if due.notice.queued_ns >= self.started_ns else None

    def failed(self, due: DueNotice) -> None:
        """Its consumer did not take it this time."""
        self.window.failed(due.notice.destination, self._clock.wall_ns())

    def given_up(self, due: DueNotice, verdict: requests.GivenUp, attempts: int) -> NoticeOutcome:
        """Count one that is given up; what is written of it."""
        at_ns = self._clock.wall_ns()
        self._notify(NoticeState.GIVEN_UP, None)
        if verdict.reason in _CONSUMERS_FAULT:
            self.window.given_up(due.notice.owner, due.notice.destination, at_ns)
        _log.warning("notice given up", notice=due.key, attempts=attempts, reason=str(verdict))
        return partial(outbox.given_up_submission, due.notice, attempts, at_ns, str(verdict))


@dataclass(frozen=True, slots=True)
class PictureArchive:
    """The way back to pictures of faults that are not in memory. Made by the component with the faults."""

    lookup: FaultLookup


@dataclass(frozen=True, slots=True)
class DeliveryDependencies:
    """What a delivery stands on. `jitter` returns numbers in [0, 1)."""

    appender: JournalAppender
    readers: DatabaseReader
    subscriptions: Subscriptions
    transport: Transport
    recall: FaultLookup
    clock: Clock
    jitter: Callable[[], float] = random.random


_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class AttemptRunner:
    """The attempts of one delivery. `wake` is called when something may be due before anything else is."""

    parts: DeliveryDependencies
    settings: NoticesSettings
    send_queue: SendQueue
    parcels: requests.NoticeGroups
    outcomes: OutcomeWriter
    results: DeliveryOutcomes
    wake: Callable[[], None]

    def attempt(self, due: DueNotice) -> Coroutine[Any, Any, None]:
        """Send it, alone or with what travels with it, and conclude; to be awaited."""
        parcel = self._parcel(due)
        return self._alone(due) if parcel is None else self._together(parcel)

    def give_up(self, due: DueNotice, verdict: requests.GivenUp, attempts: int) -> None:
        self.outcomes.add(due, self.results.given_up(due, verdict, attempts))

    async def _alone(self, due: DueNotice) -> None:
        """One send and what follows from it. What nobody expected counts as no answer: others must go on."""
        subscription = self.parts.subscriptions.find(due.notice.subscription)
        found = requests.obstacle(due, subscription, self.parts.clock.wall_ns())
        if isinstance(found, requests.GiveUpReason):
            self.send_queue.closing(due)
            self.give_up(due, requests.GivenUp(found), due.attempts)
            await asyncio.sleep(0)  # there may be thousands of them
            return
        chosen_ns = self.parts.clock.mono_ns()
        try:
            sent_ns, reply = await self._send(due, *found)
        except Exception as error:
            _log.exception("notice could not be sent", notice=due.key)
            sent_ns, reply = 0, NoWebhookReply(f"our own error: {type(error).__name__}")
        self._conclude((due,), (chosen_ns, sent_ns), reply)

    def _parcel(self, lead: DueNotice) -> requests.NoticeGroup | None:
        """What travels with a notice that was just taken; None when notices for there travel alone."""
        subscription = self.parts.subscriptions.find(lead.notice.subscription)
        endpoint = None if subscription is None else subscription.endpoint(lead.notice.endpoint)
        if subscription is None or endpoint is None or not requests.is_grouped(subscription, endpoint):
            return None
        now_ns = self.parts.clock.wall_ns()

        def body_of(due: DueNotice) -> bytes | None:
            found = requests.obstacle(due, subscription, now_ns)
            return (
                None
                if isinstance(found, requests.GiveUpReason)
                else requests.body_of(due, *found, self.settings)
            )

        dues = self.parcels.gather(self.send_queue, lead, subscription.group_by, body_of)
        return None if dues is None else requests.NoticeGroup((subscription, endpoint), *dues)

    async def _together(self, parcel: requests.NoticeGroup) -> None:
        """One send of several notices: all of them arrive, or none."""
        chosen_ns = self.parts.clock.mono_ns()
        post = requests.post_together(parcel, self.parts.clock.wall_ns() // _NS)
        sent_ns = self.parts.clock.mono_ns()
        try:
            reply = await self.parts.transport.post(post)
        except Exception as error:
            _log.exception("notices could not be sent", notice=parcel.dues[0].key, count=len(parcel.dues))
            reply = NoWebhookReply(f"our own error: {type(error).__name__}")
        self.parcels.tried(parcel.dues, refused=requests.is_refused_as_it_is(reply))
        self._conclude(parcel.dues, (chosen_ns, sent_ns), reply)

    async def _send(
        self, due: DueNotice, whom: requests.Recipient, picture: FaultPicture
    ) -> tuple[int, WebhookResult]:
        """When it went out, on the monotonic clock, and what came back."""
        body = requests.body_of(due, whom, picture, self.settings)
        post = requests.post_alone(due, whom, body, self.parts.clock.wall_ns() // _NS)
        sent_ns = self.parts.clock.mono_ns()
        return sent_ns, await self.parts.transport.post(post)

    def _conclude(self, dues: tuple[DueNotice, ...], began_ns: tuple[int, int], reply: WebhookResult) -> None:
        """What becomes of notices that were sent together, the first of them as the send queue knows it.

        `began_ns`: when it was their turn and when they were sent, on the monotonic clock.
        """
        now_ns = self.parts.clock.mono_ns()
        due, along = dues[0], dues[1:]
        # One that is too old alone is found by the send queue.
        left_s = (max(each.give_up_ns for each in dues) - now_ns) / _NS
        attempt = requests.DeliveryAttempt(due.attempts + 1, left_s, len(dues))
        verdict = requests.judge(reply, attempt, self.parts.jitter(), self.settings)
        match verdict:
            case requests.Delivered():
                assert isinstance(reply, WebhookReply), "only an answer is a delivery"
                self.send_queue.succeeded(due)
                for each in dues:
                    delivered = self.results.delivered(each, each.attempts + 1, began_ns, (reply, now_ns))
                    self.outcomes.add(each, delivered)
            case requests.Retry(wait_s=wait_s, reason=reason):
                _log.info("a notice is sent again", notice=due.key, wait_s=round(wait_s, 3), reason=reason)
                next_ns = now_ns + round(wait_s * _NS)
                self.results.failed(due)
                self.wake()  # it may be due before anything else is
                self.send_queue.failed(due, next_ns)
                for each in along:
                    self.send_queue.failed_along(each, next_ns)
            case requests.GivenUp():
                self.send_queue.closing(due)
                for each in dues:
                    self.give_up(each, verdict, each.attempts + 1)
            case _:
                assert_never(verdict)
