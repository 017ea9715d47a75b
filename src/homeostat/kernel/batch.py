"""One batch of submissions in one transaction, on one connection, synchronously.

The part of the appender that touches the database; it knows neither asyncio nor modes. Invariants: the term's
epoch is read in every transaction; each submission stands in a savepoint of its own; sequence numbers have no
gaps and no duplicates; a batch is on the disk when `write` returns, or nothing of it is in the database.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import ClauseElement, Connection, Engine, Executable, Insert, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, IntegrityError

from homeostat.kernel import database
from homeostat.kernel.database import conflict_error, violates_constraint
from homeostat.kernel.errors import AlreadyDone, BadInput, CorruptState, Deposed, RetryLater, StoreUnavailable
from homeostat.kernel.journal import EventCatalogue, EventIndex, Receipt, Seq, Submission

Row = Mapping[str, object]
_KEY = ("loop", "key")
_KEY_COLUMNS = tuple(f"journal.{column}" for column in _KEY)
_KEY_NAME = "uq_journal_" + "_".join(_KEY)
_INSERT_EVENT = insert(database.journal)
_MANY = 4
_NAMED = re.compile(r":(\w+)")
_PLAIN = frozenset({str, int, float, bool, type(None)})
_RUNS = (100, 10)
"""Rows of one INSERT, at most a third of the values that SQLite takes. Each statement lets go of the
interpreter once: with one a row, the event loop would keep a great commit waiting for each of them."""
_TIDY_AFTER, _PAGES_A_COMMIT = 500, 8
"""About pages. Far below where SQLite does it in the middle of a commit (database.py)."""
_ROW_BYTES, _MEASURED_ROWS = 200, 50
_SELECT_HEAD = select(func.max(database.journal.c.seq))
_SELECT_EPOCH = select(database.term.c.epoch).where(database.term.c.id == 1).with_for_update(read=True)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked submission with its events encoded: (kind, version, payload) each.

    `places` says for each change where an `EventIndex` stands: the number of the row, and the column.
    """

    submission: Submission
    encoded: tuple[tuple[str, int, str], ...]
    places: tuple[tuple[tuple[int, str], ...], ...]

    @property
    def rows(self) -> int:
        """Rows that it writes, those of its events included."""
        return _rows_of(self.submission)

    @property
    def size(self) -> int:
        """About how many bytes it has. Of many rows only the first are measured."""
        return (
            _ROW_BYTES * self.rows
            + sum(len(payload) for _, _, payload in self.encoded)
            + sum(_text_bytes(change.values) for change in self.submission.changes)
        )


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement as the driver reads it, with the values that it brings itself.

    `head` and `row` make an INSERT of many rows of it, `values` are those of one; None where that cannot be.
    """

    text: str
    own: dict[str, Any]
    head: str = ""
    row: str = ""
    values: Callable[[Row], tuple[Any, ...]] | None = None


def prepare(submission: Submission, catalogue: EventCatalogue, payload_limit_bytes: int) -> Prepared:
    """Check and encode. BadInput names what the submission must not contain; nothing is written yet."""

    def where(index: int) -> str:
        return f"{submission.loop}.events[{index}]"

    encoded = []
    known = catalogue.kinds()
    keys: set[str] = set()
    for index, draft in enumerate(submission.events):
        if type(draft.event).__name__ not in known:
            raise BadInput(where(index), type(draft.event).__name__, "an event of the catalogue")
        try:
            kind, version, payload = catalogue.encode(draft.event)
        except TypeError as error:
            raise BadInput(where(index), draft.event, f"an event that JSON can hold ({error})") from error
        if len(payload) > payload_limit_bytes:
            accepted = f"a payload of at most {payload_limit_bytes} bytes; write counts and a link"
            raise BadInput(f"{where(index)} {kind}", f"{len(payload)} bytes", accepted)
        if isinstance(draft.cause, EventIndex) and not 0 <= draft.cause.index < index:
            raise BadInput(f"{where(index)}.cause", draft.cause, "an earlier event of the same submission")
        encoded.append((kind, version, payload.decode()))
        if draft.key is None:
            continue
        if draft.key in keys:
            raise BadInput(f"{where(index)}.key", draft.key, "one event of a key")
        keys.add(draft.key)
    places = tuple(tuple(_locals(change.values)) for change in submission.changes)
    for change, found in zip(submission.changes, places, strict=True):
        for number, name in found:
            value = change.values[number][name]
            if isinstance(value, EventIndex) and not 0 <= value.index < len(encoded):
                raise BadInput(f"{submission.loop}.changes", value, "an event of the same submission")
    return Prepared(submission, tuple(encoded), places)


class _Overtaken(Exception):
    """Somebody else wrote the sequence number we were about to take."""


class BatchWriter:
    """Owns one connection. Not for two threads at once."""

    def __init__(self, engine: Engine, epoch: int | None) -> None:
        self._engine, self._epoch = engine, epoch
        self._connection: Connection | None = None
        self._file = database.sqlite_file(engine)
        self._inode: int | None = None
        upsert = (postgresql if engine.dialect.name == "postgresql" else sqlite).insert(database.cursor)
        self._move_cursor = upsert.on_conflict_do_update(
            index_elements=["loop"], set_={"seq": upsert.excluded.seq}
        )
        self._texts: WeakKeyDictionary[Executable, _Text] = WeakKeyDictionary()
        self._untidy = 0
        self.head = 0

    @property
    def untidy(self) -> bool:
        """Whether enough is in SQLite's write-ahead log that it should be moved when there is time."""
        return self._untidy >= _TIDY_AFTER

    def tidy(self) -> None:
        """Move what is in the write-ahead log to its place, as far as no reader stands on it."""
        self._untidy = 0
        if self._connection is not None:
            # Outside of a transaction of ours: SQLAlchemy begins one for every statement, SQLite refuses it.
            driver = self._connection.connection.dbapi_connection
            assert isinstance(driver, sqlite3.Connection)
            driver.execute("PRAGMA wal_checkpoint(PASSIVE)").close()

    def open(self) -> None:
        """Connect (again) and find the head. CorruptState when the journal is shorter than it was."""
        self.close()
        self._inode = self._find_file()
        self._connection = self._engine.connect()
        self._find_head(self._connection)

    def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.invalidate()
            connection.close()

    def write(self, batch: Sequence[Prepared]) -> list[Receipt | Exception]:
        """Commit all that can be committed: a receipt or the reason of its refusal for each, in order.

        Raises, with nothing committed, StoreFull, CorruptState, Deposed; StoreUnavailable may also mean that
        the answer to the commit was lost: a re-run finds out (AlreadyDone).
        """
        connection = self._connection
        if connection is None:
            raise StoreUnavailable("the database is not connected")
        try:
            return self._attempt(connection, batch)
        except _Overtaken:
            self._find_head(connection)
        try:
            return self._attempt(connection, batch)
        except _Overtaken as error:
            raise StoreUnavailable("another process is writing the journal; stop it") from error

    def _find_file(self) -> int | None:
        if self._file is None:
            return None
        try:
            return self._file.stat().st_ino
        except OSError as error:
            raise StoreUnavailable(f"{self._file}: is gone; put it back or restart ({error})") from error

    def _find_head(self, connection: Connection) -> None:
        with connection.begin():
            head = connection.execute(_SELECT_HEAD).scalar() or 0
        if head < self.head:
            raise CorruptState(
                f"journal: ends at {head} and ended at {self.head} before: restored from an older copy? "
                "restart the server to accept that"
            )
        self.head = head

    def _attempt(self, connection: Connection, batch: Sequence[Prepared]) -> list[Receipt | Exception]:
        if self._find_file() != self._inode:  # SQLite itself would go on writing to the removed file
            raise StoreUnavailable(f"{self._file}: was replaced by another file; restart the server")
        head = self.head
        outcomes: list[Receipt | Exception] = []
        transaction = connection.begin()
        try:
            self._check_epoch(connection)
            for prepared in batch:
                outcome = self._isolate(connection, prepared, head)
                outcomes.append(outcome)
                if isinstance(outcome, Receipt):
                    head += len(outcome.seqs)
            transaction.commit()
        except Exception as error:
            try:
                transaction.rollback()
            except Exception as second:
                raise StoreUnavailable(f"the database lost a committed transaction ({second})") from error
            raise
        self.head = head
        if self._file is not None:
            self._untidy += _PAGES_A_COMMIT + sum(_rows_of(each.submission) for each in batch)
        return outcomes

    def _check_epoch(self, connection: Connection) -> None:
        if self._epoch is None:
            return
        epoch = connection.execute(_SELECT_EPOCH).scalar()
        if epoch != self._epoch:
            raise Deposed(f"lost leadership: epoch is {epoch}, ours was {self._epoch}; this server must stop")

    def _isolate(self, connection: Connection, prepared: Prepared, head: int) -> Receipt | Exception:
        connection.exec_driver_sql("SAVEPOINT submission")
        try:
            receipt = self._apply(connection, prepared, head)
            connection.exec_driver_sql("RELEASE SAVEPOINT submission")
            return receipt
        except (RetryLater, CorruptState, _Overtaken):
            raise  # no longer about this submission: the whole transaction goes
        except IntegrityError as error:
            _undo(connection)
            if violates_constraint(error, "pk_journal", ("journal.seq",)):
                raise _Overtaken from error
            if violates_constraint(error, _KEY_NAME, _KEY_COLUMNS):
                return AlreadyDone(
                    f"journal: holds this submission of {prepared.submission.loop}; nothing to do"
                )
            return conflict_error(error)
        except (DataError, ValueError, OverflowError) as error:
            _undo(connection)
            said = str(error.orig if isinstance(error, DataError) else error)
            return BadInput(prepared.submission.loop, said, "values the database can hold")
        except Exception as error:
            _undo(connection)
            return error

    def _apply(self, connection: Connection, prepared: Prepared, head: int) -> Receipt:
        submission = prepared.submission
        seqs = tuple(Seq(head + 1 + index) for index in range(len(submission.events)))
        if seqs:
            self._execute(connection, _INSERT_EVENT, _rows(prepared, seqs))
        for change, places in zip(submission.changes, prepared.places, strict=True):
            values = list(change.values)
            for number, name in places:
                row = values[number]
                values[number] = {**row, name: _resolve(row[name], seqs)}
            self._execute(connection, change.statement, values)
        if submission.cursor is not None:
            connection.execute(self._move_cursor, {"loop": submission.loop, "seq": submission.cursor})
        return Receipt(seqs)

    def _execute(self, connection: Connection, statement: Executable, rows: Sequence[Row]) -> None:
        """One statement for all rows. Many plain ones go to the driver as they are, at half of the cost."""
        if len(rows) < _MANY or not all(type(value) in _PLAIN for value in rows[0].values()):
            connection.execute(statement, rows or None)
            return
        known = self._texts.get(statement)
        if known is None:
            known = self._texts[statement] = self._compiled(statement, rows[0])
        start = 0
        if known.values is not None:
            for run in _RUNS:
                text = known.head + ", ".join([known.row] * run)
                while len(rows) - start >= run:
                    part = rows[start : start + run]
                    connection.exec_driver_sql(text, tuple(chain.from_iterable(map(known.values, part))))
                    start += run
        if start < len(rows):
            rest = [{**known.own, **row} for row in rows[start:]] if known.own else list(rows[start:])
            connection.exec_driver_sql(known.text, rest)

    def _compiled(self, statement: Executable, row: Row) -> _Text:
        assert isinstance(statement, ClauseElement)
        compiled = statement.compile(self._engine, column_keys=list(row))
        own = {name: value for name, value in compiled.params.items() if name not in row}
        text = str(compiled)
        if self._file is None or own or not isinstance(statement, Insert):
            return _Text(text, own)
        head, values, last = text.partition(" VALUES ")
        names = _NAMED.findall(last)
        if last != f"({', '.join(f':{name}' for name in names)})" or len(names) < 2:
            return _Text(text, own)
        return _Text(text, own, head + values, f"({', '.join('?' * len(names))})", itemgetter(*names))


