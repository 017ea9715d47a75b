"""The journal for people: newest first, searched, and only what the caller may see.

Bounded: a page reads at most `_PAGES` slices of the journal, among its newest `WITHIN` events.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from homeostat.contracts.events import CATALOGUE
from homeostat.faults.ownership import owners, visible
from homeostat.kernel.access import Caller
from homeostat.kernel.database import Readers
from homeostat.kernel.journal import Envelope, Seq
from homeostat.kernel.reader import Journal

WITHIN = 100_000
_SLICE = 400
_PAGES = 5


@dataclass(frozen=True, slots=True)
class Search:
    """What somebody looks for. Empty fields let everything through; letters are compared without case."""

    kind: str = ""
    subject: str = ""
    text: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether it lets everything through."""
        return not (self.kind or self.subject or self.text)


@dataclass(frozen=True, slots=True)
class Found:
    """`older` is where the next page begins, None when there is nothing more within reach."""

    events: list[Envelope]
    older: int | None


@dataclass(frozen=True, slots=True)
class JournalPages:
    """Reads pages and batches of the journal for one caller at a time."""

    journal: Journal
    readers: Readers

    async def page(self, caller: Caller, search: Search, before: int | None, limit: int) -> Found:
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
                return Found(found[:limit], found[limit - 1].seq)
            if len(batch) < _SLICE:
                return Found(found, None)
            place = batch[-1].seq
        return Found(found, place)

    async def seen_by(self, caller: Caller, events: list[Envelope]) -> list[Envelope]:
        """Those that the caller may see."""
        if not events:
            return []
        known = await self.readers.read(lambda connection: owners(connection, events))
        return visible(caller, events, known)


def matches(search: Search, event: Envelope) -> bool:
    """Whether an event that just happened belongs on a page with this search. As the journal compares."""
    text = search.text.lower()
    searched = (event.subject, event.origin, orjson.dumps(event.payload).decode())
    return (
        (not search.kind or event.kind == search.kind)
        and search.subject.lower() in event.subject.lower()
        and any(text in part.lower() for part in searched)
    )


def kinds() -> list[str]:
    """What can be asked for."""
    return sorted(CATALOGUE.kinds())
