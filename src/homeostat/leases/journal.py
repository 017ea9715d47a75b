"""Leases in the journal: sentences of their events, whom they concern, what may be removed, what a replay
follows.

Every event about a lease names its project; those about hosts alone are for administrators. A lease that is
over may go with its events; nothing goes that is behind an open one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, func, or_, select

from homeostat.contracts.events import leases
from homeostat.kernel.clock import iso
from homeostat.kernel.journal import Envelope
from homeostat.kernel.journal_rules import (
    PrunableRows,
    ReplayedRows,
    ReplayedTable,
    ReplayRules,
    RetentionRules,
)
from homeostat.leases.model import (
    LeaseStatus,
    MonitorReport,
    ReservationStatus,
    properties_text,
    reports_after,
)
from homeostat.leases.monitoring import HostOutcome
from homeostat.leases.store import (
    allocation_table,
    lease_event_table,
    lease_table,
    reservable_host_table,
    reservation_table,
)


def sentence(event: object, _about: str) -> str:
    match event:
        case leases.LeaseCreated():
            window = f"{iso(event.start_ns)} to {iso(event.end_ns)}"
            return f"Lease {event.name} of project {event.project} created: {window}"
        case leases.LeaseUpdated():
            window = f"{iso(event.start_ns)} to {iso(event.end_ns)}"
            return f"Lease {event.name} changed by {event.by}: {window}"
        case leases.LeaseStatusChanged():
            why = f": {event.reason}" if event.reason else ""
            return f"Lease {event.lease} is {event.status}{why}"
        case leases.BeforeEndReached():
            return f"Lease {event.lease} ends at {iso(event.end_ns)}"
        case leases.LeaseDeleted():
            return f"Lease {event.name} deleted by {event.by}"
        case leases.LeaseAcknowledged():
            return f"Changes of lease {event.lease} acknowledged by {event.by}"
        case leases.ReservationPlaced():
            hosts = ", ".join(place.host or "none" for place in event.places)
            window = f"{iso(event.start_ns)} to {iso(event.end_ns)}"
            return f"Reserved for project {event.project} from {window}: {hosts}"
        case leases.ReservationReleased():
            return f"Reservation {event.reservation} of project {event.project} released its hosts"
        case leases.ReservationMoved():
            moves = ", ".join(f"{old or 'none'} to {new}" for old, new in event.hosts)
            state = "running" if event.active else "pending"
            return f"Reservation {event.reservation} ({state}) moved from {moves}: {event.reason}"
        case leases.ReservationMissing():
            count = "1 host" if event.missing == 1 else f"{event.missing} hosts"
            return f"Reservation {event.reservation} misses {count}: {event.reason}"
        case leases.ReservationRestored():
            return f"Reservation {event.reservation} has all of its hosts again: {event.reason}"
        case _:
            return _sentence_of_host(event)


def _sentence_of_host(event: object) -> str:
    match event:
        case leases.ReservableHostAdded():
            return f"Host {event.host} may be reserved (added by {event.by})"
        case leases.ReservableHostRemoved():
            return f"Host {event.host} may not be reserved any more (removed by {event.by})"
        case leases.ReservableHostChanged():
            properties = ", ".join(f"{name}={value}" for name, value in sorted(event.properties.items()))
            return f"Properties of host {event.host} set by {event.by}: {properties}"
        case leases.HostCapacityNoted():
            size = f"{event.vcpus} cores, {event.memory_mb} MB of memory, {event.disk_gb} GB of disk"
            return f"Host {event.host} has {size}"
        case leases.HostReported():
            state = f"{event.outcome} ({event.withheld})" if event.withheld else event.outcome
            return f"Monitor {event.monitor} reports host {event.host} as {state}: {event.reason}"
        case leases.HostUnreservable(failed=False):
            return f"Host {event.host} is unknown and not reservable: {event.reason}"
        case leases.HostUnreservable():
            return f"Host {event.host} marked as failed for reservations: {event.reason}"
        case leases.HostReservable():
            return f"Host {event.host} can be reserved again: {event.reason}"
        case leases.ReservableHostHeld() if event.held:
            until = "" if event.until_ns is None else f" until {iso(event.until_ns)}"
            return f"Host {event.host} held{until} by {event.by}, no new reservation: {event.reason}"
        case leases.ReservableHostHeld():
            return f"Hold of host {event.host} ended by {event.by}"
        case _:
            return ""


def find_owners(_connection: Connection, envelopes: Sequence[Envelope]) -> Mapping[int, frozenset[str]]:
    """The project that each event about a lease names."""
    named = ((int(each.seq), getattr(each.event, "project", None)) for each in envelopes if _is_ours(each))
    return {seq: frozenset({str(project)}) for seq, project in named if project is not None}


def _is_ours(envelope: Envelope) -> bool:
    return isinstance(envelope.event, leases.EVENTS)


_IS_OVER = lease_table.c.ended_ns.is_not(None)
_OPEN_LEASES = select(lease_table.c.id).where(~_IS_OVER)

RETENTION = RetentionRules(
    prunable=(
        *(
            PrunableRows(name, table, table.c.id, table.c.created_seq, table.c.lease.not_in(_OPEN_LEASES))
            for name, table in (
                ("allocations", allocation_table),
                ("reservations", reservation_table),
                ("moments of leases", lease_event_table),
            )
        ),
        PrunableRows("leases", lease_table, lease_table.c.id, lease_table.c.created_seq, _IS_OVER),
    ),
    bounds=lambda before_ns: (
        select(func.min(lease_table.c.created_seq) - 1).where(
            or_(~_IS_OVER, lease_table.c.ended_ns >= before_ns)
        ),
    ),
)

_CONTENTS = "contents of leases"
"""No table: what belongs to a lease (reservations) and to a reservation (allocations), by id."""


def _follow(rows: ReplayedRows, seq: int, _subject: str, event: object) -> str:
    contents = rows.tables.setdefault(_CONTENTS, {})
    match event:
        case leases.LeaseCreated():
            contents[event.lease] = {"reservations": event.reservations}
            for reservation in event.reservations:
                row = {"lease": event.lease, "status": ReservationStatus.PENDING.value, "created_seq": seq}
                if wrong := rows.begin("lease_reservation", reservation, seq, row):
                    return wrong
            return rows.begin("lease", event.lease, seq, _lease_row(event, seq))
        case leases.LeaseUpdated():
            changed = {"name": event.name, "start_ns": event.start_ns, "end_ns": event.end_ns}
            return rows.end("lease", event.lease, seq, changed)
        case leases.LeaseStatusChanged():
            for each in _reservations(rows, event.lease):
                rows.of("lease_reservation")[each]["status"] = event.reservation_status
            return rows.end("lease", event.lease, seq, {"status": event.status})
        case leases.LeaseDeleted():
            for each in _reservations(rows, event.lease):
                _drop_allocations(rows, each)
                rows.of("lease_reservation").pop(each, None)
            contents.pop(event.lease, None)
            rows.of("lease").pop(event.lease, None)
        case leases.ReservationPlaced() if event.lease in contents:
            _place(rows, seq, event)
        case _:
            return _follow_host(rows, seq, event)
    return ""


def _lease_row(event: leases.LeaseCreated, seq: int) -> dict[str, object]:
    return {
        "name": event.name,
        "project": event.project,
        "user": event.user,
        "start_ns": event.start_ns,
        "end_ns": event.end_ns,
        "status": LeaseStatus.PENDING.value,
        "created_seq": seq,
    }


def _reservations(rows: ReplayedRows, lease: str) -> tuple[str, ...]:
    found = rows.of(_CONTENTS).get(lease, {}).get("reservations", ())
    return found if isinstance(found, tuple) else ()


def _allocations(rows: ReplayedRows, reservation: str) -> tuple[str, ...]:
    found = rows.of(_CONTENTS).get(reservation, {}).get("allocations", ())
    return found if isinstance(found, tuple) else ()


def _drop_allocations(rows: ReplayedRows, reservation: str, but: frozenset[str] = frozenset()) -> None:
    for each in _allocations(rows, reservation):
        if each not in but:
            rows.of("lease_allocation").pop(each, None)


def _place(rows: ReplayedRows, seq: int, event: leases.ReservationPlaced) -> None:
    table = rows.of("lease_allocation")
    now = tuple(place.allocation for place in event.places)
    _drop_allocations(rows, event.reservation, frozenset(now))
    rows.of(_CONTENTS)[event.reservation] = {"allocations": now}
    for place in event.places:
        row = table.setdefault(place.allocation, {"created_seq": seq})
        row |= {"reservation": event.reservation, "number": place.number, "host": place.host}


def _follow_host(rows: ReplayedRows, seq: int, event: object) -> str:
    match event:
        case leases.ReservableHostAdded():
            row = {"number": event.number, "properties": "{}", "reports": "{}"}
            row |= {"reservable": True, "failed": False}
            return rows.begin("lease_host", event.host, seq, {**row, "created_seq": seq})
        case leases.ReservableHostRemoved():
            rows.of("lease_host").pop(event.host, None)
        case leases.ReservableHostChanged():
            return rows.end("lease_host", event.host, seq, {"properties": properties_text(event.properties)})
        case leases.HostCapacityNoted():
            noted = {"vcpus": event.vcpus, "memory_mb": event.memory_mb, "disk_gb": event.disk_gb}
            return rows.end("lease_host", event.host, seq, {**noted, "architecture": event.architecture})
        case leases.HostReported() if event.withheld != leases.DRY_RUN and event.host in rows.of(
            "lease_host"
        ):
            row = rows.of("lease_host")[event.host]
            report = MonitorReport(HostOutcome(event.outcome), event.reason, event.seen_ns)
            row["reports"] = reports_after(str(row["reports"]), event.monitor, report)
        case leases.HostUnreservable():
            marked = {"reservable": False, "failed": event.failed, "reason": event.reason}
            return rows.end("lease_host", event.host, seq, marked)
        case leases.HostReservable():
            well = {"reservable": True, "failed": False, "reason": ""}
            return rows.end("lease_host", event.host, seq, well)
        case leases.ReservableHostHeld():
            return rows.end("lease_host", event.host, seq, {"hold_reason": event.reason})
        case _:
            pass  # says nothing of these tables
    return ""


REPLAY = ReplayRules(
    tables=(
        ReplayedTable("lease", lease_table, "id", "created_seq"),
        ReplayedTable("lease_reservation", reservation_table, "id", "created_seq"),
        ReplayedTable("lease_allocation", allocation_table, "id", "created_seq"),
        ReplayedTable("lease_host", reservable_host_table, "host", "created_seq"),
    ),
    follow=_follow,
)
