"""The journal: the records that a writer submits, the envelopes that a reader gets, and its queries.

An event is an envelope (seq, kind, version, subject, cause, trace, at_ns, origin) and a payload. Every
event carries the sequence number of its cause. Nothing here writes; the appender is the one writer. Reading
takes place in the readers' threads, where payloads are also decoded: pages behind a cursor, chains of
causes, cursors, the head.

Invariants: events come in the order of their sequence numbers; an event of an unknown kind, or one that
cannot be decoded, comes back with `event` None and never stops a reader.

An `Addition` is what another component adds to the end of an entry of the ingest path: every fault of the
entry stands before it, every later one behind it, and `adopt` is called between the commit and the next
entry.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NewType, Protocol

import orjson
import structlog
from pydantic import TypeAdapter
from sqlalchemy import Connection, Executable, Row, Select, func, or_, select

from homeostat.kernel import database
from homeostat.kernel.database import Readers

Seq = NewType("Seq", int)

Upcast = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class EventIndex:
    """The n-th event of the same submission, before it has a sequence number."""

    index: int


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event on its way in. `at_ns` is wall time at the source, `origin` who saw or did it.

    `key` makes a re-run harmless: one loop writes at most one event of a key, for ever. Without a key the
    same event may be written again. The cause plays no part in it, so it is always the true one.
    """

    event: object
    subject: str
    at_ns: int
    origin: str
    trace: str
    cause: Seq | EventIndex | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class RowChange:
    """A change of rows in the transaction of the events. A `Local` among the values becomes its seq."""

    statement: Executable
    values: tuple[Mapping[str, object], ...] = ()


def group_changes(changes: Iterable[RowChange]) -> tuple[RowChange, ...]:
    """The same changes with the rows of one statement together: one execution instead of one a row.

    What is done to one table stays in its order; changes of different tables change places, so none of them
    may read another's table.
    """
    tables: dict[object, list[tuple[Executable, list[Mapping[str, object]]]]] = {}
    for change in changes:
        runs = tables.setdefault(getattr(change.statement, "table", None), [])
        if runs and runs[-1][0] is change.statement and runs[-1][1] and change.values:
            runs[-1][1].extend(change.values)
        else:
            runs.append((change.statement, list(change.values)))
    return tuple(
        RowChange(statement, tuple(values)) for runs in tables.values() for statement, values in runs
    )


@dataclass(frozen=True, slots=True)
class Submission:
    """Events, row changes and cursor moves that are committed together or not at all.

    `loop` with an event's `key` is unique in the journal, so that a re-run is harmless: it fails with
    `AlreadyDone` and changes nothing.
    """

    loop: str
    events: tuple[NewEvent, ...] = ()
    changes: tuple[RowChange, ...] = ()
    cursor: Seq | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The sequence numbers of a committed submission's events, in order."""

    seqs: tuple[Seq, ...]


@dataclass(frozen=True, slots=True)
class Envelope:
    """An event as read. `event` is None when this version does not know the kind: keep it, skip it."""

    seq: Seq
    kind: str
    version: int
    subject: str
    cause: Seq | None
    trace: str
    at_ns: int
    origin: str
    payload: dict[str, Any]
    event: object | None


