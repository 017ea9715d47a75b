"""What keeps an open page current: one look at the journal for all pages, and a stream of events for each.

The stream says three things. `changed`: something happened that this visitor may see, fetch your part again.
`journal`: rows for the top of the journal page. `tick`: nothing happened, but time passed. A stream ends when
its session does; a browser that lost it opens another one, which begins with `changed`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass

from homeostat.kernel.errors import HomeostatError, RetryLater
from homeostat.kernel.journal import Envelope, Seq
from homeostat.kernel.reader import Journal
from homeostat.web.search import JournalPages, Search, matches
from homeostat.web.sessions import Sessions

LOOK_S = 0.15
TICK_S = 5.0
STREAMS_MAX = 200
ROWS_MAX = 100
_BATCH = 500


class Tail:
    """Watches the end of the journal while somebody waits for it. `run` is its only task."""

    def __init__(self, journal: Journal, look_s: float = LOOK_S) -> None:
        self._journal, self._look_s = journal, look_s
        self._streams = 0
        self._wanted, self._moved, self._head = asyncio.Event(), asyncio.Event(), Seq(0)

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._wanted.wait()
            with suppress(RetryLater):
                head = await self._journal.head()
                if head != self._head:
                    self._head, moved = head, self._moved
                    self._moved = asyncio.Event()
                    moved.set()
            await asyncio.sleep(self._look_s)

    async def moved_past(self, seq: Seq, within_s: float) -> bool:
        """Whether there are events behind `seq`; waits for them so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._head <= seq:
                    await self._moved.wait()
        return self._head > seq

    def enter(self) -> None:
        """One more stream; RetryLater when there are too many."""
        if self._streams >= STREAMS_MAX:
            raise RetryLater(f"{STREAMS_MAX} pages are open already; close some and try again")
        self._streams += 1
        self._wanted.set()

    def leave(self) -> None:
        """One stream less; without any, nobody looks."""
        self._streams -= 1
        if self._streams == 0:
            self._wanted.clear()


@dataclass(frozen=True, slots=True)
class Stream:
    """What one page is told. `search` is None on pages without journal rows; `rows` renders them."""

    tail: Tail
    pages: JournalPages
    sessions: Sessions
    secret: str
    since: Seq
    search: Search | None
    rows: Callable[[list[Envelope]], str]

    async def messages(self) -> AsyncIterator[str]:
        """Text of `text/event-stream`, until the session is over or the store does not answer."""
        try:
            yield "retry: 1000\n\n" + message("changed", "")
            async for said in self._told():
                yield said
        except HomeostatError:
            return  # the browser opens a new one
        finally:
            self.tail.leave()

    async def _told(self) -> AsyncIterator[str]:
        place, tick_s = self.since, time.monotonic() + TICK_S
        while True:
            if time.monotonic() >= tick_s:
                yield message("tick", "")
                tick_s = time.monotonic() + TICK_S
            if not await self.tail.moved_past(place, max(0.0, tick_s - time.monotonic())):
                if await self.sessions.find(self.secret) is None:
                    return
                continue
            batch = await self.pages.journal.read(place, _BATCH)
            if not batch:
                continue
            place = batch[-1].seq
            visitor = await self.sessions.find(self.secret)
            if visitor is None:
                return
            seen = await self.pages.seen_by(visitor.caller, batch)
            if seen:
                yield message("changed", "")
            wanted = [each for each in seen if self.search is not None and matches(self.search, each)]
            if wanted:
                yield message("journal", self.rows(wanted[: -ROWS_MAX - 1 : -1]))


def message(event: str, data: str) -> str:
    """One event of a stream."""
    lines = "".join(f"data: {line}\n" for line in data.splitlines() or [""])
    return f"event: {event}\n{lines}\n"
