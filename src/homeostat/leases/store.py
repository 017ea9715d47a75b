"""The tables of leases, and the changes that a decision makes to them. Changes are made here, not written.

`LeaseChange` is what a decision leads to: events with the rows as they become. `submission_of` makes one
transaction of it, `load` reads the tables into a `LeaseBook`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import (
    BindParameter,
    Column,
    Connection,
    Executable,
    Index,
    Insert,
    Table,
    Text,
    Update,
    bindparam,
    delete,
    insert,
    select,
    update,
)

from homeostat.contracts.events.leases import ReservationPlaced
from homeostat.kernel.database import BIG, record_table
from homeostat.kernel.journal import EventIndex, NewEvent, RowChange, Submission, group_changes
from homeostat.kernel.records import record_of, row_of
from homeostat.leases.book import LeaseBook, LeaseChange
from homeostat.leases.model import (
    Allocation,
    HostProperty,
    Lease,
    LeaseEvent,
    ReservableHost,
    Reservation,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S")

LOOP = "leases"
"""The name under which the service submits."""

lease_table = record_table(
    "lease",
    Lease,
    Column("created_seq", BIG, nullable=False),
    Index("ix_lease_created_seq", "created_seq"),
    key="id",
)
reservation_table = record_table(
    "lease_reservation",
    Reservation,
    Column("created_seq", BIG, nullable=False),
    Index("ix_lease_reservation_lease", "lease"),
    key="id",
    integers=("minimum", "maximum", "amount", "vcpus", "memory_mb", "disk_gb", "version"),
)
allocation_table = record_table(
    "lease_allocation",
    Allocation,
    Column("lease", Text, nullable=False),
    Column("created_seq", BIG, nullable=False),
    Index("ix_lease_allocation_reservation", "reservation"),
    key="id",
    integers=("number",),
)
lease_event_table = record_table(
    "lease_event",
    LeaseEvent,
    Column("created_seq", BIG, nullable=False),
    Index("ix_lease_event_lease", "lease"),
    key="id",
    integers=("attempts",),
)
reservable_host_table = record_table(
    "lease_host",
    ReservableHost,
    Column("created_seq", BIG, nullable=False),
    Index("uq_lease_host_number", "number", unique=True),
    key="host",
    integers=("number", "vcpus", "memory_mb", "disk_gb"),
)
host_property_table = record_table(
    "lease_host_property",
    HostProperty,
    Column("created_seq", BIG, nullable=False),
    key="name",
)
"""`created_seq` is the event that began a row. An allocation names its lease, too: retention asks for it."""

_KEYS = {
    lease_table: "id",
    reservation_table: "id",
    allocation_table: "id",
    lease_event_table: "id",
    reservable_host_table: "host",
    host_property_table: "name",
}
_INSERTS: dict[Table, Insert] = {table: insert(table) for table in _KEYS}


def _update(table: Table, key: str) -> Update:
    changed: dict[str, BindParameter[Any]] = {
        each.name: bindparam(f"new_{each.name}")
        for each in table.c
        if each.name not in (key, "created_seq", "lease")
    }
    return update(table).where(table.c[key] == bindparam("known")).values(changed)


_UPDATES = {table: _update(table, key) for table, key in _KEYS.items()}
_REMOVALS = {table: delete(table).where(table.c[key] == bindparam("gone")) for table, key in _KEYS.items()}
_LEASE_REMOVALS = [
    delete(table).where(table.c.lease == bindparam("gone"))
    for table in (allocation_table, lease_event_table, reservation_table)
] + [_REMOVALS[lease_table]]


def submission_of(change: LeaseChange, book: LeaseBook) -> Submission:
    """One transaction. What the book does not know is inserted, the rest updated.

    An allocation begins with the event that placed it, every other row with the first event.
    """
    placed = {
        draft.event.reservation: index
        for index, draft in enumerate(change.events)
        if isinstance(draft.event, ReservationPlaced)
    }
    new = {each.id: each.lease for each in change.reservations}

    def place(row: Allocation) -> dict[str, object]:
        known = book.reservations.get(row.reservation)
        lease = new[row.reservation] if known is None else known.lease
        return {"lease": lease, "created_seq": EventIndex(placed.get(row.reservation, 0))}

    changes = [
        *_rows(lease_table, change.leases, book.leases),
        *_rows(reservation_table, change.reservations, book.reservations),
        *_rows(allocation_table, change.allocations, book.allocations, place),
        *_rows(lease_event_table, change.lease_events, book.lease_events),
        *_rows(reservable_host_table, change.hosts, book.hosts),
        *_rows(host_property_table, change.properties, book.properties),
    ]
    for lease in change.removed_leases:
        changes += [RowChange(statement, ({"gone": lease},)) for statement in _LEASE_REMOVALS]
    gone: Sequence[tuple[Table, Sequence[str]]] = (
        (allocation_table, change.removed_allocations),
        (lease_event_table, change.removed_events),
        (reservable_host_table, change.removed_hosts),
    )
    for table, keys in gone:
        if keys:
            changes.append(RowChange(_REMOVALS[table], tuple({"gone": key} for key in keys)))
    return Submission(LOOP, change.events, tuple(changes))


def merged(submissions: Sequence[Submission]) -> Submission:
    """One transaction of several, in their order: what points at an event of its own still does."""
    if len(submissions) == 1:
        return submissions[0]
    events: list[NewEvent] = []
    changes: list[RowChange] = []
    for submission in submissions:
        base = len(events)
        events += [replace(each, cause=_shifted(each.cause, base)) for each in submission.events]
        for change in submission.changes:
            rows = tuple(
                {name: _shifted(value, base) for name, value in row.items()} for row in change.values
            )
            changes.append(RowChange(change.statement, rows))
    return Submission(LOOP, tuple(events), group_changes(changes))


def _shifted(value: S, base: int) -> S | EventIndex:
    return EventIndex(value.index + base) if isinstance(value, EventIndex) else value


def _first_event(_record: object) -> dict[str, object]:
    return {"created_seq": EventIndex(0)}


def _rows(
    table: Table,
    records: Sequence[DataclassInstance],
    known: Container[Any],
    beside: Callable[[Any], dict[str, object]] = _first_event,
) -> list[RowChange]:
    """At most two changes: what is inserted, with columns that are no fields, and what is updated."""
    key = _KEYS[table]
    added: list[dict[str, object]] = []
    changed: list[dict[str, object]] = []
    for record in records:
        row = row_of(record)
        if row[key] not in known:
            added.append({**row, **beside(record)})
            continue
        values = {f"new_{name}": value for name, value in row.items() if name not in (key, "lease")}
        changed.append({"known": row[key], **values})
    pairs: Sequence[tuple[Executable, list[dict[str, object]]]] = (
        (_INSERTS[table], added),
        (_UPDATES[table], changed),
    )
    return [RowChange(statement, tuple(rows)) for statement, rows in pairs if rows]


def load(connection: Connection) -> LeaseBook:
    """All rows, as they are."""
    book = LeaseBook()
    book.adopt(
        LeaseChange(
            leases=_records(connection, lease_table, Lease),
            reservations=_records(connection, reservation_table, Reservation),
            allocations=_records(connection, allocation_table, Allocation),
            lease_events=_records(connection, lease_event_table, LeaseEvent),
            hosts=_records(connection, reservable_host_table, ReservableHost),
            properties=_records(connection, host_property_table, HostProperty),
        )
    )
    return book


def _records(connection: Connection, table: Table, kind: Any) -> tuple[Any, ...]:
    query = select(table).order_by(table.c.created_seq, table.c[_KEYS[table]])
    return tuple(record_of(kind, row) for row in connection.execute(query))
