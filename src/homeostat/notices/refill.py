"""Brings pending notices from the outbox into memory, in order, for destinations that are *behind*.

At the start every destination with pending notices is behind; later one of which more wait than memory may
hold. While it is behind its notices come from here only, so that the order of the outbox is kept. It sends
nothing. Invariant: a notice whose end was committed is not brought back by a read that began before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import structlog

from homeostat.contracts.nouns import FaultId
from homeostat.kernel.errors import RetryLater
from homeostat.notices import store
from homeostat.notices.model import FaultPicture, Notice
from homeostat.notices.subscriptions import Reads

Recall = Callable[[Sequence[FaultId]], Awaitable[Mapping[FaultId, FaultPicture]]]
"""Pictures of faults by id, read again; a fault that is no longer known is left out."""

Admit = Callable[[Notice, FaultPicture | None], bool]
"""Takes a notice into memory, one that is there already too; False when there is no room."""

T = TypeVar("T")

_ROWS_AT_ONCE = 500
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 2.0
_log = structlog.get_logger("notices")


class Refill:
    """Which destinations are behind, and the loop that catches up. Used on one event loop."""

    def __init__(self, readers: Reads, recall: Recall, admit: Admit, has_room: Callable[[str], bool]) -> None:
        """`has_room` says whether it is worth reading for one again."""
        self._readers, self._recall, self._admit, self._has_room = readers, recall, admit, has_room
        self._behind: set[str] = set()
        self._missed: set[str] = set()
        self._reading: str | None = None
        self._ended: set[str] = set()
        self._look = asyncio.Event()

    def is_behind(self, destination: str) -> bool:
        """Whether notices for this destination come from the outbox only."""
        return destination in self._behind

    def fell_behind(self, destination: str) -> None:
        """The outbox holds notices for this destination that memory does not."""
        self._behind.add(destination)
        self._missed.add(destination)
        self._look.set()

    def ended(self, notice: Notice) -> None:
        """The end of a notice was committed."""
        if notice.destination == self._reading:
            self._ended.add(notice.key)
        if notice.destination in self._behind:
            self._look.set()

    async def run(self) -> None:
        """Find who is behind, then catch up for ever."""
        for name in await _insist(partial(self._readers.read, store.with_pending)):
            self.fell_behind(name)
        while True:
            await self._look.wait()
            self._look.clear()
            for name in sorted(self._behind):
                if self._has_room(name):
                    await self._catch_up(name)

    async def _catch_up(self, name: str) -> None:
        after = 0
        while True:
            self._missed.discard(name)
            self._reading = name
            self._ended.clear()
            query = partial(store.pending_of, name=name, after=after, limit=_ROWS_AT_ONCE)
            rows = await _insist(partial(self._readers.read, query))
            wanted = sorted({row.fault for row in rows})
            pictures = await _insist(partial(self._recall, wanted)) if wanted else {}
            self._reading = None
            for row in rows:
                if row.key not in self._ended and not self._admit(row, pictures.get(row.fault)):
                    return
                after = store.seq_of(row)
            if len(rows) < _ROWS_AT_ONCE and name not in self._missed:
                self._behind.discard(name)
                return


async def _insist(act: Callable[[], Awaitable[T]]) -> T:
    """Again and again while the store says RetryLater."""
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            return await act()
        except RetryLater as error:
            _log.warning("the outbox cannot be read now", reason=str(error))
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
