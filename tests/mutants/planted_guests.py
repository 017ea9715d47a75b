"""Planted bugs in what keeps a guest on one host."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import Observations, ResourceStatus, Snapshot
from homeostat.faults.deciders import FaultDeciders
from homeostat.ingest.entry import Decide, Decision, IngestState, Moment
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel.journal import Seq
from homeostat.ports import Fence
from homeostat.recovery.after_death import FencingLoop
from homeostat.recovery.placement import movable_guests_of
from homeostat.recovery.placement_loop import PlacementDependencies, PlacementLoop
from homeostat.sim.guests import SimGuest


class MovesWithoutAReceipt(PlacementLoop):
    """I5: a host that is down is emptied, fenced or not."""

    def due(self) -> list[HostId]:
        topology = self._parts.topology()
        nodes = topology.nodes.values()
        return [
            node.host for node in nodes if node.down_ns is not None and movable_guests_of(topology, node.host)
        ]


class BelievesThePlacing(IngestLoop):
    """Goes with the others: what was decided is written, whether its host is down and fenced or not."""

    async def record(self, decide: Decide) -> Seq:
        return await super().record(partial(_credulous, decide))


def _credulous(decide: Decide, state: IngestState, now: Moment) -> Decision:
    """The decision as it is; if there is nothing in it, as it would be if one host were down and fenced."""
    decided = decide(state, now)
    if decided.events or decided.resources:
        return decided
    nodes = state.topology.nodes
    for host, node in list(nodes.items()):
        nodes[host] = replace(node, fenced="surely", down_ns=node.down_ns or 1)
        again = decide(state, now)
        nodes[host] = node
        if again.resources:
            return again
    return decided


class TakesOldWords(FaultDeciders):
    """I4: a late report of the host that a guest has left steals its row."""

    def _foreign(
        self, state: IngestState, message: Observations | Snapshot, level: ResourceStatus
    ) -> Decide | None:
        """Of a guest anybody may speak, under any generation."""
        return None if level.generation else super()._foreign(state, message, level)


class BelievesClaims(FaultDeciders):
    """I4: the highest generation is right whoever has it, as until 0.2."""

    def _foreign(
        self, state: IngestState, message: Observations | Snapshot, level: ResourceStatus
    ) -> Decide | None:
        row = state.topology.resources.get(level.resource)
        if row is not None and level.generation > row.generation:
            return None
        return super()._foreign(state, message, level)


class StartsUnconfirmed(SimGuest):
    """I4: after a start of its node a guest is started by what was on the disk before."""

    async def _look(self) -> bool:
        generation = self._around.line.assigned.mine.get(self._name)
        if generation is None:
            return await super()._look()
        await self._keep(generation)
        return False


class KeepsWhatItHad(SimGuest):
    """I4: what was assigned to a host once stays so, whatever a server says when it returns."""

    _had: int | None = None

    async def _look(self) -> bool:
        told = self._around.line.assigned
        if not told.confirmed:
            self._had = told.mine.get(self._name)
        elif self._had is not None:
            told.mine.setdefault(self._name, self._had)
        return await super()._look()


class NeverAsks(PlacementLoop):
    """Gate: guests are moved without asking it, neither when they are given away nor when that is written."""

    def __init__(self, parts: PlacementDependencies) -> None:
        super().__init__(replace(parts, ask=lambda _: None))


class IsDisarmedOnceFenced(FencingLoop):
    """No bug: a person disarms recovery at the very moment in which a host has got its receipt.

    The schedules of seeds hardly ever meet it, for guests start elsewhere a tenth of a second later.
    """

    async def _fence(self, host: HostId, fence: Fence) -> None:
        await super()._fence(host, fence)
        await self._parts.arming.set("recovery", armed=False, by="somebody")


class LeavesThemThere(PlacementLoop):
    """Lost guests: those of a dead host start nowhere."""

    def due(self) -> list[HostId]:
        return []
