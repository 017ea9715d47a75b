"""Ours under measurement: the service of leases on its real store and appender, SQLite with a flush a commit.

The leases of a site are put into the tables in bulk, under one event a thousand; what is measured begins after that.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from heal_judge import Places
from heal_sites import Reservation as Booked
from heal_sites import Site

from homeostat.components import catalogue
from homeostat.contracts.events.leases import ReservableHostAdded
from homeostat.contracts.nouns import HostId, Owner
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.database import Readers, open_engine
from homeostat.kernel.journal import NewEvent
from homeostat.kernel.workers import Workers, WorkerSettings
from homeostat.leases.book import LeaseBook, LeaseChange
from homeostat.leases.booking import LeaseContext
from homeostat.leases.event_loop import EventLoopDependencies, LeaseEventLoop
from homeostat.leases.healing_loop import PLANNER, HealingDependencies, HealingLoop
from homeostat.leases.keeper import KeeperDependencies, LeaseKeeper
from homeostat.leases.model import (
    Allocation,
    AllocationId,
    Lease,
    LeaseEvent,
    LeaseEventId,
    LeaseEventStatus,
    LeaseEventType,
    LeaseId,
    LeaseStatus,
    ReservableHost,
    Reservation,
    ReservationId,
    ReservationStatus,
    ResourceType,
)
from homeostat.leases.monitoring import HostOutcome, HostVerdict
from homeostat.leases.plans import PlanRequest
from homeostat.leases.reservable_hosts import record_verdicts
from homeostat.leases.server import SNAPSHOT_BYTES_MAX
from homeostat.leases.settings import LeasesSettings, PluginSettings
from homeostat.leases.store import load
from homeostat.migrations import upgrade

SECOND_NS = 1_000_000_000
IN_ONE = 1_000
HORIZON_S = 100_000
"""What begins later is there to be many."""
PROJECT = Owner("alpha")


class HangingEnd:
    """A back end where the end of one lease does not return; everything else is done at once, as on our own hosts."""

    def __init__(self, stuck: str, hang_s: float) -> None:
        self._stuck, self._hang_s = stuck, hang_s

    async def start(self, lease: Lease, reservations: Sequence[Reservation]) -> None:
        """Nothing to be done."""

    async def end(self, lease: Lease, _reservations: Sequence[Reservation]) -> None:
        """Hang, if it is that one."""
        if lease.id == self._stuck:
            await asyncio.sleep(self._hang_s)


@dataclass
class Ours:
    """A running service and what it stands on."""

    keeper: LeaseKeeper
    workers: Workers
    readers: Readers
    clock: SystemClock
    settings: LeasesSettings
    zero_ns: int

    def cpu_s(self) -> float:
        """CPU seconds of this process, its writer thread included, and of the workers so far."""
        return time.process_time() + sum(_spent_s(child.pid) for child in psutil.Process().children())

    async def warm(self) -> None:
        """Have a worker running, with the planner loaded."""
        await self.workers.run(PLANNER, PlanRequest((), ()), deadline_s=60)

    async def heal(self, failed: Sequence[int]) -> None:
        """Mark these hosts as failed, one commit each, then one look of the healing loop."""
        for number in failed:
            await self.keeper.decide(partial(_fail, HostId(f"h{number}")))
        loop = HealingLoop(HealingDependencies(self.keeper, self.workers, self.clock, self.settings))
        if not await loop.look():
            raise SystemExit("bench: the plan was not written as a whole")

    async def places(self) -> Places:
        """The hosts of each reservation, read from the tables."""
        book = await self.readers.read(load)
        found: Places = {each: [] for each in book.reservations}
        for each in book.allocations.values():
            if each.host is not None:
                found[each.reservation].append(int(each.host[1:]))
        return found


def _fail(host: HostId, book: LeaseBook, context: LeaseContext) -> LeaseChange:
    verdict = HostVerdict("bench", host, HostOutcome.FAILED, "killed by the bench", context.now_ns)
    return record_verdicts(book, [verdict], context)


def _spent_s(pid: int) -> float:
    """CPU seconds of all threads of a process, to the nanosecond; psutil's have steps of 10 ms."""
    with contextlib.suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    return 0.0


@asynccontextmanager
async def serving(
    folder: Path, site: Site, settings: LeasesSettings, lead_s: float = 0.0
) -> AsyncIterator[Ours]:
    """The service with this site; moment 0 is `lead_s` from now. Ended with the block."""
    folder.mkdir(exist_ok=True)
    url, clock, numbers = f"sqlite:///{folder}/homeostat.db", SystemClock(), itertools.count(1)
    upgrade(url)
    engine, reading = open_engine(url), open_engine(url, read_only=True)
    readers = Readers(reading, threads=2)
    appender = Appender(engine, catalogue(), epoch=None, settings=AppenderSettings(), clock=clock)
    appender.start()
    try:
        async with Workers(WorkerSettings(processes=1, bytes_max=SNAPSHOT_BYTES_MAX)) as workers:
            keeper = LeaseKeeper(
                KeeperDependencies(
                    appender, readers, clock, lambda: f"b-{next(numbers)}", settings, lambda _: None
                )
            )
            await keeper.reload()
            zero_ns = clock.wall_ns() + round(lead_s * SECOND_NS)
            for change in changes_of(site, zero_ns):
                await keeper.decide(lambda _book, _context, made=change: made)  # type: ignore[misc]
            yield Ours(keeper, workers, readers, clock, settings, zero_ns)
    finally:
        await appender.close()
        readers.close()
        engine.dispose()
        reading.dispose()