class EventCatalogue:
    """The closed list of event classes, and how old payloads become new ones.

    `upcasts[(kind, version)]` turns a payload of that version into the next one's. `earlier_kinds` are names
    under which older versions wrote an event, each with its present one.
    """

    def __init__(
        self,
        events: Iterable[type],
        upcasts: Mapping[tuple[str, int], Upcast] | None = None,
        earlier_kinds: Mapping[str, str] | None = None,
    ) -> None:
        self._versions: dict[str, int] = {}
        self._adapters: dict[str, TypeAdapter[Any]] = {}
        self._upcasts = dict(upcasts or {})
        self._present = dict(earlier_kinds or {})
        self._earlier: dict[str, set[str]] = {}
        for old, new in self._present.items():
            self._earlier.setdefault(new, set()).add(old)
        for event in events:
            kind = event.__name__
            if kind in self._versions:
                raise ValueError(f"two events are called {kind}")
            self._versions[kind] = getattr(event, "VERSION", 1)
            self._adapters[kind] = TypeAdapter(event)

    def encode(self, event: object) -> tuple[str, int, bytes]:
        """Kind, version and JSON payload of an event that belongs to this catalogue."""
        kind = type(event).__name__
        return kind, self._versions[kind], orjson.dumps(event)

    def decode(self, kind: str, version: int, payload: dict[str, Any]) -> object | None:
        """The event at its present version; None for an unknown kind or one from the future."""
        kind = self._present.get(kind, kind)
        present = self._versions.get(kind)
        if present is None or version > present:
            return None
        for step in range(version, present):
            payload = self._upcasts[kind, step](payload)
        return self._adapters[kind].validate_python(payload)  # type: ignore[no-any-return]

    def kinds(self) -> frozenset[str]:
        return frozenset(self._versions)

    def stored_kinds(self, kinds: Iterable[str]) -> list[str]:
        """The names under which events of these kinds stand in the journal, the earlier ones among them."""
        return sorted({name for kind in kinds for name in (kind, *self._earlier.get(kind, ()))})


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

    def __init__(self, readers: Readers, catalogue: EventCatalogue) -> None:
        self._readers, self._catalogue = readers, catalogue

    async def read(
        self,
        after: Seq,
        limit: int = 500,
        *,
        kinds: Collection[str] | None = None,
        subject: str | None = None,
    ) -> list[Envelope]:
        """At most `limit` events behind `after`, of these kinds and this subject only, in order.

        What was stored under an earlier name of a kind is of that kind, here and below.
        """
        query = select(*_COLUMNS).where(_table.c.seq > after).order_by(_table.c.seq).limit(limit)
        if kinds is not None:
            query = query.where(_table.c.kind.in_(self._catalogue.stored_kinds(kinds)))
        if subject is not None:
            query = query.where(_table.c.subject == subject)
        return await self._readers.read(partial(self._fetch, query))

    async def sizes(self, after: Seq, limit: int, *, kinds: Collection[str] | None = None) -> list[int]:
        """The lengths of the payloads that `read` finds, in order.

        In characters, which the orders of magnitude that a bound is for do not tell from bytes, and which
        both engines count alike.
        """
        query = select(func.length(_table.c.payload)).where(_table.c.seq > after)
        if kinds is not None:
            query = query.where(_table.c.kind.in_(self._catalogue.stored_kinds(kinds)))
        query = query.order_by(_table.c.seq).limit(limit)
        return await self._readers.read(lambda connection: list(connection.execute(query).scalars()))

    async def latest(  # noqa: PLR0913 - a search has this many fields
        self, before: Seq, limit: int, *, after: Seq, kind: str = "", subject: str = "", text: str = ""
    ) -> list[Envelope]:
        """At most `limit` events between two numbers, newest first.

        Of this kind, with these letters in the subject, and these in subject, origin or payload; case is not
        looked at. Empty lets all through.
        """
        query = select(*_COLUMNS).where(_table.c.seq > after, _table.c.seq < before)
        if kind:
            query = query.where(_table.c.kind.in_(self._catalogue.stored_kinds((kind,))))
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
        query = select(func.max(_table.c.seq))
        return Seq(await self._readers.read(lambda connection: connection.execute(query).scalar() or 0))

    def _fetch(self, query: Select[*tuple[Any, ...]], connection: Connection) -> list[Envelope]:
        return [decode_event(row, self._catalogue) for row in connection.execute(query)]


def stream_events(connection: Connection, after: int) -> Iterator[Row[*tuple[Any, ...]]]:
    """Every event behind `after` as it is stored, in order, a page at a time; for `opened` or for export."""
    query = select(*_COLUMNS).order_by(_table.c.seq).limit(_PAGE)
    while rows := connection.execute(query.where(_table.c.seq > after)).all():
        yield from rows
        after = rows[-1].seq


def decode_event(row: Row[*tuple[Any, ...]], catalogue: EventCatalogue) -> Envelope:
    """An event from its row, at its present version; `event` is None when that cannot be made."""
    payload: dict[str, Any] = {}
    found: object | None = None
    try:
        payload = _as_object(orjson.loads(row.payload))
        # An upcast may change what it gets; the reader sees what was written.
        found = catalogue.decode(row.kind, row.version, dict(payload))
    except Exception as error:
        _log.warning(
            "event of the journal cannot be read, skipped", seq=row.seq, kind=row.kind, error=str(error)
        )
    place = (row.seq, row.kind, row.version, row.subject, row.cause, row.trace, row.at_ns, row.origin)
    return Envelope(*place, payload, found)


def _as_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"holds {type(value).__name__} where an object belongs")
    return value


@dataclass(frozen=True, slots=True)
class Addition:
    """`changes` are made for the place of the first of `events` in their submission."""

    events: tuple[NewEvent, ...]
    changes: Callable[[int], tuple[RowChange, ...]]
    adopt: Callable[[Sequence[Seq]], None]


AddToEntry = Callable[[Addition], Awaitable[Seq]]
"""Commits it; the number of its last event. RetryLater when that cannot be done now."""


class JournalAppender(Protocol):
    """`kernel.appender.Appender`."""

    async def append(self, submission: Submission) -> Receipt:
        """Commit, or raise."""
