"""Guests that change hosts: what a decision makes of the rows, and whose word counts afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
from entry_parts import PlayedEntry

from homeostat.contracts.events.resources import ActionFinished, GuestFound, GuestMoved, GuestStranded
from homeostat.contracts.nouns import FaultKind, HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import (
    Candidate,
    Heartbeat,
    Intent,
    Observations,
    Outcome,
    ResourceStatus,
    ResourceTransition,
    Snapshot,
    assigned_digest,
    candidates_digest,
    digest,
)
from homeostat.faults.model import decode_affected
from homeostat.faults.node_claims import AHEAD_MAX, refusal
from homeostat.fleet.fencing import FenceAttempt, FenceOutcome
from homeostat.fleet.model import Resource
from homeostat.fleet.placements import Assignment, Placement, Stranded
from homeostat.fleet.settings import NodeOwners
from homeostat.fleet.suspicion import Death
from homeostat.ingest.entry import IngestState
from homeostat.kernel.journal import EventIndex, Seq
from set_clock import node_mono, server_mono, wall

N1, N2, N3 = HostId("n1"), HostId("n2"), HostId("n3")
G, BLUE = ResourceId("g"), Owner("blue")
UP, DOWN, STARTING, STOPPED = (
    ResourceState.UP,
    ResourceState.DOWN,
    ResourceState.STARTING,
    ResourceState.STOPPED,
)
OFFER = Candidate(G, ResourceKind.GUEST, BLUE, "ocf:x:y", "n1")
OFFERS = candidates_digest([OFFER])


def level(state: ResourceState, seq: int, generation: int) -> ResourceStatus:
    return ResourceStatus(
        G, ResourceKind.GUEST, BLUE, "ocf:x:y", state, "because", wall(seq), seq, None, generation
    )


@pytest.mark.parametrize(("ahead", "may"), [(1, True), (AHEAD_MAX, True), (AHEAD_MAX + 1, False)])
def test_a_node_may_know_of_so_many_moves_that_a_database_does_not(ahead: int, may: bool) -> None:
    site = Site()
    site.nobody_has_spoken()
    site.die(N1, fenced=False)
    assert (refusal(site.world, N2, level(UP, 1, 1 + ahead), NodeOwners()) is None) is may


class Site:
    """Three hosts that offer one guest, which is on n1."""

    def __init__(self, owners: NodeOwners | None = None) -> None:
        self.world, self.now_s, self.owners = IngestState(), 0.0, owners
        self.seqs = {N1: 0, N2: 0, N3: 0}
        for host in (N1, N2, N3):
            self.beat(host)
            self.levels(host)
        self.place(Assignment(OFFER, N1, 1))
        self.report(N1, UP, 1)

    def entry(self) -> PlayedEntry:
        return self.entry_after(10)

    def entry_after(self, seconds: float) -> PlayedEntry:
        self.now_s += seconds
        return PlayedEntry(self.world, wall(self.now_s), server_mono(self.now_s), owners=self.owners)

    def nobody_has_spoken(self) -> None:
        """The tables were read this moment, by a server that has heard nothing since."""
        self.world.pictures.whole.clear()

    def tick(self) -> PlayedEntry:
        entry = self.entry()
        entry.tick()
        return self.settled(entry)

    def silence(self, host: HostId) -> PlayedEntry:
        entry = self.entry()
        entry.silence(host, 4.0)
        return self.settled(entry)

    def settled(self, entry: PlayedEntry) -> PlayedEntry:
        first = round(1000 * self.now_s)
        self.world.settle([Seq(first + number) for number in range(len(entry.events))])
        for index, draft in enumerate(entry.events):
            assert not isinstance(draft.cause, EventIndex) or draft.cause.index < index
        return entry

    def beat(
        self, host: HostId, incarnation: str = "i1", assigned: str = "", said: str | None = None
    ) -> PlayedEntry:
        entry = self.entry()
        known = self.world.topology.digest(host) if said is None else said
        entry.heartbeat(
            Heartbeat(host, f"b-{host}", incarnation, self.seqs[host], known, 0, OFFERS, assigned)
        )
        return self.settled(entry)

    def levels(self, host: HostId, *known: ResourceStatus) -> PlayedEntry:
        entry = self.entry()
        entry.levels(Snapshot(host, f"b-{host}", "i1", self.seqs[host], known, 0, (OFFER,)))
        return self.settled(entry)

    def levels_without_offers(self, host: HostId, *known: ResourceStatus) -> PlayedEntry:
        entry = self.entry()
        entry.levels(Snapshot(host, f"b-{host}", "i1", self.seqs[host], known, 0, (), 1, 2))
        return self.settled(entry)

    def report(
        self, host: HostId, state: ResourceState, generation: int, intended: Intent | None = None
    ) -> PlayedEntry:
        entry = self.entry()
        self.seqs[host] += 1
        told = level(state, self.seqs[host], generation)
        entry.observations(
            Observations(
                host,
                f"b-{host}",
                node_mono(10**6),
                0,
                (ResourceTransition(told, node_mono(told.seq), intended),),
            ),
            entry.mono_ns,
        )
        return self.settled(entry)

    def place(self, *assigned: Assignment) -> PlayedEntry:
        entry = self.entry()
        entry.placed(Placement(assigned))
        return self.settled(entry)

    def die(self, host: HostId, *, fenced: bool = True) -> None:
        entry = self.entry()
        entry.host_down(host, Death("silent", entry.wall_ns, entry.mono_ns))
        self.settled(entry)
        if fenced:
            entry = self.entry()
            entry.fence_intended(FenceAttempt(host, f"fence-{self.now_s:g}", 30, "down"))
            self.settled(entry)
            entry = self.entry()
            entry.fence_ended(
                host, FenceOutcome(f"fence-{self.now_s - 10:g}", "command", Outcome.OK, 5.0, "off")
            )
            self.settled(entry)

    @property
    def row(self) -> Resource:
        return self.world.topology.resources[G]


def kinds(entry: PlayedEntry) -> list[str]:
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
@pytest.mark.parametrize(
    "how",
    ["lives", "not fenced", "is back", "target is dead", "is elsewhere already", "another generation"],
)
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
        case "another generation":  # decided before it moved away and back again
            site.die(N1)
            move = Assignment(OFFER, N2, 3, N1)
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


def test_a_database_that_is_older_learns_of_later_assignments_from_the_nodes() -> None:
    """It has been restored, and the host that its row names says nothing."""
    site = Site()
    site.nobody_has_spoken()
    site.silence(N1)
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
        assert entry.refused and "GuestFound" not in kinds(entry)
    assert site.world.topology.resources.get(G) == (before if known else None)
    assert ("assignment/n3" in site.world.faults) is known, "n1 runs it, and somebody else says so of itself"


@pytest.mark.parametrize("state", [UP, DOWN, STOPPED])
def test_an_old_database_learns_from_pictures_whatever_the_numbers_of_its_old_host_were(
    state: ResourceState,
) -> None:
    site = Site()
    site.world.topology.resources[G] = replace(site.row, seq=500)
    site.nobody_has_spoken()
    site.silence(N1)
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
    site.nobody_has_spoken()
    site.silence(N1)
    site.world.topology.offers.pop(N2)
    for part, (known, offers) in enumerate([((), (OFFER,)), ((level(UP, 0, 2),), ())], 1):
        entry = site.entry()
        entry.levels(Snapshot(N2, "b-n2", "i1", 0, known, 0, offers, part, 2))
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
    assert [each.subject for each in decode_affected(fault.affected)] == ["resource/g"]
    site.beat(N1, "i2")
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


def look(site: Site, *, after_s: int = 0) -> PlayedEntry:
    site.now_s += after_s
    entry = site.entry()
    entry.look_after()
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


def test_a_start_on_the_next_host_has_its_own_time() -> None:
    site = Site()
    site.die(N1)
    site.place(MOVE)
    assert not look(site).tellings
    site.die(N2)
    site.place(Assignment(OFFER, N3, 3, N2))
    assert not look(site, after_s=30).tellings, "n3 has only just been told"
    assert not look(site, after_s=30).tellings
    (telling,) = look(site, after_s=30).tellings
    assert telling.fault.reason.startswith("n3 has not started it within 60 s")


def test_a_guest_that_is_assigned_is_not_assigned_for_the_first_time_again() -> None:
    site = Site()
    before = site.row
    assert not site.place(Assignment(OFFER, N2, 1)).events
    assert site.row == before


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


def test_a_guest_that_stopped_with_its_node_process_suffers_from_the_death_of_its_host_and_moves() -> None:
    """A host that is shut down in order stops its guests first: that is no wish to have them stopped."""
    site = Site()
    site.report(N1, STOPPED, 1)
    site.die(N1)
    fault = site.world.faults["node/n1"]
    assert [each.subject for each in decode_affected(fault.affected)] == ["resource/g"]
    assert kinds(site.place(MOVE)) == ["GuestMoved"]
