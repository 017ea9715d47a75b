"""A simulated cloud: a `ports.Cloud` shaped like nova.

Marking a host is one call, an error is a call a guest, and only so many run at once. It writes down its
calls in order, so that a test can say what came first and how much ran at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field

from homeostat.ports import ActFailed, ActUnknown, CloudView, MarkResult, MarkSucceeded

CALLS_AT_ONCE = 8


async def _answer_at_once(_call: str) -> None:
    await asyncio.sleep(0)


@dataclass
class SimCloud:
    """`guests` says which guests the cloud has on a host now; `call` is awaited for each single call.

    A `call` that raises OSError was refused; one that does not return is a cloud that hangs.
    """

    guests: Callable[[str], Iterable[str]]
    call: Callable[[str], Awaitable[None]] = _answer_at_once
    name: str = "sim"
    down: set[str] = field(default_factory=set)
    in_error: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    busiest: int = 0
    _busy: int = 0
    _free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CALLS_AT_ONCE))

    async def mark_down(self, host: str) -> MarkResult:
        """See `Cloud`."""
        return await self._mark(f"force-down {host}", lambda: self.down.add(host))

    async def mark_up(self, host: str) -> MarkResult:
        """See `Cloud`."""
        return await self._mark(f"un-force {host}", lambda: self.down.discard(host))

    async def set_error(self, host: str) -> MarkResult:
        """See `Cloud`."""
        guests = sorted(self.guests(host))
        return await self._each(guests, "error", self.in_error.add)

    async def clear_error(self, host: str, seen: Collection[str]) -> MarkResult:
        """See `Cloud`. A guest that is elsewhere now is nobody's business here."""
        guests = sorted(set(self.guests(host)) & set(seen) & self.in_error)
        return await self._each(guests, "active", self.in_error.discard)

    async def look(self, host: str) -> CloudView | ActUnknown:
        """See `Cloud`."""
        try:
            await self.call(f"look {host}")
        except OSError as error:
            return ActUnknown(str(error))
        return CloudView(host in self.down, frozenset(set(self.guests(host)) & self.in_error))

    async def _mark(self, call: str, then: Callable[[], object]) -> MarkResult:
        self.calls.append(call)
        try:
            await self.call(call)
        except OSError as error:
            return ActFailed(f"{call}: {error}")
        then()
        return MarkSucceeded(0, call)

    async def _each(self, guests: Collection[str], state: str, then: Callable[[str], object]) -> MarkResult:
        async def one(guest: str) -> bool:
            async with self._free:
                self._busy += 1
                self.busiest = max(self.busiest, self._busy)
                try:
                    return isinstance(
                        await self._mark(f"{state} {guest}", lambda: then(guest)), MarkSucceeded
                    )
                finally:
                    self._busy -= 1

        done = sum(await asyncio.gather(*(one(guest) for guest in guests)))
        if done < len(guests):
            return ActFailed(f"{done} of {len(guests)} guests are {state}")
        return MarkSucceeded(done, f"{done} guests are {state}")
