"""Does what is due: reminders, ends, starts; each in a task of its own, so that one that hangs delays nobody.

Intent, act, outcome: a lease is STARTING or TERMINATING in the journal before anything is done, and what was
left so by a server that died is done again. On our own hosts there is nothing more to do than to say so: who
may run where is in the published events, and a guest is never started or stopped by a lease.

The wall clock decides when something is due; it is looked at again after at most `LOOK_S`, since it may step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from homeostat.kernel.clock import Clock
from homeostat.kernel.errors import HomeostatError, RetryLater
from homeostat.leases import timetable
from homeostat.leases.book import LeaseChange
from homeostat.leases.keeper import DecideOnLeases, LeaseKeeper
from homeostat.leases.model import Lease, LeaseEvent, LeaseEventId, LeaseEventType, Reservation
from homeostat.leases.settings import LeasesSettings

log = structlog.get_logger("leases")

LOOK_S = 1.0
SHORTEST_S = 0.001
"""No wait is shorter than what clocks resolve."""
PAUSE_S = 0.2
"""Until what could not be written is tried again."""
FORGET_S = 3600.0


class LeaseBackend(Protocol):
    """Who makes a lease true on the hosts. Each call may be repeated, and ends within its deadline."""

    async def start(self, lease: Lease, reservations: Sequence[Reservation]) -> None:
        """The project may use the hosts from now on. Any HomeostatError: it failed."""

    async def end(self, lease: Lease, reservations: Sequence[Reservation]) -> None:
        """The project may not use them any more. Any HomeostatError: it failed."""


class OwnHosts:
    """Our own hosts: placement reads the published events, so nothing is left to be done."""

    async def start(self, lease: Lease, reservations: Sequence[Reservation]) -> None: ...

    async def end(self, lease: Lease, reservations: Sequence[Reservation]) -> None: ...


@dataclass(frozen=True, slots=True)
class EventLoopDependencies:
    """What the loop works with."""

    keeper: LeaseKeeper
    backend: LeaseBackend
    clock: Clock
    settings: LeasesSettings


class LeaseEventLoop:
    """The loop; one for a server."""

    def __init__(self, parts: EventLoopDependencies) -> None:
        self._parts = parts
        self._busy: set[LeaseEventId] = set()
        self._ended = asyncio.Event()

    @property
    def busy(self) -> int:
        """How many moments are being dealt with, those that wait for their next attempt included."""
        return len(self._busy)

    async def run(self) -> None:
        """Do what is due, for ever."""
        keeper, waking = self._parts.keeper, self._parts.keeper.watch()
        loop = asyncio.get_running_loop()
        forget_s = loop.time() + FORGET_S
        async with asyncio.TaskGroup() as group:
            while True:
                waking.clear()
                now_ns = self._parts.clock.wall_ns()
                for event in timetable.due_events(keeper.book, now_ns, self._busy):
                    self._busy.add(event.id)
                    group.create_task(self._about(event), name=f"{event.event_type.value} {event.lease}")
                if loop.time() >= forget_s:
                    forget_s = loop.time() + FORGET_S
                    await self._forget()
                await self._wait(waking, now_ns)

    async def _wait(self, waking: asyncio.Event, now_ns: int) -> None:
        """Until something changed, the next moment is due, or the clock has to be looked at again."""
        next_ns = self._parts.keeper.book.next_event_ns(now_ns)
        wait_s = LOOK_S if next_ns is None else min(LOOK_S, max(SHORTEST_S, (next_ns - now_ns) / 1e9))
        try:
            async with asyncio.timeout(wait_s):
                await waking.wait()
        except TimeoutError:
            pass

    async def _forget(self) -> None:
        try:
            await self._parts.keeper.forget_removed()
        except RetryLater as error:
            log.warning("removed leases are dropped from memory later", reason=str(error))

    async def _about(self, event: LeaseEvent) -> None:
        try:
            if event.event_type is LeaseEventType.BEFORE_END:
                await self._write(lambda book, context: timetable.remind(book, event.id, context))
                return
            over = await self._attempt(event)
            while not over:
                await asyncio.sleep(timetable.RETRY_S)
                over = await self._attempt(event)
        except RetryLater as error:
            log.warning("not written down; tried again", lease=event.lease, error=str(error))
            await asyncio.sleep(PAUSE_S)
        finally:
            self._busy.discard(event.id)
            self._parts.keeper.wake()

    async def _attempt(self, event: LeaseEvent) -> bool:
        """Whether it is over, one way or the other."""
        keeper, settings = self._parts.keeper, self._parts.settings
        if not await self._write(lambda book, context: timetable.begin(book, event.id, context)):
            return True
        lease = keeper.book.leases.get(event.lease)
        if lease is None:
            return True  # it was deleted in the same commit
        reservations = keeper.book.reservations_of(lease.id)
        backend = self._parts.backend
        act = backend.start if event.event_type is LeaseEventType.START else backend.end
        try:
            async with asyncio.timeout(settings.event_deadline_s):
                await act(lease, reservations)
        except (HomeostatError, TimeoutError) as error:
            reason = str(error) or f"not done within {settings.event_deadline_s:g} s"
            log.warning("moment of a lease failed", lease=lease.id, moment=event.event_type, reason=reason)
            retries = settings.event_max_retries
            await self._insist(lambda book, context: timetable.fail(book, event.id, reason, retries, context))
            found = keeper.book.lease_events.get(event.id)
            return found is None or found.attempts > retries
        await self._insist(lambda book, context: timetable.finish(book, event.id, context))
        return True

    async def _write(self, decision: DecideOnLeases) -> bool:
        """Whether there was anything to write. RetryLater."""
        change = await self._parts.keeper.decide(decision)
        return isinstance(change, LeaseChange) and bool(change.events)

    async def _insist(self, decision: DecideOnLeases) -> None:
        """An outcome is written however long it takes."""
        while True:
            try:
                await self._write(decision)
            except RetryLater as error:
                log.warning("an outcome waits to be written", error=str(error))
                await asyncio.sleep(PAUSE_S)
            else:
                return
