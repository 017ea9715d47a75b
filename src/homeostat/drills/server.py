"""Drills in a server: the copy of the tables in memory, the register, and what the routes stand on."""

from __future__ import annotations

from homeostat.contracts.component import ServedComponent, ServerParts
from homeostat.drills.api import DrillsApi
from homeostat.drills.hosts_api import DrilledHostsApi
from homeostat.drills.leader.register import DrillRegister, KnownDrills, RegisterDependencies
from homeostat.fleet.rpc import NodeRpc
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel.bus import Messages
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.journal import Journal, JournalAppender
from homeostat.kernel.leadership import Leadership
from homeostat.kernel.loops import Task
from homeostat.ports import DrillTags


async def lay_foundation(parts: ServerParts) -> None:
    """The drills that faults belong to are known before any fault is decided."""
    known = KnownDrills(parts.find(Readers), parts.find(Clock))
    await known.reload()
    parts.put(KnownDrills, known)
    parts.put(DrillTags, known)


async def assemble(parts: ServerParts) -> ServedComponent:
    """The register writes through the write path."""
    known, path, readers = parts.find(KnownDrills), parts.find(IngestLoop), parts.find(Readers)
    clock, appender = parts.find(Clock), parts.find(JournalAppender)
    register = DrillRegister(RegisterDependencies(known, path.add, appender, readers, clock))
    journal = parts.find(Journal)
    api = DrillsApi(register, known, readers, journal, lambda: path.world.topology, clock)
    rpc = NodeRpc(parts.find(Messages), parts.find(Leadership).epoch)
    await rpc.listen()
    return ServedComponent(
        loops=(Task("drill claims", register.run, forever=True),),
        state={"drills": api, "drilled_hosts": DrilledHostsApi(api, rpc)},
    )
