"""The tables of notices and silences, and their queries. No decisions. Changes are made here and written by
the appender, nowhere else.

A secret is in `subscription` and nowhere else: it is needed to sign. It never leaves by `items` of the API,
by the journal or by a log line. A silence that is over stays until retention removes it: it is the reason
why a consumer was not notified.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import orjson
import sqlalchemy as sa

from homeostat.contracts.nouns import FaultId, FaultKind, Owner, ResourceId, Severity
from homeostat.kernel.database import BIG, METADATA, journal, record_table, slices
from homeostat.kernel.journal import EventIndex, RowChange, Seq
from homeostat.kernel.records import record_of, row_of
from homeostat.notices import model
from homeostat.notices.delivery_window import DeliveredNotice

subscription = sa.Table(
    "subscription",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("secret", sa.Text, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("created_ns", BIG, nullable=False),
    sa.Column("kinds", sa.Text, nullable=False),
    sa.Column("resources", sa.Text, nullable=False),
    sa.Column("minimum_severity", sa.Text),
    sa.Column("endpoints", sa.Text, nullable=False),
    sa.Column("expires_ns", BIG),
    sa.Column("group_by", sa.Text, nullable=False),
    sa.Column("group_wait_ms", sa.Integer, nullable=False),
)
"""`kinds` and `resources` are joined by spaces, which no kind and no resource id has in it. `endpoints` is a
JSON list of [number, URL, format]."""

outbox = record_table(
    "outbox",
    model.Notice,
    sa.Index(None, "state", "subscription", "queued_seq"),
    sa.Index(None, "subscription", "queued_seq"),
    sa.Index(None, "queued_seq"),
    sa.Index(None, "owner", "queued_seq"),
    sa.Index(None, "fault"),
    key="key",
    integers=("attempts", "endpoint", "part"),
)
"""One row a notice, references only. No foreign key: a notice outlives its subscription."""

IS_OVER = outbox.c.state != model.NoticeState.PENDING.value
"""Told or given up: what retention may remove when it is old enough."""

# Made once: the appender remembers the text of a statement for as long as the statement lives.
_INSERT = sa.insert(subscription)
_REPLACE = (
    sa.update(subscription)
    .where(subscription.c.name == sa.bindparam("new_name"), subscription.c.owner == sa.bindparam("new_owner"))
    .values({column.name: sa.bindparam(f"new_{column.name}") for column in subscription.columns})
)
_REMOVE = sa.delete(subscription).where(subscription.c.name == sa.bindparam("gone"))
_INSERT_NOTICE = sa.insert(outbox)
_NOTE_PROGRESS = (
    sa.update(outbox)
    .where(outbox.c.key == sa.bindparam("tried"), outbox.c.state == model.NoticeState.PENDING.value)
    .values(attempts=sa.bindparam("tries"), next_ns=sa.bindparam("again_ns"))
)
_END_NOTICE = (
    sa.update(outbox)
    .where(outbox.c.key == sa.bindparam("ended"))
    .values(state=sa.bindparam("to"), attempts=sa.bindparam("tries"), reason=sa.bindparam("why"))
)

silence_table = record_table("silence", model.Silence, sa.Index("ix_silence_ends_ns", "ends_ns"), key="id")

_INSERT_SILENCE = sa.insert(silence_table)
_END_SILENCE = (
    sa.update(silence_table)
    .where(silence_table.c.id == sa.bindparam("ended"), silence_table.c.ends_ns > sa.bindparam("at"))
    .values(ends_ns=sa.bindparam("at"), ended_by=sa.bindparam("who"))
)
_QUEUE_AGAIN = (
    sa.update(outbox)
    .where(outbox.c.key == sa.bindparam("notice"), outbox.c.state == model.NoticeState.SILENCED.value)
    .values(
        state=sa.bindparam("to"),
        queued_seq=sa.bindparam("seq"),
        queued_ns=sa.bindparam("at"),
        next_ns=sa.bindparam("at"),
        reason=sa.bindparam("why"),
    )
)


def insert_subscription(row: model.Subscription) -> RowChange:
    """A new one; the append fails with Conflict when the name is taken."""
    return RowChange(_INSERT, (_as_row(row),))


def replace_subscription(row: model.Subscription) -> RowChange:
    values = {f"new_{name}": value for name, value in _as_row(row).items()}
    return RowChange(_REPLACE, (values,))


def remove_subscription(name: str) -> RowChange:
    """It is gone with the commit; its waiting notices are given up by the delivery."""
    return RowChange(_REMOVE, ({"gone": name},))


def subscriptions(connection: sa.Connection) -> tuple[model.Subscription, ...]:
    return tuple(_subscription(row) for row in connection.execute(sa.select(subscription).order_by("name")))


def insert_notices(rows: Collection[model.Notice]) -> RowChange:
    return RowChange(_INSERT_NOTICE, tuple(map(row_of, rows)))


def end_notice(key: str, state: model.NoticeState, attempts: int, reason: str) -> RowChange:
    values = {"ended": key, "to": state.value, "tries": attempts, "why": reason}
    return RowChange(_END_NOTICE, (values,))


def note_progress(tried: Iterable[tuple[str, int, int]]) -> RowChange:
    """(key, attempts, next_ns) of notices that still wait; for people, and for a start after a clean stop."""
    return RowChange(_NOTE_PROGRESS, tuple({"tried": k, "tries": n, "again_ns": at} for k, n, at in tried))


def seq_of(row: model.Notice) -> Seq:
    if isinstance(row.queued_seq, EventIndex):
        raise TypeError(f"{row.key} is not committed yet")
    return row.queued_seq


def with_pending(connection: sa.Connection) -> tuple[str, ...]:
    """The destinations, removed ones too, that have pending notices."""
    columns = (outbox.c.subscription, outbox.c.endpoint)
    query = (
        sa.select(*columns)
        .where(outbox.c.state == model.NoticeState.PENDING.value)
        .distinct()
        .order_by(*columns)
    )
    return tuple(model.destination(name, number) for name, number in connection.execute(query))


def last_number(connection: sa.Connection, name: str) -> int:
    """The highest number under which an endpoint of a subscription of this name was notified; 0: none was."""
    query = sa.select(sa.func.max(outbox.c.endpoint)).where(outbox.c.subscription == name)
    return int(connection.execute(query).scalar() or 0)


def count_pending(connection: sa.Connection) -> int:
    query = (
        sa.select(sa.func.count())
        .select_from(outbox)
        .where(outbox.c.state == model.NoticeState.PENDING.value)
    )
    return int(connection.execute(query).scalar() or 0)


def pending_of(connection: sa.Connection, name: str, after: int, limit: int) -> tuple[model.Notice, ...]:
    """The pending notices for one destination queued behind `after`, oldest first, at most `limit`."""
    subscription_name, number = model.parts_of(name)
    query = (
        sa.select(outbox)
        .where(
            outbox.c.state == model.NoticeState.PENDING.value,
            outbox.c.subscription == subscription_name,
            outbox.c.endpoint == number,
            outbox.c.queued_seq > after,
        )
        .order_by(outbox.c.queued_seq)
        .limit(limit)
    )
    return tuple(record_of(model.Notice, row) for row in connection.execute(query))


def notified_destinations(
    connection: sa.Connection, faults: Collection[FaultId]
) -> Mapping[FaultId, frozenset[str]]:
    """For each fault the destinations for which a notice `raised` was queued, whatever became of it.

    One that a silence keeps back was not queued.
    """
    found: dict[FaultId, set[str]] = {fault: set() for fault in faults}
    for names in slices(sorted(faults)):
        query = sa.select(outbox.c.fault, outbox.c.subscription, outbox.c.endpoint).where(
            outbox.c.fault.in_(names),
            outbox.c.transition == model.NoticeTransition.RAISED.value,
            outbox.c.state != model.NoticeState.SILENCED.value,
        )
        for fault, name, number in connection.execute(query):
            found[fault].add(model.destination(name, number))
    return {fault: frozenset(names) for fault, names in found.items()}


def notices(
    connection: sa.Connection,
    *,
    owner: str | None,
    state: model.NoticeState | None,
    before: int | None,
    limit: int,
) -> tuple[model.Notice, ...]:
    """The newest notices first, of one owner or of all (None), queued before a seq."""
    query = sa.select(outbox).order_by(outbox.c.queued_seq.desc()).limit(limit)
    if owner is not None:
        query = query.where(outbox.c.owner == owner)
    if state is not None:
        query = query.where(outbox.c.state == state.value)
    if before is not None:
        query = query.where(outbox.c.queued_seq < before)
    return tuple(record_of(model.Notice, row) for row in connection.execute(query))


def streamed(
    connection: sa.Connection, *, owner: str | None, name: str | None, after: int, limit: int
) -> tuple[model.Notice, ...]:
    """The notices of a stream, queued behind `after`, in order: one a subscription, fault and transition.

    Of several endpoints the one that was queued first stands for all.
    """
    other = outbox.alias()
    again = (
        sa.select(other.c.key)
        .where(
            other.c.fault == outbox.c.fault,
            other.c.subscription == outbox.c.subscription,
            other.c.transition == outbox.c.transition,
            other.c.part == outbox.c.part,
            other.c.owner == outbox.c.owner,
            other.c.queued_seq < outbox.c.queued_seq,
            other.c.state != model.NoticeState.SILENCED.value,
        )
        .exists()
    )
    silenced = outbox.c.state == model.NoticeState.SILENCED.value
    query = sa.select(outbox).where(outbox.c.queued_seq > after, ~again, ~silenced)
    if owner is not None:
        query = query.where(outbox.c.owner == owner)
    if name is not None:
        query = query.where(outbox.c.subscription == name)
    return tuple(
        record_of(model.Notice, row)
        for row in connection.execute(query.order_by(outbox.c.queued_seq).limit(limit))
    )


EARLIER_AMONG = 100_000
EARLIER_MAX = 5_000
"""Newest events among which, and of which so many, deliveries of before a server's start are looked for."""
_AT_ONCE_NS = 10**9


