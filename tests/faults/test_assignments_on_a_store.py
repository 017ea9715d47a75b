"""Assignments through the whole fault path, on both engines: committed, told, remembered, done once."""

from __future__ import annotations

from sqlalchemy import text
from test_fault_path import Running, join, running

from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import (
    AssignmentGiven,
    Heartbeat,
    Levels,
    Offer,
    Subjects,
    assigned_digest,
    decode,
    digest,
    offers_digest,
)
from homeostat.faults.entry import Entry
from homeostat.fleet.assignment import Assignment, Placement
from homeostat.fleet.store import load_topology
from homeostat.fleet.suspicion import Death
from store_parts import Store, until

N1, N2, G = HostId("n1"), HostId("n2"), ResourceId("g")
OFFER = Offer(G, ResourceKind.GUEST, Owner("blue"), "ocf:x:y", "n1")


def given(here: Running, host: HostId) -> list[AssignmentGiven]:
    wanted = Subjects(host).assigned
    return [decode(AssignmentGiven, body) for subject, body in here.bus.published if subject == wanted]


def beat(here: Running, host: HostId, assigned: str = "", incarnation: str = "i1") -> None:
    offers = offers_digest([OFFER])
    here.bus.say(
        Subjects(host).heartbeat, Heartbeat(host, "b1", incarnation, 0, digest({}), 0, offers, assigned)
    )


def levels(here: Running, host: HostId) -> None:
    here.bus.say(Subjects(host).levels, Levels(host, "b1", "i1", 0, (), 0, (OFFER,)))


async def place(here: Running, assignment: Assignment) -> int:
    return await here.path.record(lambda entry: entry.placed(Placement((assignment,))))


def died_and_fenced(entry: Entry) -> None:
    entry.host_down(N1, Death("silent", entry.wall_ns, entry.mono_ns))
    entry.fenced(N1, "manual", "unplugged")


async def test_a_guest_is_assigned_moved_and_told_and_a_new_server_knows_it(store: Store) -> None:
    async with running(store) as here:
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
        receipt = await here.path.record(died_and_fenced)
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
    async with running(store) as here:
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
    async with running(store, term_left_s=lambda: left_s[0]) as here:
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
