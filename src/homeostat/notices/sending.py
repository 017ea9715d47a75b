"""One attempt: what is sent for a notice that was just taken from the board, and what follows from an answer.

Who is taken when, and by how many workers, is `delivery`; what a POST holds is `posts`; what an answer means
is `schedule`. Invariants: notices of one POST share its fate; what nobody expected counts as no answer, and
never ends more than this attempt: others must go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, assert_never

import structlog

from homeostat.notices import grouping, posts
from homeostat.notices.board import Board, Due
from homeostat.notices.endings import Endings
from homeostat.notices.grouping import Parcels
from homeostat.notices.model import FaultPicture
from homeostat.notices.outcomes import Outcomes
from homeostat.notices.parts import DeliveryParts
from homeostat.notices.posts import Parcel, Whom
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
from homeostat.ports import Answered, NoAnswer, Reply

_log = structlog.get_logger("notices")
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Sending:
    """The attempts of one delivery. `wake` is called when something may be due before anything else is."""

    parts: DeliveryParts
    settings: NoticesSettings
    board: Board
    parcels: Parcels
    outcomes: Outcomes
    endings: Endings
    wake: Callable[[], None]

    def attempt(self, due: Due) -> Coroutine[Any, Any, None]:
        """Send it, alone or with what travels with it, and conclude; to be awaited."""
        parcel = self._parcel(due)
        return self._alone(due) if parcel is None else self._together(parcel)

    def give_up(self, due: Due, verdict: GivenUp, attempts: int) -> None:
        """It ends without having been told."""
        self.outcomes.add(due, self.endings.given_up(due, verdict, attempts))

    async def _alone(self, due: Due) -> None:
        """One send and what follows from it. What nobody expected counts as no answer: others must go on."""
        subscription = self.parts.subscriptions.find(due.notice.subscription)
        found = posts.obstacle(due, subscription, self.parts.clock.wall_ns())
        if isinstance(found, GiveUpReason):
            self.board.closing(due)
            self.give_up(due, GivenUp(found), due.attempts)
            await asyncio.sleep(0)  # there may be thousands of them
            return
        chosen_ns = self.parts.clock.mono_ns()
        try:
            sent_ns, reply = await self._send(due, *found)
        except Exception as error:
            _log.exception("a notice could not be sent", notice=due.key)
            sent_ns, reply = 0, NoAnswer(f"our own error: {type(error).__name__}")
        self._conclude((due,), (chosen_ns, sent_ns), reply)

    def _parcel(self, lead: Due) -> Parcel | None:
        """What travels with a notice that was just taken; None when notices for there travel alone."""
        subscription = self.parts.subscriptions.find(lead.notice.subscription)
        endpoint = None if subscription is None else subscription.endpoint(lead.notice.endpoint)
        if subscription is None or endpoint is None or not grouping.is_grouped(subscription, endpoint):
            return None
        now_ns = self.parts.clock.wall_ns()

        def body_of(due: Due) -> bytes | None:
            found = posts.obstacle(due, subscription, now_ns)
            return None if isinstance(found, GiveUpReason) else posts.body_of(due, *found, self.settings)

        dues = self.parcels.gather(self.board, lead, subscription.group_by, body_of)
        return None if dues is None else Parcel((subscription, endpoint), *dues)

    async def _together(self, parcel: Parcel) -> None:
        """One send of several notices: all of them arrive, or none."""
        chosen_ns = self.parts.clock.mono_ns()
        post = posts.post_together(parcel, self.parts.clock.wall_ns() // _NS)
        sent_ns = self.parts.clock.mono_ns()
        try:
            reply = await self.parts.transport.post(post)
        except Exception as error:
            _log.exception("notices could not be sent", notice=parcel.dues[0].key, count=len(parcel.dues))
            reply = NoAnswer(f"our own error: {type(error).__name__}")
        self.parcels.tried(parcel.dues, refused=is_refused_as_it_is(reply))
        self._conclude(parcel.dues, (chosen_ns, sent_ns), reply)

    async def _send(self, due: Due, whom: Whom, picture: FaultPicture) -> tuple[int, Reply]:
        """When it went out, on the monotonic clock, and what came back."""
        body = posts.body_of(due, whom, picture, self.settings)
        post = posts.post_alone(due, whom, body, self.parts.clock.wall_ns() // _NS)
        sent_ns = self.parts.clock.mono_ns()
        return sent_ns, await self.parts.transport.post(post)

    def _conclude(self, dues: tuple[Due, ...], began_ns: tuple[int, int], reply: Reply) -> None:
        """What becomes of notices that were sent together, the first of them as the board knows it.

        `began_ns`: when it was their turn and when they were sent, on the monotonic clock.
        """
        now_ns = self.parts.clock.mono_ns()
        due, along = dues[0], dues[1:]
        # One that is too old alone is found by the board.
        left_s = (max(each.give_up_ns for each in dues) - now_ns) / _NS
        attempt = Attempt(due.attempts + 1, left_s, len(dues))
        verdict = judge(reply, attempt, self.parts.jitter(), self.settings)
        match verdict:
            case Delivered():
                assert isinstance(reply, Answered), "only an answer is a delivery"
                self.board.succeeded(due)
                for each in dues:
                    told = self.endings.told(each, each.attempts + 1, began_ns, (reply, now_ns))
                    self.outcomes.add(each, told)
            case Retry(wait_s=wait_s, reason=reason):
                _log.info("a notice is sent again", notice=due.key, wait_s=round(wait_s, 3), reason=reason)
                next_ns = now_ns + round(wait_s * _NS)
                self.wake()  # it may be due before anything else is
                self.board.failed(due, next_ns)
                for each in along:
                    self.board.failed_along(each, next_ns)
            case GivenUp():
                self.board.closing(due)
                for each in dues:
                    self.give_up(each, verdict, each.attempts + 1)
            case _:
                assert_never(verdict)
