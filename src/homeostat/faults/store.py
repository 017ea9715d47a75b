"""The table of faults, and how rows become records and changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Double,
    Index,
    Table,
    Text,
    bindparam,
    insert,
    or_,
    select,
    update,
)

from homeostat.contracts.nouns import FaultId, FaultKind, Owner, ResourceId, Severity, resource_subject
from homeostat.faults.flapping import remembered
from homeostat.faults.model import Fault, FaultState
from homeostat.kernel.database import BIG, METADATA
from homeostat.kernel.journal import Change, Seq
from homeostat.kernel.records import row_of

fault_table = Table(
    "fault",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("about", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("raised_seq", BIG, nullable=False),
    Column("trace", Text, nullable=False),
    Column("raised_ns", BIG, nullable=False),
    Column("raised_mono_ns", BIG),
    Column("up_ns", BIG),
    Column("up_mono_ns", BIG),
    Column("up_seq", BIG),
    Column("cleared_ns", BIG),
    Column("cleared_reason", Text, nullable=False),
    Column("outage_ms", Double),
    Column("affected", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("flaps", Boolean, nullable=False),
    Index("ix_fault_state", "state"),
    Index("ix_fault_raised_seq", "raised_seq"),
    Index("ix_fault_trace", "trace"),
)

_CHANGING = ("state", "up_ns", "up_mono_ns", "up_seq", "cleared_ns", "cleared_reason", "outage_ms")
_INSERT = insert(fault_table)
_UPDATE = (
    update(fault_table)
    .where(fault_table.c.id == bindparam("key"))
    .values({name: bindparam(name) for name in _CHANGING})
)


def fault_raised(fault: Fault) -> Change:
    """A new row; the number of its event is known when it is committed."""
    row = row_of(fault)
    row.pop("hold_until_ns")
    return Change(_INSERT, (row,))


def fault_changed(fault: Fault) -> Change:
    """What may change about a fault after it was raised."""
    row = row_of(fault)
    return Change(_UPDATE, ({"key": fault.id, **{name: row[name] for name in _CHANGING}},))


def record(row: Any) -> Fault:
    """A fault from its row."""
    return Fault(
        id=FaultId(row.id),
        kind=FaultKind(row.kind),
        severity=Severity(row.severity),
        about=row.about,
        owner=Owner(row.owner),
        reason=row.reason,
        state=FaultState(row.state),
        raised_seq=Seq(row.raised_seq),
        trace=row.trace,
        raised_ns=row.raised_ns,
        raised_mono_ns=row.raised_mono_ns,
        up_ns=row.up_ns,
        up_mono_ns=row.up_mono_ns,
        up_seq=None if row.up_seq is None else Seq(row.up_seq),
        cleared_ns=row.cleared_ns,
        cleared_reason=row.cleared_reason,
        outage_ms=row.outage_ms,
        affected=row.affected,
        host=row.host,
        flaps=bool(row.flaps),
    )


def load_open(connection: Connection) -> list[Fault]:
    """Every fault that is not cleared."""
    query = select(fault_table).where(fault_table.c.state != FaultState.CLEARED.value)
    return [record(row) for row in connection.execute(query)]


def load_raised(connection: Connection, since_ns: int) -> dict[str, tuple[int, ...]]:
    """When faults of each subject were raised after a time, oldest first."""
    table = fault_table.c
    query = select(table.about, table.raised_ns).where(table.raised_ns > since_ns).order_by(table.raised_ns)
    found: dict[str, tuple[int, ...]] = {}
    for about, raised_ns in connection.execute(query):
        found[about] = remembered(found.get(about, ()), raised_ns)
    return found


def load(connection: Connection, ids: Sequence[FaultId]) -> list[Fault]:
    """These faults, in no order; unknown ids are left out."""
    return [record(row) for row in connection.execute(select(fault_table).where(fault_table.c.id.in_(ids)))]


def concerns(owner: Owner) -> ColumnElement[bool]:
    """The faults of a project, and those from which something of it suffers."""
    # A project's name holds neither quotes nor wildcards.
    return or_(fault_table.c.owner == owner, fault_table.c.affected.contains(f'"{owner}":['))


@dataclass(frozen=True, slots=True)
class FaultQuery:
    """Which faults somebody asks for (Doctor's FaultQueryFilter). None and empty let all through.

    `resource` is the fault's subject or one that suffers from it; `from_ns` and `until_ns` bound when it was
    raised, the second one is not included.
    """

    owner: Owner | None = None
    state: FaultState | None = None
    kinds: tuple[FaultKind, ...] = ()
    resource: ResourceId | None = None
    minimum_severity: Severity | None = None
    from_ns: int | None = None
    until_ns: int | None = None


def load_latest(connection: Connection, wanted: FaultQuery, limit: int) -> list[Fault]:
    """The newest faults first."""
    table = fault_table.c
    query = select(fault_table).order_by(table.raised_seq.desc()).limit(limit)
    if wanted.owner is not None:
        query = query.where(concerns(wanted.owner))
    if wanted.state is not None:
        query = query.where(table.state == wanted.state.value)
    if wanted.kinds:
        query = query.where(table.kind.in_([each.value for each in wanted.kinds]))
    if wanted.resource is not None:
        written = orjson.dumps(wanted.resource).decode()
        suffers = table.affected.contains(written, autoescape=True)
        query = query.where(or_(table.about == resource_subject(wanted.resource), suffers))
    if wanted.minimum_severity is not None:
        ranks = list(Severity)
        worse = ranks[: ranks.index(wanted.minimum_severity) + 1]
        query = query.where(table.severity.in_([each.value for each in worse]))
    if wanted.from_ns is not None:
        query = query.where(table.raised_ns >= wanted.from_ns)
    if wanted.until_ns is not None:
        query = query.where(table.raised_ns < wanted.until_ns)
    return [record(row) for row in connection.execute(query)]
