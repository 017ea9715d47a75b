"""What the drivers' errors mean, as a table."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest

from homeostat.kernel.database import translate_error
from homeostat.kernel.errors import CorruptState, StoreFull, StoreUnavailable


def _sqlite(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("said")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (_sqlite(sqlite3.SQLITE_FULL), StoreFull),
        (_sqlite(sqlite3.SQLITE_IOERR_WRITE), StoreFull),
        (_sqlite(sqlite3.SQLITE_IOERR_READ), StoreUnavailable),
        (_sqlite(sqlite3.SQLITE_BUSY), StoreUnavailable),
        (_sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT), StoreUnavailable),
        (_sqlite(sqlite3.SQLITE_CANTOPEN), StoreUnavailable),
        (_sqlite(sqlite3.SQLITE_CORRUPT), CorruptState),
        (_sqlite(sqlite3.SQLITE_CORRUPT_INDEX), CorruptState),
        (_sqlite(sqlite3.SQLITE_NOTADB), CorruptState),
        (_sqlite(sqlite3.SQLITE_ERROR), None),
        (_sqlite(sqlite3.SQLITE_CONSTRAINT_UNIQUE), None),
        (sqlite3.ProgrammingError("no code at all"), None),
        (psycopg.errors.DiskFull("said"), StoreFull),
        (psycopg.errors.AdminShutdown("said"), StoreUnavailable),
        (psycopg.errors.CannotConnectNow("said"), StoreUnavailable),
        (psycopg.errors.TooManyConnections("said"), StoreUnavailable),
        (psycopg.errors.ReadOnlySqlTransaction("said"), StoreUnavailable),
        (psycopg.errors.DeadlockDetected("said"), StoreUnavailable),
        (psycopg.OperationalError("connection refused\nis it running?"), StoreUnavailable),
        (psycopg.errors.DataCorrupted("said"), CorruptState),
        (psycopg.errors.UniqueViolation("said"), None),
        (psycopg.errors.UndefinedTable("said"), None),
        (ValueError("said"), None),
        (None, None),
    ],
)
def test_meaning(error: BaseException | None, meaning: type[Exception] | None) -> None:
    found = translate_error(error, "the place", disconnected=False)
    assert (found if found is None else type(found)) is meaning
    if found is not None:
        assert str(found).startswith("the place: ")
        assert "\n" not in str(found)


def test_a_lost_connection_is_unavailable_whatever_it_said() -> None:
    error = psycopg.InterfaceError("the connection is closed")
    assert isinstance(translate_error(error, "p", disconnected=True), StoreUnavailable)
