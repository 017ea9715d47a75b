"""Cores, memory and disk of reservable hosts as their nodes say them: compared at the start, then followed.

Nothing that is booked is moved because a machine changed; what is booked from then on counts against the new
facts.
"""

from __future__ import annotations

from collections.abc import Callable

from homeostat.contracts.events.fleet import HostFactsChanged
from homeostat.contracts.nouns import HostId
from homeostat.kernel.journal import Journal
from homeostat.leases.book import LeaseBook, LeaseChange
from homeostat.leases.booking import LeaseContext
from homeostat.leases.keeper import LeaseKeeper
from homeostat.leases.model import HostCapacity
from homeostat.leases.monitor_loop import FollowedJournal
from homeostat.leases.reservable_hosts import note_capacity

PAGE = 200
KINDS = frozenset({HostFactsChanged.__name__})


class MachineFactsFollower:
    """The loop; one for a server. `capacity_of`: the facts of a host as the server knows them now."""

    def __init__(
        self,
        keeper: LeaseKeeper,
        journal: Journal,
        appended: FollowedJournal,
        capacity_of: Callable[[HostId], HostCapacity | None],
    ) -> None:
        self._keeper, self._journal, self._appended = keeper, journal, appended
        self._capacity_of = capacity_of

    async def run(self) -> None:
        """Follow for ever. RetryLater ends it: it is started again, and compares again."""
        place = self._appended.head
        for host in tuple(self._keeper.book.hosts):
            await self._note(host)
        while True:
            head = await self._appended.wait_beyond(place)
            page = await self._journal.read(place, PAGE, kinds=KINDS)
            changed = {each.event.host for each in page if isinstance(each.event, HostFactsChanged)}
            for host in sorted(changed):
                await self._note(host)
            place = page[-1].seq if len(page) == PAGE else head

    async def _note(self, host: HostId) -> None:
        """Take over what the server knows of this host now, which is at least what the event says."""
        capacity = self._capacity_of(host)
        row = self._keeper.book.hosts.get(host)
        if capacity is None or capacity == HostCapacity() or row is None or row.capacity == capacity:
            return

        def decide(book: LeaseBook, context: LeaseContext) -> LeaseChange:
            return note_capacity(book, host, capacity, context)

        await self._keeper.decide(decide, "journal")