@asynccontextmanager
async def ours(folder: Path, site: Site, interval_min: int) -> AsyncIterator[Ours]:
    """For healing: the window is `interval_min` minutes, and a worker is there already."""
    plugin = PluginSettings(healing_interval=interval_min)
    async with serving(folder, site, LeasesSettings(physical_host=plugin)) as side:
        await side.warm()
        yield side


@dataclass(frozen=True, slots=True)
class Hang:
    """An end that does not return for `hang_s`; the leases begin `lead_s` after the service."""

    lease: str
    hang_s: float
    lead_s: float


async def started_late_s(folder: Path, site: Site, hang: Hang) -> tuple[list[float], float]:
    """How late each lease of the site became ACTIVE on the disk, and the CPU seconds of it all."""
    due = {each.id: each.start_s for each in site.reservations if 0 < each.start_s < HORIZON_S}
    late: dict[str, float] = {}
    async with serving(folder, site, LeasesSettings(), hang.lead_s) as side:
        parts = EventLoopDependencies(
            side.keeper, HangingEnd(hang.lease, hang.hang_s), side.clock, side.settings
        )
        changed, cpu_s = side.keeper.watch(), side.cpu_s()
        if side.clock.wall_ns() > side.zero_ns:
            raise SystemExit("bench: the first moment was over before the loop ran; lead_s is too short")
        running = asyncio.create_task(LeaseEventLoop(parts).run())
        while len(late) < len(due):
            await changed.wait()
            changed.clear()
            now_s = (side.clock.wall_ns() - side.zero_ns) / SECOND_NS
            for name in due.keys() - late.keys():
                if side.keeper.book.leases[LeaseId(name)].status is LeaseStatus.ACTIVE:
                    late[name] = now_s - due[name]
            if running.done():
                running.result()
        cpu_s = side.cpu_s() - cpu_s
        if side.keeper.book.leases[LeaseId(hang.lease)].status is not LeaseStatus.TERMINATING:
            raise SystemExit("bench: the end that should hang does not")
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    return [round(late[name], 4) for name in due], cpu_s


def changes_of(site: Site, zero_ns: int) -> list[LeaseChange]:
    """The site as rows: all hosts, then a thousand leases in one."""
    hosts = tuple(
        ReservableHost(
            HostId(f"h{each.id}"), each.id, vcpus=each.vcpus, memory_mb=each.memory_mb, disk_gb=each.disk_gb
        )
        for each in site.hosts
    )
    event = ReservableHostAdded(hosts[0].host, hosts[0].number, "bench")
    begun = (NewEvent(event, "reservable/h1", zero_ns, "bench", "bench", None, None),)
    found = [LeaseChange(begun, hosts=hosts)]
    for first in range(0, len(site.reservations), IN_ONE):
        part = site.reservations[first : first + IN_ONE]
        found.append(
            LeaseChange(
                begun,
                leases=tuple(_lease(each, zero_ns) for each in part),
                reservations=tuple(_reservation(each) for each in part),
                allocations=tuple(
                    Allocation(
                        AllocationId(f"{each.id}-{number}"),
                        ReservationId(each.id),
                        number,
                        HostId(f"h{host}"),
                        zero_ns,
                    )
                    for each in part
                    for number, host in enumerate(each.hosts)
                ),
                lease_events=tuple(moment for each in part for moment in _moments(each, zero_ns)),
            )
        )
    return found


def _lease(each: Booked, zero_ns: int) -> Lease:
    status = LeaseStatus.ACTIVE if each.runs else LeaseStatus.PENDING
    start_ns, end_ns = (zero_ns + round(at_s * SECOND_NS) for at_s in (each.start_s, each.end_s))
    return Lease(LeaseId(each.id), each.id, PROJECT, "bench", start_ns, end_ns, status, zero_ns, zero_ns)


def _reservation(each: Booked) -> Reservation:
    status = ReservationStatus.ACTIVE if each.runs else ReservationStatus.PENDING
    names = ReservationId(each.id), LeaseId(each.id)
    if each.demand is None:
        wants = json.dumps([">=", "$vcpus", str(each.min_vcpus)]) if each.min_vcpus else ""
        return Reservation(*names, ResourceType.HOST, status, 1, len(each.hosts), hypervisor_properties=wants)
    vcpus, memory_mb, disk_gb = each.demand
    return Reservation(
        *names, ResourceType.INSTANCE, status, 0, 0, amount=len(each.hosts), vcpus=vcpus, memory_mb=memory_mb,
        disk_gb=disk_gb, affinity=each.affinity,
    )  # fmt: skip


def _moments(each: Booked, zero_ns: int) -> Sequence[LeaseEvent]:
    done = LeaseEventStatus.DONE if each.runs else LeaseEventStatus.UNDONE
    return [
        LeaseEvent(
            LeaseEventId(f"{each.id}-{kind}"),
            LeaseId(each.id),
            kind,
            zero_ns + round(at_s * SECOND_NS),
            status,
        )
        for kind, at_s, status in (
            (LeaseEventType.START, each.start_s, done),
            (LeaseEventType.END, each.end_s, LeaseEventStatus.UNDONE),
        )
    ]
