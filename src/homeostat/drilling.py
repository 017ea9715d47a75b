"""Drills on the server's side: who has a site, and what ran. Composition only."""

from __future__ import annotations

from dataclasses import dataclass

from homeostat.drills.api import DrillsApi
from homeostat.drills.hosts_api import DrilledHostsApi
from homeostat.drills.leader.known import KnownDrills
from homeostat.drills.leader.register import Register, RegisterParts
from homeostat.drills.leader.relay import NodeRelay
from homeostat.faults.loop import FaultPath
from homeostat.kernel.bus import Messages
from homeostat.kernel.clock import Clock
from homeostat.leadership import Store


@dataclass(frozen=True, slots=True)
class Drilling:
    """What is known, who writes, who carries questions to nodes, and what the routes stand on."""

    register: Register
    relay: NodeRelay
    api: DrillsApi
    hosts_api: DrilledHostsApi


def drilling_of(store: Store, known: KnownDrills, path: FaultPath, bus: Messages, clock: Clock) -> Drilling:
    """The register writes through the fault path, which asks `known` whose a fault is."""
    register = Register(RegisterParts(known, path.add, store.appender, store.readers, clock))
    api = DrillsApi(register, known, store.readers, store.journal, lambda: path.world.topology, clock)
    relay = NodeRelay(bus, store.leader.epoch)
    return Drilling(register, relay, api, DrilledHostsApi(api, relay))