def earlier_deliveries(
    connection: sa.Connection, since_ns: int, until_ns: int
) -> tuple[DeliveredNotice, ...]:
    """What was delivered between these two moments (wall), newest first.

    One that stood among those to be sent only long after it was queued was read again by a later server, or
    waited for a consumer that did not answer: it has no length.
    """
    head = connection.execute(sa.select(sa.func.max(journal.c.seq))).scalar() or 0
    columns = (outbox.c.subscription, outbox.c.endpoint, outbox.c.owner, outbox.c.queued_ns)
    query = (
        sa.select(journal.c.at_ns, journal.c.payload, *columns)
        .join(outbox, outbox.c.key == sa.func.substr(journal.c.subject, len("notice/") + 1))
        .where(journal.c.seq > head - EARLIER_AMONG, journal.c.kind == "NoticeDelivered")
        .where(journal.c.at_ns > since_ns, journal.c.at_ns <= until_ns)
        .order_by(journal.c.seq.desc())
        .limit(EARLIER_MAX)
    )
    return tuple(_delivered(row) for row in connection.execute(query))


def _delivered(row: Any) -> DeliveredNotice:
    told = orjson.loads(row.payload)
    admitted_ns = told.get("admitted_ns")
    since_ns = admitted_ns if isinstance(admitted_ns, int) else None
    if since_ns is not None and since_ns - row.queued_ns > _AT_ONCE_NS:
        since_ns = None
    destination = model.destination(row.subscription, row.endpoint)
    attempts = int(told.get("attempts", 1))
    return DeliveredNotice(Owner(row.owner), destination, since_ns, row.at_ns, attempts)


