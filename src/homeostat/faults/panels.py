"""The set points of fault detection, and the panels of the front page about faults: open and lately cleared
ones, and the chart of the last hour. All is measured from the rows, never from what a loop believes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, exists, func, literal, or_, select, true

from homeostat.contracts.component import OverviewPanel, PanelPlace
from homeostat.contracts.faults import FaultState
from homeostat.contracts.nouns import INFRASTRUCTURE, FaultKind, Owner, SetPoint, SetPointState
from homeostat.faults.api import FaultsApi, list_faults
from homeostat.faults.model import NO_AFFECTED
from homeostat.faults.settings import FaultsSettings
from homeostat.faults.store import concerns, fault_table
from homeostat.fleet.store import action_table, resource_table
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers, journal
from homeostat.notices.model import NoticeTransition
from homeostat.notices.store import outbox

COMPONENT = "faults"
WINDOW_S = 3600
_POINTS_MAX = 500
_AT_ONCE = 200
_OPEN_MAX = 100
_RECENT = 6


@dataclass(frozen=True, slots=True)
class FaultPoint:
    """One fault. `outage_ms` is the upper bound. `told_ms`: from the decision to the last consumer's answer,
    both on the server's clock."""

    fault: str
    at_ns: int
    outage_ms: float | None
    told_ms: float | None
    outage_lower_ms: float | None = None


def faults_of_last_hour(connection: Connection, caller: Caller, now_ns: int) -> list[FaultPoint]:
    """The faults of the last hour that the caller may read, oldest first, at most the newest 500."""
    table = fault_table.c
    query = select(table.id, table.raised_ns, table.outage_ms, table.outage_lower_ms).where(
        table.raised_ns > now_ns - WINDOW_S * 10**9
    )
    if caller.role is not Role.ADMIN:
        owner = Owner(caller.owner)
        query = query.where(concerns(owner), literal(owner) != INFRASTRUCTURE)
    rows = connection.execute(query.order_by(table.raised_ns.desc()).limit(_POINTS_MAX)).all()
    told = _notified_ms(connection, caller, [row.id for row in rows])
    return [
        FaultPoint(row.id, row.raised_ns, row.outage_ms, told.get(row.id), row.outage_lower_ms)
        for row in reversed(rows)
    ]


def _notified_ms(connection: Connection, caller: Caller, faults: list[str]) -> dict[str, float]:
    """The slowest notice `raised` of each fault, among the subscriptions that the caller may see."""
    found: dict[str, float] = {}
    took_ns = func.max(journal.c.at_ns - outbox.c.queued_ns).label("took_ns")
    for start in range(0, len(faults), _AT_ONCE):
        query = (
            select(outbox.c.fault, took_ns)
            .join(journal, journal.c.subject == "notice/" + outbox.c.key)
            .where(
                outbox.c.fault.in_(faults[start : start + _AT_ONCE]),
                outbox.c.transition == NoticeTransition.RAISED.value,
                journal.c.kind == "NoticeDelivered",
            )
            .group_by(outbox.c.fault)
        )
        if caller.role is not Role.ADMIN:
            query = query.where(outbox.c.owner == caller.owner)
        found |= {fault: max(0, took) / 1e6 for fault, took in connection.execute(query)}
    return found


def chart_columns(points: Iterable[FaultPoint]) -> dict[str, list[object]]:
    """As the chart wants it: seconds, milliseconds, milliseconds. Zero has no place on its scale."""
    rows = list(points)
    return {
        "fault": [row.fault for row in rows],
        "at": [row.at_ns / 1e9 for row in rows],
        "outage_ms": [_on_scale(row.outage_ms) for row in rows],
        "outage_lower_ms": [_on_scale(row.outage_lower_ms) for row in rows],
        "told_ms": [_on_scale(row.told_ms) for row in rows],
    }


def _on_scale(ms: float | None) -> float | None:
    return None if ms is None else max(0.1, round(ms, 2))


@dataclass(frozen=True, slots=True)
class FaultPanels:
    """Both panels; the figures of the chart are a route of their own."""

    api: FaultsApi

    async def lists(self, caller: Caller) -> OverviewPanel:
        still = [
            *(await list_faults(caller, self.api, FaultState.OPEN, _OPEN_MAX)).items,
            *(await list_faults(caller, self.api, FaultState.CLEARING, _OPEN_MAX)).items,
        ]
        cleared = (await list_faults(caller, self.api, FaultState.CLEARED, _RECENT)).items
        count = f"{len(still)} {'fault' if len(still) == 1 else 'faults'} open"
        about = ", ".join(fault.about for fault in still)
        return OverviewPanel(
            "panel_faults.html",
            PanelPlace.BELOW,
            {"open": still, "recent": cleared},
            headline=count if still else "no fault is open",
            summary=f"{len(still)} open: {about}." if still else "No fault is open.",
            is_unsure=bool(still),
        )

    async def chart(self, _caller: Caller) -> OverviewPanel:
        return OverviewPanel("panel_last_hour.html", PanelPlace.STILL)


