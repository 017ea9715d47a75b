"""The SQLite file of a node's observations: opened, read, written, and its reserve of disk space.

A write that finds no room first uses again what the file has (its write-ahead log), then gives the reserve
back and uses that. Invariant: while the reserve is there, everything that was ever recorded is in the file,
so that a start without it knows that numbers beyond those in the file may have been given; but for a disk
that lets nothing be removed either, so that a start after an end without `close` cannot know it. Decides
nothing about observations.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from homeostat.contracts import wire
from homeostat.contracts.nouns import ResourceId
from homeostat.contracts.roles import Assigned
from homeostat.kernel.errors import BadInput, CorruptState, StoreFull, StoreUnavailable
from homeostat.kernel.files import Ballast

_log = structlog.get_logger("observations")

M = TypeVar("M")
Statement = tuple[str, Sequence[object]]

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS levels (resource TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS transitions (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS intents (resource TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
"""
_UNREADABLE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_UNWRITABLE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)
"""A disk that is full, fails, or was made read-only under us: to whoever must act, one and the same."""


@dataclass(slots=True)
class StoredObservations:
    """What is on disk, ready to be read. Changed only after the commit that made it so.

    `whole`: when the file was opened, everything that was ever recorded by its name was in it: it was closed
    in order, or is new.
    """

    boot: str
    seq: int
    acknowledged: int
    epoch: int
    levels: dict[ResourceId, wire.ResourceStatus]
    transitions: dict[int, wire.ResourceTransition]
    intents: dict[ResourceId, wire.Intent]
    assigned: Assigned | None = None
    digest: str = ""
    whole: bool = True


def digest_of(levels: Mapping[ResourceId, wire.ResourceStatus], told: Assigned | None) -> str:
    """Of what is this host's to run: what a guest was that has left is nobody's business any more."""
    mine = {} if told is None else told.mine
    return wire.digest(
        {
            each.resource: each.state
            for each in levels.values()
            if not each.generation or mine.get(each.resource) == each.generation
        }
    )


def open_file(
    path: Path, new_boot: Callable[[], str], *, alone: bool = False
) -> tuple[sqlite3.Connection, StoredObservations]:
    """The file, made where there is none, and what it holds. CorruptState when it cannot be read.

    `alone`: nobody else may open it, and SQLite's index of the log is in memory, so that it needs no room.
    """
    with translated_errors(path):
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            path.chmod(0o600)
            if alone:
                database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            if (found := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise CorruptState(f"{path}: {found}")
            database.executescript(_TABLES)
            database.execute("BEGIN IMMEDIATE")
            if database.execute("INSERT OR IGNORE INTO facts VALUES ('boot', ?)", (new_boot(),)).rowcount:
                database.execute(*CLOSED)
            database.execute("COMMIT")
            return database, _load(database)
        except BaseException:
            database.close()
            raise


def _load(database: sqlite3.Connection) -> StoredObservations:
    facts = dict(database.execute("SELECT name, value FROM facts"))
    levels = _decoded(database, wire.ResourceStatus, "SELECT body FROM levels ORDER BY resource")
    transitions = _decoded(database, wire.ResourceTransition, "SELECT body FROM transitions ORDER BY seq")
    intents = {
        ResourceId(resource): wire.decode(wire.Intent, body)
        for resource, body in database.execute("SELECT resource, body FROM intents")
    }
    kept = {level.resource: level for level in levels}
    told = None
    if "assigned" in facts:
        told = wire.decode(Assigned, b'{"mine":' + facts["assigned"].encode() + b',"confirmed":false}')
    memory = StoredObservations(
        boot=facts["boot"],
        seq=int(facts.get("seq", 0)),
        acknowledged=int(facts.get("acknowledged", 0)),
        epoch=int(facts.get("epoch", 0)),
        levels=kept,
        transitions={transition.level.seq: transition for transition in transitions},
        intents=intents,
        assigned=told,
        digest=digest_of(kept, told),
        whole="closed" in facts,
    )
    first = memory.seq - len(transitions) + 1
    if list(memory.transitions) != list(range(first, memory.seq + 1)):
        raise CorruptState("numbers of transitions are missing")
    return memory


CLOSED: Statement = ("INSERT OR IGNORE INTO facts VALUES ('closed', '')", ())
"""The last word of who has written everything. The next one takes it back before a number is given."""
OPENED: Statement = ("DELETE FROM facts WHERE name = 'closed'", ())


def _decoded(database: sqlite3.Connection, kind: type[M], query: str) -> list[M]:
    return [wire.decode(kind, body) for (body,) in database.execute(query)]


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """What SQLite says in the words of our tree."""
    try:
        yield
    except (BadInput, KeyError, ValueError) as error:
        raise CorruptState(f"{path}: a row cannot be read: {error}") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _UNREADABLE:
            raise CorruptState(f"{path}: {error}; the next start moves it aside") from error
        if code in _UNWRITABLE:
            raise StoreFull(f"{path}: cannot be written ({error})") from error
        raise StoreUnavailable(f"{path}: {error}; check that the directory is there and writable") from error


def move_aside(path: Path) -> Path:
    """Keep an unreadable file, and what SQLite has beside it, under another name; that name."""
    aside = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
    path.rename(aside)
    for tail in ("-wal", "-shm"):
        beside = path.with_name(path.name + tail)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + tail))
    return aside


