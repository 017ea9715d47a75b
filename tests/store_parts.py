"""A store to test with: engines, readers and a small catalogue with an old and a new version of an event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import Executable, func, select

from homeostat.kernel import database
from homeostat.kernel.appender import Appender, AppenderSettings, Mode
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.database import Readers, open_engine
from homeostat.kernel.journal import EventCatalogue, EventIndex, Journal, NewEvent, Seq, Submission
from homeostat.migrations import upgrade
from real_parts import PATIENCE


@dataclass(frozen=True, slots=True)
class Seen:
    """An event that never changed."""

    VERSION: ClassVar[int] = 1
    what: str


@dataclass(frozen=True, slots=True)
class Moved:
    """An event in its third version: `place` was `where` once, and `speed` came later."""

    VERSION: ClassVar[int] = 3
    place: str
    speed: int


UPCASTS = {
    ("Moved", 1): lambda old: {"place": old["where"]},
    ("Moved", 2): lambda old: {**old, "speed": 0},
}
CATALOGUE = EventCatalogue([Seen, Moved], UPCASTS)


def draft(
    subject: str,
    *,
    what: str = "",
    cause: Seq | EventIndex | None = None,
    trace: str = "t",
    event: object = None,
    key: str | None = None,
) -> NewEvent:
    """An event about `subject`."""
    return NewEvent(event or Seen(what), subject, 1_000, "test", trace, cause, key)


def seen(*subjects: str, loop: str = "test", cause: Seq | None = None, key: str | None = None) -> Submission:
    """A submission with an event for each subject."""
    return Submission(loop, tuple(draft(subject, cause=cause, key=key) for subject in subjects))


def mode_of(appender: Appender) -> Mode:
    """The mode now. A call, for a type checker believes that an attribute stays what it was."""
    return appender.mode


async def until(condition: Callable[[], bool], *, deadline_s: float = 10.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE * deadline_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Store:
    """One database with a writing engine, a reading one, readers and the journal."""

    def __init__(self, url: str) -> None:
        upgrade(url)
        self.url = url
        self.engine = open_engine(url)
        self.reading = open_engine(url, read_only=True)
        self.readers = Readers(self.reading, threads=2)
        self.journal = Journal(self.readers, CATALOGUE)

    @asynccontextmanager
    async def appending(
        self, *, epoch: int | None = None, settings: AppenderSettings | None = None
    ) -> AsyncIterator[Appender]:
        """A running appender."""
        appender = Appender(
            self.engine, CATALOGUE, epoch=epoch, settings=settings or AppenderSettings(), clock=SystemClock()
        )
        appender.start()
        try:
            yield appender
        finally:
            await appender.close()

    def rows(self, query: Executable) -> list[Any]:
        """What a query finds."""
        with self.reading.connect() as connection:
            return list(connection.execute(query).all())

    def subjects(self) -> list[str]:
        """The subjects in the journal, in order."""
        table = database.journal
        return [row.subject for row in self.rows(select(table.c.subject).order_by(table.c.seq))]

    def seqs(self) -> list[int]:
        """The sequence numbers in the journal, in order."""
        return [row.seq for row in self.rows(select(database.journal.c.seq).order_by(database.journal.c.seq))]

    def events(self) -> int:
        """How many events there are."""
        return int(self.rows(select(func.count()).select_from(database.journal))[0][0])

    def close(self) -> None:
        """Let everything go."""
        self.readers.close()
        self.engine.dispose()
        self.reading.dispose()
