"""The loop that gives guests to hosts: level-triggered, behind the gate, said once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from test_placement import N1, N2, N3, dead, guest, offer, site

from homeostat.contracts.nouns import HostId, ResourceId
from homeostat.contracts.wire import Candidate
from homeostat.fleet.gate import GateReason, GateRefusal, GateRequest
from homeostat.fleet.model import Topology
from homeostat.fleet.placements import Placement
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.errors import StoreUnavailable
from homeostat.kernel.journal import Seq
from homeostat.recovery.placement_loop import PlacementDependencies, PlacementLoop
from real_parts import eventually


@dataclass
class Written:
    """A journal that takes placements into the topology, as the fault path does."""

    topology: Topology
    refusal: GateRefusal | None = None
    fails: int = 0
    placements: list[Placement] = field(default_factory=list)
    refusals: list[tuple[HostId, GateReason]] = field(default_factory=list)
    asked: list[GateRequest] = field(default_factory=list)

    def ask(self, asked: GateRequest) -> GateRefusal | None:
        self.asked.append(asked)
        return self.refusal

    async def record(self, placement: Placement) -> Seq:
        if self.fails:
            self.fails -= 1
            raise StoreUnavailable("not now")
        self.placements.append(placement)
        for each in placement.assigned:
            self.topology.adopt(resources=[guest(each.resource, each.to, each.generation)])
        return Seq(1)

    async def refuse(self, asked: GateRequest, refusal: GateRefusal) -> Seq:
        self.refusals.append((asked.host, refusal.why))
        return Seq(1)


@asynccontextmanager
async def placing(written: Written) -> AsyncIterator[PlacementLoop]:
    parts = PlacementDependencies(
        lambda: written.topology, lambda: (), written.ask, written.record, written.refuse, 7, SystemClock()
    )
    loop = PlacementLoop(parts)
    running = asyncio.create_task(loop.run())
    try:
        yield loop
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def looks(written: Written, count: int = 3) -> None:
    """Wait until the loop has looked again."""
    before = len(written.asked)
    await eventually(lambda: len(written.asked) >= before + count)


async def test_all_guests_of_a_fenced_host_move_in_one_entry() -> None:
    written = Written(dead(site({"a": N1, "b": N2, "c": N2}), N2))
    async with placing(written):
        await eventually(lambda: written.placements)
        assert [(each.resource, each.to) for each in written.placements[0].assigned] == [
            ("b", N3),
            ("c", N1),
        ]
    assert written.asked[0] == GateRequest("recovery", "start_elsewhere", N2, 7)
    assert len(written.placements) == 1


@pytest.mark.seed("order guests of a dead host start elsewhere only after a fencing receipt")
async def test_a_host_without_a_receipt_keeps_its_guests() -> None:
    topology = dead(site({"a": N1, "b": N2}), N2)
    topology.adopt([replace(topology.nodes[N2], fenced="")])
    written = Written(dead(topology, N1))
    async with placing(written):
        await eventually(lambda: written.placements)
    assert {each.from_host for placement in written.placements for each in placement.assigned} == {N1}
    assert topology.resources[ResourceId("b")].host == N2


async def test_a_refusal_is_written_once_and_the_move_follows_when_it_ends() -> None:
    written = Written(dead(site({"b": N2}), N2), GateRefusal(GateReason.NOT_ARMED, "no"))
    async with placing(written):
        await eventually(lambda: written.refusals)
        await looks(written)
        assert written.refusals == [(N2, GateReason.NOT_ARMED)]
        assert not written.placements
        written.refusal = GateRefusal(GateReason.RATE, "slowly")
        await eventually(lambda: len(written.refusals) == 2)
        written.refusal = None
        await eventually(lambda: written.placements)


async def test_one_that_can_go_nowhere_is_told_once_and_moves_when_a_host_is_there() -> None:
    topology = dead(site({"b": N2}), N2)
    nodes = [replace(topology.nodes[host], held="disks") for host in (N1, N3)]
    topology.adopt(nodes)
    written = Written(topology)
    async with placing(written):
        await eventually(lambda: written.placements)
        await looks(written)
        assert [each.reason for each in written.placements[0].stranded] == ["no_host"]
        assert len(written.placements) == 1
        topology.adopt([replace(nodes[1], held="")])
        await eventually(lambda: len(written.placements) == 2)
        assert [each.to for each in written.placements[1].assigned] == [N3]


async def test_a_new_leader_waits_until_all_that_live_have_spoken() -> None:
    topology = dead(site({"b": N2, "c": N2}), N2)
    offers = topology.offers.pop(N1)
    del topology.offered[N1]
    written = Written(topology)
    async with placing(written):
        await looks(written)
        assert not written.placements
        topology.hear_offers(N1, tuple(offers.values()))
        await eventually(lambda: written.placements)
    assert [each.to for each in written.placements[0].assigned] == [N1, N3]


async def test_one_that_lives_and_never_speaks_is_not_waited_for_for_ever() -> None:
    topology = dead(site({"b": N2}), N2)
    del topology.offers[N1], topology.offered[N1]
    written = Written(topology)
    async with placing(written):
        await eventually(lambda: written.placements)
    assert [each.to for each in written.placements[0].assigned] == [N3]


async def test_what_could_not_be_written_is_tried_again() -> None:
    written = Written(dead(site({"b": N2}), N2), fails=1)
    async with placing(written):
        await eventually(lambda: written.placements)
    assert written.fails == 0


async def test_a_guest_that_is_offered_gets_its_home_without_asking_the_gate() -> None:
    topology = site({})
    for host in (N1, N2):
        topology.hear_offers(host, [offer("a", "n3")])
    written = Written(topology, GateRefusal(GateReason.NOT_ARMED, "no"))
    async with placing(written) as loop:
        topology.hear_offers(N3, [offer("a", "n3")])
        await eventually(lambda: written.placements)
        assert loop.verdict(N1) == written.refusal
    assert [(each.to, each.from_host) for each in written.placements[0].assigned] == [(N3, None)]
    assert topology.resources[ResourceId("a")].host == N3


class Counting(dict[HostId, dict[ResourceId, Candidate]]):
    """Counts how often all offers were gone through."""

    walks = 0

    def items(self) -> Any:
        self.walks += 1
        return super().items()


async def test_what_can_go_nowhere_is_not_decided_again_before_something_changed() -> None:
    topology = dead(site({"b": N2}), N2)
    topology.adopt([replace(topology.nodes[host], held="disks") for host in (N1, N3)])
    offers = topology.offers = Counting(topology.offers)
    written = Written(topology)
    async with placing(written):
        await eventually(lambda: written.placements)
        before = offers.walks
        await looks(written, 5)
        after = offers.walks
        assert after <= before + 1
        topology.hear_offers(N1, ())
        await eventually(lambda: offers.walks > after)
