"""Leases in a server: the service, and what the routes stand on."""

from __future__ import annotations

from homeostat.contracts.component import ServedComponent, ServerParts
from homeostat.contracts.nouns import HostId
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.journal import JournalAppender
from homeostat.leases.keeper import KeeperDependencies, LeaseKeeper
from homeostat.leases.model import HostCapacity
from homeostat.ports import NewId


async def assemble(parts: ServerParts) -> ServedComponent:
    """The tables are read; nothing runs yet."""
    path = parts.find(IngestLoop)

    def capacity_of(host: HostId) -> HostCapacity | None:
        """Of hosts that report to this server."""
        return HostCapacity() if host in path.world.topology.nodes else None

    keeper = parts.make(
        LeaseKeeper,
        KeeperDependencies(
            parts.find(JournalAppender),
            parts.find(Readers),
            parts.find(Clock),
            parts.find(NewId),
            parts.section("leases"),
            capacity_of,
        ),
    )
    await keeper.reload()
    return ServedComponent(state={"leases": keeper})
