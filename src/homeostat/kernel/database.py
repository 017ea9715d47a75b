"""The database: engines, the kernel's own tables, schema upgrade, readers in threads, drivers' errors.

One schema on two engines, SQLite (embedded) and PostgreSQL. It is no ORM and holds no queries of the
components: a component registers its tables on `METADATA` in its own `store.py`, and its revision in
`homeostat/migrations`.

Invariants: only the appender writes; a SQLite commit is on the disk when it returns (WAL,
synchronous=FULL); a transaction of a writing SQLite engine takes the write lock at its start (BEGIN
IMMEDIATE); errors are those of `kernel/errors.py`, whichever engine raised them: the engine translates
every driver error into full, unavailable, corrupt, or the caller's own doing, so that readers, the appender
and the term speak alike. An integrity error is left alone, for only the appender knows whether it is a
re-run or a conflict.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import orjson
import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, IntegrityError
from sqlalchemy.schema import SchemaItem

from homeostat.kernel import errors
from homeostat.kernel.records import field_types

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


def translate_error(
    error: BaseException | None, place: str, *, disconnected: bool
) -> errors.HomeostatError | None:
    """The store's error for a driver's, None when the statement itself was at fault.

    `place` names the database in the message (a file, or a URL without its password); `disconnected` is
    SQLAlchemy's own judgement that the connection is gone.
    """
    if isinstance(error, sqlite3.Error):
        return _from_sqlite(error, place)
    if isinstance(error, psycopg.Error):
        return _from_postgresql(error, place, disconnected=disconnected)
    return None


def _from_sqlite(error: sqlite3.Error, place: str) -> errors.HomeostatError | None:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    if code in _SQLITE_FULL:
        return errors.StoreFull(f"{place}: cannot be written, the disk is full; make room")
    if code & 0xFF in _SQLITE_CORRUPT:
        return errors.CorruptState(
            f"{place}: is not a sound SQLite database ({error}); restore it or move it away"
        )
    if code & 0xFF in _SQLITE_GONE:
        return errors.StoreUnavailable(f"{place}: the database does not answer ({error})")
    return None


def _from_postgresql(error: psycopg.Error, place: str, *, disconnected: bool) -> errors.HomeostatError | None:
    state = error.sqlstate or ""
    said = str(error).strip().partition("\n")[0]
    if state in _POSTGRESQL_FULL:
        return errors.StoreFull(f"{place}: cannot be written, the database's disk is full; make room")
    if state in _POSTGRESQL_CORRUPT:
        return errors.CorruptState(f"{place}: the database reports damage ({said}); see its own log")
    lost = disconnected or (not state and isinstance(error, psycopg.OperationalError))
    if lost or state in _POSTGRESQL_GONE or state[:2] in _POSTGRESQL_GONE_CLASSES:
        return errors.StoreUnavailable(f"{place}: the database does not answer ({said})")
    return None


def violates_constraint(error: IntegrityError, constraint: str, columns: tuple[str, ...]) -> bool:
    """Whether this unique constraint was violated: PostgreSQL names it, SQLite names "table.column" each."""
    original = error.orig
    if isinstance(original, psycopg.Error):
        return original.diag.constraint_name == constraint
    found = _SQLITE_UNIQUE.search(str(original))
    return found is not None and tuple(found["columns"].split(", ")) == columns


def conflict_error(error: IntegrityError) -> errors.Conflict:
    """The caller's error for a violated constraint: field and value as far as the engine tells them."""
    original = error.orig
    if isinstance(original, psycopg.Error):
        table = original.diag.table_name or "row"
        key = _POSTGRESQL_KEY.search(original.diag.message_detail or "")
        if key is not None:
            return errors.Conflict(f"{table}.{key['columns']}", key["value"], "one that is not taken yet")
        said = original.diag.message_primary or str(original)
        return errors.Conflict(table, said, "rows that keep the schema's constraints")
    found = _SQLITE_UNIQUE.search(str(original))
    if found is None:
        return errors.Conflict("row", str(original), "rows that keep the schema's constraints")
    columns = found["columns"].split(", ")
    table, names = columns[0].partition(".")[0], [name.rpartition(".")[2] for name in columns]
    params = error.params if isinstance(error.params, Mapping) else {}
    value = ", ".join(str(params[name]) for name in names if name in params)
    return errors.Conflict(f"{table}.{', '.join(names)}", value, "one that is not taken yet")