def last_queued(connection: sa.Connection) -> Seq:
    """The seq of the newest notice of all; 0: there is none."""
    return Seq(connection.execute(sa.select(sa.func.max(outbox.c.queued_seq))).scalar() or 0)


def _as_row(row: model.Subscription) -> dict[str, object]:
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


def _subscription(row: sa.Row[Any]) -> model.Subscription:
    return model.Subscription(
        name=row.name,
        owner=Owner(row.owner),
        endpoints=tuple(
            model.Endpoint(number, url, model.NoticeFormat(shape))
            for number, url, shape in orjson.loads(row.endpoints)
        ),
        secret=row.secret,
        key_id=row.key_id,
        created_ns=row.created_ns,
        kinds=tuple(FaultKind(kind) for kind in row.kinds.split()),
        resources=tuple(ResourceId(each) for each in row.resources.split()),
        minimum_severity=None if row.minimum_severity is None else Severity(row.minimum_severity),
        expires_ns=row.expires_ns,
        group_by=model.GroupBy(row.group_by),
        group_wait_ms=row.group_wait_ms,
    )


def insert_silence(row: model.Silence) -> RowChange:
    return RowChange(_INSERT_SILENCE, (row_of(row),))


def end_silence(silence: str, at_ns: int, by: str) -> RowChange:
    """It is over at `at_ns`; one that is over already stays as it was."""
    return RowChange(_END_SILENCE, ({"ended": silence, "at": at_ns, "who": by},))


