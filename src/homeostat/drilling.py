"""Drills on the server's side: who has a site, and what ran. Composition only."""

from __future__ import annotations

from dataclasses import dataclass

from homeostat.drills.api import DrillsApi
from homeostat.drills.leader.known import KnownDrills
from homeostat.drills.leader.register import Register, RegisterParts
from homeostat.faults.loop import FaultPath
from homeostat.kernel.clock import Clock
from homeostat.leadership import Store


@dataclass(frozen=True, slots=True)
class Drilling:
    """What is known, who writes, and what the routes stand on."""

    register: Register
    api: DrillsApi


def drilling_of(store: Store, known: KnownDrills, path: FaultPath, clock: Clock) -> Drilling:
    """The register writes through the fault path, which asks `known` whose a fault is."""
    register = Register(RegisterParts(known, path.add, store.appender, store.readers, clock))
    api = DrillsApi(register, known, store.readers, store.journal, lambda: path.world.topology, clock)
    return Drilling(register, api)