RESERVE_BYTES = 1024 * 1024
"""About a hundred restarts. Too small: on a full disk their intents are soon in memory only."""
LOW_BYTES = 64 * 1024
"""A disk with less room counts as full before anybody wants to write, and until four times that is free."""


class ObservationFile:
    """The file, its connection and its reserve. Used by one thread at a time.

    `contents` is what it held when it was opened. `reserve_was_spent`: the process before gave the reserve
    back, so that it may have given numbers that are in no file. `is_closed`: on a disk that took nothing, it
    still says that it was closed in order. `trouble` is why it cannot be written as it
    should be, in one line, or empty.
    """

    def __init__(self, path: Path, new_boot: Callable[[], str]) -> None:
        """Open or make it. Unreadable: moved aside and begun anew. StoreFull, StoreUnavailable."""
        self.path = path
        self.trouble = ""
        self._new_boot = new_boot
        self._reserve = Ballast(path.with_name(path.name + ".reserve"), RESERVE_BYTES)
        self.reserve_was_spent = path.exists() and not self._reserve.is_held
        try:
            self.database, self.contents = self._open()
        except (StoreFull, StoreUnavailable):
            if not path.exists() or not (self._release() or self.reserve_was_spent):
                raise
            self.database, self.contents = self._open(alone=True)
        self.is_closed = not self._take_back()
        self.look(complete=not self.reserve_was_spent)

    def write(self, statements: Sequence[Statement]) -> None:
        """All of them or none, on disk. StoreFull: not even with the reserve; StoreUnavailable."""
        for make_room in (self._reuse_log, self._release):
            try:
                self._write(statements)
                return
            except StoreFull as error:
                self._complain(str(error))
                make_room()
        self._write(statements)

    def look(self, *, complete: bool) -> None:
        """Look at the disk, and have the reserve again when there is room and the file is `complete`."""
        try:
            free_bytes = self._reserve.free_bytes
            held = self._reserve.create() if complete else self._reserve.is_held
        except OSError as error:
            self._complain(f"{self.path.parent}: cannot be written ({error.strerror})")
            return
        low = free_bytes < (4 * LOW_BYTES if self.trouble else LOW_BYTES)
        if held and not low:
            if self.trouble:
                _log.info("observations can be written again", free_bytes=free_bytes)
            self.trouble = ""
            return
        left = "its reserve is left" if held else "its reserve is used"
        wanted = 4 * LOW_BYTES if held else 2 * RESERVE_BYTES
        self._complain(
            f"{self.path.parent}: the disk is full, {free_bytes // 1024} KiB are free, {left}; "
            f"make room until more than {wanted // 1024} KiB are free"
        )

    @property
    def has_room(self) -> bool:
        """Whether a write is worth a try. One that fails may still take room, which a pid file needs more."""
        try:
            return self._reserve.free_bytes >= 4 * LOW_BYTES
        except OSError:
            return False

    def close(self) -> None:
        self.database.close()

    def _open(self, *, alone: bool = False) -> tuple[sqlite3.Connection, StoredObservations]:
        try:
            return open_file(self.path, self._new_boot, alone=alone)
        except CorruptState as error:
            aside = move_aside(self.path)
            _log.error("observations were unreadable, begun anew", moved_to=str(aside), reason=str(error))
            self.reserve_was_spent = False
            return open_file(self.path, self._new_boot)

    def _take_back(self) -> bool:
        """See that it no longer says that it was closed; whether it does not. StoreFull, StoreUnavailable."""
        if not self.contents.whole:
            return True
        try:
            self.write([OPENED])
        except (StoreFull, StoreUnavailable) as error:
            if isinstance(error, StoreFull) and not self._reserve.is_held:
                return False  # the next start sees by the reserve what it must know
            self.database.close()
            raise
        return True

    def _write(self, statements: Sequence[Statement]) -> None:
        with translated_errors(self.path):
            self.database.execute("BEGIN IMMEDIATE")
            try:
                for statement, values in statements:
                    self.database.execute(statement, values)
                self.database.execute("COMMIT")
            except BaseException:
                if self.database.in_transaction:
                    self.database.execute("ROLLBACK")
                raise

    def _reuse_log(self) -> None:
        """Begin the write-ahead log at its start again: what it has on the disk needs no new room."""
        with suppress(sqlite3.Error):
            self.database.execute("PRAGMA wal_checkpoint(RESTART)").close()

    def _release(self) -> bool:
        """Give the reserve back, and have that on disk before any number is given that is not."""
        try:
            if not self._reserve.release():
                return False
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError:
            return False
        _log.error("the disk is full; the reserve of observations is given back", path=str(self.path))
        return True

    def _complain(self, trouble: str) -> None:
        if not self.trouble:
            _log.error("observations cannot be written as they should be", reason=trouble)
        self.trouble = trouble