def silences_not_over(connection: sa.Connection, now_ns: int) -> tuple[model.Silence, ...]:
    query = sa.select(silence_table).where(silence_table.c.ends_ns > now_ns).order_by("created_ns", "id")
    return tuple(record_of(model.Silence, row) for row in connection.execute(query))


def silences(
    connection: sa.Connection, project: str | None, since_ns: int, limit: int
) -> tuple[model.Silence, ...]:
    """The newest first, of one project or of all (None), that were not over at `since_ns`."""
    query = sa.select(silence_table).where(silence_table.c.ends_ns > since_ns)
    if project is not None:
        query = query.where(silence_table.c.project == project)
    query = query.order_by(silence_table.c.created_ns.desc(), silence_table.c.id).limit(limit)
    return tuple(record_of(model.Silence, row) for row in connection.execute(query))


def find_silence(connection: sa.Connection, silence: str) -> model.Silence | None:
    row = connection.execute(sa.select(silence_table).where(silence_table.c.id == silence)).one_or_none()
    return None if row is None else record_of(model.Silence, row)


def kept_back(connection: sa.Connection, silences: Collection[str]) -> Mapping[str, int]:
    """How many notices each of these silences keeps back, or kept back while it lasted."""
    found = dict.fromkeys(silences, 0)
    for silence in found:
        query = sa.select(sa.func.count()).where(outbox.c.reason.startswith(f"{silence}: ", autoescape=True))
        found[silence] = int(connection.execute(query).scalar() or 0)
    return found


def held_notices(
    connection: sa.Connection, faults: Collection[FaultId]
) -> Mapping[FaultId, tuple[model.Notice, ...]]:
    found: dict[FaultId, tuple[model.Notice, ...]] = {}
    for names in slices(sorted(faults)):
        query = sa.select(outbox).where(
            outbox.c.fault.in_(names),
            outbox.c.state == model.NoticeState.SILENCED.value,
        )
        for row in connection.execute(query):
            notice = record_of(model.Notice, row)
            found[notice.fault] = (*found.get(notice.fault, ()), notice)
    return found


def queue_again(rows: Iterable[model.Notice]) -> RowChange:
    """These rows were silenced; from now on they are as they are given."""
    values = (
        {
            "notice": each.key,
            "to": each.state.value,
            "seq": each.queued_seq,
            "at": each.queued_ns,
            "why": each.reason,
        }
        for each in rows
    )
    return RowChange(_QUEUE_AGAIN, tuple(values))
