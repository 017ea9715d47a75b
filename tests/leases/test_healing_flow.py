"""Healing in virtual time on the real tables: the flow of the source document, and the cases of the field."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass

import pytest
from lease_parts import (
    HOUR_NS,
    NOON_NS,
    SMALL,
    LeaseService,
    held_hosts,
    hosts_wanted,
    lease_from,
    serving_in_virtual_time,
    slots_wanted,
)
from monitor_parts import BOTH, POLLING, PUSH, Fleet, monitor_loops, own_hosts, running

from homeostat.contracts.events import leases as events
from homeostat.contracts.nouns import HostId
from homeostat.leases.event_loop import EventLoopDependencies, LeaseEventLoop, OwnHosts
from homeostat.leases.healing_loop import HealingDependencies, HealingLoop
from homeostat.leases.model import HostCapacity, Lease, LeaseId
from homeostat.leases.settings import LeasesSettings, PluginSettings
from homeostat.sim.checkers import read_database
from homeostat.sim.database import SimDatabase
from homeostat.sim.drivers import InlineWorkers

SETTINGS = LeasesSettings(physical_host=PUSH, minutes_before_end_lease=0)


@pytest.fixture(scope="module")
def disk() -> Iterator[SimDatabase]:
    with closing(SimDatabase.in_memory()) as made:
        yield made


@dataclass(slots=True)
class Site:
    """A service with its loops, and a fleet that dies when the test says so."""

    service: LeaseService
    disk: SimDatabase
    healing: HealingLoop
    fleet: Fleet
    patience_s: float

    async def at(self, minutes: float) -> None:
        """Let time pass until so many minutes after noon."""
        await asyncio.sleep((NOON_NS + minutes * HOUR_NS / 60 - self.service.clock.mono_ns()) / 1e9)

    async def settled(self) -> None:
        """What was begun is written, and what is polled is seen; less than any healing interval."""
        await asyncio.sleep(self.patience_s)

    async def dies(self, name: str) -> None:
        await self.fleet.dies(name)

    async def returns(self, name: str) -> None:
        await self.fleet.returns(name)

    async def booked(self, start_min: float, end_min: float, *wanted: object, name: str = "l") -> LeaseId:
        request = lease_from(start_min / 60, end_min / 60, *wanted, name=name)  # type: ignore[arg-type]
        lease = await self.service.keeper.create(request)
        assert isinstance(lease, Lease), lease
        return lease.id

    def hosts(self, lease: LeaseId) -> list[str | None]:
        book = self.service.keeper.book
        return [host for each in book.reservations_of(lease) for host in held_hosts(book, each.id)]

    def flags(self, lease: LeaseId) -> tuple[bool, bool, bool]:
        """missing_resources and resources_changed of the first reservation, degraded of the lease."""
        book = self.service.keeper.book
        row = book.reservations_of(lease)[0]
        return book.is_missing(row.id), row.resources_changed, book.is_degraded(lease)

    def heard(self, kind: type) -> list[object]:
        return [event for _, event in read_database(self.disk.readers.engine).of(kind)]


@asynccontextmanager
async def site_of(disk: SimDatabase, hosts: int, settings: LeasesSettings = SETTINGS) -> AsyncIterator[Site]:
    """Hosts h1, h2 ... with all loops of leases and the monitors that the settings switch on."""
    async with serving_in_virtual_time(disk, range(1, hosts + 1), settings) as service:
        fleet, section = Fleet(service), settings.physical_host
        for each in service.capacities:
            fleet.joins(each)
        healing = HealingLoop(HealingDependencies(service.keeper, InlineWorkers(), service.clock, settings))
        moments = LeaseEventLoop(EventLoopDependencies(service.keeper, OwnHosts(), service.clock, settings))
        monitors = monitor_loops(service, disk, [own_hosts(fleet, section)])
        tasks = [asyncio.create_task(each.run()) for each in (healing, moments)]
        patience_s = 2.0 if section.enable_notification_monitor else section.polling_interval + 2.0
        try:
            async with running(monitors):
                yield Site(service, disk, healing, fleet, patience_s)
        finally:
            broken = [task for task in tasks if task.done()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert not broken, [task.exception() for task in broken]


@pytest.mark.looptime
@pytest.mark.seed("003 the healing flow, points 1 to 7, with push alone, polling alone, and both")
@pytest.mark.parametrize("section", [PUSH, POLLING, BOTH], ids=["push", "polling", "both"])
async def test_the_flow_of_the_source_document(disk: SimDatabase, section: PluginSettings) -> None:
    """Looks at 0, 60, 120 and 180 minutes; A is reserved for R1 (running), R2 (soon) and R3 (later)."""
    settings = LeasesSettings(physical_host=section, minutes_before_end_lease=0)
    async with site_of(disk, 1, settings) as site:
        r1, r2 = await site.booked(0, 80, name="r1"), await site.booked(90, 110, name="r2")
        r3 = await site.booked(200, 260, name="r3")
        for number in (2, 3):
            site.service.capacities[HostId(f"h{number}")] = SMALL
            site.fleet.joins(f"h{number}")
            await site.service.keeper.add_host(HostId(f"h{number}"), "tester")
        assert [site.hosts(each) for each in (r1, r2, r3)] == [["h1"]] * 3

        await site.at(30)  # point 1: the periodic task finds nothing to heal
        assert site.heard(events.ReservationMoved) == []

        await site.at(45)  # point 2: A fails; R1 runs and R2 starts within the interval
        await site.dies("h1")
        await site.settled()
        assert len(site.heard(events.HostUnreservable)) == 1
        assert [site.hosts(each) != ["h1"] for each in (r1, r2, r3)] == [True, True, False]
        assert site.flags(r1) == (False, True, True) and site.flags(r2) == (False, False, False)
        assert site.flags(r3) == (False, False, False)
        moved = [event.reservation for event in site.heard(events.ReservationMoved)]  # type: ignore[attr-defined]
        assert len(moved) == 2

        await site.at(125)  # point 3: nothing starts within the next interval
        assert len(site.heard(events.ReservationMoved)) == 2 and site.hosts(r3) == ["h1"]

        await site.at(175)  # point 4 has not come yet
        assert site.hosts(r3) == ["h1"]
        await site.at(181)  # point 4: R3 starts within the next interval, A is still down
        assert site.hosts(r3) != ["h1"] and len(site.heard(events.ReservationMoved)) == 3

        await site.at(185)  # before point 5 the manager detects a recovery
        await site.returns("h1")
        await site.settled()
        assert len(site.heard(events.HostReservable)) == 1
        places = [site.hosts(each) for each in (r1, r2, r3)]
        await site.at(245)  # point 5: there is no failed resource and nothing to do
        assert [site.hosts(each) for each in (r1, r2, r3)] == places
        assert len(site.heard(events.ReservationMoved)) == 3


@pytest.mark.looptime
@pytest.mark.seed("003 missing_resources is set when no alternative is found, and goes when one is there")
@pytest.mark.parametrize("way", ["spare", "return", "deleted", "ends"])
async def test_a_host_that_becomes_free_heals_at_once_and_clears_the_flags(
    disk: SimDatabase, way: str
) -> None:
    async with site_of(disk, 2) as site:
        other = await site.booked(0, 70, name="other")
        lease = await site.booked(0, 300, name="l")
        (mine,) = site.hosts(lease)
        await site.at(5)
        await site.dies(str(mine))
        await site.settled()
        assert site.hosts(lease) == [None] and site.flags(lease) == (True, False, True)
        (missing,) = site.heard(events.ReservationMissing)
        assert "no plan" in missing.reason and str(mine) in missing.reason  # type: ignore[attr-defined]
        await site.at(10)
        match way:
            case "spare":
                site.service.capacities[HostId("h9")] = SMALL
                site.fleet.joins("h9")
                await site.service.keeper.add_host(HostId("h9"), "tester")
            case "return":
                await site.returns(str(mine))
            case "deleted":
                await site.service.keeper.delete(other, "tester")
            case _:
                await site.at(70)
        await site.settled()
        assert None not in site.hosts(lease)
        assert site.flags(lease) == (False, True, True)
        assert len(site.heard(events.ReservationRestored)) == 1
        await site.service.keeper.acknowledge(lease, "owner")
        assert site.flags(lease) == (False, False, False)


@pytest.mark.looptime
@pytest.mark.seed("order leases: the X/Y case heals, where a greedy healer leaves one missing")
async def test_x_takes_the_small_spare_so_that_y_gets_the_large_one(disk: SimDatabase) -> None:
    async with site_of(disk, 0) as site:
        large, small = HostCapacity(8, 16384, 100), HostCapacity(4, 16384, 100)
        sizes = {"h1": large, "h2": large, "h3": large, "h4": small}
        for name, size in sizes.items():
            site.service.capacities[HostId(name)] = size
            site.fleet.joins(name)
        for name in ("h1", "h2"):
            await site.service.keeper.add_host(HostId(name), "tester")
        x = await site.booked(0, 100, name="x")
        y = await site.booked(0, 100, hosts_wanted(resource='[">=", "$vcpus", "8"]'), name="y")
        for name in ("h3", "h4"):
            await site.service.keeper.add_host(HostId(name), "tester")
        await site.fleet.dies("h1", "h2")
        await site.settled()
        assert site.hosts(y) == ["h3"] and site.hosts(x) == ["h4"]


@pytest.mark.looptime
@pytest.mark.seed("order leases: a pending lease is shifted to another host so that one can be healed")
async def test_a_pending_lease_makes_room(disk: SimDatabase) -> None:
    async with site_of(disk, 1) as site:
        site.service.capacities[HostId("h2")] = HostCapacity(8, 16384, 100)
        site.fleet.joins("h2")
        y = await site.booked(0, 100, name="y0")
        await site.service.keeper.delete(y, "tester")
        await site.service.keeper.add_host(HostId("h2"), "tester")
        await site.service.keeper.describe_host(HostId("h2"), {"kind": "good"}, "tester")
        y = await site.booked(0, 200, hosts_wanted(resource='["==", "$kind", "good"]'), name="y")
        for number in (3, 4):
            name = HostId(f"h{number}")
            site.service.capacities[name] = SMALL
            site.fleet.joins(name)
            await site.service.keeper.add_host(name, "tester")
        await site.service.keeper.describe_host(HostId("h3"), {"kind": "good"}, "tester")
        pending = await site.booked(120, 180, hosts_wanted(resource='["==", "$id", "3"]'), name="pending")
        await site.service.keeper.update(
            pending,
            _any_host(site, pending),
            "tester",
        )
        assert site.hosts(pending) == ["h3"] and site.hosts(y) == ["h2"]
        await site.dies("h2")
        await site.settled()
        assert site.hosts(y) == ["h3"]
        assert site.hosts(pending) not in (["h3"], ["h2"], [None])
        assert site.flags(pending) == (False, False, False)
        assert len(site.heard(events.ReservationMoved)) == 2


def _any_host(site: Site, lease: LeaseId) -> object:
    from homeostat.leases.lease_update import LeaseUpdate, ReservationUpdate

    (row,) = site.service.keeper.book.reservations_of(lease)
    return LeaseUpdate(reservations={row.id: ReservationUpdate(resource_properties="")})


@pytest.mark.looptime
async def test_a_running_reservation_keeps_its_healthy_part(disk: SimDatabase) -> None:
    async with site_of(disk, 4) as site:
        lease = await site.booked(0, 100, hosts_wanted(3), name="l")
        await site.at(1)
        before = site.hosts(lease)
        await site.dies(str(before[1]))
        await site.settled()
        after = site.hosts(lease)
        assert after[0] == before[0] and after[2] == before[2] and after[1] == "h4"


@pytest.mark.looptime
async def test_instances_with_affinity_move_together_and_those_apart_stay_apart(disk: SimDatabase) -> None:
    async with site_of(disk, 4) as site:
        together = await site.booked(0, 100, slots_wanted(2, 2, True), name="together")
        apart = await site.booked(0, 100, slots_wanted(2, 1, False), name="apart")
        await site.at(1)
        (mine,) = set(site.hosts(together))
        await site.dies(str(mine))
        await site.settled()
        assert len(set(site.hosts(together))) == 1 and mine not in site.hosts(together)
        assert len(set(site.hosts(apart))) == 2 and mine not in site.hosts(apart)


@pytest.mark.looptime
@pytest.mark.seed("order leases: a vanished host is never reservable")
async def test_a_host_that_was_removed_is_failed_and_never_booked(disk: SimDatabase) -> None:
    async with site_of(disk, 2) as site:
        lease = await site.booked(0, 100, name="l")
        (mine,) = site.hosts(lease)
        await site.settled()
        await site.fleet.is_removed(str(mine))
        await site.settled()
        assert site.hosts(lease) not in ([mine], [None])
        row = site.service.keeper.book.hosts[HostId(str(mine))]
        assert not row.reservable and "removed" in row.reason
        refusal = await site.service.keeper.create(lease_from(3, 4, hosts_wanted(2), name="two"))
        assert not isinstance(refusal, Lease)


@pytest.mark.looptime
@pytest.mark.seed("order leases: a vanished host is unknown, then missing, never reservable")
async def test_nothing_is_moved_from_a_host_that_is_unknown(disk: SimDatabase) -> None:
    polling = LeasesSettings(physical_host=POLLING, minutes_before_end_lease=0)
    async with site_of(disk, 3, polling) as site:
        lease = await site.booked(0, 100, name="l")
        (mine,) = site.hosts(lease)
        await site.at(0.5)
        await site.fleet.is_removed(str(mine))
        await site.at(1.5)
        row = site.service.keeper.book.hosts[HostId(str(mine))]
        assert (row.reservable, row.failed) == (False, False) and site.hosts(lease) == [mine]
        refusal = await site.service.keeper.create(lease_from(3, 4, hosts_wanted(3), name="three"))
        assert not isinstance(refusal, Lease)
        await site.at(2.5)
        assert site.service.keeper.book.hosts[HostId(str(mine))].failed
        assert site.hosts(lease) not in ([mine], [None])


@pytest.mark.looptime
async def test_a_held_host_is_left_alone(disk: SimDatabase) -> None:
    async with site_of(disk, 2) as site:
        lease = await site.booked(0, 100, name="l")
        (mine,) = site.hosts(lease)
        await site.service.keeper.hold_host(
            HostId(str(mine)), "I work on it", NOON_NS + HOUR_NS // 2, "admin"
        )
        await site.dies(str(mine))
        await site.at(29)
        assert site.hosts(lease) == [mine] and site.service.keeper.book.hosts[HostId(str(mine))].reservable
        await site.at(31)
        assert site.hosts(lease) not in ([mine], [None]), "the hold is over"


@pytest.mark.looptime
@pytest.mark.seed("order leases: interval 0 has no horizon and keeps its timer")
async def test_without_an_interval_everything_is_healed_at_once(disk: SimDatabase) -> None:
    at_once = LeasesSettings(physical_host=PluginSettings(healing_interval=0), minutes_before_end_lease=0)
    async with site_of(disk, 2, at_once) as site:
        far = await site.booked(10_000, 10_100, name="far")
        (mine,) = site.hosts(far)
        await site.dies(str(mine))
        await site.settled()
        assert site.hosts(far) not in ([mine], [None])
        before = site.healing.passes
        await site.at(10)
        assert site.healing.passes >= before + 9
