"""A storm of deaths: what is done is stopped, people are told once, and a person's receipt lifts it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from sqlalchemy import select
from test_fault_path import Running, join, running

from homeostat.contracts.nouns import GATE_SUBJECT, HostId
from homeostat.contracts.wire import Heartbeat, Outcome, digest
from homeostat.faults.hosts import on_host_down
from homeostat.fleet.fencing import FenceOutcome
from homeostat.fleet.gate import Arming, GateReason, GateRequest
from homeostat.fleet.settings import FleetSettings, GateSettings
from homeostat.fleet.suspicion import Death, Probed
from homeostat.ingest.entry import Decision, IngestState, Moment
from homeostat.kernel import database
from homeostat.kernel.clock import SystemClock
from homeostat.ports import Fence, Fenced, FenceResult
from homeostat.recovery.acts import on_fence_ended, on_fenced
from homeostat.recovery.after_death import FencingDependencies, FencingLoop
from store_parts import Store, until

N1, N2, N3 = HostId("n1"), HostId("n2"), HostId("n3")
SECOND = 1_000_000_000


class Switch:
    """Fences whatever it is told to."""

    name = "switch"

    def __init__(self) -> None:
        self.fenced: list[str] = []

    async def fence(self, host: str) -> FenceResult:
        self.fenced.append(host)
        return Fenced("it is off")


def _died(host: HostId, death: Death, state: IngestState, now: Moment) -> Decision:
    return on_host_down(state, host, death, now)


@dataclass
class Acting:
    """A fault path with three hosts, and what is done about those that are dead."""

    here: Running
    aftermath: FencingLoop
    arming: Arming

    async def die(self, *hosts: HostId) -> None:
        now_ns = SystemClock().wall_ns()

        death = Death("silent", now_ns, now_ns)
        # All of them at once: they are decided in one entry.
        await asyncio.gather(*(self.here.path.record(partial(_died, host, death)) for host in hosts))

    def asked(self, host: HostId, act: str = "start_elsewhere") -> GateReason | None:
        refusal = self.aftermath.ask(GateRequest("recovery", act, host, 1))
        return None if refusal is None else refusal.why

    def told(self) -> bool:
        fault = self.here.path.world.faults.get(GATE_SUBJECT)
        return fault is not None and fault.up_ns is None


def answering() -> dict[HostId, Probed]:
    """The three hosts are looked at from outside."""
    now_ns = SystemClock().mono_ns()
    return {host: Probed(now_ns, answers=9, answered_mono_ns=now_ns) for host in (N1, N2, N3)}


@asynccontextmanager
async def acting(
    store: Store, fence: Fence | None, gate: GateSettings | None = None, unwatched: tuple[str, ...] = ()
) -> AsyncIterator[Acting]:
    async with running(store, probed=answering) as here:
        for host in (N1, N2, N3, *unwatched):
            await join(here, host)
        await until(lambda: not here.path.watch.doubt)
        arming = Arming(here.appender, store.readers, SystemClock(), ["recovery"], ["recovery"])
        await arming.reload()
        fleet = FleetSettings(gate=gate or GateSettings())
        aftermath = FencingLoop(
            FencingDependencies(here.path, arming, fence, fleet, 1, SystemClock(), lambda: uuid.uuid4().hex)
        )
        await aftermath.remember(store.readers)
        task = asyncio.create_task(aftermath.run())
        try:
            yield Acting(here, aftermath, arming)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def kinds(store: Store, subject: str) -> list[str]:
    table = database.journal
    rows = store.rows(select(table.c.kind).where(table.c.subject == subject).order_by(table.c.seq))
    return [row.kind for row in rows]


async def test_a_storm_is_told_once_and_a_person_lifts_it(store: Store) -> None:
    switch = Switch()
    async with acting(store, switch) as it:
        await it.die(N1, N2)
        await until(it.told)
        fault = it.here.path.world.faults[GATE_SUBJECT]
        assert "2 of 3" in fault.reason
        assert "n1, n2" in fault.reason
        assert it.asked(N1) is it.asked(N2) is GateReason.STORM
        assert not switch.fenced
        await it.here.path.record(lambda state, now: on_fenced(state, N2, ("manual, admin", "I looked"), now))
        await until(lambda: not it.told())
        assert it.asked(N2) is None
        await until(lambda: switch.fenced == ["n1"])
        await until(lambda: bool(it.here.path.world.topology.nodes[N1].fenced))
        assert it.asked(N1) is None


async def test_hosts_that_nobody_watches_do_not_make_a_storm_smaller(store: Store) -> None:
    """Four of seven rows are of machines that nobody looks at: two of seven would have passed."""
    async with acting(store, None, unwatched=("old1", "old2", "old3", "old4")) as it:
        await it.die(N1, N2)
        assert it.asked(N1) is it.asked(N2) is GateReason.STORM
        await until(it.told)
        assert "2 of 3" in it.here.path.world.faults[GATE_SUBJECT].reason


async def test_a_person_vouches_for_what_a_driver_has_fenced(store: Store) -> None:
    """The user's case: the first was fenced before the second was known to be dead."""
    async with acting(store, None) as it:
        await it.die(N1, N2)
        await it.here.path.record(
            lambda state, now: on_fence_ended(
                state, N1, FenceOutcome("a", "switch", Outcome.OK, 1.0, "it is off"), now
            )
        )
        assert it.asked(N1) is GateReason.STORM, "a driver does not prove that the monitor is right"
        await it.here.path.record(lambda state, now: on_fenced(state, N1, ("manual, admin", "I looked"), now))
        node = it.here.path.world.topology.nodes[N1]
        assert (node.fenced, node.vouched) == ("I looked", True)
        assert it.asked(N1) is None
        assert kinds(store, "node/n1").count("HostFenced") == 2
        await it.here.path.load()
        assert it.here.path.world.topology.nodes[N1].vouched, "the tables know it"


async def test_a_host_that_dies_again_in_the_same_fault_is_refused_again(store: Store) -> None:
    async with acting(store, Switch()) as it:
        await it.arming.set("recovery", armed=False, by="test")
        for incarnation in ("i2", "i3"):
            refused = kinds(store, "node/n1").count("ActRefused")
            await it.die(N1)
            await until(lambda refused=refused: kinds(store, "node/n1").count("ActRefused") == refused + 1)  # type: ignore[misc]
            it.here.bus.say("node.n1.heartbeat", Heartbeat(N1, "b1", incarnation, 0, digest({})))
            await until(lambda: not it.here.path.world.topology.is_down(N1))
            assert not it.aftermath.due()
        assert it.here.path.hearing.refused == 0


async def test_a_restart_does_not_forget_what_was_done_lately(store: Store) -> None:
    switch, gate = Switch(), GateSettings(harm_max=1, harm_window_s=600)
    async with acting(store, switch, gate) as it:
        await it.die(N1)
        await until(lambda: bool(it.here.path.world.topology.nodes[N1].fenced))
        assert it.asked(N2, "fence") is GateReason.RATE
    async with acting(store, switch, gate) as again:
        assert again.asked(N2, "fence") is GateReason.RATE
    async with acting(store, switch, GateSettings(harm_max=2, harm_window_s=600)) as wider:
        assert wider.asked(N2, "fence") is None, "it is counted once"
    async with acting(store, switch, GateSettings(harm_max=1, harm_window_s=0.001)) as later:
        assert later.asked(N2, "fence") is None, "it is long ago"