@dataclass(frozen=True, slots=True)
class FaultMeasurements:
    """Of the last hour: the longest outage that ended, the longest that has not; acts that are overdue.

    `unmeasured`: how many ended, or happened to a whole host, of which no single clock saw both ends.
    `worst_at_least_s`: the greatest lower bound among those that ended and have no upper one.
    """

    worst_ended_s: float | None
    longest_open_s: float | None
    unmeasured: int
    overdue_acts: int
    worst_at_least_s: float | None = None


@dataclass(frozen=True, slots=True)
class FaultSetPoints:
    """`homeostat status`, the rows of faults."""

    readers: Readers
    clock: Clock
    settings: FaultsSettings

    async def __call__(self, caller: Caller) -> Sequence[SetPoint]:
        """Measured now, on what the caller may read."""
        now_ns = self.clock.wall_ns()
        owner = None if caller.role is Role.ADMIN else Owner(caller.owner)
        found = await self.readers.read(lambda conn: measure(conn, now_ns, owner))
        return set_points(found, self.settings)


def measure(connection: Connection, now_ns: int, owner: Owner | None) -> FaultMeasurements:
    """Read the rows of the last hour; of one owner, or of all when `owner` is None."""
    table = fault_table.c
    is_down = and_(
        table.kind == FaultKind.RESOURCE_DOWN.value, true() if owner is None else table.owner == owner
    )
    ended = and_(is_down, table.cleared_ns > now_ns - WINDOW_S * 10**9)
    worst_ms = connection.scalar(select(func.max(table.outage_ms)).where(ended))
    at_least_ms = connection.scalar(
        select(func.max(table.outage_lower_ms)).where(ended, table.outage_ms.is_(None))
    )
    suffers = table.affected.contains(f'"{owner}":[', autoescape=True)
    of_hosts = and_(
        table.kind == FaultKind.HOST_DOWN.value,
        table.affected != NO_AFFECTED,
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
    return FaultMeasurements(
        None if worst_ms is None else worst_ms / 1e3,
        None if oldest_ns is None else max(0, now_ns - oldest_ns) / 1e9,
        unmeasured or 0,
        overdue or 0,
        None if at_least_ms is None else at_least_ms / 1e3,
    )


def set_points(found: FaultMeasurements, settings: FaultsSettings) -> tuple[SetPoint, ...]:
    """Pure: what was measured, beside what was promised."""
    spans_s = [span for span in (found.worst_ended_s, found.longest_open_s) if span is not None]
    if (at_least_s := _broken_for_sure_s(found, settings)) is not None:
        spans_s.append(at_least_s)
    worst_s = max(spans_s, default=None)
    standing = SetPointState.UNKNOWN if found.unmeasured or worst_s is None else SetPointState.KEPT
    if worst_s is not None and worst_s > settings.back_within_s:
        standing = SetPointState.BROKEN
    return (
        SetPoint(
            COMPONENT,
            "a resource that died is ready again",
            settings.back_within_s,
            "s",
            worst_s,
            standing,
            _said(found, worst_s, at_least_s),
        ),
        SetPoint(
            COMPONENT,
            "acts past their deadline",
            0,
            "acts",
            found.overdue_acts,
            SetPointState.BROKEN if found.overdue_acts else SetPointState.KEPT,
        ),
    )


def _broken_for_sure_s(found: FaultMeasurements, settings: FaultsSettings) -> float | None:
    """A lower bound says that a promise was broken, and never that it was kept."""
    at_least_s = found.worst_at_least_s
    return at_least_s if at_least_s is not None and at_least_s > settings.back_within_s else None


def _said(found: FaultMeasurements, worst_s: float | None, at_least_s: float | None) -> str:
    if found.longest_open_s is not None:
        return f"down now, for {found.longest_open_s:.1f} s"
    if at_least_s is not None and at_least_s == worst_s:
        return f"at least {at_least_s:.1f} s; nobody saw both ends"
    if found.unmeasured:
        return f"{found.unmeasured} in the last hour of which nobody saw both ends, whole hosts among them"
    return "nothing died in the last hour" if worst_s is None else "longest of the last hour"
