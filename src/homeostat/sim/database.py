"""The simulated database: the real schema and batch writer on a SQLite file in memory, without a thread.

`SimAppender` is to the loops what `kernel.appender.Appender` is; the same contract tests run on both. It adds
failures of commits: a crash before one, a crash after it, a database that does not answer, an answer that is
lost.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from random import Random

from sqlalchemy import delete

from homeostat.components import catalogue as all_events
from homeostat.components import load_schemas
from homeostat.kernel.batch import BatchWriter, Prepared, prepare
from homeostat.kernel.database import METADATA, Readers, open_engine
from homeostat.kernel.errors import Deposed, GiveUp, HomeostatError, StoreUnavailable
from homeostat.kernel.journal import EventCatalogue, Receipt, Seq, Submission

_PAYLOAD_BYTES_MAX = 4 * 1024 * 1024


class CommitFailure(Enum):
    """What befalls one commit."""

    NONE = "nothing"
    CRASH_BEFORE = "the server is killed before the commit"
    CRASH_AFTER = "the server is killed after the commit, before the answer"
    UNAVAILABLE = "the database does not answer, nothing is written"
    ANSWER_LOST = "a commit succeeds and its answer is lost"


class SimDatabase:
    """The database of a run. Made once a process: compiled statements are worth keeping."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "homeostat.db"
        url = f"sqlite:///{self.path}"
        self.engine = open_engine(url)
        load_schemas()
        METADATA.create_all(self.engine)
        self.reading = open_engine(url, read_only=True)
        self.readers = Readers(self.reading)
        self._outside = sqlite3.connect(self.path, isolation_level=None)

    @classmethod
    def in_memory(cls) -> SimDatabase:
        """On a file system that is memory, where there is one."""
        memory = Path("/dev/shm")
        folder = tempfile.mkdtemp(prefix="homeostat-sim-", dir=memory if os.access(memory, os.W_OK) else None)
        return cls(Path(folder))

    def clear(self) -> None:
        with self.engine.begin() as connection:
            for table in METADATA.sorted_tables:
                connection.execute(delete(table))

    def ask(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """A look from outside, past everything that is under test."""
        with closing(self._outside.execute(query, values)) as found:
            return list(found)

    def number(self, query: str, *values: object) -> int:
        rows = self.ask(query, *values)
        value = rows[0][0] if rows else 0
        return value if isinstance(value, int) else 0

    def close(self) -> None:
        """Let everything go and remove it."""
        self._outside.close()
        self.readers.close()
        self.engine.dispose()
        self.reading.dispose()
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()


@dataclass(slots=True)
class CommitHooks:
    """What happens to commits. `choose` is asked before each; `kill` ends the server; `wrote` is told."""

    chance: Random
    choose: Callable[[], CommitFailure] = field(default=lambda: CommitFailure.NONE)
    kill: Callable[[str], None] = field(default=lambda _why: None)
    wrote: Callable[[Submission, Receipt], None] = field(default=lambda _said, _receipt: None)


class SimAppender:
    """The one writer of one server, in virtual time."""

    def __init__(
        self, disk: SimDatabase, epoch: int | None, fate: CommitHooks, catalogue: EventCatalogue | None = None
    ) -> None:
        self._writer = BatchWriter(disk.engine, epoch)
        self._writer.open()
        self._fate, self._catalogue = fate, catalogue or all_events()
        self._waiting: list[tuple[Prepared, asyncio.Future[Receipt]]] = []
        self._grown = asyncio.Event()
        self._writing = False
        self._dead = False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def head(self) -> Seq:
        return Seq(self._writer.head)

    async def wait_beyond(self, seq: Seq) -> Seq:
        """The head, as soon as it is greater than `seq`."""
        while self.head <= seq:
            self._grown.clear()
            await self._grown.wait()
        return self.head

    async def append(self, submission: Submission) -> Receipt:
        """Commit; what it raises is what the real one raises."""
        prepared = prepare(submission, self._catalogue, _PAYLOAD_BYTES_MAX)
        if self._dead:
            raise StoreUnavailable("the journal writer is not running")
        answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._waiting.append((prepared, answer))
        if not self._writing:
            self._writing = True
            self._soon(self._write)
        return await answer

    def die(self) -> None:
        """The process is gone; nothing it still does reaches the database."""
        self._dead = True
        self._writer.close()
        for _, answer in self._waiting:
            if not answer.done():
                answer.set_exception(StoreUnavailable("the process is gone"))
        self._waiting = []

    def _write(self) -> None:
        if self._dead:
            return
        batch, self._waiting = self._waiting, []
        mishap = self._fate.choose()
        if mishap is CommitFailure.CRASH_BEFORE:
            self._waiting = batch
            self._fate.kill(mishap.value)
            return
        outcomes: list[Receipt | Exception]
        if mishap is CommitFailure.UNAVAILABLE:
            outcomes = [StoreUnavailable(mishap.value) for _ in batch]
        else:
            outcomes = self._commit([prepared for prepared, _ in batch])
            for (prepared, _), outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Receipt):
                    self._fate.wrote(prepared.submission, outcome)
        if mishap is CommitFailure.CRASH_AFTER:
            self._waiting = batch
            self._fate.kill(mishap.value)
            return
        if mishap is CommitFailure.ANSWER_LOST:
            outcomes = [
                StoreUnavailable(mishap.value) if isinstance(outcome, Receipt) else outcome
                for outcome in outcomes
            ]
        self._grown.set()
        self._soon(lambda: self._answer(batch, outcomes))

    def _commit(self, batch: list[Prepared]) -> list[Receipt | Exception]:
        try:
            return self._writer.write(batch)
        except Deposed as error:
            return [Deposed(str(error)) for _ in batch]
        except GiveUp:
            raise
        except HomeostatError as error:
            return [StoreUnavailable(str(error)) for _ in batch]

    def _answer(
        self, batch: list[tuple[Prepared, asyncio.Future[Receipt]]], outcomes: list[Receipt | Exception]
    ) -> None:
        self._writing = False
        for (_, answer), outcome in zip(batch, outcomes, strict=True):
            if answer.done():
                continue
            if isinstance(outcome, Receipt):
                answer.set_result(outcome)
            else:
                answer.set_exception(outcome)
        if self._waiting and not self._dead:
            self._writing = True
            self._soon(self._write)

    def _soon(self, what: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(self._fate.chance.uniform(0.0002, 0.003), what)
