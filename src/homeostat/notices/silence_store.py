"""The table of silences, and the rows of the outbox that silences keep back. No decisions.

A silence that is over stays until retention removes it: it is the reason why somebody was not told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Index,
    Row,
    Table,
    Text,
    bindparam,
    func,
    insert,
    select,
    update,
)

from homeostat.contracts.nouns import FaultId, Owner
from homeostat.kernel.database import BIG, METADATA
from homeostat.kernel.journal import Change
from homeostat.kernel.records import row_of
from homeostat.notices import store
from homeostat.notices.model import Notice, NoticeState, Silence

silence_table = Table(
    "silence",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("created_ns", BIG, nullable=False),
    Column("begins_ns", BIG, nullable=False),
    Column("ends_ns", BIG, nullable=False),
    Column("host", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("ended_by", Text, nullable=False),
    Index("ix_silence_ends_ns", "ends_ns"),
)

_FAULTS_AT_ONCE = 500
_INSERT = insert(silence_table)
_END = (
    update(silence_table)
    .where(silence_table.c.id == bindparam("ended"), silence_table.c.ends_ns > bindparam("at"))
    .values(ends_ns=bindparam("at"), ended_by=bindparam("who"))
)
_QUEUE_AGAIN = (
    update(store.outbox)
    .where(store.outbox.c.key == bindparam("told"), store.outbox.c.state == NoticeState.SILENCED.value)
    .values(
        state=bindparam("to"),
        queued_seq=bindparam("seq"),
        queued_ns=bindparam("at"),
        next_ns=bindparam("at"),
        reason=bindparam("why"),
    )
)


def insert_silence(row: Silence) -> Change:
    """A new one."""
    return Change(_INSERT, (row_of(row),))


def end_silence(silence: str, at_ns: int, by: str) -> Change:
    """It is over at `at_ns`; one that is over already stays as it was."""
    return Change(_END, ({"ended": silence, "at": at_ns, "who": by},))


def not_over(connection: Connection, now_ns: int) -> tuple[Silence, ...]:
    """Those that keep back something now or later."""
    query = select(silence_table).where(silence_table.c.ends_ns > now_ns).order_by("created_ns", "id")
    return tuple(_silence(row) for row in connection.execute(query))


def listed(connection: Connection, project: str | None, since_ns: int, limit: int) -> tuple[Silence, ...]:
    """The newest first, of one project or of all (None), that were not over at `since_ns`."""
    query = select(silence_table).where(silence_table.c.ends_ns > since_ns)
    if project is not None:
        query = query.where(silence_table.c.project == project)
    query = query.order_by(silence_table.c.created_ns.desc(), silence_table.c.id).limit(limit)
    return tuple(_silence(row) for row in connection.execute(query))


def find(connection: Connection, silence: str) -> Silence | None:
    """The one of this id."""
    row = connection.execute(select(silence_table).where(silence_table.c.id == silence)).one_or_none()
    return None if row is None else _silence(row)


def kept_back(connection: Connection, silences: Collection[str]) -> Mapping[str, int]:
    """How many notices each of these silences keeps back, or kept back while it lasted."""
    found = dict.fromkeys(silences, 0)
    for silence in found:
        query = select(func.count()).where(store.outbox.c.reason.startswith(f"{silence}: ", autoescape=True))
        found[silence] = int(connection.execute(query).scalar() or 0)
    return found


def held(connection: Connection, faults: Collection[FaultId]) -> Mapping[FaultId, tuple[Notice, ...]]:
    """The notices of these faults that silences keep back."""
    found: dict[FaultId, tuple[Notice, ...]] = {}
    wanted = sorted(faults)
    for start in range(0, len(wanted), _FAULTS_AT_ONCE):
        query = select(store.outbox).where(
            store.outbox.c.fault.in_(wanted[start : start + _FAULTS_AT_ONCE]),
            store.outbox.c.state == NoticeState.SILENCED.value,
        )
        for row in connection.execute(query):
            notice = store.notice(row)
            found[notice.fault] = (*found.get(notice.fault, ()), notice)
    return found


def queue_again(rows: Iterable[Notice]) -> Change:
    """These rows were silenced; from now on they are as they are given."""
    values = (
        {
            "told": each.key,
            "to": each.state.value,
            "seq": each.queued_seq,
            "at": each.queued_ns,
            "why": each.reason,
        }
        for each in rows
    )
    return Change(_QUEUE_AGAIN, tuple(values))


def _silence(row: Row[Any]) -> Silence:
    fields = dict(row._mapping)
    return Silence(**{**fields, "project": Owner(fields["project"])})
