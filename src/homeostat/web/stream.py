"""The server-sent events that keep an open page current, and the search of the journal behind them.

The stream has three events. `changed`: something happened that this visitor may see, fetch your part again.
`journal`: rows for the top of the journal page. `tick`: nothing happened, but time passed. One look at the
journal serves all pages. A stream ends when its session does; a browser that lost it opens another one,
which begins with `changed`.

The search reads newest first, and only what the caller may see. It is bounded: a page reads at most
`_PAGES` slices of the journal, among its newest `WITHIN` events.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import orjson
from sqlalchemy import Connection

from homeostat.kernel.access import Caller
from homeostat.kernel.connections import StreamCount, StreamPlace
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import HomeostatError, RetryLater
from homeostat.kernel.journal import Envelope, Journal, Seq
from homeostat.web.sessions import Sessions

VisibleEvents = Callable[[Connection, Caller, Sequence[Envelope]], list[Envelope]]
"""Those of the events that a caller may see, in their order."""

WITHIN = 100_000
_SLICE = 400
_PAGES = 5


@dataclass(frozen=True, slots=True)
class JournalSearch:
    """What somebody looks for. Empty fields let everything through; letters are compared without case."""

    kind: str = ""
    subject: str = ""
    text: str = ""

    @property
    def is_empty(self) -> bool:
        return not (self.kind or self.subject or self.text)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`older` is where the next page begins, None when there is nothing more within reach."""

    events: list[Envelope]
    older: int | None


@dataclass(frozen=True, slots=True)
class JournalPages:
    """Reads pages and batches of the journal for one caller at a time; `visible` are those he may see."""

    journal: Journal
    readers: Readers
    visible: VisibleEvents

    async def page(
        self, caller: Caller, search: JournalSearch, before: int | None, limit: int
    ) -> SearchResult:
        """At most `limit` events before a number, newest first."""
        head = await self.journal.head()
        floor = Seq(max(0, head - WITHIN))
        place, found = Seq(before if before is not None else head + 1), list[Envelope]()
        for _ in range(_PAGES):
            batch = await self.journal.latest(
                place, _SLICE, after=floor, kind=search.kind, subject=search.subject, text=search.text
            )
            found += await self.seen_by(caller, batch)
            if len(found) > limit:
                return SearchResult(found[:limit], found[limit - 1].seq)
            if len(batch) < _SLICE:
                return SearchResult(found, None)
            place = batch[-1].seq
        return SearchResult(found, place)

    async def seen_by(self, caller: Caller, events: list[Envelope]) -> list[Envelope]:
        if not events:
            return []
        return await self.readers.read(lambda connection: self.visible(connection, caller, events))


def matches(search: JournalSearch, event: Envelope) -> bool:
    """Whether an event that just happened belongs on a page with this search. As the journal compares."""
    text = search.text.lower()
    searched = (event.subject, event.origin, orjson.dumps(event.payload).decode())
    return (
        (not search.kind or event.kind == search.kind)
        and search.subject.lower() in event.subject.lower()
        and any(text in part.lower() for part in searched)
    )


LOOK_S = 0.15
TICK_S = 5.0
STREAMS_MAX = 200
ROWS_MAX = 100
_BATCH = 500


class JournalTail:
    """Watches the end of the journal while somebody waits for it. `run` is its only task."""

    def __init__(self, journal: Journal, count: StreamCount, look_s: float = LOOK_S) -> None:
        self.journal, self._count, self._look_s = journal, count, look_s
        self._streams = 0
        self._wanted, self._moved, self._head = asyncio.Event(), asyncio.Event(), Seq(0)

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._wanted.wait()
            with suppress(RetryLater):
                head = await self.journal.head()
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

    def enter(self, caller: Caller) -> StreamPlace:
        """One more stream; RetryLater when there are too many, of all or of this caller."""
        if self._streams >= STREAMS_MAX:
            raise RetryLater(f"{STREAMS_MAX} pages are open already; close some and try again")
        counted = self._count.enter(caller)
        self._streams += 1
        self._wanted.set()

        def leave() -> None:
            counted.leave()
            self._left()

        return StreamPlace(leave)

    def _left(self) -> None:
        """One stream less; without any, nobody looks."""
        self._streams -= 1
        if self._streams == 0:
            self._wanted.clear()


@dataclass(frozen=True, slots=True)
class PageStream:
    """The events of one page. `search` is None on pages without journal rows; `rows` renders them."""

    tail: JournalTail
    place: StreamPlace
    pages: JournalPages
    sessions: Sessions
    secret: str
    since: Seq
    search: JournalSearch | None
    rows: Callable[[list[Envelope]], str]

    async def messages(self) -> AsyncIterator[str]:
        """Text of `text/event-stream`, until the session is over or the store does not answer."""
        try:
            yield "retry: 1000\n\n" + event_text("changed", "")
            async for said in self._told():
                yield said
        except HomeostatError:
            return  # the browser opens a new one
        finally:
            self.place.leave()

    async def _told(self) -> AsyncIterator[str]:
        place, tick_s = self.since, time.monotonic() + TICK_S
        while True:
            if time.monotonic() >= tick_s:
                yield event_text("tick", "")
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
                yield event_text("changed", "")
            wanted = [each for each in seen if self.search is not None and matches(self.search, each)]
            if wanted:
                yield event_text("journal", self.rows(wanted[: -ROWS_MAX - 1 : -1]))


def event_text(event: str, data: str) -> str:
    lines = "".join(f"data: {line}\n" for line in data.splitlines() or [""])
    return f"event: {event}\n{lines}\n"
