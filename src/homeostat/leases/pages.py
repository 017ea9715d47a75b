"""The page of leases: hosts and leases as a Gantt chart, below it every lease with its health.

Administrators see all hosts with their free slots; a project its own leases, and the hosts that these are on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from homeostat.contracts.events.leases import HostReservable, HostUnreservable, ReservationMoved
from homeostat.contracts.nouns import INFRASTRUCTURE, HostId
from homeostat.kernel.access import Caller
from homeostat.kernel.journal import Envelope, Seq
from homeostat.leases import api
from homeostat.leases.api import CurrentLeases, LeasesApi
from homeostat.leases.book import Occupancy, sorted_hosts
from homeostat.leases.gantt import (
    DAY_NS,
    HOUR_NS,
    NO_HOST,
    PAST_SHARE,
    BarKind,
    ChartHost,
    ChartMove,
    ChartWindow,
    GanttChart,
    Span,
    free_spans,
    gantt_chart,
    merged,
    minutes,
    window_of,
)
from homeostat.leases.model import Lease, ReservableHost, ReservationStatus, ResourceType
from homeostat.leases.views import LeaseView, Outlook
from homeostat.web.page_route import CurrentVisitor, PageRoute, WritingVisitor, show_page

HERE = "/console/leases"
HOSTS_SHOWN_MAX = 100
LEASES_SHOWN_MAX = 500
_EVENTS_MAX = 1000

router = APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)


class Range(StrEnum):
    """How much the chart shows."""

    HALF_A_DAY = "12h"
    TWO_DAYS = "2d"
    WEEK = "1w"
    FOUR_WEEKS = "4w"


LENGTHS_NS = {
    Range.HALF_A_DAY: 12 * HOUR_NS,
    Range.TWO_DAYS: 2 * DAY_NS,
    Range.WEEK: 7 * DAY_NS,
    Range.FOUR_WEEKS: 28 * DAY_NS,
}
RANGE_WORDS = {
    Range.HALF_A_DAY: "12 hours",
    Range.TWO_DAYS: "2 days",
    Range.WEEK: "1 week",
    Range.FOUR_WEEKS: "4 weeks",
}


@router.get("/leases")
async def lease_page(
    request: Request,
    visitor: CurrentVisitor,
    parts: CurrentLeases,
    range: Annotated[Range | None, Query()] = None,
) -> Response:
    """Who has which host when, and how that stands."""
    caller = visitor.caller
    rows = (await api.list_leases(caller, parts, False, None, LEASES_SHOWN_MAX)).items
    shown = range or _range_for(parts, rows)
    window = window_of(parts.clock.wall_ns(), LENGTHS_NS[shown])
    hosts = _hosts(parts, caller, rows)
    chart = await _chart(parts, caller, hosts[:HOSTS_SHOWN_MAX], window)
    over = (await api.list_leases(caller, parts, True, None, LEASES_SHOWN_MAX)).items
    return show_page(
        request,
        "leases.html",
        visitor,
        "leases",
        rows=[(row, _must_acknowledge(caller, row)) for row in rows],
        over=sorted((row for row in over if row.ended_at), key=lambda row: row.ended_at or "")[-20:][::-1],
        degraded=sum(row.degraded for row in rows),
        at_risk=sum(row.outlook is Outlook.AT_RISK for row in rows),
        chart=chart,
        hosts=len(hosts),
        hosts_left_out=max(0, len(hosts) - HOSTS_SHOWN_MAX),
        ranges=[(each.value, RANGE_WORDS[each], each is shown) for each in Range],
        is_administrator=caller.may_read(INFRASTRUCTURE),
    )


@router.post("/leases/{id}/ack")
async def acknowledge(
    id: Annotated[str, Path(max_length=63)], visitor: WritingVisitor, parts: CurrentLeases
) -> Response:
    """The owner took note of what changed."""
    await api.acknowledge_lease(id, visitor.caller, parts)
    return RedirectResponse(HERE, 303)


def _must_acknowledge(caller: Caller, row: LeaseView) -> bool:
    return caller.may_write(row.project) and any(each.moved_at for each in row.reservations)


def _range_for(parts: LeasesApi, rows: Sequence[LeaseView]) -> Range:
    """The shortest in which every lease at least begins."""
    now_ns = parts.clock.wall_ns()
    leases = [parts.keeper.book.leases[row.id] for row in rows]  # type: ignore[index]
    last_ns = max((min(row.end_ns, row.start_ns + HOUR_NS) for row in leases), default=now_ns)
    for each, length_ns in LENGTHS_NS.items():
        if last_ns <= now_ns + (1 - PAST_SHARE) * length_ns:
            return each
    return Range.FOUR_WEEKS


def _hosts(parts: LeasesApi, caller: Caller, rows: Sequence[LeaseView]) -> list[ReservableHost]:
    found = sorted_hosts(parts.keeper.book.hosts.values())
    if caller.may_read(INFRASTRUCTURE):
        return found
    own = {host for row in rows for host in row.hosts}
    return [row for row in found if row.host in own]


async def _chart(
    parts: LeasesApi, caller: Caller, hosts: Sequence[ReservableHost], window: ChartWindow
) -> GanttChart:
    sees_all = caller.may_read(INFRASTRUCTURE)
    book, now_ns = parts.keeper.book, window.now_ns
    spans = list(_without_host(parts, caller))
    rows = [ChartHost(NO_HOST, "no host", "missing")] if spans else []
    cleaning_ns = parts.keeper.context("page").cleaning_ns
    for host in hosts:
        out = [*await _failures(parts, host, window), *_holds(host, now_ns)]
        booked = [
            _span(parts, each) for each in book.on_host(host.host) if caller.may_read(each.lease.project)
        ]
        rows.append(_chart_host(host, now_ns))
        spans += [*out, *merged(booked)]
        if sees_all:
            spans += free_spans(host.host, [*out, *booked], window, cleaning_ns)
    return gantt_chart(rows, spans, await _moves(parts, caller, window), window)


def _chart_host(host: ReservableHost, now_ns: int) -> ChartHost:
    hold = host.hold_at(now_ns)
    size = ", ".join(
        f"{value} {unit}"
        for value, unit in (
            (host.vcpus, "cores"),
            (round(host.memory_mb / 1024), "GB memory"),
            (host.disk_gb, "GB disk"),
        )
        if value
    )
    if hold is not None:
        return ChartHost(host.host, host.host, "held", f"{hold.reason} ({hold.by})")
    if not host.reservable:
        return ChartHost(host.host, host.host, "failed" if host.failed else "unknown", host.reason)
    return ChartHost(host.host, host.host, "", size)


def _span(parts: LeasesApi, found: Occupancy) -> Span:
    lease, kind = found.lease, BarKind.PENDING
    if found.reservation.status is ReservationStatus.ACTIVE:
        kind = BarKind.ACTIVE
    risk = parts.outlook.risks.get(found.reservation.id)
    at_risk = risk is not None and not risk.is_safe and found.allocation.host is not None
    host = NO_HOST if found.allocation.host is None else found.allocation.host
    return Span(
        host,
        BarKind.MISSING if host == NO_HOST else kind,
        lease.start_ns,
        lease.end_ns,
        lease.name,
        _span_words(found, at_risk),
        at_risk,
    )


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count} cores"


def _span_words(found: Occupancy, at_risk: bool) -> str:
    lease, row = found.lease, found.reservation
    said = f"{lease.name} of {lease.project}, {lease.status}, {minutes(lease.start_ns, lease.end_ns)}"
    if row.resource_type is ResourceType.INSTANCE:
        said += f", {_cores(row.vcpus)}, {row.memory_mb} MB and {row.disk_gb} GB each"
    if at_risk:
        said += ", at risk"
    return f"{said}. {found.allocation.reason}" if found.allocation.reason else said


def _without_host(parts: LeasesApi, caller: Caller) -> Iterator[Span]:
    """What is missing, of leases that are not over."""
    book = parts.keeper.book
    for allocation in book.allocations.values():
        if allocation.host is None:
            reservation = book.reservations[allocation.reservation]
            lease = book.leases[reservation.lease]
            if lease.is_open and caller.may_read(lease.project):
                yield _span(parts, Occupancy(lease, reservation, allocation))


def _holds(host: ReservableHost, now_ns: int) -> Iterator[Span]:
    hold = host.hold_at(now_ns)
    if hold is not None:
        yield Span(
            host.host, BarKind.HELD, now_ns, hold.until_ns, "held", f"held by {hold.by}: {hold.reason}"
        )


async def _failures(parts: LeasesApi, host: ReservableHost, window: ChartWindow) -> list[Span]:
    """Failures within the window; the journal is read only for a host about which something changed."""
    found: list[Span] = []
    open_since: tuple[int, str, bool] | None = None
    if host.since_ns > window.start_ns:
        for each in await _events(parts, f"reservable/{host.host}", (HostUnreservable, HostReservable)):
            match each.event:
                case HostUnreservable(reason=reason, seen_ns=seen_ns, failed=failed):
                    if open_since is not None:
                        found.append(_failure(host.host, open_since, each.at_ns))
                    open_since = (seen_ns, reason, failed)
                case HostReservable() if open_since is not None:
                    found.append(_failure(host.host, open_since, each.at_ns))
                    open_since = None
                case _:
                    pass
    if not host.reservable:
        found.append(_failure(host.host, (host.since_ns, host.reason, host.failed), None))
    return found


def _failure(host: HostId, since: tuple[int, str, bool], end_ns: int | None) -> Span:
    start_ns, reason, failed = since
    kind = BarKind.FAILED if failed else BarKind.UNKNOWN
    return Span(host, kind, start_ns, end_ns, kind.value, f"{kind.value}: {reason}")


async def _moves(parts: LeasesApi, caller: Caller, window: ChartWindow) -> list[ChartMove]:
    """Moves within the window, of leases that have some."""
    book = parts.keeper.book
    moved: dict[str, Lease] = {}
    for allocation in book.allocations.values():
        if allocation.reason and allocation.since_ns >= window.start_ns:
            lease = book.lease_of(allocation.reservation)
            if lease.is_open and caller.may_read(lease.project):
                moved[lease.id] = lease
    found = []
    for lease in list(moved.values())[:HOSTS_SHOWN_MAX]:
        for each in await _events(parts, f"lease/{lease.id}", (ReservationMoved,)):
            if isinstance(each.event, ReservationMoved):
                for old, new in each.event.hosts:
                    words = f"{lease.name} moved from {old or 'no host'} to {new}: {each.event.reason}"
                    found.append(ChartMove(each.at_ns, HostId(old), HostId(new), words))
    return found


async def _events(parts: LeasesApi, subject: str, kinds: tuple[type, ...]) -> list[Envelope]:
    names = [each.__name__ for each in kinds]
    return await parts.journal.read(Seq(0), _EVENTS_MAX, kinds=names, subject=subject)
