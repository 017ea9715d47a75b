"""The tables of notices and their queries. Changes are made here and written by the appender, nowhere else.

A secret is in `subscription` and nowhere else: it is needed to sign. It never leaves by `items` of the API,
by the journal or by a log line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import orjson
from sqlalchemy import (
    Column,
    Connection,
    Index,
    Integer,
    Row,
    Table,
    Text,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from homeostat.contracts.nouns import FaultId, FaultKind, Owner, ResourceId, Severity
from homeostat.kernel.database import BIG, METADATA
from homeostat.kernel.journal import Change, Local, Seq
from homeostat.notices.model import (
    Endpoint,
    Format,
    GroupBy,
    Notice,
    NoticeState,
    Subscription,
    Transition,
    destination,
    parts_of,
)

subscription = Table(
    "subscription",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("created_ns", BIG, nullable=False),
    Column("kinds", Text, nullable=False),
    Column("resources", Text, nullable=False),
    Column("minimum_severity", Text),
    Column("endpoints", Text, nullable=False),
    Column("expires_ns", BIG),
    Column("group_by", Text, nullable=False),
    Column("group_wait_ms", Integer, nullable=False),
)
"""`kinds` and `resources` are joined by spaces, which no kind and no resource id has in it. `endpoints` is a
JSON list of [number, URL, format]."""

outbox = Table(
    "outbox",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("subscription", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("fault", Text, nullable=False),
    Column("transition", Text, nullable=False),
    Column("queued_seq", BIG, nullable=False),
    Column("queued_ns", BIG, nullable=False),
    Column("trace", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_ns", BIG, nullable=False),
    Column("reason", Text, nullable=False),
    Column("endpoint", Integer, nullable=False),
    Index(None, "state", "subscription", "queued_seq"),
    Index(None, "subscription", "queued_seq"),
    Index(None, "queued_seq"),
    Index(None, "owner", "queued_seq"),
    Index(None, "fault"),
)
"""One row a notice, references only. No foreign key: a notice outlives its subscription."""

IS_OVER = outbox.c.state != NoticeState.PENDING.value
"""Told or given up: what retention may remove when it is old enough."""

_FAULTS_AT_ONCE = 500
# Made once: the appender remembers the text of a statement for as long as the statement lives.
_INSERT = insert(subscription)
_REPLACE = (
    update(subscription)
    .where(subscription.c.name == bindparam("new_name"), subscription.c.owner == bindparam("new_owner"))
    .values({column.name: bindparam(f"new_{column.name}") for column in subscription.columns})
)
_REMOVE = delete(subscription).where(subscription.c.name == bindparam("gone"))
_INSERT_NOTICE = insert(outbox)
_NOTE_PROGRESS = (
    update(outbox)
    .where(outbox.c.key == bindparam("tried"), outbox.c.state == NoticeState.PENDING.value)
    .values(attempts=bindparam("tries"), next_ns=bindparam("again_ns"))
)
_END_NOTICE = (
    update(outbox)
    .where(outbox.c.key == bindparam("ended"))
    .values(state=bindparam("to"), attempts=bindparam("tries"), reason=bindparam("why"))
)


def insert_subscription(row: Subscription) -> Change:
    """A new one; the append fails with Conflict when the name is taken."""
    return Change(_INSERT, (_as_row(row),))


def replace_subscription(row: Subscription) -> Change:
    """The one of that name and owner becomes this one."""
    values = {f"new_{name}": value for name, value in _as_row(row).items()}
    return Change(_REPLACE, (values,))


def remove_subscription(name: str) -> Change:
    """It is gone with the commit; its waiting notices are given up by the delivery."""
    return Change(_REMOVE, ({"gone": name},))


def subscriptions(connection: Connection) -> tuple[Subscription, ...]:
    """All of them, by name."""
    return tuple(_subscription(row) for row in connection.execute(select(subscription).order_by("name")))


def insert_notices(rows: Collection[Notice]) -> Change:
    """New rows of the outbox."""
    return Change(
        _INSERT_NOTICE,
        tuple(
            {
                "key": each.key,
                "subscription": each.subscription,
                "owner": each.owner,
                "fault": each.fault,
                "transition": each.transition.value,
                "queued_seq": each.queued_seq,
                "queued_ns": each.queued_ns,
                "trace": each.trace,
                "state": each.state.value,
                "attempts": each.attempts,
                "next_ns": each.next_ns,
                "reason": each.reason,
                "endpoint": each.endpoint,
            }
            for each in rows
        ),
    )


def end_notice(key: str, state: NoticeState, attempts: int, reason: str) -> Change:
    """The row is no longer pending."""
    values = {"ended": key, "to": state.value, "tries": attempts, "why": reason}
    return Change(_END_NOTICE, (values,))


def note_progress(tried: Iterable[tuple[str, int, int]]) -> Change:
    """(key, attempts, next_ns) of notices that still wait; for people, and for a start after a clean stop."""
    return Change(_NOTE_PROGRESS, tuple({"tried": k, "tries": n, "again_ns": at} for k, n, at in tried))


def seq_of(row: Notice) -> Seq:
    """The seq of a notice that was read from the outbox."""
    if isinstance(row.queued_seq, Local):
        raise TypeError(f"{row.key} is not committed yet")
    return row.queued_seq


def with_pending(connection: Connection) -> tuple[str, ...]:
    """The destinations, removed ones too, that have pending notices."""
    columns = (outbox.c.subscription, outbox.c.endpoint)
    query = select(*columns).where(outbox.c.state == NoticeState.PENDING.value).distinct().order_by(*columns)
    return tuple(destination(name, number) for name, number in connection.execute(query))


def last_number(connection: Connection, name: str) -> int:
    """The highest number under which an endpoint of a subscription of this name was told; 0: none was."""
    query = select(func.max(outbox.c.endpoint)).where(outbox.c.subscription == name)
    return int(connection.execute(query).scalar() or 0)


def count_pending(connection: Connection) -> int:
    """How many notices are still to be told."""
    query = select(func.count()).select_from(outbox).where(outbox.c.state == NoticeState.PENDING.value)
    return int(connection.execute(query).scalar() or 0)


def pending_of(connection: Connection, name: str, after: int, limit: int) -> tuple[Notice, ...]:
    """The pending notices for one destination queued behind `after`, oldest first, at most `limit`."""
    subscription_name, number = parts_of(name)
    query = (
        select(outbox)
        .where(
            outbox.c.state == NoticeState.PENDING.value,
            outbox.c.subscription == subscription_name,
            outbox.c.endpoint == number,
            outbox.c.queued_seq > after,
        )
        .order_by(outbox.c.queued_seq)
        .limit(limit)
    )
    return tuple(notice(row) for row in connection.execute(query))


def heard(connection: Connection, faults: Collection[FaultId]) -> Mapping[FaultId, frozenset[str]]:
    """For each fault the destinations for which a notice `raised` was queued, whatever became of it.

    One that a silence keeps back was not queued.
    """
    found: dict[FaultId, set[str]] = {fault: set() for fault in faults}
    wanted = sorted(faults)
    for start in range(0, len(wanted), _FAULTS_AT_ONCE):
        query = select(outbox.c.fault, outbox.c.subscription, outbox.c.endpoint).where(
            outbox.c.fault.in_(wanted[start : start + _FAULTS_AT_ONCE]),
            outbox.c.transition == Transition.RAISED.value,
            outbox.c.state != NoticeState.SILENCED.value,
        )
        for fault, name, number in connection.execute(query):
            found[fault].add(destination(name, number))
    return {fault: frozenset(names) for fault, names in found.items()}


def notices(
    connection: Connection, *, owner: str | None, state: NoticeState | None, before: int | None, limit: int
) -> tuple[Notice, ...]:
    """The newest notices first, of one owner or of all (None), queued before a seq."""
    query = select(outbox).order_by(outbox.c.queued_seq.desc()).limit(limit)
    if owner is not None:
        query = query.where(outbox.c.owner == owner)
    if state is not None:
        query = query.where(outbox.c.state == state.value)
    if before is not None:
        query = query.where(outbox.c.queued_seq < before)
    return tuple(notice(row) for row in connection.execute(query))


def streamed(
    connection: Connection, *, owner: str | None, name: str | None, after: int, limit: int
) -> tuple[Notice, ...]:
    """The notices of a stream, queued behind `after`, in order: one a subscription, fault and transition.

    Of several endpoints the one that was queued first stands for all.
    """
    other = outbox.alias()
    again = (
        select(other.c.key)
        .where(
            other.c.fault == outbox.c.fault,
            other.c.subscription == outbox.c.subscription,
            other.c.transition == outbox.c.transition,
            other.c.owner == outbox.c.owner,
            other.c.queued_seq < outbox.c.queued_seq,
            other.c.state != NoticeState.SILENCED.value,
        )
        .exists()
    )
    silenced = outbox.c.state == NoticeState.SILENCED.value
    query = select(outbox).where(outbox.c.queued_seq > after, ~again, ~silenced)
    if owner is not None:
        query = query.where(outbox.c.owner == owner)
    if name is not None:
        query = query.where(outbox.c.subscription == name)
    return tuple(notice(row) for row in connection.execute(query.order_by(outbox.c.queued_seq).limit(limit)))


def last_queued(connection: Connection) -> Seq:
    """The seq of the newest notice of all; 0: there is none."""
    return Seq(connection.execute(select(func.max(outbox.c.queued_seq))).scalar() or 0)


def _as_row(row: Subscription) -> dict[str, object]:
    return {
        "name": row.name,
        "owner": row.owner,
        "secret": row.secret,
        "key_id": row.key_id,
        "created_ns": row.created_ns,
        "kinds": " ".join(kind.value for kind in row.kinds),
        "resources": " ".join(row.resources),
        "minimum_severity": None if row.minimum_severity is None else row.minimum_severity.value,
        "endpoints": orjson.dumps([(each.number, each.url, each.format) for each in row.endpoints]).decode(),
        "expires_ns": row.expires_ns,
        "group_by": row.group_by.value,
        "group_wait_ms": row.group_wait_ms,
    }


def _subscription(row: Row[Any]) -> Subscription:
    return Subscription(
        name=row.name,
        owner=Owner(row.owner),
        endpoints=tuple(
            Endpoint(number, url, Format(shape)) for number, url, shape in orjson.loads(row.endpoints)
        ),
        secret=row.secret,
        key_id=row.key_id,
        created_ns=row.created_ns,
        kinds=tuple(FaultKind(kind) for kind in row.kinds.split()),
        resources=tuple(ResourceId(each) for each in row.resources.split()),
        minimum_severity=None if row.minimum_severity is None else Severity(row.minimum_severity),
        expires_ns=row.expires_ns,
        group_by=GroupBy(row.group_by),
        group_wait_ms=row.group_wait_ms,
    )


def notice(row: Row[Any]) -> Notice:
    """A row of the outbox as a record."""
    return Notice(
        key=row.key,
        subscription=row.subscription,
        owner=Owner(row.owner),
        fault=FaultId(row.fault),
        transition=Transition(row.transition),
        queued_seq=Seq(row.queued_seq),
        queued_ns=row.queued_ns,
        trace=row.trace,
        state=NoticeState(row.state),
        attempts=row.attempts,
        next_ns=row.next_ns,
        reason=row.reason,
        endpoint=row.endpoint,
    )
