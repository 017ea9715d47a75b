"""A loop that reads the journal by cursor, decides with a pure function and appends what came of it.

For components that may wait: they see every event of the kinds they ask for, in order, after its commit. It
decides nothing itself and sends nothing. Invariants: the cursor moves in the transaction of the results, so
that an event is handled once in effect, whatever is killed when; no event is skipped because its decision
failed: that decision is tried again, with back-off, until it succeeds; an event of a kind that this version
does not know is passed over. The row of a follower that is switched off must be removed (`release_cursor`),
or retention, which keeps everything behind the lowest cursor, stands still for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import structlog
from sqlalchemy import Connection, bindparam, delete, select

from homeostat.kernel import database
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import AlreadyDone, CorruptState, Deposed, RetryLater
from homeostat.kernel.journal import Envelope, Journal, JournalAppender, NewEvent, RowChange, Seq, Submission
from homeostat.kernel.loops import Backoff, OnCrash, log_only

_log = structlog.get_logger("follower")
_cursor = database.cursor


@dataclass(frozen=True, slots=True)
class FollowerResults:
    """Everything that one batch leads to; empty when it leads to nothing."""

    events: tuple[NewEvent, ...] = ()
    changes: tuple[RowChange, ...] = ()


DecideOnEvents = Callable[[Sequence[Envelope]], FollowerResults]
"""Pure. It gets the events of one batch in their order, never one whose `event` is None."""


class FollowedAppender(JournalAppender, Protocol):
    """`kernel.appender.Appender`."""

    @property
    def head(self) -> Seq: ...

    async def wait_beyond(self, seq: Seq) -> Seq: ...


@dataclass(frozen=True, slots=True)
class FollowerSettings:
    """`name` is the cursor's and the submissions' `loop`; it must never change.

    `kinds` None: all. `start` is where a follower without a cursor begins, None: behind the last event.
    A batch ends at `events_max` events or `bytes_max` bytes of payload; one event that is larger comes alone.
    `tick_s` is the longest wait between two looks at the journal. A cursor that passed only events without
    results is written after `idle_events_max` events or at a tick, not after each: each would be a commit.
    """

    name: str
    kinds: frozenset[str] | None = None
    start: Seq | None = None
    events_max: int = 500
    bytes_max: int = 1024 * 1024
    tick_s: float = 5.0
    idle_events_max: int = 1000
    retry_first_s: float = 0.1
    retry_max_s: float = 30.0


@dataclass(frozen=True, slots=True)
class _Page:
    """Events of one batch; with it the follower has read the journal up to `end`."""

    events: list[Envelope]
    end: Seq


class Follower:
    """One reader of the journal with a cursor. `run` is a task of its own, one at a time for a name."""

    def __init__(
        self,
        settings: FollowerSettings,
        journal: Journal,
        readers: Readers,
        appender: FollowedAppender,
        decide: DecideOnEvents,
    ) -> None:
        self._settings, self._decide = settings, decide
        self._journal, self._readers, self._appender = journal, readers, appender
        self._on_stuck: OnCrash = log_only
        self._backoff = Backoff(settings.retry_first_s, settings.retry_max_s)
        self._place = self._saved = Seq(0)
        self._narrow_until = Seq(0)
        self._stuck_at: Seq | None = None

    def on_stuck(self, record: OnCrash) -> None:
        """Call `record` once for each event whose decision fails, not for its repetitions."""
        self._on_stuck = record

    @property
    def place(self) -> Seq:
        """The last event that was looked at; it may be ahead of the cursor where there was nothing to do."""
        return self._place

    @property
    def stuck_at(self) -> Seq | None:
        """The event whose decision fails now; None while all goes well."""
        return self._stuck_at

    async def run(self) -> None:
        """Follow until cancelled. Raises Deposed and CorruptState; everything else is tried again."""
        await self._insistently(self._begin)
        while True:
            await self._insistently(self._step)

    async def _insistently(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do it until it succeeds."""
        while True:
            try:
                await step()
            except RetryLater as error:
                _log.warning("later", follower=self._settings.name, reason=str(error))
                await asyncio.sleep(self._backoff.next_s())
                # The answer to a commit may have been lost: the cursor says whether it took place.
                with suppress(RetryLater):
                    await self._reread()
            else:
                return

    async def _begin(self) -> None:
        if not await self._reread():
            start = self._settings.start
            self._place = self._appender.head if start is None else start
            # At once: retention must not remove what this follower has not read.
            await self._save()

    async def _reread(self) -> bool:
        """Go on where the cursor is; whether there is one."""
        found = await self._readers.read(partial(read_cursor, name=self._settings.name))
        if found is not None:
            self._place = self._saved = found
        return found is not None

    async def _step(self) -> None:
        """Handle the next batch, or wait for one."""
        page = await self._next_page()
        if page.end <= self._place:
            await self._rest()
            return
        known = [each for each in page.events if each.event is not None]
        try:
            results = self._decide(known) if known else FollowerResults()
            if results.events or results.changes:
                await self._append(results, page.end)
        except (RetryLater, Deposed, CorruptState):
            raise
        except AlreadyDone:
            await self._pass_over_done(page)
            return
        except Exception as error:
            await self._fail(page, error)
            return
        self._advance(page.end)
        if self._place - self._saved >= self._settings.idle_events_max:
            await self._save()

    def _advance(self, end: Seq) -> None:
        self._place = end
        self._stuck_at = None
        self._backoff.reset()

    async def _rest(self) -> None:
        """Wait for a commit or the tick; at the tick, write down how far we are."""
        try:
            async with asyncio.timeout(self._settings.tick_s):
                await self._appender.wait_beyond(self._place)
        except TimeoutError:
            if self._saved < self._place:
                await self._save()

    async def _append(self, results: FollowerResults, end: Seq) -> None:
        name = self._settings.name
        events = tuple(map(_with_key, results.events))
        await self._appender.append(Submission(name, events, results.changes, cursor=end))
        self._saved = end

    async def _save(self) -> None:
        await self._append(FollowerResults(), self._place)

    async def _pass_over_done(self, page: _Page) -> None:
        """The journal holds the results of an earlier time on, and more of them than the cursor says.

        That happens after a follower was switched on again at an older place. The batch may also have results
        that are not there: only a single event tells.
        """
        if len(page.events) > 1:
            self._narrow_until = page.end
            return
        self._advance(page.end)
        await self._save()

    async def _fail(self, page: _Page, error: Exception) -> None:
        """Find the event that cannot be decided; record it once; come again later."""
        if len(page.events) > 1:
            self._narrow_until = page.end  # the ones before it must not wait for it
            return
        at = page.events[0].seq if page.events else page.end
        if self._stuck_at != at:
            self._stuck_at = at
            name = self._settings.name
            _log.error("an event cannot be decided; tried again", follower=name, seq=at, exc_info=error)
            try:
                await self._on_stuck(f"{name} at event {at}", error)
            except RetryLater as failure:
                _log.error("that could not be recorded", follower=name, seq=at, reason=str(failure))
        await asyncio.sleep(self._backoff.next_s())

    async def _next_page(self) -> _Page:
        """The events behind the place, within the bounds of a batch; one while we look for a bad one."""
        limit = 1 if self._place < self._narrow_until else self._settings.events_max
        kinds, head = self._settings.kinds, self._appender.head
        sizes = await self._journal.sizes(self._place, limit, kinds=kinds)
        fits = _fitting(sizes, self._settings.bytes_max)
        if not fits:
            return _Page([], max(head, self._place))
        # The journal only grows at its end: the same search finds the same events again.
        events = await self._journal.read(self._place, fits, kinds=kinds)
        last = events[-1].seq if events else self._place
        # Behind the last one, up to the head of a moment before the search, there was none of our kinds.
        return _Page(events, max(head, last) if fits < limit and fits == len(sizes) else last)


