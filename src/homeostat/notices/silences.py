"""The silences in memory: what the fault path asks without asking the database.

A copy of what is not over, taken at the start, before anything is decided, and after every change; it is
replaced whole. Without a `reload` it is empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial

from homeostat.kernel.clock import Clock, SystemClock
from homeostat.notices import silence_store
from homeostat.notices.model import FaultPicture, Silence, Subscription
from homeostat.notices.silence_index import SilenceIndex
from homeostat.notices.subscriptions import Reads


class Silences:
    """All silences that are not over. Used on one event loop. `zones` is the zone of each host."""

    def __init__(
        self, readers: Reads, clock: Clock | None = None, zones: Mapping[str, str] | None = None
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
                partial(silence_store.not_over, now_ns=self._clock.wall_ns())
            )
            self._index = SilenceIndex(self._rows, self.zones)
            self.version += 1

    def all(self) -> tuple[Silence, ...]:
        """Those that were not over when they were read."""
        return self._rows

    def covering(
        self, subscriptions: Iterable[Subscription], fault: FaultPicture, now_ns: int
    ) -> dict[str, Silence]:
        """Which of these subscriptions must not be told of a fault now, and the silence that says so."""
        if not self._rows:
            return {}
        found = {each.name: self._index.covering(each, fault, now_ns) for each in subscriptions}
        return {name: silence for name, silence in found.items() if silence is not None}
