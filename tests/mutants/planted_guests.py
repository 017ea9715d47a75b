"""Planted bugs in what keeps a guest on one host."""

from __future__ import annotations

from dataclasses import replace

from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import ResourceLevel
from homeostat.faults.entry import Entry
from homeostat.faults.loop import FaultPath
from homeostat.fleet.assignment import Placement
from homeostat.resources.loop import Placing, PlacingParts
from homeostat.resources.placement import guests_of
from homeostat.sim.guests import SimGuest


class MovesWithoutAReceipt(Placing):
    """I5: a host that is down is emptied, fenced or not."""

    def due(self) -> list[HostId]:
        topology = self._parts.topology()
        nodes = topology.nodes.values()
        return [node.host for node in nodes if node.down_ns is not None and guests_of(topology, node.host)]


class _Credulous(Entry):
    """The entry does not look again whether the host is down and fenced."""

    def placed(self, placement: Placement) -> None:
        nodes = self.world.topology.nodes
        before = {each.from_host: nodes[each.from_host] for each in placement.assigned if each.from_host}
        for host, node in before.items():
            nodes[host] = replace(node, fenced=True, down_ns=node.down_ns or 1)
        super().placed(placement)
        nodes.update(before)


class BelievesThePlacing(FaultPath):
    """Goes with the others: what was decided is written."""

    ENTRY = _Credulous


class _TakesOldWords(Entry):
    def _is_foreign(self, host: HostId, level: ResourceLevel) -> bool:
        """Of a guest anybody may speak, under any generation."""
        return not level.generation and super()._is_foreign(host, level)


class TakesOldWords(FaultPath):
    """I4: a late report of the host that a guest has left steals its row."""

    ENTRY = _TakesOldWords


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


class NeverAsks(Placing):
    """Gate: guests are moved without asking it, neither when they are given away nor when that is written."""

    def __init__(self, parts: PlacingParts) -> None:
        super().__init__(replace(parts, ask=lambda _: None))


class LeavesThemThere(Placing):
    """Lost guests: those of a dead host start nowhere."""

    def due(self) -> list[HostId]:
        return []
