"""The file of a node's observations: its tables, what is in it when it is opened, and what is done when it
cannot be read. `node_observations` writes to it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from homeostat.contracts.nouns import ResourceId
from homeostat.contracts.roles import Assigned
from homeostat.contracts.wire import Intent, ResourceLevel, Transition, decode, digest
from homeostat.kernel.errors import BadInput, CorruptState, StoreFull, StoreUnavailable

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS levels (resource TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS transitions (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS intents (resource TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
"""
_UNREADABLE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(slots=True)
class Memory:
    """What is on disk, ready to be read. Changed only after the commit that made it so."""

    boot: str
    seq: int
    acknowledged: int
    epoch: int
    levels: dict[ResourceId, ResourceLevel]
    transitions: dict[int, Transition]
    intents: dict[ResourceId, Intent]
    assigned: Assigned | None = None
    digest: str = ""


def digest_of(levels: Mapping[ResourceId, ResourceLevel], told: Assigned | None) -> str:
    """Of what is this host's to run: what a guest was that has left is nobody's business any more."""
    mine = {} if told is None else told.mine
    return digest(
        {
            each.resource: each.state
            for each in levels.values()
            if not each.generation or mine.get(each.resource) == each.generation
        }
    )


def open_file(path: Path, new_boot: Callable[[], str]) -> tuple[sqlite3.Connection, Memory]:
    """The file, made where there is none, and what it holds. CorruptState when it cannot be read."""
    with said_plainly(path):
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            path.chmod(0o600)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            if (found := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise CorruptState(f"{path}: {found}")
            database.executescript(_TABLES)
            database.execute("INSERT OR IGNORE INTO facts VALUES ('boot', ?)", (new_boot(),))
            return database, _load(database)
        except BaseException:
            database.close()
            raise


def _load(database: sqlite3.Connection) -> Memory:
    facts = dict(database.execute("SELECT name, value FROM facts"))
    levels = [
        decode(ResourceLevel, body)
        for (body,) in database.execute("SELECT body FROM levels ORDER BY resource")
    ]
    transitions = [
        decode(Transition, body) for (body,) in database.execute("SELECT body FROM transitions ORDER BY seq")
    ]
    intents = {
        ResourceId(resource): decode(Intent, body)
        for resource, body in database.execute("SELECT resource, body FROM intents")
    }
    kept = {level.resource: level for level in levels}
    told = None
    if "assigned" in facts:
        told = decode(Assigned, b'{"mine":' + facts["assigned"].encode() + b',"confirmed":false}')
    memory = Memory(
        boot=facts["boot"],
        seq=int(facts.get("seq", 0)),
        acknowledged=int(facts.get("acknowledged", 0)),
        epoch=int(facts.get("epoch", 0)),
        levels=kept,
        transitions={transition.level.seq: transition for transition in transitions},
        intents=intents,
        assigned=told,
        digest=digest_of(kept, told),
    )
    first = memory.seq - len(transitions) + 1
    if list(memory.transitions) != list(range(first, memory.seq + 1)):
        raise CorruptState("the numbers of the transitions have a hole")
    return memory


@contextmanager
def said_plainly(path: Path) -> Iterator[None]:
    """What SQLite says in the words of our tree."""
    try:
        yield
    except (BadInput, KeyError, ValueError) as error:
        raise CorruptState(f"{path}: a row cannot be read: {error}") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _UNREADABLE:
            raise CorruptState(f"{path}: {error}; the next start moves it aside") from error
        if code == sqlite3.SQLITE_FULL:
            raise StoreFull(
                f"{path}: no room on the disk; nothing more is recorded until there is"
            ) from error
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
