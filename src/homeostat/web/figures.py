"""The last hour in points: for each fault how long the outage was, and how long telling took. Reads only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, func, literal, select

from homeostat.contracts.nouns import INFRASTRUCTURE, Owner
from homeostat.faults.store import concerns, fault_table
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.database import journal
from homeostat.notices.model import Transition
from homeostat.notices.store import outbox

WINDOW_S = 3600
_POINTS_MAX = 500
_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Point:
    """One fault. `told_ms`: from the decision to the last consumer's answer, both on the server's clock."""

    fault: str
    at_ns: int
    outage_ms: float | None
    told_ms: float | None


def last_hour(connection: Connection, caller: Caller, now_ns: int) -> list[Point]:
    """The faults of the last hour that the caller may read, oldest first, at most the newest 500."""
    table = fault_table.c
    query = select(table.id, table.raised_ns, table.outage_ms).where(
        table.raised_ns > now_ns - WINDOW_S * 10**9
    )
    if caller.role is not Role.ADMIN:
        owner = Owner(caller.owner)
        query = query.where(concerns(owner), literal(owner) != INFRASTRUCTURE)
    rows = connection.execute(query.order_by(table.raised_ns.desc()).limit(_POINTS_MAX)).all()
    told = _told_ms(connection, caller, [row.id for row in rows])
    return [Point(row.id, row.raised_ns, row.outage_ms, told.get(row.id)) for row in reversed(rows)]


def _told_ms(connection: Connection, caller: Caller, faults: list[str]) -> dict[str, float]:
    """The slowest notice `raised` of each fault, among the subscriptions that the caller may see."""
    found: dict[str, float] = {}
    took_ns = func.max(journal.c.at_ns - outbox.c.queued_ns).label("took_ns")
    for start in range(0, len(faults), _AT_ONCE):
        query = (
            select(outbox.c.fault, took_ns)
            .join(journal, journal.c.subject == "notice/" + outbox.c.key)
            .where(
                outbox.c.fault.in_(faults[start : start + _AT_ONCE]),
                outbox.c.transition == Transition.RAISED.value,
                journal.c.kind == "NoticeDelivered",
            )
            .group_by(outbox.c.fault)
        )
        if caller.role is not Role.ADMIN:
            query = query.where(outbox.c.owner == caller.owner)
        found |= {fault: max(0, took) / 1e6 for fault, took in connection.execute(query)}
    return found


def columns(points: Iterable[Point]) -> dict[str, list[object]]:
    """As the chart wants it: seconds, milliseconds, milliseconds. Zero has no place on its scale."""
    rows = list(points)
    return {
        "fault": [row.fault for row in rows],
        "at": [row.at_ns / 1e9 for row in rows],
        "outage_ms": [None if row.outage_ms is None else max(0.1, round(row.outage_ms, 2)) for row in rows],
        "told_ms": [None if row.told_ms is None else max(0.1, round(row.told_ms, 2)) for row in rows],
    }