def _with_key(event: NewEvent) -> NewEvent:
    """The result with the key by which it is known when the follower comes again at an older place.

    A decision that has several results of one kind about one subject for one event gives keys of its own.
    """
    if event.key is not None or event.cause is None:
        return event
    return replace(event, key=f"{event.cause}/{type(event.event).__name__}/{event.subject}")


async def release_cursor(appender: JournalAppender, name: str) -> None:
    """Remove the cursor of a follower that is switched off and has ended; nothing when it has none.

    When it is switched on again it begins at its `start`. RetryLater.
    """
    gone = RowChange(delete(_cursor).where(_cursor.c.loop == bindparam("gone")), ({"gone": name},))
    await appender.append(Submission(name, changes=(gone,)))


async def release_cursors_except(
    appender: JournalAppender, readers: Readers, followers: Collection[str]
) -> tuple[str, ...]:
    """Remove the cursors of all but these followers, those of removed components among them; their names."""
    query = select(_cursor.c.loop).order_by(_cursor.c.loop)
    names = await readers.read(lambda connection: list(connection.execute(query).scalars()))
    gone = tuple(name for name in names if name not in followers)
    for name in gone:
        await release_cursor(appender, name)
    return gone


def read_cursor(connection: Connection, name: str) -> Seq | None:
    """How far a follower has read, None when it has no cursor."""
    found = connection.execute(select(_cursor.c.seq).where(_cursor.c.loop == name)).scalar()
    return None if found is None else Seq(found)


def _fitting(sizes: Sequence[int], bytes_max: int) -> int:
    """How many fit; at least one of what is there."""
    used = 0
    for count, size in enumerate(sizes):
        used += size
        if used > bytes_max and count:
            return count
    return len(sizes)
