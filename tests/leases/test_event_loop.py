"""The loop of moments in virtual time: exactly on time, whatever hangs, and once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing

import pytest
from lease_parts import (
    HOUR_NS,
    NOON_NS,
    LeaseService,
    LoopClock,
    hosts_wanted,
    lease_from,
    serving_in_virtual_time,
)

from homeostat.contracts.events import leases as events
from homeostat.kernel.errors import StoreUnavailable
from homeostat.leases.event_loop import EventLoopDependencies, LeaseBackend, LeaseEventLoop, OwnHosts
from homeostat.leases.model import Lease, LeaseId, LeaseStatus, Reservation
from homeostat.leases.settings import LeasesSettings
from homeostat.sim.checkers import read_database
from homeostat.sim.database import SimDatabase

SETTINGS = LeasesSettings(minutes_before_end_lease=0, event_max_retries=1, event_deadline_s=600)


@pytest.fixture(scope="module")
def disk() -> Iterator[SimDatabase]:
    with closing(SimDatabase.in_memory()) as made:
        yield made


class Hanging(OwnHosts):
    """Ends of some leases never return, starts of others fail so many times."""

    def __init__(self, hangs: set[str], failures: dict[str, int] | None = None) -> None:
        self.hangs, self.failures = hangs, failures or {}
        self.called: list[tuple[str, str]] = []

    async def start(self, lease: Lease, reservations: Sequence[Reservation]) -> None:
        self.called.append(("start", lease.name))
        if self.failures.get(lease.name, 0):
            self.failures[lease.name] -= 1
            raise StoreUnavailable("the back end does not answer")

    async def end(self, lease: Lease, reservations: Sequence[Reservation]) -> None:
        self.called.append(("end", lease.name))
        if lease.name in self.hangs:
            await asyncio.sleep(10**6)


@asynccontextmanager
async def running(service: LeaseService, backend: LeaseBackend) -> AsyncIterator[None]:
    loop = LeaseEventLoop(EventLoopDependencies(service.keeper, backend, service.clock, SETTINGS))
    task = asyncio.create_task(loop.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(service: LeaseService, hours: float) -> None:
    """Let time pass until so many hours after noon, and a quarter of a second."""
    await asyncio.sleep((NOON_NS + hours * HOUR_NS - service.clock.mono_ns()) / 1e9 + 0.25)


async def booked(service: LeaseService, start_h: float, end_h: float, name: str) -> LeaseId:
    lease = await service.keeper.create(lease_from(start_h, end_h, hosts_wanted(), name=name))
    assert isinstance(lease, Lease), lease
    return lease.id


def became(disk: SimDatabase, status: LeaseStatus) -> list[tuple[str, int]]:
    """By lease: when it became so."""
    found = read_database(disk.readers.engine).of(events.LeaseStatusChanged)
    return [(event.lease, each.at_ns) for each, event in found if event.status == status.value]


@pytest.mark.looptime
@pytest.mark.seed("order leases: one stuck end delays nobody")
async def test_two_hundred_start_on_time_while_one_end_hangs(disk: SimDatabase) -> None:
    async with serving_in_virtual_time(disk, range(1, 203), SETTINGS) as service:
        stuck = await booked(service, 0, 1, "stuck")
        names = {await booked(service, 1 + n / 12000, 3, f"l{n}"): n for n in range(200)}
        async with running(service, Hanging({"stuck"})):
            await until(service, 1.5)
    late_s = [
        (at_ns - (NOON_NS + round((1 + names[LeaseId(lease)] / 12000) * HOUR_NS))) / 1e9
        for lease, at_ns in became(disk, LeaseStatus.ACTIVE)
        if lease in names
    ]
    assert len(late_s) == 200 and min(late_s) >= 0 and max(late_s) < 1.0
    assert [lease for lease, _ in became(disk, LeaseStatus.TERMINATING)] == [stuck, stuck]
    assert [lease for lease, _ in became(disk, LeaseStatus.ERROR)] == [stuck]


@pytest.mark.looptime
async def test_the_next_lease_of_the_same_host_starts_behind_the_end(disk: SimDatabase) -> None:
    async with serving_in_virtual_time(disk, [1], SETTINGS) as service:
        await booked(service, 0, 1, "first")
        await booked(service, 1, 2, "second")
        backend = Hanging(set())
        async with running(service, backend):
            await until(service, 2)
    assert backend.called == [("start", "first"), ("end", "first"), ("start", "second"), ("end", "second")]
    assert len(became(disk, LeaseStatus.TERMINATED)) == 2


@pytest.mark.looptime
@pytest.mark.parametrize(("failures", "ends"), [(1, LeaseStatus.ACTIVE), (2, LeaseStatus.ERROR)])
async def test_a_start_that_fails_is_tried_again(disk: SimDatabase, failures: int, ends: LeaseStatus) -> None:
    async with serving_in_virtual_time(disk, [1], SETTINGS) as service:
        lease = await booked(service, 0, 1, "flaky")
        backend = Hanging(set(), {"flaky": failures})
        async with running(service, backend):
            await until(service, 0.5)
            assert service.keeper.book.leases[lease].status is ends
    assert backend.called == [("start", "flaky")] * 2


@pytest.mark.looptime
@pytest.mark.seed("order leases: a clock step of an hour fires nothing twice")
@pytest.mark.parametrize("step_h", [1, -1])
async def test_a_clock_that_steps_by_an_hour_fires_nothing_twice(disk: SimDatabase, step_h: int) -> None:
    async with serving_in_virtual_time(disk, range(1, 4), SETTINGS) as service:
        for number in range(3):
            await booked(service, number, number + 2, f"l{number}")
        backend = Hanging(set())
        clock = service.clock
        assert isinstance(clock, LoopClock)
        async with running(service, backend):
            await until(service, 1.2)
            clock.step_ns = step_h * HOUR_NS
            await until(service, 1.4)
            clock.step_ns = 0
            await until(service, 6)
    starts = sorted(each for each in backend.called if each[0] == "start")
    ends = sorted(each for each in backend.called if each[0] == "end")
    assert [name for _, name in starts] == [name for _, name in ends] == ["l0", "l1", "l2"]


@pytest.mark.looptime
async def test_what_a_dead_server_began_is_finished_by_the_next(disk: SimDatabase) -> None:
    async with serving_in_virtual_time(disk, [1], SETTINGS) as service:
        lease = await booked(service, 0, 1, "stuck")
        async with running(service, Hanging({"stuck"})):
            await until(service, 1)
        await service.keeper.reload()
        assert service.keeper.book.leases[lease].status is LeaseStatus.TERMINATING
        async with running(service, OwnHosts()):
            await until(service, 1.01)
        assert service.keeper.book.leases[lease].status is LeaseStatus.TERMINATED
