"""The set points of telling: how long it took, and whether anybody is still to be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeostat.contracts.nouns import SetPoint, Standing
from homeostat.kernel.access import Caller, Role
from homeostat.notices.delivery import Delivery, Figures

ROOM = "notices"


@dataclass(frozen=True, slots=True)
class NoticePromises:
    """`homeostat status`, the rows of telling. `told_within_s` is the promise."""

    delivery: Delivery
    told_within_s: float

    async def __call__(self, caller: Caller) -> Sequence[SetPoint]:
        """Measured now. How others are told is nobody else's business but an administrator's."""
        if caller.role is not Role.ADMIN:
            return ()
        return promises(self.delivery.figures(), self.told_within_s)


def promises(figures: Figures, told_within_s: float) -> tuple[SetPoint, ...]:
    """Pure: what was measured, beside what was promised."""
    slowest_s = None if figures.slowest_ms is None else figures.slowest_ms / 1e3
    late = slowest_s is not None and slowest_s > told_within_s
    waiting = figures.waiting + figures.in_flight
    return (
        SetPoint(
            ROOM,
            "a consumer that answers is told",
            told_within_s,
            "s",
            slowest_s,
            Standing.BROKEN if late else Standing.KEPT,
            "nobody had to be told yet"
            if slowest_s is None
            else "slowest of the last 1000, commit to answer",
        ),
        SetPoint(
            ROOM,
            "subscriptions that cannot be told",
            0,
            "subscriptions",
            len(figures.suspects),
            Standing.BROKEN if figures.suspects else Standing.KEPT,
            ", ".join(figures.suspects) or f"{waiting} notices on their way",
        ),
    )
