"""How notices end: how long the telling took, who counts it, and what is written of it.

Nothing is written here: an ending makes the outcome, `outcomes` commits it. Invariants: an ending is counted
once, when it happens and not when it is committed; an outcome says the same each time it is made, since it
is made again when its commit is not known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

import structlog

from homeostat.kernel.clock import Clock
from homeostat.notices import outbox
from homeostat.notices.board import Due
from homeostat.notices.model import NoticeState
from homeostat.notices.outcomes import Outcome
from homeostat.notices.schedule import GivenUp
from homeostat.ports import Answered

_log = structlog.get_logger("notices")

OnEnd = Callable[[NoticeState, float | None], None]
"""How a notice ended, and when it was told, how many seconds that took from the commit to the answer."""

_TOLD_KEPT = 1_000
_NS = 1_000_000_000


class Endings:
    """Of one delivery, for as long as its process lives."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told_ms: deque[float] = deque(maxlen=_TOLD_KEPT)
        self._on_end: list[OnEnd] = []

    @property
    def slowest_ms(self) -> float | None:
        """The worst of the last 1000 that were told; None: none yet."""
        return max(self._told_ms, default=None)

    def on_end(self, told: OnEnd) -> None:
        """Call `told` whenever a notice ends."""
        self._on_end.append(told)

    def _tell(self, state: NoticeState, took_s: float | None) -> None:
        for told in self._on_end:
            told(state, took_s)

    def told(
        self, due: Due, attempts: int, began_ns: tuple[int, int], answer: tuple[Answered, int]
    ) -> Outcome:
        """Count one that was delivered; what is written of it.

        `began_ns`: when it was its turn and when it was sent; `answer` with the moment at which it was
        noticed; all on the monotonic clock.
        """
        (chosen_ns, sent_ns), (reply, now_ns) = began_ns, answer
        answered_ns = now_ns if reply.answered_mono_ns is None else reply.answered_mono_ns
        took_ns = answered_ns - due.admitted_ns
        self._told_ms.append(took_ns / 1e6)
        self._tell(NoticeState.DELIVERED, took_ns / _NS)
        # One reading of both clocks for all, or the order of what happened could be lost between them.
        ahead_ns = self._clock.wall_ns() - self._clock.mono_ns()
        offered_ns = due.admitted_ns if due.offered_ns is None else due.offered_ns
        times = outbox.Times(
            offered_ns=offered_ns + ahead_ns,
            admitted_ns=due.admitted_ns + ahead_ns,
            chosen_ns=chosen_ns + ahead_ns,
            sent_ns=sent_ns + ahead_ns,
            answered_ns=answered_ns + ahead_ns,
            consumer=reply.consumer_ns,
        )
        return partial(outbox.delivered, due.notice, attempts, times)

    def given_up(self, due: Due, verdict: GivenUp, attempts: int) -> Outcome:
        """Count one that is given up; what is written of it."""
        at_ns = self._clock.wall_ns()
        self._tell(NoticeState.GIVEN_UP, None)
        _log.warning("a notice is given up", notice=due.key, attempts=attempts, reason=str(verdict))
        return partial(outbox.given_up, due.notice, attempts, at_ns, str(verdict))
