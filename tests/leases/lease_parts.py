"""Leases to test with: a book of hosts, requests, and a service on a store with a clock that tests set."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from sqlalchemy import Connection

from homeostat.components import catalogue
from homeostat.contracts.nouns import HostId, Owner
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.clock import SystemClock
from homeostat.leases.book import LeaseBook, LeaseChange
from homeostat.leases.booking import LeaseContext, LeaseRequest, ReservationRequest
from homeostat.leases.keeper import KeeperDependencies, LeaseKeeper
from homeostat.leases.model import (
    MINUTE_NS,
    HostCapacity,
    ReservableHost,
    ReservationId,
    ResourceType,
)
from homeostat.leases.monitoring import HostOutcome, HostVerdict
from homeostat.leases.reservable_hosts import record_verdicts
from homeostat.leases.settings import LeasesSettings
from homeostat.sim.database import CommitHooks, SimAppender, SimDatabase
from store_parts import Store

T = TypeVar("T")

HOUR_NS = 60 * MINUTE_NS
NOON_NS = 1_790_000_000 * 10**9 // HOUR_NS * HOUR_NS
"""A full hour, at which these tests begin."""
SMALL = HostCapacity(4, 8192, 100, "x86_64")
PROJECT = Owner("alpha")


def host(number: int, capacity: HostCapacity = SMALL, **fields: object) -> ReservableHost:
    """`h<number>`."""
    made = ReservableHost(
        HostId(f"h{number}"),
        number,
        vcpus=capacity.vcpus,
        memory_mb=capacity.memory_mb,
        disk_gb=capacity.disk_gb,
        architecture=capacity.architecture,
    )
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


def book_of(*hosts: ReservableHost) -> LeaseBook:
    """A book without leases."""
    book = LeaseBook()
    book.adopt(LeaseChange(hosts=hosts))
    return book


def context_at(now_ns: int = NOON_NS, *, cleaning_minutes: int = 0) -> LeaseContext:
    """Ids are `<moment>-1`, `<moment>-2` and so on."""
    numbers = itertools.count(1)
    return LeaseContext(
        now_ns, lambda: f"{now_ns}-{next(numbers)}", "tester", cleaning_ns=cleaning_minutes * MINUTE_NS
    )


def reported(
    book: LeaseBook, name: str, outcome: HostOutcome, context: LeaseContext, seen_ns: int | None = None
) -> LeaseChange:
    """A monitor concludes that a host failed, or is well again."""
    seen_ns = context.now_ns if seen_ns is None else seen_ns
    verdict = HostVerdict("own-hosts", HostId(name), outcome, "host_down", seen_ns)
    return record_verdicts(book, [verdict], context)


def hosts_wanted(minimum: int = 1, maximum: int | None = None, resource: str = "") -> ReservationRequest:
    """Whole hosts."""
    most = minimum if maximum is None else maximum
    return ReservationRequest(ResourceType.HOST, minimum, most, resource_properties=resource)


def slots_wanted(amount: int, vcpus: int = 1, affinity: bool | None = None) -> ReservationRequest:
    """Parts of hosts."""
    return ReservationRequest(
        ResourceType.INSTANCE, amount=amount, vcpus=vcpus, memory_mb=1024, disk_gb=1, affinity=affinity
    )


def lease_from(
    start_h: float, end_h: float, *wanted: ReservationRequest, name: str = "l", project: Owner = PROJECT
) -> LeaseRequest:
    """Hours after noon; one host when nothing is said."""
    start_ns, end_ns = (NOON_NS + round(each * HOUR_NS) for each in (start_h, end_h))
    return LeaseRequest(name, project, "tester", start_ns, end_ns, None, wanted or (hosts_wanted(),))


def held_hosts(book: LeaseBook, reservation: ReservationId) -> list[str | None]:
    """The hosts of a reservation, by number."""
    return [each.host for each in book.allocations_of(reservation)]


@dataclass(slots=True)
class SetClock:
    """A clock that stands where the test put it; both clocks go together."""

    now_ns: int = NOON_NS
    started_ns: int = field(default=0)

    def wall_ns(self) -> int:
        return self.now_ns

    def mono_ns(self) -> int:
        return self.now_ns - self.started_ns


@dataclass(slots=True)
class LeaseService:
    """The service and what stands around it."""

    keeper: LeaseKeeper
    appender: Appender | SimAppender
    clock: SetClock | LoopClock
    capacities: dict[HostId, HostCapacity]
    parts: KeeperDependencies


class InlineReaders:
    """Reads on the event loop's own thread, so that virtual time does not run away."""

    def __init__(self, disk: SimDatabase) -> None:
        self._disk = disk

    async def read(self, function: Callable[[Connection], T]) -> T:
        with self._disk.reading.connect() as connection:
            return function(connection)


@asynccontextmanager
async def serving_in_virtual_time(
    disk: SimDatabase, hosts: Iterable[int] = (), settings: LeasesSettings | None = None
) -> AsyncIterator[LeaseService]:
    """A service on the simulator's database; both clocks are the event loop's time, from noon on."""
    disk.clear()
    clock, numbers = LoopClock(), itertools.count(1)
    capacities = {HostId(f"h{number}"): SMALL for number in hosts}
    appender = SimAppender(disk, None, CommitHooks(Random(1)))
    parts = KeeperDependencies(
        appender,
        InlineReaders(disk),
        clock,
        lambda: f"v-{next(numbers)}",
        settings or LeasesSettings(),
        capacities.get,
    )
    keeper = LeaseKeeper(parts)
    await keeper.reload()
    for each in capacities:
        await keeper.add_host(each, "tester")
    clock.begin()
    yield LeaseService(keeper, appender, clock, capacities, parts)


class LoopClock:
    """The event loop's time since `begin`, as both clocks; `step_ns` is how much the wall clock is off."""

    def __init__(self) -> None:
        self._began_s, self.step_ns = asyncio.get_running_loop().time(), 0

    def begin(self) -> None:
        """It is noon now."""
        self._began_s = asyncio.get_running_loop().time()

    def mono_ns(self) -> int:
        return NOON_NS + round((asyncio.get_running_loop().time() - self._began_s) * 1e9)

    def wall_ns(self) -> int:
        return self.mono_ns() + self.step_ns


@asynccontextmanager
async def serving(
    store: Store, hosts: Iterable[int] = (), settings: LeasesSettings | None = None
) -> AsyncIterator[LeaseService]:
    """A service on this store with hosts that may be reserved."""
    clock, numbers = SetClock(), itertools.count(1)
    capacities = {HostId(f"h{number}"): SMALL for number in hosts}
    appender = Appender(
        store.engine, catalogue(), epoch=None, settings=AppenderSettings(), clock=SystemClock()
    )
    appender.start()
    head = store.events()
    parts = KeeperDependencies(
        appender,
        store.readers,
        clock,
        lambda: f"{head}-{next(numbers)}",
        settings or LeasesSettings(),
        capacities.get,
    )
    keeper = LeaseKeeper(parts)
    try:
        await keeper.reload()
        for each in capacities:
            await keeper.add_host(each, "tester")
        yield LeaseService(keeper, appender, clock, capacities, parts)
    finally:
        await appender.close()
