"""Leases in a server: the service, its loops, and what the routes stand on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
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
from homeostat.leases.event_loop import EventLoopDependencies, LeaseBackend, LeaseEventLoop, OwnHosts
from homeostat.leases.healing_loop import HealingDependencies, HealingLoop
from homeostat.leases.keeper import KeeperDependencies, LeaseKeeper
from homeostat.leases.machine_facts import MachineFactsFollower
from homeostat.leases.model import HostCapacity, ResourceType
from homeostat.leases.notifications import OwnerNotifier
from homeostat.leases.outlook import LeaseOutlook, OutlookDependencies
from homeostat.leases.own_hosts import KnownHost, OwnHostsDependencies, OwnHostsFollower
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
    healing = parts.make(HealingLoop, HealingDependencies(keeper, pool, clock, settings))
    outlook = parts.make(LeaseOutlook, OutlookDependencies(keeper, surveys, clock, settings))
    backend: LeaseBackend = parts.find_or(LeaseBackend, OwnHosts())
    moments = parts.make(LeaseEventLoop, EventLoopDependencies(keeper, backend, clock, settings))
    facts = MachineFactsFollower(
        keeper, parts.find(Journal), parts.find(FollowedAppender), partial(_capacity_of, path)
    )
    return ServedComponent(
        loops=(
            *_push_source(parts, settings, keeper, path),
            Task("facts of leased hosts", facts.run, forever=True),
            Task("moments of leases", moments.run, forever=True),
            Task("healing of leases", partial(_heal, healing, pool), forever=True),
            Task("outlook of leases", partial(_survey, outlook, surveys), forever=True),
            Task("owners of leases", OwnerNotifier(keeper, path).run, forever=True),
        ),
        state={"leases": LeasesApi(keeper, clock, parts.find(Journal), outlook)},
    )


def _push_source(
    parts: ServerParts, settings: LeasesSettings, keeper: LeaseKeeper, path: IngestLoop
) -> tuple[Task, ...]:
    """Our own hosts in the journal, if that is switched on."""
    if not settings.plugin(ResourceType.HOST).enable_notification_monitor:
        return ()
    follower = OwnHostsFollower(
        OwnHostsDependencies(
            keeper,
            parts.find(Journal),
            parts.find(FollowedAppender),
            partial(_known_hosts, path),
        )
    )
    return (Task("hosts of leases", follower.run, forever=True),)


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


def _known_hosts(path: IngestLoop) -> Mapping[HostId, KnownHost]:
    nodes = path.world.topology.nodes.values()
    return {node.host: KnownHost(node.host, node.down_ns) for node in nodes}
