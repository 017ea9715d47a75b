"""A fault that one server raised and another one clears: stamps of two machines are never compared."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import Heartbeat
from homeostat.faults.deciders import FaultDeciders
from homeostat.faults.hosts import on_heartbeat, on_silence
from homeostat.faults.inspection import on_tick
from homeostat.faults.settings import FaultsSettings
from homeostat.faults.store import fault_raised
from homeostat.ingest.entry import IngestState, Moment
from homeostat.ingest.watches import AgentLife
from homeostat.kernel.journal import Seq
from set_clock import SECOND, SetClock
from store_parts import Store

N1 = HostId("n1")


@dataclass
class OtherClock(SetClock):
    """The same wall clock on a machine that was booted at another time."""

    booted_later_s: int = 0

    def mono_ns(self) -> int:
        return super().mono_ns() - self.booted_later_s * SECOND


def at(clock: SetClock) -> Moment:
    return Moment(clock.wall_ns(), clock.mono_ns(), 0.5, 0)


@pytest.mark.parametrize(
    ("booted_later_s", "outage_ms"), [(0, 20_000), (4_000_000, None), (-4_000_000, None), (15, None)]
)
async def test_an_outage_has_a_length_only_when_both_ends_were_seen_on_one_machine(
    store: Store, booted_later_s: int, outage_ms: float | None
) -> None:
    first, second = SetClock(100), OtherClock(110, booted_later_s)
    world = IngestState()
    world.adopt(on_heartbeat(world, Heartbeat(N1, "b", "i", 0, ""), at(SetClock(1))))
    world.lives = {N1: AgentLife("i", at(first).mono_ns)}
    lost = on_silence(world, N1, 3.0, at(first))
    world.adopt(lost)
    nodes = world.topology.nodes
    (raised,) = lost.raised
    with store.engine.begin() as connection:
        change = fault_raised(replace(raised, raised_seq=Seq(7)))
        connection.execute(change.statement, [dict(row) for row in change.values])
    after = await FaultDeciders(FaultsSettings()).load(store.readers, second)
    after.topology.adopt(nodes.values())
    second.now_s = 120
    after.adopt(on_heartbeat(after, Heartbeat(N1, "b", "i", 0, ""), at(second)))
    second.now_s = 121
    after.lives = {N1: AgentLife("i", second.mono_ns())}
    over = on_tick(after, second.mono_ns(), second.wall_ns(), 0)
    assert [(each.transition, each.fault.outage_ms) for each in over.tellings] == [("cleared", outage_ms)]
