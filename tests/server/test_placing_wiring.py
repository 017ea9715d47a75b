"""What the gate said when a move was decided does not count when it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import Candidate
from homeostat.fleet.gate import GateReason, GateRefusal, GateRequest, RecentActs
from homeostat.fleet.model import AgentState, Node, Resource
from homeostat.fleet.placements import Assignment, HostReservation, Placement
from homeostat.ingest.entry import Decide, IngestState, Moment
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.journal import Seq
from homeostat.recovery.host_reservations import ReservedHosts
from homeostat.recovery.placement_loop import PlacementLoop, create_placement_loop

N1, N2 = HostId("n1"), HostId("n2")
UP = ResourceState.UP


def offer(name: str) -> Candidate:
    return Candidate(ResourceId(name), ResourceKind.GUEST, Owner("blue"), "ocf:homeostat:process")


MOVE = Assignment(offer("db"), N2, 2, N1)
FIRST = Assignment(offer("cache"), N2, 1)


class Path:
    """A fault path in whose next entry the world is another one."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile = meanwhile
        self.placed: list[str] = []
        self.watch = SimpleNamespace(doubts={})
        dead = Node(N1, "b1", "i1", 0, AgentState.LOST, 0, down_ns=1, fenced="off", fenced_seq=Seq(9))
        rows = [
            Resource(ResourceId("db"), N1, ResourceKind.GUEST, Owner("blue"), "a", UP, "", 0, 0, generation=1)
        ]
        self.world = IngestState()
        self.world.topology.adopt([dead, Node(N2, "b2", "i1", 0, AgentState.PRESENT, 0)], rows, [])

    async def record(self, decide: Decide) -> Seq:
        self._meanwhile()
        decided = decide(self.world, Moment(1, 1, 0.5, 0))
        self.placed = [row.id for row in decided.resources]
        return Seq(1)


@pytest.mark.parametrize("held", [False, True])
async def test_a_host_that_is_held_meanwhile_keeps_its_guests(held: bool) -> None:
    refusals: list[GateRefusal] = []

    def ask(asked: GateRequest) -> GateRefusal | None:
        assert asked == GateRequest("recovery", "start_elsewhere", N1, 7)
        return refusals[0] if refusals else None

    path = Path(lambda: refusals.append(GateRefusal(GateReason.HELD, "new disks")) if held else None)
    recent = RecentActs()
    aftermath: Any = SimpleNamespace(
        ask=ask, recent=recent, count=lambda act, name: recent.count(act, name, 1.0)
    )
    placing = create_placement_loop(path, aftermath, 7, SystemClock())  # type: ignore[arg-type]
    assert placing.verdict(N1) is None
    await placing.assign(Placement((MOVE, FIRST)))
    assert path.placed == (["cache"] if held else ["db", "cache"])
    assert recent.by_kind() == ({} if held else {"start_elsewhere": (1.0,)}), "a first start is not elsewhere"


class ForGreen:
    """N2 is reserved for another project now."""

    def active(self, _at_ns: int) -> ReservedHosts:
        return {N2: (HostReservation(N2, Owner("green"), 2, "l"),)}

    async def catch_up(self) -> None: ...


@pytest.mark.parametrize(("state", "is_placed"), [(UP, True), (ResourceState.STOPPED, False)])
async def test_what_runs_on_a_reserved_host_stays_there_and_nothing_else_starts(
    state: ResourceState, is_placed: bool
) -> None:
    path = Path(lambda: None)
    row = Resource(ResourceId("cache"), N2, ResourceKind.GUEST, Owner("blue"), "a", state, "", 0, 0)
    path.world.topology.adopt(resources=[row])
    aftermath: Any = SimpleNamespace(ask=lambda _asked: None, recent=RecentActs())
    placing = create_placement_loop(
        path,  # type: ignore[arg-type]
        aftermath,
        7,
        SystemClock(),
        lambda made_of: PlacementLoop(replace(made_of, reservations=ForGreen())),
    )
    await placing.assign(Placement((FIRST,)))
    assert path.placed == (["cache"] if is_placed else [])
