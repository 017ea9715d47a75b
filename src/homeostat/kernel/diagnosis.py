"""What a database error means for the store: full, unavailable, corrupt, or the caller's own doing.

Pure: looks at the driver's error and nothing else. The engine calls `translate` for every error, so that
readers, the appender and the term all speak the errors of `kernel/errors.py`. An integrity error is left
alone here, for only the appender knows whether it is a re-run or a conflict.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping

import psycopg
from sqlalchemy.exc import IntegrityError

from homeostat.kernel.errors import Conflict, CorruptState, HomeostatError, StoreFull, StoreUnavailable

_SQLITE_FULL = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE}
)  # the last two: a quota or a file size limit, which SQLite does not call full
_SQLITE_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SQLITE_GONE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
    }
)
_POSTGRESQL_FULL = frozenset({"53100"})
_POSTGRESQL_GONE = frozenset({"25006", "40001", "40P01", "55P03", "57014"})
_POSTGRESQL_GONE_CLASSES = frozenset({"08", "53", "57", "58"})
_POSTGRESQL_CORRUPT = frozenset({"XX001", "XX002"})

_SQLITE_UNIQUE = re.compile(r"UNIQUE constraint failed: (?P<columns>.+)")
_POSTGRESQL_KEY = re.compile(r"Key \((?P<columns>.+?)\)=\((?P<value>.*)\) already exists")


def translate(error: BaseException | None, place: str, *, disconnected: bool) -> HomeostatError | None:
    """The store's error for a driver's, None when the statement itself was at fault.

    `place` names the database in the message (a file, or a URL without its password); `disconnected` is
    SQLAlchemy's own judgement that the connection is gone.
    """
    if isinstance(error, sqlite3.Error):
        return _from_sqlite(error, place)
    if isinstance(error, psycopg.Error):
        return _from_postgresql(error, place, disconnected=disconnected)
    return None


def _from_sqlite(error: sqlite3.Error, place: str) -> HomeostatError | None:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    if code in _SQLITE_FULL:
        return StoreFull(f"{place}: cannot be written, the disk is full; make room")
    if code & 0xFF in _SQLITE_CORRUPT:
        return CorruptState(f"{place}: is not a sound SQLite database ({error}); restore it or move it away")
    if code & 0xFF in _SQLITE_GONE:
        return StoreUnavailable(f"{place}: the database does not answer ({error})")
    return None


def _from_postgresql(error: psycopg.Error, place: str, *, disconnected: bool) -> HomeostatError | None:
    state = error.sqlstate or ""
    said = str(error).strip().partition("\n")[0]
    if state in _POSTGRESQL_FULL:
        return StoreFull(f"{place}: cannot be written, the database's disk is full; make room")
    if state in _POSTGRESQL_CORRUPT:
        return CorruptState(f"{place}: the database reports damage ({said}); see its own log")
    lost = disconnected or (not state and isinstance(error, psycopg.OperationalError))
    if lost or state in _POSTGRESQL_GONE or state[:2] in _POSTGRESQL_GONE_CLASSES:
        return StoreUnavailable(f"{place}: the database does not answer ({said})")
    return None


def violates(error: IntegrityError, constraint: str, columns: tuple[str, ...]) -> bool:
    """Whether this unique constraint was violated: PostgreSQL names it, SQLite names "table.column" each."""
    original = error.orig
    if isinstance(original, psycopg.Error):
        return original.diag.constraint_name == constraint
    found = _SQLITE_UNIQUE.search(str(original))
    return found is not None and tuple(found["columns"].split(", ")) == columns


def conflict(error: IntegrityError) -> Conflict:
    """The caller's error for a violated constraint: field and value as far as the engine tells them."""
    original = error.orig
    if isinstance(original, psycopg.Error):
        table = original.diag.table_name or "row"
        key = _POSTGRESQL_KEY.search(original.diag.message_detail or "")
        if key is not None:
            return Conflict(f"{table}.{key['columns']}", key["value"], "one that is not taken yet")
        said = original.diag.message_primary or str(original)
        return Conflict(table, said, "rows that keep the schema's constraints")
    found = _SQLITE_UNIQUE.search(str(original))
    if found is None:
        return Conflict("row", str(original), "rows that keep the schema's constraints")
    columns = found["columns"].split(", ")
    table, names = columns[0].partition(".")[0], [name.rpartition(".")[2] for name in columns]
    params = error.params if isinstance(error.params, Mapping) else {}
    value = ", ".join(str(params[name]) for name in names if name in params)
    return Conflict(f"{table}.{', '.join(names)}", value, "one that is not taken yet")
