"""The service behind every request about leases: one decision after the other, each committed whole.

It has the copy of the tables (`LeaseBook`) and is its only writer, so that no host is booked twice: what a
decision read is in the tables when its result is written, or is written in the same transaction. A commit
that failed or whose answer was lost makes the copy doubtful; it is read again before the next decision.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from homeostat.contracts.events import leases as events
from homeostat.contracts.nouns import HostId
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import DatabaseReader
from homeostat.kernel.errors import BadInput, RetryLater, StoreUnavailable
from homeostat.kernel.journal import JournalAppender, NewEvent, Seq, Submission
from homeostat.leases import reservable_hosts, store
from homeostat.leases.book import LeaseBook, LeaseChange
from homeostat.leases.booking import (
    LeaseContext,
    LeaseRequest,
    acknowledge,
    create_lease,
    delete_lease,
    find_lease,
)
from homeostat.leases.lease_update import LeaseUpdate, update_lease
from homeostat.leases.model import MINUTE_NS, HostCapacity, Lease, LeaseId, ReservableHost, ResourceType
from homeostat.leases.refusals import LeaseRefusal
from homeostat.leases.settings import LeasesSettings
from homeostat.ports import NewId

_NAMES = uuid.UUID("6f1c1c1e-5d0a-4f6b-9c3e-0b8f6a1d2e47")
"""The name space of the ids of leases: Blazar's clients take only UUIDs for ids."""

CAPACITY_EVENTS = (
    events.ReservableHostAdded,
    events.ReservableHostChanged,
    events.HostCapacityNoted,
    events.HostUnreservable,
    events.HostReservable,
    events.ReservableHostHeld,
    events.LeaseUpdated,
    events.LeaseDeleted,
    events.ReservationReleased,
)
"""After these another plan may be possible, or needed."""


DecideOnLeases = Callable[[LeaseBook, LeaseContext], LeaseChange | LeaseRefusal]

GROUP_MAX = 100
"""Decisions of one commit: 200 leases that start at the same minute are four commits, not four hundred."""


@dataclass(slots=True, eq=False)
class WaitingDecision:
    """A decision whose caller waits for `done`."""

    decision: DecideOnLeases
    by: str
    done: asyncio.Future[LeaseChange | LeaseRefusal]
    change: LeaseChange | LeaseRefusal | None = None
    submissions: tuple[Submission, ...] = ()
    events: tuple[NewEvent, ...] = ()

    def answer(self, error: Exception | None) -> None:
        """What came of it, unless the caller has its answer or is gone."""
        if self.done.done():
            return
        if error is not None or self.change is None:
            self.done.set_exception(error or StoreUnavailable("nothing was decided"))
            self.done.exception()  # its caller may be gone: nobody has to read it
        else:
            self.done.set_result(self.change)


@dataclass(frozen=True, slots=True)
class KeeperDependencies:
    """What the service works with. `capacity_of`: the facts of a host that reports, None of any other."""

    appender: JournalAppender
    readers: DatabaseReader
    clock: Clock
    new_id: NewId
    settings: LeasesSettings
    capacity_of: Callable[[HostId], HostCapacity | None]


