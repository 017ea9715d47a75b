"""The database: engines, the kernel's own tables, schema upgrade, and readers in threads.

One schema on two engines, SQLite (embedded) and PostgreSQL. It is no ORM and holds no queries of the rooms: a
room registers its tables on `METADATA` in its own `store.py`, and its revision in `homeostat/migrations`.

Invariants: only the appender writes; a SQLite commit is on the disk when it returns (WAL, synchronous=FULL);
a transaction of a writing SQLite engine takes the write lock at its start (BEGIN IMMEDIATE); errors are those
of `kernel/errors.py`, whichever engine raised them.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Engine,
    ExceptionContext,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    inspect,
    make_url,
    text,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from homeostat.kernel.diagnosis import translate
from homeostat.kernel.errors import BadInput, HomeostatError

T = TypeVar("T")

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    }
)

BIG = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits on both engines. SQLite's INTEGER holds as much, and as a primary key it is the row id itself."""

journal = Table(
    "journal",
    METADATA,
    Column("seq", BIG, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("subject", Text, nullable=False),
    Column("cause", BIG),
    Column("trace", Text, nullable=False),
    Column("at_ns", BIG, nullable=False),
    Column("origin", Text, nullable=False),
    Column("loop", Text, nullable=False),
    Column("payload", Text, nullable=False),
    UniqueConstraint("loop", "cause", "kind", "subject"),
    Index(None, "subject", "seq"),
    Index(None, "cause"),
    Index(None, "trace"),
)
"""Events. An event without a cause may repeat: to SQL no NULL equals another, and that is what we want."""

cursor = Table(
    "cursor",
    METADATA,
    Column("loop", Text, primary_key=True),
    Column("seq", BIG, nullable=False),
)
"""How far each loop has read, moved in the transaction of its results."""

term = Table(
    "term",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BIG, nullable=False),
    Column("holder", Text, nullable=False),
    Column("expires_at", Double, nullable=False),
)
"""One row, id 1: who leads. `expires_at` is seconds since the epoch by the database's own clock."""

token = Table(
    "token",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("created_ns", BIG, nullable=False),
)
"""Who may call us. Hashes only, never a token."""

_ACCEPTED = "sqlite:////absolute/path.db or postgresql+psycopg://user@host/name"
_BUSY_MS = 5000
_UPGRADE_LOCK = 0x484F4D45  # any constant, the same in every server: "HOME"


def open_engine(url: str, *, read_only: bool = False) -> Engine:
    """An engine for `url`; a read-only one refuses to write and reads each transaction from one snapshot.

    BadInput for a URL we do not know or a folder that is not there; CorruptState for a file that is no SQLite
    database. PostgreSQL is connected to when it is first used.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed, read_only=read_only)
    engine = create_engine(
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


def sqlite_file(engine: Engine) -> Path | None:
    """The file of a SQLite engine, None for PostgreSQL."""
    return Path(engine.url.database or "") if engine.dialect.name == "sqlite" else None


def has_schema(engine: Engine) -> bool:
    """Whether the database has one, of whatever version. StoreUnavailable, CorruptState."""
    with engine.connect() as connection:
        return inspect(connection).has_table(term.name)


def upgrade(url: str) -> None:
    """Bring the schema to this version's, in one transaction; two servers at once wait for each other.

    BadInput when the database was made by a newer version.
    """
    # Alembic takes 0.1 s to import, and only a server needs it.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    engine = open_engine(url)
    config = Config()
    config.set_main_option("script_location", "homeostat:migrations")
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        shown = engine.url.render_as_string(hide_password=True)
        raise BadInput(
            "database_url", shown, f"a database of this version or an older one ({error})"
        ) from error
    finally:
        engine.dispose()


class Readers:
    """Reads in threads, each with a connection of its own, at most `threads` at once.

    The engine should be a read-only one and stays the caller's: `close` ends the threads, not the engine.
    """

    def __init__(self, engine: Engine, *, threads: int = 4) -> None:
        self.engine = engine
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="reader")

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """What `fn` returns, run in a thread and in one transaction. StoreUnavailable, CorruptState."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._within, fn)

    def _within(self, fn: Callable[[Connection], T]) -> T:
        with self.engine.connect() as connection:
            return fn(connection)

    def close(self) -> None:
        """Wait for the running reads; waiting ones are dropped."""
        self._threads.shutdown(wait=True, cancel_futures=True)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise BadInput("database_url", "(not shown)", _ACCEPTED) from error
    if parsed.drivername in {"sqlite", "sqlite+pysqlite"}:
        if not parsed.database or parsed.database.startswith((":memory:", "file:")) or parsed.query:
            raise BadInput("database_url", url, _ACCEPTED)
    elif parsed.drivername != "postgresql+psycopg":
        raise BadInput("database_url", parsed.drivername, _ACCEPTED)
    return parsed


def _open_sqlite(url: URL, *, read_only: bool) -> Engine:
    path = Path(url.database or "")
    if not path.parent.is_dir():
        raise BadInput("database_url", str(path), "a file in a folder that exists")
    if read_only and not path.exists():
        raise BadInput("database_url", str(path), "a file that exists; run the server once to make it")
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # -wal and -shm take the mode from it
    engine = create_engine(
        url,
        paramstyle="named",  # so that an error tells the values by name
        json_serializer=_dump_json,
        json_deserializer=orjson.loads,
    )
    _speak_our_errors(engine, str(path))
    event.listen(engine, "connect", partial(_prepare_sqlite, read_only=read_only))
    event.listen(engine, "begin", _begin_deferred if read_only else _begin_immediate)
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


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _speak_our_errors(engine: Engine, place: str) -> None:
    def listener(context: ExceptionContext) -> HomeostatError | None:
        return translate(context.original_exception, place, disconnected=context.is_disconnect)

    event.listen(engine, "handle_error", listener, retval=True)


def _dump_json(value: Any) -> str:
    return orjson.dumps(value).decode()
