"""The set points of telling: how long it took, and whether anybody is still to be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson
from sqlalchemy import Connection, func, select

from homeostat.contracts.nouns import SetPoint, Standing
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.database import Readers, journal
from homeostat.notices.delivery import Delivery, Figures
from homeostat.notices.model import NoticeState
from homeostat.notices.store import outbox

ROOM = "notices"
_LATEST = 1000
_WITHIN = 100_000
"""Newest events among which those who were told before this server started are looked for."""


@dataclass(frozen=True, slots=True)
class Before:
    """Who was told before this server started; `slowest_ms` is None when the journal does not say."""

    was_told: bool
    slowest_ms: float | None


@dataclass(slots=True)
class NoticePromises:
    """`homeostat status`, the rows of telling. `told_within_s` is the promise."""

    delivery: Delivery
    readers: Readers
    told_within_s: float
    _before: Before | None = field(default=None, init=False)

    async def __call__(self, caller: Caller) -> Sequence[SetPoint]:
        """Measured now. How others are told is nobody else's business but an administrator's."""
        if caller.role is not Role.ADMIN:
            return ()
        figures = self.delivery.figures()
        if figures.slowest_ms is None and self._before is None:
            self._before = await self.readers.read(before)
        return promises(figures, self.told_within_s, self._before)


def before(connection: Connection) -> Before:
    """What was written down of those who were told, newest first."""
    was_told = select(outbox.c.key).where(outbox.c.state == NoticeState.DELIVERED.value).limit(1)
    if connection.execute(was_told).first() is None:
        return Before(False, None)
    head = connection.execute(select(func.max(journal.c.seq))).scalar() or 0
    told = select(journal.c.at_ns, journal.c.payload).where(
        journal.c.seq > head - _WITHIN, journal.c.kind == "NoticeDelivered"
    )
    took_ns = [
        row.at_ns - since_ns
        for row in connection.execute(told.order_by(journal.c.seq.desc()).limit(_LATEST))
        if isinstance(since_ns := orjson.loads(row.payload).get("admitted_ns"), int)
    ]
    return Before(True, max(took_ns) / 1e6 if took_ns else None)


def promises(figures: Figures, told_within_s: float, earlier: Before | None = None) -> tuple[SetPoint, ...]:
    """Pure: what was measured, beside what was promised. `earlier` counts until this server told somebody."""
    slowest_ms, detail = figures.slowest_ms, "slowest of the last 1000, commit to answer"
    if slowest_ms is None and earlier is not None and earlier.was_told:
        slowest_ms = earlier.slowest_ms
        detail += ", before this server started" if slowest_ms is not None else ": not known any more"
    elif slowest_ms is None:
        detail = "nobody had to be told yet"
    is_unknown = slowest_ms is None and earlier is not None and earlier.was_told
    slowest_s = None if slowest_ms is None else slowest_ms / 1e3
    late = slowest_s is not None and slowest_s > told_within_s
    waiting = figures.waiting + figures.in_flight
    return (
        SetPoint(
            ROOM,
            "a consumer that answers is told",
            told_within_s,
            "s",
            slowest_s,
            Standing.UNKNOWN if is_unknown else Standing.BROKEN if late else Standing.KEPT,
            detail,
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