class LeaseKeeper:
    """Used on one event loop of the leader."""

    def __init__(self, parts: KeeperDependencies) -> None:
        self._parts = parts
        self._writing = asyncio.Lock()
        self._doubtful = True
        self.book = LeaseBook()
        self._watching: list[asyncio.Event] = []
        self._waiting: list[WaitingDecision] = []
        self.capacity_version = 0
        """Counts the commits after which something may fit that did not fit before, or has to move."""
        self.failed_seq: dict[HostId, Seq] = {}
        """The event by which each host failed, as far as this server wrote it."""

    async def reload(self) -> None:
        """Read the tables. RetryLater."""
        self.book = await self._parts.readers.read(store.load)
        self._doubtful = False
        self.capacity_version += 1
        self.wake()

    def watch(self) -> asyncio.Event:
        """An event of the caller's own that is set after every commit; the caller clears it."""
        self._watching.append(asyncio.Event())
        return self._watching[-1]

    def wake(self) -> None:
        """Have everybody who watches look again."""
        for each in self._watching:
            each.set()

    async def decide(self, decision: DecideOnLeases, by: str = "leases") -> LeaseChange | LeaseRefusal:
        """Make a decision and commit it; what came of it. RetryLater: nobody knows whether it was written.

        A refusal, and a change without events, write nothing. Decisions that wait while another commit is on
        its way are made one after the other and share the next one.
        """
        done: asyncio.Future[LeaseChange | LeaseRefusal] = asyncio.get_running_loop().create_future()
        self._waiting.append(WaitingDecision(decision, by, done))
        try:
            async with self._writing:
                if not done.done():
                    group, self._waiting = self._waiting[:GROUP_MAX], self._waiting[GROUP_MAX:]
                    await self._commit(group)
        finally:
            if not done.done():
                done.cancel()
        return done.result()

    async def _commit(self, group: Sequence[WaitingDecision]) -> None:
        """Decide in their order and commit together: all of it or nothing.

        Each decision reads what those before it left; a failed commit throws the whole book away. One that
        the database refuses for good takes no other with it: then each is made again, alone.
        """
        error: Exception = StoreUnavailable("the commit was interrupted; nobody knows whether it was written")
        try:
            if self._doubtful:
                await self.reload()
            decided = [each for each in group if not each.done.done() and self._decide(each)]
            if decided:
                together = store.merged([submission for each in decided for submission in each.submissions])
                receipt = await self._parts.appender.append(together)
                self._doubtful = False
                self._note([event for each in decided for event in each.events], receipt.seqs)
        except RetryLater as failure:
            error = failure
        except Exception as failure:
            error = failure
            if len(group) > 1:
                for each in group:
                    if not each.done.done():
                        await self._commit([each])
        finally:
            for each in group:
                each.answer(error if self._doubtful else None)

    def _decide(self, waiting: WaitingDecision) -> bool:
        """Whether there is something to write. The book has it at once, for those who decide after it."""
        try:
            change = waiting.decision(self.book, self.context(waiting.by))
        except Exception as error:  # its caller's own
            waiting.done.set_exception(error)
            return False
        waiting.change = change
        if isinstance(change, LeaseRefusal) or not change.events:
            return False
        self._doubtful = True  # from here to the commit the book is ahead of the tables, whatever is raised
        waiting.submissions = (store.submission_of(change, self.book),)
        waiting.events = change.events
        self.book.adopt(change)
        return True

    def _note(self, drafts: Sequence[NewEvent], seqs: Sequence[Seq]) -> None:
        """Whoever watches looks again, and whoever heals when it may be worth it."""
        for draft, seq in zip(drafts, seqs, strict=True):
            if isinstance(draft.event, events.HostUnreservable):
                self.failed_seq[draft.event.host] = seq
        if any(isinstance(draft.event, CAPACITY_EVENTS) for draft in drafts):
            self.capacity_version += 1
        self.wake()

    def context(self, by: str) -> LeaseContext:
        settings = self._parts.settings
        order: list[HostId] = []
        if settings.plugin(ResourceType.HOST).randomize_host_selection:
            salt = self.new_id()
            order = sorted(self.book.hosts, key=lambda host: uuid.uuid5(_NAMES, f"{salt}/{host}"))
        return LeaseContext(
            self._parts.clock.wall_ns(),
            self.new_id,
            by,
            order,
            settings.cleaning_time * MINUTE_NS,
            settings.minutes_before_end_lease * MINUTE_NS,
        )

    def new_id(self) -> str:
        """A UUID, made from the ids of this server."""
        return str(uuid.uuid5(_NAMES, self._parts.new_id()))

    async def create(self, request: LeaseRequest) -> Lease | LeaseRefusal:
        """Book it. BadInput for requirements that cannot be understood, and for what may not be reserved."""
        plugins = self._parts.settings.plugins
        for wanted in request.reservations:
            if wanted.resource_type.value not in plugins:
                raise BadInput("resource_type", wanted.resource_type.value, f"one of {', '.join(plugins)}")
        done = await self.decide(lambda book, context: create_lease(book, request, context), request.user)
        return done if isinstance(done, LeaseRefusal) else done.leases[0]

    async def update(self, lease: LeaseId, update: LeaseUpdate, by: str) -> Lease | LeaseRefusal:
        """All of it or nothing. NotFound, BadInput."""
        done = await self.decide(lambda book, context: update_lease(book, lease, update, context), by)
        return done if isinstance(done, LeaseRefusal) else find_lease(self.book, lease)

    async def delete(self, lease: LeaseId, by: str) -> None:
        """It is gone at once, whatever its status. NotFound."""
        await self.decide(lambda book, context: delete_lease(book, lease, context), by)

    async def acknowledge(self, lease: LeaseId, by: str) -> Lease:
        """The owner took note of what changed. NotFound."""
        await self.decide(lambda book, context: acknowledge(book, lease, context), by)
        return find_lease(self.book, lease)

    async def add_host(
        self, host: HostId, by: str, properties: Mapping[str, str] | None = None
    ) -> ReservableHost | LeaseRefusal:
        capacity = self._parts.capacity_of(host)
        done = await self.decide(
            lambda book, context: reservable_hosts.add_host(book, host, capacity, context, properties), by
        )
        return done if isinstance(done, LeaseRefusal) else reservable_hosts.find_host(self.book, host)

    async def remove_host(self, host: HostId, by: str) -> LeaseRefusal | None:
        """NotFound."""
        done = await self.decide(lambda book, context: reservable_hosts.remove_host(book, host, context), by)
        return done if isinstance(done, LeaseRefusal) else None

    async def describe_host(
        self, host: HostId, properties: Mapping[str, str | None], by: str
    ) -> ReservableHost | LeaseRefusal:
        """Add or replace extra properties; None takes one away. NotFound."""
        done = await self.decide(
            lambda book, context: reservable_hosts.describe_host(book, host, properties, context), by
        )
        return done if isinstance(done, LeaseRefusal) else reservable_hosts.find_host(self.book, host)

    async def set_visibility(self, name: str, private: bool, by: str) -> LeaseRefusal | None:
        """Who sees an extra property of hosts listed."""
        done = await self.decide(
            lambda book, context: reservable_hosts.set_visibility(book, name, private, context), by
        )
        return done if isinstance(done, LeaseRefusal) else None

    async def hold_host(self, host: HostId, reason: str, until_ns: int | None, by: str) -> ReservableHost:
        """Keep monitors and new reservations from it; an empty reason ends that. NotFound."""
        await self.decide(
            lambda book, context: reservable_hosts.hold_host(book, host, reason, until_ns, context), by
        )
        return reservable_hosts.find_host(self.book, host)

    async def forget_removed(self) -> None:
        """Let go of leases that retention removed. RetryLater."""
        kept = await self._parts.readers.read(_ids)
        async with self._writing:
            gone = [each.id for each in self.book.leases.values() if not each.is_open and each.id not in kept]
            self.book.forget(gone)


def _ids(connection: Connection) -> frozenset[str]:
    return frozenset(connection.execute(select(store.lease_table.c.id)).scalars())