T = TypeVar("T")

METADATA = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    }
)

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""64 bits on both engines. SQLite's INTEGER holds as much, and as a primary key it is the row id itself."""

journal = sa.Table(
    "journal",
    METADATA,
    sa.Column("seq", BIG, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("cause", BIG),
    sa.Column("trace", sa.Text, nullable=False),
    sa.Column("at_ns", BIG, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("loop", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("key", sa.Text),
    sa.UniqueConstraint("loop", "key"),
    sa.Index(None, "subject", "seq"),
    sa.Index(None, "cause"),
    sa.Index(None, "trace"),
)
"""Events. An event without a key may repeat: to SQL no NULL equals another, and that is what we want."""

cursor = sa.Table(
    "cursor",
    METADATA,
    sa.Column("loop", sa.Text, primary_key=True),
    sa.Column("seq", BIG, nullable=False),
)
"""The place up to which each loop has read, moved in the transaction of its results."""

term = sa.Table(
    "term",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", BIG, nullable=False),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
)
"""One row, id 1: who leads. `expires_at` is seconds since the epoch by the database's own clock."""

token = sa.Table(
    "token",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("created_ns", BIG, nullable=False),
)
"""Who may call us. Hashes only, never a token."""

_COLUMN_TYPES: Mapping[type, Any] = {bool: sa.Boolean, float: sa.Double, int: BIG}


def record_table(
    name: str, record: type, *items: SchemaItem, key: str, without: str = "", integers: Sequence[str] = ()
) -> sa.Table:
    """A table with a column for each field of a record but `without`; what is no number is text.

    `integers` are of 32 bits. Rows become records and back by `kernel.records`.
    """
    columns = [
        sa.Column(
            field,
            sa.Integer if field in integers else _COLUMN_TYPES.get(plain, sa.Text),
            primary_key=field == key,
            nullable=is_optional,
        )
        for field, (plain, is_optional) in field_types(record).items()
        if field != without
    ]
    return sa.Table(name, METADATA, *columns, *items)


_ACCEPTED = "sqlite:////absolute/path.db or postgresql+psycopg://user@host/name"
_BUSY_MS = 5000


def open_engine(url: str, *, read_only: bool = False) -> sa.Engine:
    """An engine for `url`; a read-only one refuses to write and reads each transaction from one snapshot.

    BadInput for a URL we do not know or a folder that is not there; CorruptState for a file that is no SQLite
    database. PostgreSQL is connected to when it is first used.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed, read_only=read_only)
    engine = sa.create_engine(
        parsed,
        json_serializer=_dump_json,
        json_deserializer=orjson.loads,
        pool_pre_ping=read_only,
        isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
        connect_args={
            "connect_timeout": 5,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
            "options": "-c statement_timeout=30s -c lock_timeout=10s"
            + (" -c default_transaction_read_only=on" if read_only else ""),
        },
    )
    _speak_our_errors(engine, parsed.render_as_string(hide_password=True))
    return engine


def sqlite_file(engine: sa.Engine) -> Path | None:
    """The file of a SQLite engine, None for PostgreSQL."""
    return Path(engine.url.database or "") if engine.dialect.name == "sqlite" else None


def has_schema(engine: sa.Engine) -> bool:
    """Whether the database has one, of whatever version. StoreUnavailable, CorruptState."""
    with engine.connect() as connection:
        return sa.inspect(connection).has_table(term.name)


_NAMES_AT_ONCE = 500


def slices(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """The names in portions that one statement may hold."""
    return (names[start : start + _NAMES_AT_ONCE] for start in range(0, len(names), _NAMES_AT_ONCE))


class Readers:
    """Reads in threads, each with a connection of its own, at most `threads` at once.

    The engine should be a read-only one and stays the caller's: `close` ends the threads, not the engine.
    """

    def __init__(self, engine: sa.Engine, *, threads: int = 4) -> None:
        self.engine = engine
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="reader")

    async def read(self, fn: Callable[[sa.Connection], T]) -> T:
        """What `fn` returns, run in a thread and in one transaction. StoreUnavailable, CorruptState."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._within, fn)

    def _within(self, fn: Callable[[sa.Connection], T]) -> T:
        with self.engine.connect() as connection:
            return fn(connection)

    def close(self) -> None:
        """Wait for the running reads; waiting ones are dropped."""
        self._threads.shutdown(wait=True, cancel_futures=True)


def _parse(url: str) -> URL:
    try:
        parsed = sa.make_url(url)
    except ArgumentError as error:
        raise errors.BadInput("database_url", "(not shown)", _ACCEPTED) from error
    if parsed.drivername in {"sqlite", "sqlite+pysqlite"}:
        if not parsed.database or parsed.database.startswith((":memory:", "file:")) or parsed.query:
            raise errors.BadInput("database_url", url, _ACCEPTED)
    elif parsed.drivername != "postgresql+psycopg":
        raise errors.BadInput("database_url", parsed.drivername, _ACCEPTED)
    return parsed


def _open_sqlite(url: URL, *, read_only: bool) -> sa.Engine:
    path = Path(url.database or "")
    if not path.parent.is_dir():
        raise errors.BadInput("database_url", str(path), "a file in a folder that exists")
    if read_only and not path.exists():
        raise errors.BadInput("database_url", str(path), "a file that exists; run the server once to make it")
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # -wal and -shm take the mode from it
    engine = sa.create_engine(
        url,
        paramstyle="named",  # so that an error tells the values by name
        json_serializer=_dump_json,
        json_deserializer=orjson.loads,
    )
    _speak_our_errors(engine, str(path))
    sa.event.listen(engine, "connect", partial(_prepare_sqlite, read_only=read_only))
    sa.event.listen(engine, "begin", partial(_begin, statement="BEGIN" if read_only else "BEGIN IMMEDIATE"))
    engine.connect().close()
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object, *, read_only: bool) -> None:
    # The driver must not open transactions of its own: it would do so late, after a SAVEPOINT.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}").close()
    _use_wal(connection)
    for pragma in (
        "synchronous = FULL",
        "foreign_keys = ON",
        # Pages of 4 KiB. The appender does it earlier, between commits; this is for when it never rests.
        "wal_autocheckpoint = 4000",
        "cache_size = -32768",  # KiB; the default of 2 MiB spills in the middle of a storm's commit
        "journal_size_limit = 67108864",  # bytes the -wal file may keep after a checkpoint
        f"query_only = {'ON' if read_only else 'OFF'}",
    ):
        connection.execute(f"PRAGMA {pragma}").close()
    connection.execute("SELECT count(*) FROM sqlite_master").close()


def _use_wal(connection: sqlite3.Connection) -> None:
    """A new file becomes a WAL file once; who comes second meanwhile is refused, busy timeout or not."""
    until_s = time.monotonic() + _BUSY_MS / 1e3
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until_s:
                raise
            time.sleep(0.01)


def _begin(connection: sa.Connection, *, statement: str) -> None:
    connection.exec_driver_sql(statement)


def _speak_our_errors(engine: sa.Engine, place: str) -> None:
    def listener(context: sa.ExceptionContext) -> errors.HomeostatError | None:
        return translate_error(context.original_exception, place, disconnected=context.is_disconnect)

    sa.event.listen(engine, "handle_error", listener, retval=True)


def _dump_json(value: Any) -> str:
    return orjson.dumps(value).decode()


class DatabaseReader(Protocol):
    """`kernel.database.Readers`."""

    async def read(self, fn: Callable[[sa.Connection], T]) -> T:
        """What `fn` returns, from a thread."""
