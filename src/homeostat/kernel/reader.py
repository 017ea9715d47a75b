"""Reading the journal: pages behind a cursor, chains of causes, cursors, the head.

Reads only, in the readers' threads, where payloads are also decoded. Invariants: events come in the order of
their sequence numbers; an event of an unknown kind, or one that cannot be decoded, comes back with `event`
None and never stops a reader.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

import orjson
import structlog
from sqlalchemy import Connection, Row, Select, func, or_, select

from homeostat.kernel import database
from homeostat.kernel.database import Readers
from homeostat.kernel.journal import Catalogue, Envelope, Seq

_log = structlog.get_logger(__name__)

_table = database.journal
_COLUMNS = (
    _table.c.seq,
    _table.c.kind,
    _table.c.version,
    _table.c.subject,
    _table.c.cause,
    _table.c.trace,
    _table.c.at_ns,
    _table.c.origin,
    _table.c.payload,
)
_CHAIN_BOUND = 10_000
_PAGE = 1_000


class Journal:
    """The journal as its readers see it."""

    def __init__(self, readers: Readers, catalogue: Catalogue) -> None:
        self._readers, self._catalogue = readers, catalogue

    async def read(
        self,
        after: Seq,
        limit: int = 500,
        *,
        kinds: Collection[str] | None = None,
        subject: str | None = None,
    ) -> list[Envelope]:
        """At most `limit` events behind `after`, of these kinds and this subject only, in order."""
        query = select(*_COLUMNS).where(_table.c.seq > after).order_by(_table.c.seq).limit(limit)
        if kinds is not None:
            query = query.where(_table.c.kind.in_(sorted(kinds)))
        if subject is not None:
            query = query.where(_table.c.subject == subject)
        return await self._readers.read(partial(self._fetch, query))

    async def latest(  # noqa: PLR0913 - a search has this many fields
        self, before: Seq, limit: int, *, after: Seq, kind: str = "", subject: str = "", text: str = ""
    ) -> list[Envelope]:
        """At most `limit` events between two numbers, newest first.

        Of this kind, with these letters in the subject, and these in subject, origin or payload; case is not
        looked at. Empty lets all through.
        """
        query = select(*_COLUMNS).where(_table.c.seq > after, _table.c.seq < before)
        if kind:
            query = query.where(_table.c.kind == kind)
        if subject:
            query = query.where(_table.c.subject.icontains(subject, autoescape=True))
        if text:
            columns = (_table.c.subject, _table.c.origin, _table.c.payload)
            query = query.where(or_(*(each.icontains(text, autoescape=True) for each in columns)))
        return await self._readers.read(
            partial(self._fetch, query.order_by(_table.c.seq.desc()).limit(limit))
        )

    async def chain(self, seq: Seq) -> list[Envelope]:
        """The event, its causes up to the root, and everything that shares its trace, in order.

        Empty when there is no such event (any more); at most 10 000 events.
        """
        here = select(_table.c.seq, _table.c.cause, _table.c.trace).where(_table.c.seq == seq)
        causes = here.cte("causes", recursive=True)
        # UNION, not UNION ALL: a damaged journal with a circle in it must end too.
        causes = causes.union(
            select(_table.c.seq, _table.c.cause, _table.c.trace).where(_table.c.seq == causes.c.cause)
        )
        traces = here.with_only_columns(_table.c.trace).scalar_subquery()
        query = (
            select(*_COLUMNS)
            .where(or_(_table.c.seq.in_(select(causes.c.seq)), _table.c.trace == traces))
            .order_by(_table.c.seq)
            .limit(_CHAIN_BOUND)
        )
        return await self._readers.read(partial(self._fetch, query))

    async def cursor(self, loop: str) -> Seq:
        """How far this loop has read; 0 when it never did."""
        query = select(database.cursor.c.seq).where(database.cursor.c.loop == loop)
        return Seq(await self._readers.read(lambda connection: connection.execute(query).scalar() or 0))

    async def head(self) -> Seq:
        """The last committed sequence number, 0 for an empty journal."""
        query = select(func.max(_table.c.seq))
        return Seq(await self._readers.read(lambda connection: connection.execute(query).scalar() or 0))

    def _fetch(self, query: Select[*tuple[Any, ...]], connection: Connection) -> list[Envelope]:
        return [self._open(row) for row in connection.execute(query)]

    def _open(self, row: Row[*tuple[Any, ...]]) -> Envelope:
        return opened(row, self._catalogue)


def stream(connection: Connection, after: int) -> Iterator[Row[*tuple[Any, ...]]]:
    """Every event behind `after` as it is stored, in order, a page at a time; for `opened` or for export."""
    query = select(*_COLUMNS).order_by(_table.c.seq).limit(_PAGE)
    while rows := connection.execute(query.where(_table.c.seq > after)).all():
        yield from rows
        after = rows[-1].seq


def opened(row: Row[*tuple[Any, ...]], catalogue: Catalogue) -> Envelope:
    """An event from its row, at its present version; `event` is None when that cannot be made."""
    seq, kind, version, subject, cause, trace, at_ns, origin, text = row
    payload: dict[str, Any] = {}
    found: object | None = None
    try:
        payload = _as_object(orjson.loads(text))
        # An upcast may change what it gets; the reader sees what was written.
        found = catalogue.decode(kind, version, dict(payload))
    except Exception as error:
        _log.warning("an event cannot be read and is skipped", seq=seq, kind=kind, error=str(error))
    return Envelope(
        seq=Seq(seq),
        kind=kind,
        version=version,
        subject=subject,
        cause=None if cause is None else Seq(cause),
        trace=trace,
        at_ns=at_ns,
        origin=origin,
        payload=payload,
        event=found,
    )


def _as_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"holds {type(value).__name__} where an object belongs")
    return value
