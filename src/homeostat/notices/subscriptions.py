"""The subscriptions in memory: what the fault path matches against without asking the database.

A copy of the table, taken at the start and whenever the table may hold something else; committed changes are
taken over by the one that had them written, so `reload` must not run beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from homeostat.contracts.nouns import INFRASTRUCTURE, Owner
from homeostat.notices import store
from homeostat.notices.model import Subscription

T = TypeVar("T")


class Reads(Protocol):
    """`kernel.database.Readers`."""

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """What `fn` returns, from a thread."""
        ...


class Subscriptions:
    """All subscriptions. Used on one event loop."""

    def __init__(self, readers: Reads) -> None:
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
        """Every subscription, by name."""
        return tuple(self._by_name.values())

    def that_may_hear(self, projects: Collection[Owner]) -> tuple[Subscription, ...]:
        """Those of these projects and of the infrastructure, by name: nobody else hears of what they own."""
        wanted = {*projects, INFRASTRUCTURE}
        if len(wanted) >= len(self._by_owner):
            return tuple(row for row in self._by_name.values() if row.owner in wanted)
        found = [row for owner in wanted for row in self._by_owner.get(owner, ())]
        return tuple(sorted(found, key=lambda row: row.name))

    def find(self, name: str) -> Subscription | None:
        """The one of this name."""
        return self._by_name.get(name)

    def adopt(self, name: str, row: Subscription | None) -> None:
        """A change of this one is committed; None: it is removed."""
        rest = [known for each, known in self._by_name.items() if each != name]
        self._take(rest if row is None else [*rest, row])
