"""Guests that change hosts: what a decision makes of the rows, and whose word counts afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from homeostat.contracts.events.resources import ActionFinished, GuestFound, GuestMoved, GuestStranded
from homeostat.contracts.nouns import FaultKind, HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import (
    Heartbeat,
    Intent,
    Levels,
    Observations,
    Offer,
    Outcome,
    ResourceLevel,
    Transition,
    assigned_digest,
    digest,
    offers_digest,
)
from homeostat.faults.affected import read
from homeostat.faults.decision import World
from homeostat.faults.entry import Entry
from homeostat.fleet.assignment import Assignment, Placement, Stranded
from homeostat.fleet.fencing import Attempt, Ended
from homeostat.fleet.model import Resource
from homeostat.fleet.suspicion import Death
from homeostat.kernel.journal import Local, Seq

SECOND = 1_000_000_000
N1, N2, N3 = HostId("n1"), HostId("n2"), HostId("n3")
G, BLUE = ResourceId("g"), Owner("blue")
UP, DOWN, STARTING, STOPPED = (
    ResourceState.UP,
    ResourceState.DOWN,
    ResourceState.STARTING,
    ResourceState.STOPPED,
)
OFFER = Offer(G, ResourceKind.GUEST, BLUE, "ocf:x:y", "n1")
OFFERS = offers_digest([OFFER])


def level(state: ResourceState, seq: int, generation: int) -> ResourceLevel:
    return ResourceLevel(
        G, ResourceKind.GUEST, BLUE, "ocf:x:y", state, "because", seq * SECOND, seq, None, generation
    )


class Site:
    """Three hosts that offer one guest, which is on n1."""

    def __init__(self) -> None:
        self.world, self.now_s = World(), 0
        self.seqs = {N1: 0, N2: 0, N3: 0}
        for host in (N1, N2, N3):
            self.beat(host)
            self.levels(host)
        self.place(Assignment(OFFER, N1, 1))
        self.report(N1, UP, 1)

    def entry(self) -> Entry:
        self.now_s += 10
        return Entry(self.world, self.now_s * SECOND, self.now_s * SECOND, 0.5, 3.0)

    def settled(self, entry: Entry) -> Entry:
        first = 1000 * self.now_s
        self.world.settle([Seq(first + number) for number in range(len(entry.events))])
        for index, draft in enumerate(entry.events):
            assert not isinstance(draft.cause, Local) or draft.cause.index < index
        return entry

    def beat(
        self, host: HostId, incarnation: str = "i1", assigned: str = "", said: str | None = None
    ) -> Entry:
        entry = self.entry()
        known = self.world.topology.digest(host) if said is None else said
        entry.heartbeat(
            Heartbeat(host, f"b-{host}", incarnation, self.seqs[host], known, 0, OFFERS, assigned)
        )
        return self.settled(entry)

    def levels(self, host: HostId, *known: ResourceLevel) -> Entry:
        entry = self.entry()
        entry.levels(Levels(host, f"b-{host}", "i1", self.seqs[host], known, 0, (OFFER,)))
        return self.settled(entry)

    def levels_without_offers(self, host: HostId, *known: ResourceLevel) -> Entry:
        entry = self.entry()
        entry.levels(Levels(host, f"b-{host}", "i1", self.seqs[host], known, 0, (), 1, 2))
        return self.settled(entry)

    def report(
        self, host: HostId, state: ResourceState, generation: int, intended: Intent | None = None
    ) -> Entry:
        entry = self.entry()
        self.seqs[host] += 1
        told = level(state, self.seqs[host], generation)
        entry.observations(
            Observations(
                host, f"b-{host}", 10**6 * SECOND, 0, (Transition(told, told.seq * SECOND, intended),)
            ),
            entry.mono_ns,
        )
        return self.settled(entry)

    def place(self, *assigned: Assignment) -> Entry:
        entry = self.entry()
        entry.placed(Placement(assigned))
        return self.settled(entry)

    def die(self, host: HostId, *, fenced: bool = True) -> None:
        entry = self.entry()
        entry.host_down(host, Death("silent", entry.wall_ns, entry.mono_ns))
        self.settled(entry)
        if fenced:
            entry = self.entry()
            entry.fence_intended(Attempt(host, f"fence-{self.now_s}", 30, "down"), None)
            self.settled(entry)
            entry = self.entry()
            entry.fence_ended(host, Ended(f"fence-{self.now_s - 10}", "command", Outcome.OK, 5.0, "off"))
            self.settled(entry)

    @property
    def row(self) -> Resource:
        return self.world.topology.resources[G]


def kinds(entry: Entry) -> list[str]:
    return [type(draft.event).__name__ for draft in entry.events]


MOVE = Assignment(OFFER, N2, 2, N1)


@pytest.mark.seed("order guests of a dead host start elsewhere only after a fencing receipt")
def test_a_guest_moves_once_because_of_the_receipt() -> None:
    site = Site()
    site.die(N1)
    receipt = site.world.topology.nodes[N1].fenced_seq
    assert isinstance(receipt, int)
    entry = site.place(MOVE)
    assert kinds(entry) == ["GuestMoved"]
    assert entry.events[0].cause == receipt
    assert entry.assign == {N2}, "its new host is told at once"
    assert (site.row.host, site.row.generation, site.row.state) == (N2, 2, STARTING)
    assert (site.row.seq, site.row.pid) == (0, None)
    again = site.place(MOVE)
    assert not again.events and not again.changes and not again.assign


@pytest.mark.seed("order guests of a dead host start elsewhere only after a fencing receipt")
@pytest.mark.parametrize("how", ["lives", "not fenced", "is back", "target is dead", "is elsewhere already"])
def test_a_decision_that_does_not_fit_any_more_is_left_out(how: str) -> None:
    site, move = Site(), MOVE
    match how:
        case "not fenced":
            site.die(N1, fenced=False)
        case "is back":
            site.die(N1)
            site.beat(N1, "i2")
        case "target is dead":
            site.die(N1)
            site.die(N2)
        case "is elsewhere already":
            site.die(N1)
            site.place(Assignment(OFFER, N3, 2, N1))
    before = site.row
    assert not site.place(move).events
    assert site.row == before


def test_what_the_old_host_says_afterwards_changes_nothing() -> None:
    site = Site()
    site.die(N1)
    site.place(MOVE)
    site.report(N2, UP, 2)
    before = site.row
    site.beat(N1, "i2")
    for state in (UP, DOWN, STOPPED):
        entry = site.report(N1, state, 1)
        assert N1 in entry.acknowledge, "it is taken in, and means nothing"
        assert not entry.events and not entry.tellings
        assert entry.refused
    drifted = site.levels(N1, level(DOWN, 1, 1))
    assert not drifted.events
    assert site.row == before
    assert site.world.topology.assignment(N1) == {}


def test_a_host_without_reports_of_a_new_guest_is_not_said_to_have_lost_it() -> None:
    site = Site()
    site.die(N1)
    site.place(MOVE)
    assert not site.levels(N2).events
    assert site.row.state is STARTING
    assert site.world.topology.digest(N2) == digest({}), "not reported, not in the digest"
    site.report(N2, UP, 2)
    assert site.world.topology.digest(N2) == digest({G: UP})


def test_heartbeats_ask_until_the_assignment_is_known() -> None:
    site = Site()
    mine = assigned_digest({G: 1})
    assert site.beat(N1, assigned=mine).assign == set()
    assert site.beat(N1).assign == {N1}, "not confirmed to this life"
    assert site.beat(N1, assigned=assigned_digest({})).assign == {N1}
    assert site.beat(N2, assigned=mine).assign == {N2}
    assert site.beat(N2, assigned=assigned_digest({})).assign == set()
    asked = site.beat(N1, said="other")
    assert (asked.assign, asked.resync) == ({N1}, {}), "one thing after the other"
    site.world.topology.offered.clear()
    assert N1 in site.beat(N1, assigned=mine).resync, "a new server does not know what it could run"
    assert site.levels(N1, level(UP, 1, 1)).assign == {N1}


def test_the_highest_generation_is_right_whoever_has_it() -> None:
    site = Site()
    entry = site.report(N3, UP, 4)
    assert not entry.refused
    assert (site.row.host, site.row.generation) == (N3, 4)
    (event,) = [draft.event for draft in entry.events if isinstance(draft.event, GuestFound)]
    assert event == GuestFound(G, BLUE, N1, N3, 4), "and it is written down"
    assert "GuestFound" not in kinds(site.report(N3, UP, 4))


@pytest.mark.parametrize("generation", [4, 2**63 - 1])
@pytest.mark.parametrize("known", [True, False])
def test_nonsense_about_a_later_assignment_is_refused(generation: int, known: bool) -> None:
    site = Site()
    before = site.row
    if not known:
        site.world.topology.resources.pop(G)
        site.world.topology._on_host[N1].clear()
    if generation == 4:
        site.world.topology.hear_offers(N3, ())
    for entry in (site.report(N3, UP, generation), site.levels_without_offers(N3, level(UP, 1, generation))):
        assert entry.refused and not entry.events
    assert site.world.topology.resources.get(G) == (before if known else None)


@pytest.mark.parametrize("state", [UP, DOWN, STOPPED])
def test_an_old_database_learns_from_pictures_whatever_the_numbers_of_its_old_host_were(
    state: ResourceState,
) -> None:
    site = Site()
    site.world.topology.resources[G] = replace(site.row, seq=500)
    site.seqs[N2] = 20
    nodes = site.world.topology.nodes
    nodes[N2] = replace(nodes[N2], acked_seq=20)
    site.levels(N2, level(state, 20, 2))
    assert (site.row.host, site.row.generation, site.row.state, site.row.seq) == (N2, 2, state, 20)
    assert site.world.topology.assignment(N1) == {}
    site.levels(N1, level(UP, 500, 1))
    assert site.row.host == N2


def test_a_picture_in_parts_tells_of_later_assignments_too() -> None:
    site = Site()
    site.world.topology.offers.pop(N2)
    for part, (known, offers) in enumerate([((), (OFFER,)), ((level(UP, 0, 2),), ())], 1):
        entry = site.entry()
        entry.levels(Levels(N2, "b-n2", "i1", 0, known, 0, offers, part, 2))
        assert not site.settled(entry).refused
    assert (site.row.host, site.row.generation) == (N2, 2)
    assert site.world.topology.offered[N2] == OFFERS


def test_who_has_not_told_everything_in_this_term_is_waited_for() -> None:
    site = Site()
    pictures, topology = site.world.pictures, site.world.topology
    assert pictures.awaited(topology, ()) == []
    assert pictures.awaited(topology, [HostId("n9")]) == ["n9"]
    pictures.whole.clear()
    assert pictures.awaited(topology, ()) == [N1, N2, N3]
    site.levels(N1, level(UP, 1, 1))
    site.seqs[N2] = 3
    site.levels(N2, level(UP, 3, 2))
    assert pictures.awaited(topology, ()) == [N2, N3], "what n2 saw last is still on its way"
    site.die(N3)
    nodes = topology.nodes
    nodes[N2] = replace(nodes[N2], acked_seq=3)
    assert pictures.awaited(topology, [N3]) == []


def test_one_that_is_fixed_again_goes_on_with_its_generation() -> None:
    site = Site()
    site.report(N1, DOWN, 0)
    assert (site.row.state, site.row.generation) == (DOWN, 1)


def test_acts_that_the_dead_host_had_begun_are_closed() -> None:
    site = Site()
    site.report(N1, DOWN, 1, Intent("g-1", "restart", 5.0, "it died"))
    assert "g-1" in site.world.topology.actions
    site.die(N1)
    entry = site.place(MOVE)
    assert kinds(entry) == ["GuestMoved", "ActionFinished"]
    finished = entry.events[1].event
    assert isinstance(finished, ActionFinished)
    assert (finished.action, finished.outcome) == ("g-1", "unknown")
    assert not [each for each in site.world.topology.actions.values() if each.verb == "restart"]
    assert "resource/g" not in site.world.faults, "it ended with its host: two hosts have two clocks"


@pytest.mark.seed("order what fails on its new host is a fault of its own")
def test_a_moved_guest_that_fails_is_a_fault_of_its_own_and_the_host_keeps_its_list() -> None:
    site = Site()
    site.die(N1)
    site.place(MOVE)
    entry = site.report(N2, DOWN, 2)
    assert [(each.fault.kind, each.fault.about) for each in entry.tellings] == [
        (FaultKind.RESOURCE_DOWN, "resource/g")
    ]
    fault = site.world.faults["node/n1"]
    assert [each.subject for each in read(fault.affected)] == ["resource/g"]
    site.beat(N1, "i2")
    tick = site.entry()
    tick.tick()
    assert [each.fault.kind for each in tick.tellings] == [FaultKind.HOST_DOWN], "n1 does not wait for it"


def test_a_guest_moves_on_when_its_new_host_dies_too() -> None:
    site = Site()
    site.die(N1)
    site.place(MOVE)
    site.die(N2)
    entry = site.place(Assignment(OFFER, N3, 3, N2))
    assert kinds(entry) == ["GuestMoved"]
    assert (site.row.host, site.row.generation) == (N3, 3)
    site.beat(N1, "i2")
    site.die(N3)
    event = site.place(Assignment(OFFER, N1, 4, N3)).events[0].event
    assert isinstance(event, GuestMoved) and (event.host, event.generation) == (N1, 4)
    assert site.report(N1, DOWN, 1).refused, "what it said in its first time there is still of the past"


def test_one_that_was_fixed_is_assigned_where_it_is_and_nothing_is_started() -> None:
    site = Site()
    site.world.topology.resources[G] = replace(site.row, generation=0)
    before = site.row
    entry = site.place(Assignment(OFFER, N1, 1))
    assert kinds(entry) == ["GuestAssigned"]
    assert site.row == replace(before, generation=1)


def test_one_that_can_go_nowhere_is_written_down() -> None:
    site = Site()
    site.die(N1)
    entry = site.entry()
    entry.placed(Placement((), (Stranded(G, BLUE, N1, "no_host", "no host is ready"),)))
    assert isinstance(site.settled(entry).events[0].event, GuestStranded)
    assert site.row.host == N1


def look(site: Site, *, after_s: int = 0) -> Entry:
    site.now_s += after_s
    entry = site.entry()
    entry.look_after(60.0)
    return site.settled(entry)


def test_a_start_that_takes_too_long_is_a_fault_until_the_guest_is_up() -> None:
    site = Site()
    site.die(N1)
    site.place(MOVE)
    assert not look(site).tellings
    assert not look(site, after_s=30).tellings
    (telling,) = look(site, after_s=60).tellings
    assert (telling.fault.kind, telling.fault.about, telling.fault.host) == (
        FaultKind.RESOURCE_DOWN,
        "resource/g",
        N2,
    )
    assert telling.fault.reason.startswith("n2 has not started it within 60 s")
    assert not look(site, after_s=60).tellings, "once"
    site.report(N2, UP, 2)
    tick = site.entry()
    tick.tick()
    assert [(each.fault.about, each.transition) for each in tick.tellings] == [("resource/g", "cleared")]


def test_a_guest_of_a_lost_host_is_left_to_the_fault_of_that_host() -> None:
    site = Site()
    site.world.topology.resources[G] = replace(site.row, state=STARTING)
    look(site)
    site.die(N1)
    assert not look(site, after_s=100).tellings


def test_one_that_its_host_is_not_to_run_any_more_is_a_fault_and_moves_only_when_it_stopped() -> None:
    site = Site()
    site.world.topology.hear_offers(N1, ())
    (telling,) = look(site).tellings
    assert "is not configured to run it any more" in telling.fault.reason
    site.report(N1, ResourceState.UNKNOWN, 1)
    assert not site.place(MOVE).events, "it may run there"
    site.report(N1, STOPPED, 1)
    entry = site.place(MOVE)
    assert kinds(entry) == ["GuestMoved"] and entry.events[0].cause is None
    assert site.row.host == N2 and site.row.reason.endswith("n1 stopped it and is not to run it any more")