def _locals(rows: Sequence[Row]) -> Iterator[tuple[int, str]]:
    """Where an `EventIndex` stands: the number of the row and its column."""
    for number, row in enumerate(rows):
        if EventIndex in map(type, row.values()):  # at the speed of C, since most values are none
            yield from [(number, name) for name, value in row.items() if type(value) is EventIndex]


def _undo(connection: Connection) -> None:
    # As plain text: begin_nested() would compile each of these statements anew, half of the whole cost.
    connection.exec_driver_sql("ROLLBACK TO SAVEPOINT submission")
    connection.exec_driver_sql("RELEASE SAVEPOINT submission")


def _text_bytes(rows: Sequence[Row]) -> int:
    measured = rows[:_MEASURED_ROWS]
    size = sum(len(value) for row in measured for value in row.values() if isinstance(value, str | bytes))
    return size * len(rows) // len(measured) if measured else 0


def _rows_of(submission: Submission) -> int:
    return len(submission.events) + sum(len(change.values) for change in submission.changes)


def _rows(prepared: Prepared, seqs: tuple[Seq, ...]) -> list[dict[str, Any]]:
    return [
        {
            "seq": seq,
            "kind": kind,
            "version": version,
            "subject": draft.subject,
            "cause": _resolve(draft.cause, seqs),
            "trace": draft.trace,
            "at_ns": draft.at_ns,
            "origin": draft.origin,
            "loop": prepared.submission.loop,
            "payload": payload,
            "key": draft.key,
        }
        for seq, draft, (kind, version, payload) in zip(
            seqs, prepared.submission.events, prepared.encoded, strict=True
        )
    ]


def _resolve(value: object, seqs: tuple[Seq, ...]) -> object:
    return seqs[value.index] if isinstance(value, EventIndex) else value
