"""The faults room's set points: measured from its own rows, never from what a loop believes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, exists, func, or_, select, true

from homeostat.contracts.nouns import FaultKind, Owner, SetPoint, Standing
from homeostat.faults.affected import NOBODY
from homeostat.faults.model import FaultState
from homeostat.faults.settings import FaultsSettings
from homeostat.faults.store import fault_table
from homeostat.fleet.store import action_table, resource_table
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers

WINDOW_S = 3600
ROOM = "faults"


@dataclass(frozen=True, slots=True)
class Measured:
    """Of the last hour: the longest outage that ended, the longest that has not; acts that are overdue.

    `unmeasured`: how many ended, or happened to a whole host, of which no single clock saw both ends.
    """

    worst_ended_s: float | None
    longest_open_s: float | None
    unmeasured: int
    overdue_acts: int


@dataclass(frozen=True, slots=True)
class FaultPromises:
    """`homeostat status`, the rows of the faults room."""

    readers: Readers
    clock: Clock
    settings: FaultsSettings

    async def __call__(self, caller: Caller) -> Sequence[SetPoint]:
        """Measured now, on what the caller may read."""
        now_ns = self.clock.wall_ns()
        owner = None if caller.role is Role.ADMIN else Owner(caller.owner)
        found = await self.readers.read(lambda conn: measure(conn, now_ns, owner))
        return promises(found, self.settings)


def measure(connection: Connection, now_ns: int, owner: Owner | None) -> Measured:
    """Read the rows of the last hour; of one owner, or of all when `owner` is None."""
    table = fault_table.c
    is_down = and_(
        table.kind == FaultKind.RESOURCE_DOWN.value, true() if owner is None else table.owner == owner
    )
    worst_ms = connection.scalar(
        select(func.max(table.outage_ms)).where(is_down, table.cleared_ns > now_ns - WINDOW_S * 10**9)
    )
    suffers = table.affected.contains(f'"{owner}":[', autoescape=True)
    of_hosts = and_(
        table.kind == FaultKind.HOST_DOWN.value,
        table.affected != NOBODY,
        true() if owner is None else suffers,
    )
    recent = or_(table.cleared_ns.is_(None), table.cleared_ns > now_ns - WINDOW_S * 10**9)
    unmeasured = connection.scalar(
        select(func.count())
        .select_from(fault_table)
        .where(recent, or_(of_hosts, and_(is_down, table.cleared_ns.is_not(None), table.outage_ms.is_(None))))
    )
    oldest_ns = connection.scalar(
        select(func.min(table.raised_ns)).where(is_down, table.state == FaultState.OPEN.value)
    )
    acts = action_table.c
    deadline_ns = acts.intended_ns + acts.deadline_s * 1e9
    theirs = "resource/" + resource_table.c.id == acts.about
    of_owner = true() if owner is None else exists().where(theirs, resource_table.c.owner == owner)
    overdue = connection.scalar(
        select(func.count())
        .select_from(action_table)
        .where(acts.outcome.is_(None), deadline_ns < now_ns, of_owner)
    )
    return Measured(
        None if worst_ms is None else worst_ms / 1e3,
        None if oldest_ns is None else max(0, now_ns - oldest_ns) / 1e9,
        unmeasured or 0,
        overdue or 0,
    )


def promises(found: Measured, settings: FaultsSettings) -> tuple[SetPoint, ...]:
    """Pure: what was measured, beside what was promised."""
    spans_s = [span for span in (found.worst_ended_s, found.longest_open_s) if span is not None]
    worst_s = max(spans_s, default=None)
    standing = Standing.UNKNOWN if found.unmeasured else Standing.KEPT
    if worst_s is not None and worst_s > settings.back_within_s:
        standing = Standing.BROKEN
    return (
        SetPoint(
            ROOM,
            "a resource that died is ready again",
            settings.back_within_s,
            "s",
            worst_s,
            standing,
            _said(found, worst_s),
        ),
        SetPoint(
            ROOM,
            "acts past their deadline",
            0,
            "acts",
            found.overdue_acts,
            Standing.BROKEN if found.overdue_acts else Standing.KEPT,
        ),
    )


def _said(found: Measured, worst_s: float | None) -> str:
    if found.longest_open_s is not None:
        return f"down now, for {found.longest_open_s:.1f} s"
    if found.unmeasured:
        return f"{found.unmeasured} in the last hour of which nobody saw both ends, whole hosts among them"
    return "nothing died in the last hour" if worst_s is None else "longest of the last hour"
