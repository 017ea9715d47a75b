"""The table of faults, and how rows become records and changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson
import sqlalchemy as sa

from homeostat.contracts.faults import Fault, FaultState, add_raised_time
from homeostat.contracts.nouns import FaultId, FaultKind, Owner, ResourceId, Severity, resource_subject
from homeostat.kernel.database import record_table
from homeostat.kernel.journal import RowChange
from homeostat.kernel.records import record_of, row_of

fault_table = record_table(
    "fault",
    Fault,
    sa.Index("ix_fault_state", "state"),
    sa.Index("ix_fault_raised_seq", "raised_seq"),
    sa.Index("ix_fault_trace", "trace"),
    key="id",
    without="hold_until_ns",
)

_CHANGING = (
    "state",
    "up_ns",
    "up_mono_ns",
    "up_seq",
    "cleared_ns",
    "cleared_reason",
    "outage_ms",
    "superseded_by",
    "outage_lower_ms",
    "bad_mono_ns",
    "restored",
    "remaining",
)
_INSERT = sa.insert(fault_table)
_UPDATE = (
    sa.update(fault_table)
    .where(fault_table.c.id == sa.bindparam("key"))
    .values({name: sa.bindparam(name) for name in _CHANGING})
)


def fault_raised(fault: Fault) -> RowChange:
    """A new row; the number of its event is known when it is committed."""
    row = row_of(fault)
    row.pop("hold_until_ns")
    return RowChange(_INSERT, (row,))


def fault_changed(fault: Fault) -> RowChange:
    row = row_of(fault)
    return RowChange(_UPDATE, ({"key": fault.id, **{name: row[name] for name in _CHANGING}},))


def load_open(connection: sa.Connection) -> list[Fault]:
    query = sa.select(fault_table).where(fault_table.c.state != FaultState.CLEARED.value)
    return [record_of(Fault, row) for row in connection.execute(query)]


def load_raised(connection: sa.Connection, since_ns: int) -> dict[str, tuple[int, ...]]:
    """When faults of each subject were raised after a time, oldest first."""
    table = fault_table.c
    query = (
        sa.select(table.about, table.raised_ns).where(table.raised_ns > since_ns).order_by(table.raised_ns)
    )
    found: dict[str, tuple[int, ...]] = {}
    for about, raised_ns in connection.execute(query):
        found[about] = add_raised_time(found.get(about, ()), raised_ns)
    return found


def load(connection: sa.Connection, ids: Sequence[FaultId]) -> list[Fault]:
    """These faults, in no order; unknown ids are left out."""
    return [
        record_of(Fault, row)
        for row in connection.execute(sa.select(fault_table).where(fault_table.c.id.in_(ids)))
    ]


def concerns(owner: Owner) -> sa.ColumnElement[bool]:
    """The faults of a project, and those from which something of it suffers."""
    # A project's name holds neither quotes nor wildcards.
    return sa.or_(fault_table.c.owner == owner, fault_table.c.affected.contains(f'"{owner}":['))


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


def load_latest(connection: sa.Connection, wanted: FaultQuery, limit: int) -> list[Fault]:
    table = fault_table.c
    query = sa.select(fault_table).order_by(table.raised_seq.desc()).limit(limit)
    if wanted.owner is not None:
        query = query.where(concerns(wanted.owner))
    if wanted.state is FaultState.RECOVERED:  # as one project sees it: no row says so
        query = query.where(table.state != FaultState.CLEARED.value)
    elif wanted.state is not None:
        query = query.where(table.state == wanted.state.value)
    if wanted.kinds:
        query = query.where(table.kind.in_([each.value for each in wanted.kinds]))
    if wanted.resource is not None:
        written = orjson.dumps(wanted.resource).decode()
        suffers = table.affected.contains(written, autoescape=True)
        query = query.where(sa.or_(table.about == resource_subject(wanted.resource), suffers))
    if wanted.minimum_severity is not None:
        ranks = list(Severity)
        worse = ranks[: ranks.index(wanted.minimum_severity) + 1]
        query = query.where(table.severity.in_([each.value for each in worse]))
    if wanted.from_ns is not None:
        query = query.where(table.raised_ns >= wanted.from_ns)
    if wanted.until_ns is not None:
        query = query.where(table.raised_ns < wanted.until_ns)
    return [record_of(Fault, row) for row in connection.execute(query)]
