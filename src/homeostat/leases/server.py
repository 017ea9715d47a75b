"""Leases in a server: the service, its loops, and what the routes stand on."""

from __future__ import annotations

import asyncio
from functools import partial

import structlog

from homeostat.contracts.component import ServedComponent, ServerParts
from homeostat.contracts.nouns import HostId
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.follower import FollowedAppender
from homeostat.kernel.journal import Journal, JournalAppender
from homeostat.kernel.loops import Task
from homeostat.kernel.workers import Workers, WorkerSettings
from homeostat.leases.api import LeasesApi
from homeostat.leases.blazar import blazar_listeners
from homeostat.leases.event_loop import EventLoopDependencies, LeaseBackend, LeaseEventLoop, OwnHosts
from homeostat.leases.healing_loop import NO_HORIZON_LOOK_S, HealingDependencies, HealingLoop
from homeostat.leases.keeper import KeeperDependencies, LeaseKeeper
from homeostat.leases.machine_facts import MachineFactsFollower
from homeostat.leases.model import HostCapacity
from homeostat.leases.monitor_loop import HostMonitor, HostMonitors, MonitorDependencies
from homeostat.leases.monitor_plugins import load_monitors
from homeostat.leases.monitoring import HealingTimes, healing_times
from homeostat.leases.notifications import OwnerNotifier
from homeostat.leases.outlook import LeaseOutlook, OutlookDependencies
from homeostat.leases.own_hosts import NAME as OWN_HOSTS
from homeostat.leases.own_hosts import FleetView, OwnHostsMonitor
from homeostat.leases.settings import LeasesSettings
from homeostat.ports import NewId

log = structlog.get_logger("leases")

SNAPSHOT_BYTES_MAX = 64 * 1024 * 1024
"""Of 5 000 hosts with 25 000 allocations a snapshot for the planner has about 3 MiB."""


async def assemble(parts: ServerParts) -> ServedComponent:
    """The tables are read; nothing runs yet."""
    settings: LeasesSettings = parts.section("leases")
    path, clock = parts.find(IngestLoop), parts.find(Clock)
    keeper = parts.make(
        LeaseKeeper,
        KeeperDependencies(
            parts.find(JournalAppender),
            parts.find(Readers),
            clock,
            parts.find(NewId),
            settings,
            partial(_capacity_of, path),
        ),
    )
    await keeper.reload()
    surveys = parts.find_or(Workers, None) or Workers(
        WorkerSettings(processes=1, bytes_max=SNAPSHOT_BYTES_MAX)
    )
    pool = parts.find_or(Workers, None) or parts.put(
        Workers, Workers(WorkerSettings(processes=1, bytes_max=SNAPSHOT_BYTES_MAX))
    )
    monitors = parts.put(HostMonitors, _host_monitors(parts, settings, keeper, path))
    times = _healing_times(monitors, settings)
    healing = parts.make(HealingLoop, HealingDependencies(keeper, pool, clock, settings, times))
    outlook = parts.make(LeaseOutlook, OutlookDependencies(keeper, surveys, clock, settings, times))
    backend: LeaseBackend = parts.find_or(LeaseBackend, OwnHosts())
    moments = parts.make(LeaseEventLoop, EventLoopDependencies(keeper, backend, clock, settings))
    facts = MachineFactsFollower(
        keeper, parts.find(Journal), parts.find(FollowedAppender), partial(_capacity_of, path)
    )
    return ServedComponent(
        loops=(
            *monitors.tasks(),
            Task("facts of leased hosts", facts.run, forever=True),
            Task("moments of leases", moments.run, forever=True),
            Task("healing of leases", partial(_heal, healing, pool), forever=True),
            Task("outlook of leases", partial(_survey, outlook, surveys), forever=True),
            Task("owners of leases", OwnerNotifier(keeper, path).run, forever=True),
        ),
        state={"leases": LeasesApi(keeper, clock, parts.find(Journal), outlook), "lease_monitors": monitors},
        set_points=(monitors.set_points, healing.set_points),
        listeners=blazar_listeners(parts, keeper),
    )


def _host_monitors(
    parts: ServerParts, settings: LeasesSettings, keeper: LeaseKeeper, path: IngestLoop
) -> HostMonitors:
    """The plug-in of our own hosts, and those of other packages. BadInput: one that nobody has."""
    section = settings.physical_host
    own = OwnHostsMonitor(section.monitor_options(OWN_HOSTS, {}), partial(_fleet_view, path))
    return HostMonitors(
        (HostMonitor(OWN_HOSTS, own, section), *load_monitors(settings)),
        MonitorDependencies(keeper, parts.find(Clock), parts.find(Journal), parts.find(FollowedAppender)),
        settings.warnings(),
    )


def _healing_times(monitors: HostMonitors, settings: LeasesSettings) -> HealingTimes:
    default_s = settings.physical_host.healing_interval * 60.0
    return healing_times(monitors.healing_intervals_s, default_s, NO_HORIZON_LOOK_S)


async def _heal(healing: HealingLoop, pool: Workers) -> None:
    """The workers end with the server, not when the loop is started again after a crash."""
    try:
        await healing.run()
    except asyncio.CancelledError:
        await pool.close()
        raise


async def _survey(outlook: LeaseOutlook, pool: Workers) -> None:
    """Workers of its own: a survey of a great site takes seconds, for which healing must not wait."""
    try:
        await outlook.run()
    except asyncio.CancelledError:
        await pool.close()
        raise


def _capacity_of(path: IngestLoop, host: HostId) -> HostCapacity | None:
    """Of hosts that report to this server; nothing is known of one whose node has not said what it has."""
    node = path.world.topology.nodes.get(host)
    if node is None:
        return None
    facts = node.facts
    if facts is None:
        return HostCapacity()
    return HostCapacity(facts.cpus, facts.memory_mb, facts.disk_gb, facts.architecture)


def _fleet_view(path: IngestLoop) -> FleetView:
    return FleetView(path.world.topology, path.watch.doubt)
