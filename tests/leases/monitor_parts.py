"""Monitors to test with: a fleet that dies when told to, plug-ins, and their loops in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from lease_parts import NOON_NS, InlineReaders, LeaseService, serving_in_virtual_time

from homeostat.components import catalogue
from homeostat.contracts.events import leases as events
from homeostat.contracts.events.fleet import HostBack, HostDown, HostRemoved
from homeostat.contracts.nouns import HostId
from homeostat.fleet.model import AgentState, Node, Topology
from homeostat.kernel.journal import Journal, NewEvent, Submission
from homeostat.leases.monitor_loop import HostMonitor, HostMonitors, MonitorDependencies
from homeostat.leases.monitoring import HostReport, MonitorOptions, Notification
from homeostat.leases.own_hosts import NAME, FleetView, OwnHostsMonitor
from homeostat.leases.settings import MonitorSettings, PluginSettings
from homeostat.sim.checkers import read_database
from homeostat.sim.database import SimDatabase

PUSH = PluginSettings(enable_polling_monitor=False)
POLLING = PluginSettings(enable_notification_monitor=False)
BOTH = PluginSettings()


class PolledHosts:
    """A plug-in that is asked: `poll` returns what the test put there, or raises it."""

    polling_interval_s = 10.0
    lists_all = False
    healing_interval_s = None

    def __init__(self, *reports: HostReport) -> None:
        self.reports: Sequence[object] | Exception = reports
        self.asked_s: list[float] = []
        self.takes_s = 0.0

    async def poll(self, hosts: Collection[HostId]) -> Iterable[HostReport]:
        self.asked_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.takes_s)
        if isinstance(self.reports, Exception):
            raise self.reports
        return self.reports  # type: ignore[return-value]


class ToldHosts:
    """A plug-in that is told: `react` says what a notification means, or raises."""

    topics = ("journal",)
    event_types = ("HostDown",)
    healing_interval_s = None

    def __init__(self, react: Callable[[Notification], Iterable[HostReport]]) -> None:
        self.react = react
        self.heard: list[Notification] = []

    def on_notification(self, notification: Notification) -> Iterable[HostReport]:
        self.heard.append(notification)
        return self.react(notification)


@dataclass(slots=True)
class Fleet:
    """Hosts as the server knows them, and the events about them."""

    service: LeaseService
    topology: Topology = field(default_factory=Topology)
    doubt: str = ""

    def view(self) -> FleetView:
        return FleetView(self.topology, self.doubt)

    def joins(self, name: str) -> None:
        self.topology.adopt([Node(HostId(name), "s", "i", 0, AgentState.PRESENT, NOON_NS)])

    async def tell(self, *told: object) -> None:
        """The fleet writes events, in one transaction."""
        now_ns = self.service.clock.wall_ns()
        drafts = tuple(NewEvent(event, "node/x", now_ns, "fleet", "node/x") for event in told)
        await self.service.appender.append(Submission("faults", drafts))

    async def dies(self, *names: str, is_told: bool = True) -> None:
        now_ns = self.service.clock.wall_ns()
        dead = [replace(self.topology.nodes[HostId(name)], down_ns=now_ns) for name in names]
        self.topology.adopt(dead)
        if is_told:
            await self.tell(*(HostDown(each.host, "no answer", now_ns) for each in dead))

    async def returns(self, name: str, *, is_told: bool = True) -> None:
        self.topology.adopt([replace(self.topology.nodes[HostId(name)], down_ns=None)])
        if is_told:
            await self.tell(HostBack(HostId(name), "it answers", self.service.clock.wall_ns()))

    async def is_removed(self, name: str, *, is_told: bool = True) -> None:
        self.topology.forget(HostId(name))
        if is_told:
            await self.tell(HostRemoved(HostId(name), "admin"))


def own_hosts(fleet: Fleet, settings: MonitorSettings) -> HostMonitor:
    """The plug-in of our own hosts."""
    return HostMonitor(NAME, OwnHostsMonitor(settings.monitor_options(NAME, {}), fleet.view), settings)


def monitor_loops(
    service: LeaseService, disk: SimDatabase, monitors: Sequence[HostMonitor], warnings: Sequence[str] = ()
) -> HostMonitors:
    """On the service's own journal."""
    journal = Journal(InlineReaders(disk), catalogue())  # type: ignore[arg-type]
    parts = MonitorDependencies(service.keeper, service.clock, journal, service.appender)  # type: ignore[arg-type]
    return HostMonitors(monitors, parts, warnings)


@asynccontextmanager
async def running(loops: HostMonitors) -> AsyncIterator[None]:
    """Their tasks; none may end."""
    tasks = {asyncio.create_task(each.run(), name=each.name): each for each in loops.tasks()}  # type: ignore[arg-type]
    try:
        yield
    finally:
        ended = [task for task, each in tasks.items() if task.done() and (each.forever or task.exception())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not ended, [(task.get_name(), task.exception()) for task in ended]


@dataclass(slots=True)
class MonitoredSite:
    """Reservable hosts h1, h2, h3 with a fleet and running monitors."""

    service: LeaseService
    fleet: Fleet
    disk: SimDatabase
    loops: HostMonitors

    async def at(self, seconds: float) -> None:
        """Let time pass until so many seconds after noon."""
        await asyncio.sleep((NOON_NS + seconds * 1e9 - self.service.clock.mono_ns()) / 1e9)

    def state(self, name: str = "h1") -> str:
        """reservable, unknown or failed."""
        row = self.service.keeper.book.hosts[HostId(name)]
        return "reservable" if row.reservable else "failed" if row.failed else "unknown"

    def heard(self, kind: type) -> list[object]:
        """The events of that kind, in order."""
        return [event for _, event in read_database(self.disk.readers.engine).of(kind)]

    @property
    def marks(self) -> list[str]:
        """The kinds of events that changed whether a host may be reserved."""
        kinds = (events.HostUnreservable, events.HostReservable)
        found = (each.event for each in read_database(self.disk.readers.engine).events)
        return [type(event).__name__ for event in found if isinstance(event, kinds)]


@asynccontextmanager
async def monitored(
    disk: SimDatabase, *make: Callable[[Fleet], HostMonitor], begin: Callable[[Fleet], None] = lambda _: None
) -> AsyncIterator[MonitoredSite]:
    """`begin` may change the fleet before the monitors start."""
    async with serving_in_virtual_time(disk, (1, 2, 3)) as service:
        fleet = Fleet(service)
        for each in service.capacities:
            fleet.joins(each)
        begin(fleet)
        loops = monitor_loops(service, disk, [each(fleet) for each in make])
        async with running(loops):
            yield MonitoredSite(service, fleet, disk, loops)


def options(**named: object) -> MonitorOptions:
    """What a plug-in is made from."""
    return MonitorOptions("m", named)
