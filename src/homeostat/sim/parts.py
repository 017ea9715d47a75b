"""The parts of a run that are under test, as a list: the real ones, unless a mutant takes one's place."""

from __future__ import annotations

from dataclasses import dataclass

from homeostat.faults.aftermath import Aftermath
from homeostat.faults.herald import Herald
from homeostat.faults.loop import FaultPath
from homeostat.fleet.node_link import NodeLink
from homeostat.fleet.node_observations import ObservationStore
from homeostat.notices.delivery import Delivery
from homeostat.resources.loop import Placing
from homeostat.sim.disk import SimAppender
from homeostat.sim.guests import SimGuest
from homeostat.sim.machine import SimRunner


@dataclass(frozen=True, slots=True)
class SimParts:
    """Classes; an instance of each is made for every life of a process."""

    path: type[FaultPath] = FaultPath
    herald: type[Herald] = Herald
    delivery: type[Delivery] = Delivery
    appender: type[SimAppender] = SimAppender
    store: type[ObservationStore] = ObservationStore
    link: type[NodeLink] = NodeLink
    runner: type[SimRunner] = SimRunner
    aftermath: type[Aftermath] = Aftermath
    placing: type[Placing] = Placing
    guest: type[SimGuest] = SimGuest
