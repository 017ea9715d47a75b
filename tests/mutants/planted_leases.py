"""Planted bugs of leases, each in place of the real class."""

from __future__ import annotations

from homeostat.leases.book import LeaseBook, LeaseChange
from homeostat.leases.booking import LeaseRequest, create_lease
from homeostat.leases.keeper import LeaseKeeper
from homeostat.leases.model import Lease
from homeostat.leases.refusals import LeaseRefusal


class BooksWithoutLooking(LeaseKeeper):
    """Books as if no host were reserved yet."""

    async def create(self, request: LeaseRequest) -> Lease | LeaseRefusal:
        bare = LeaseBook()
        bare.adopt(LeaseChange(hosts=tuple(self.book.hosts.values())))
        done = await self.decide(lambda _book, context: create_lease(bare, request, context), request.user)
        return done if isinstance(done, LeaseRefusal) else done.leases[0]
