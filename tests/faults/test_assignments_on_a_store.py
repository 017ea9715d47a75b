"""Assignments through the whole fault path, on both engines: committed, told, remembered, done once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from test_fault_path import Running, join, running

from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import (
    AssignmentGiven,
    Candidate,
    Heartbeat,
    ResourceStatus,
    Snapshot,
    Subjects,
    assigned_digest,
    candidates_digest,
    decode,
    digest,
)
from homeostat.faults.hosts import on_host_down
from homeostat.fleet.gate import GateReason, GateRefusal, GateRequest, RecentActs
from homeostat.fleet.placements import Assignment, Placement
from homeostat.fleet.settings import FleetSettings, HostSettings
from homeostat.fleet.store import load_topology
from homeostat.fleet.suspicion import Death
from homeostat.ingest.entry import Decision
from homeostat.kernel.clock import SystemClock
from homeostat.recovery.acts import on_fenced
from homeostat.recovery.placement import on_placement
from homeostat.recovery.placement_loop import PlacementLoop, create_placement_loop
from store_parts import Store, until

N1, N2, G = HostId("n1"), HostId("n2"), ResourceId("g")
HOSTS = [HostSettings(host=host, address="127.0.0.1") for host in (N1, N2)]
SITE = FleetSettings(sweep_s=0.02, hosts=HOSTS, lost_after_s=60)
OFFER = Candidate(G, ResourceKind.GUEST, Owner("blue"), "ocf:x:y", "n1")


def given(here: Running, host: HostId) -> list[AssignmentGiven]:
    wanted = Subjects(host).assigned
    return [decode(AssignmentGiven, body) for subject, body in here.bus.published if subject == wanted]


def beat(here: Running, host: HostId, assigned: str = "", incarnation: str = "i1") -> bool:
    offers = candidates_digest([OFFER])
    here.bus.say(
        Subjects(host).heartbeat, Heartbeat(host, "b1", incarnation, 0, digest({}), 0, offers, assigned)
    )
    return False


def levels(here: Running, host: HostId) -> None:
    here.bus.say(Subjects(host).levels, Snapshot(host, "b1", "i1", 0, (), 0, (OFFER,)))


class Looking(PlacementLoop):
    """Says when it has looked through everything."""

    looks = 0

    def due(self) -> list[HostId]:
        self.looks += 1
        return super().due()

    async def looked(self) -> None:
        before = self.looks
        await until(lambda: self.looks >= before + 2)


@asynccontextmanager
async def placing(here: Running, *said: GateRefusal | None) -> AsyncIterator[Looking]:
    """The loop that gives guests to hosts, with a gate that says this first and is open then."""
    loop = create_placement_loop(here.path, Open(*said), 1, SystemClock(), Looking)  # type: ignore[arg-type]
    assert isinstance(loop, Looking)
    task = asyncio.create_task(loop.run())
    try:
        yield loop
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Open:
    """A gate that says what it is told to say, then is open."""

    def __init__(self, *said: GateRefusal | None) -> None:
        self._said = list(said)
        self.recent = RecentActs()

    def count(self, act: str, name: str) -> None:
        self.recent.count(act, name, 1.0)

    def ask(self, asked: GateRequest) -> GateRefusal | None:
        assert (asked.component, asked.act) == ("recovery", "start_elsewhere")
        return self._said.pop(0) if self._said else None


async def place(here: Running, assignment: Assignment) -> int:
    return await here.path.record(lambda state, now: on_placement(state, Placement((assignment,)), now))


async def died_and_fenced(here: Running) -> int:
    await here.path.record(
        lambda state, now: on_host_down(state, N1, Death("silent", now.wall_ns, now.mono_ns), now)
    )
    return await here.path.record(lambda state, now: on_fenced(state, N1, ("manual", "unplugged"), now))


async def test_a_guest_is_assigned_moved_and_told_and_a_new_server_knows_it(store: Store) -> None:
    async with running(store, fleet=SITE) as here:
        await join(here, "n1", "n2")
        for host in (N1, N2):
            beat(here, host)
            await until(lambda h=host: here.bus.answers(Subjects(h).resync) > 0)  # type: ignore[misc]
            levels(here, host)
        await until(lambda: set(here.path.world.topology.offers) == {N1, N2})
        assert await place(here, Assignment(OFFER, N1, 1))
        await until(lambda: bool(given(here, N1)))
        assert given(here, N1)[-1].mine == {G: 1}
        assert given(here, N1)[-1].incarnation == "i1"
        receipt = await died_and_fenced(here)
        assert await place(here, Assignment(OFFER, N2, 2, N1))
        assert await place(here, Assignment(OFFER, N2, 2, N1)) == 0, "once"
        await until(lambda: bool(given(here, N2)) and given(here, N2)[-1].mine == {G: 2})
        moves = store.rows(text("SELECT cause FROM journal WHERE kind = 'GuestMoved'"))
        assert [row.cause for row in moves] == [receipt]
        numbers = [each.number for each in given(here, N2)]
        assert numbers == sorted(set(numbers))
    topology = await store.readers.read(load_topology)
    row = topology.resources[G]
    assert (row.host, row.generation, row.state) == (N2, 2, ResourceState.STARTING)
    assert topology.nodes[N1].fenced_seq == receipt


async def test_a_node_is_told_until_it_knows_and_what_runs_nowhere_is_taken_from_it(store: Store) -> None:
    async with running(store, fleet=SITE) as here:
        await join(here, "n1", "n2")
        levels(here, N2)
        await until(lambda: N2 in here.path.world.topology.offers)
        beat(here, N2)
        await until(lambda: len(given(here, N2)) == 1)
        beat(here, N2)
        await until(lambda: len(given(here, N2)) == 2)
        assert given(here, N2)[-1].mine == {}
        beat(here, N2, assigned_digest({}))
        beat(here, N1)
        await until(lambda: here.bus.answers(Subjects(N1).resync) > 0)
        assert len(given(here, N2)) == 2, "it knows"


async def test_a_leader_whose_term_ends_gives_nobody_anything(store: Store) -> None:
    left_s = [0.5]
    async with running(store, term_left_s=lambda: left_s[0], fleet=SITE) as here:
        await join(here, "n1", "n2")
        levels(here, N1)
        await until(lambda: N1 in here.path.world.topology.offers)
        assert await place(here, Assignment(OFFER, N1, 1))
        beat(here, N1)
        beat(here, N2)
        await until(lambda: here.bus.answers(Subjects(N2).resync) > 0)
        assert not given(here, N1)
        left_s[0] = 5.0
        beat(here, N1)
        await until(lambda: bool(given(here, N1)))


async def test_nobody_is_given_a_guest_before_all_have_said_what_they_run(store: Store) -> None:
    """An empty database, and n2 runs the guest: n1, its home, is the first to speak."""
    async with running(store, fleet=SITE) as here, placing(here) as loop:
        await join(here, "n1")
        beat(here, N1)
        await until(lambda: here.bus.answers(Subjects(N1).resync) > 0)
        levels(here, N1)
        await until(lambda: N1 in here.path.world.topology.offers)
        assert here.path.strangers == [N2]
        assert not here.path.knows_guests
        await loop.looked()
        beat(here, N1)
        await here.path.record(lambda _, now: Decision(now.base, assign={N1}))
        assert not given(here, N1)
        await join(here, "n2")
        beat(here, N2)
        level = ResourceStatus(
            G, ResourceKind.GUEST, Owner("blue"), "ocf:x:y", ResourceState.UP, "", 1, 0, None, 2
        )
        here.bus.say(Subjects(N2).levels, Snapshot(N2, "b1", "i1", 0, (level,), 0, (OFFER,)))
        await until(lambda: bool(given(here, N1)))
        await loop.looked()
        assert [each.mine for each in given(here, N1)] == [{}]
        row = here.path.world.topology.resources[G]
        assert (row.host, row.generation) == (N2, 2)


async def test_who_never_speaks_is_waited_for_only_so_long_unless_nobody_knows_him(store: Store) -> None:
    quick = FleetSettings(sweep_s=0.02, hosts=HOSTS, lost_after_s=1)
    async with running(store, fleet=quick) as here:
        await join(here, "n1", "n2")
    async with running(store, fleet=quick) as here, placing(here):
        await until(lambda: N2 in here.path.world.topology.nodes)
        levels(here, N1)
        await until(lambda: N1 in here.path.world.topology.offers)
        assert not here.path.knows_guests and here.path.strangers == []
        await until(lambda: beat(here, N1) or here.path.world.topology.resources.get(G) is not None)
        assert here.path.knows_guests
        assert here.path.world.topology.resources[G].host == N1
    empty = FleetSettings(
        sweep_s=0.02, hosts=[*HOSTS, HostSettings(host="n9", address="127.0.0.1")], lost_after_s=1
    )
    async with running(store, fleet=empty) as here, placing(here) as loop:
        other = Candidate(ResourceId("h"), ResourceKind.GUEST, Owner("blue"), "ocf:x:y", "n1")
        here.bus.say(Subjects(N1).levels, Snapshot(N1, "b1", "i1", 0, (), 0, (other,)))
        await until(
            lambda: beat(here, N1) or (here.path.knows_guests and N1 in here.path.world.topology.offers)
        )
        await loop.looked()
        assert "h" not in here.path.world.topology.resources, "n9 may run it"


async def test_a_gate_that_shuts_between_the_decision_and_the_entry_is_heeded(store: Store) -> None:
    async with running(store, fleet=SITE) as here:
        await join(here, "n1", "n2")
        levels(here, N1)
        levels(here, N2)
        await until(lambda: set(here.path.world.topology.offers) == {N1, N2})
        assert await place(here, Assignment(OFFER, N1, 1))
        await died_and_fenced(here)
        shut = GateRefusal(GateReason.HELD, "disks")
        async with placing(here, None, shut, shut):
            await until(lambda: here.path.world.topology.resources[G].host == N2)
        kinds = text("SELECT kind FROM journal WHERE kind IN ('ActRefused', 'GuestMoved') ORDER BY seq")
        await until(lambda: [row.kind for row in store.rows(kinds)] == ["ActRefused", "GuestMoved"])
