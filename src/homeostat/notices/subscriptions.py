"""The subscriptions and silences in memory, the change of a subscription, and the numbers of its endpoints.

The copies of the tables are what the write path matches against without asking the database. They are taken
at the start and whenever a table may hold something else. Committed changes of subscriptions are taken over
by the one that had them written, so `reload` must not run beside it; silences are replaced whole after every
change, and without a `reload` there are none.

A `SubscriptionChange` goes through the write path's own entries. Only there it has a place among the
faults: consumers are notified with it of what is open when it is written, what is raised afterwards is
matched against it, and nothing falls between the two or is notified by both.

An endpoint's number is part of the keys of its notices. So an address keeps its number when others come and
go; a new address in the place of an old one is the same consumer, moved, and keeps the number, so that what
waits for it goes there; everything else gets a number that was never used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from homeostat.contracts.nouns import INFRASTRUCTURE, Owner
from homeostat.ingest.entry import Decision, IngestState, Moment
from homeostat.kernel.clock import Clock, SystemClock
from homeostat.kernel.database import DatabaseReader
from homeostat.kernel.journal import EventIndex, NewEvent, RowChange, Seq
from homeostat.notices import store
from homeostat.notices.matching import SilenceIndex
from homeostat.notices.model import Endpoint, FaultPicture, NoticeFormat, Silence, Subscription


class Subscriptions:
    """All subscriptions. Used on one event loop."""

    def __init__(self, readers: DatabaseReader) -> None:
        self._readers = readers
        self._by_name: dict[str, Subscription] = {}
        self._by_owner: dict[Owner, list[Subscription]] = {}
        self._reading = asyncio.Lock()

    async def reload(self) -> None:
        """Read the table; to be called at the start and when it is not known what was committed."""
        async with self._reading:  # an older answer must not replace a newer one
            rows = await self._readers.read(store.subscriptions)
            self._take(rows)

    def _take(self, rows: Iterable[Subscription]) -> None:
        """From now on these, all of them: by name and by owner are never of two different times."""
        self._by_name = {row.name: row for row in sorted(rows, key=lambda row: row.name)}
        owners: dict[Owner, list[Subscription]] = {}
        for row in self._by_name.values():
            owners.setdefault(row.owner, []).append(row)
        self._by_owner = owners

    def all(self) -> tuple[Subscription, ...]:
        return tuple(self._by_name.values())

    def that_may_hear(self, projects: Collection[Owner]) -> tuple[Subscription, ...]:
        """Those of these projects and of the infrastructure, by name: nobody else hears of what they own."""
        wanted = {*projects, INFRASTRUCTURE}
        if len(wanted) >= len(self._by_owner):
            return tuple(row for row in self._by_name.values() if row.owner in wanted)
        found = [row for owner in wanted for row in self._by_owner.get(owner, ())]
        return tuple(sorted(found, key=lambda row: row.name))

    def find(self, name: str) -> Subscription | None:
        return self._by_name.get(name)

    def adopt(self, name: str, row: Subscription | None) -> None:
        """A change of this one is committed; None: it is removed."""
        rest = [known for each, known in self._by_name.items() if each != name]
        self._take(rest if row is None else [*rest, row])


@dataclass(slots=True)
class SubscriptionChange:
    """`subscription` is what it becomes, None: it is removed. The last two are known when it is committed.

    `current`: the open faults that it may hear of, oldest first; `seq`: the last event of the transaction.
    A stream that begins behind `seq` has what happened after `current`.
    """

    name: str
    subscription: Subscription | None
    draft: NewEvent
    change: RowChange
    current: tuple[FaultPicture, ...] = ()
    seq: Seq | None = None


def on_subscription_change(change: SubscriptionChange, _: IngestState, now: Moment) -> Decision:
    place = EventIndex(now.base)
    return Decision(now.base, [change.draft], changes=[change.change], enrolments=[(change, place)])


CommitSubscriptionChange = Callable[[SubscriptionChange], Awaitable[object]]
"""Commits it and fills in what is known then. RetryLater when that cannot be done now."""


STREAM_ONLY = (("", NoticeFormat.JSON),)
"""What is wanted by who gives no URL."""


def numbered_endpoints(
    there: Sequence[Endpoint], wanted: Sequence[tuple[str, NoticeFormat]], last_number: int
) -> tuple[Endpoint, ...]:
    """The endpoints that are wanted, numbered. `last_number` is the highest that any notice had.

    `wanted` has no URL twice.
    """
    asked = wanted or STREAM_ONLY
    by_url = {each.url: each.number for each in there}
    staying = {url for url, _ in asked} & by_url.keys()
    last = max([last_number, *by_url.values()], default=0)
    made = []
    for index, (url, shape) in enumerate(asked):
        before = there[index] if index < len(there) else None
        if url in staying:
            number = by_url[url]
        elif before is not None and before.url not in staying and before.url and url:
            number = before.number
        else:
            last += 1
            number = last
        made.append(Endpoint(number, url, shape))
    return tuple(made)


class Silences:
    """All silences that are not over. Used on one event loop. `zones` is the zone of each host."""

    def __init__(
        self, readers: DatabaseReader, clock: Clock | None = None, zones: Mapping[str, str] | None = None
    ) -> None:
        self._readers, self._clock, self.zones = readers, clock or SystemClock(), dict(zones or {})
        self._rows: tuple[Silence, ...] = ()
        self._index = SilenceIndex((), self.zones)
        self._reading = asyncio.Lock()
        self.version = 0
        """Counts changes, for those who keep what they concluded."""

    async def reload(self) -> None:
        """Read the table; to be called at the start and after each commit that changed it."""
        async with self._reading:  # an older answer must not replace a newer one
            self._rows = await self._readers.read(
                partial(store.silences_not_over, now_ns=self._clock.wall_ns())
            )
            self._index = SilenceIndex(self._rows, self.zones)
            self.version += 1

    def all(self) -> tuple[Silence, ...]:
        """Those that were not over when they were read."""
        return self._rows

    def covering(
        self, subscriptions: Iterable[Subscription], fault: FaultPicture, now_ns: int
    ) -> dict[str, Silence]:
        """Which of these subscriptions must get no notice of a fault now, and the silence that says so."""
        if not self._rows:
            return {}
        found = {each.name: self._index.covering(each, fault, now_ns) for each in subscriptions}
        return {name: silence for name, silence in found.items() if silence is not None}
