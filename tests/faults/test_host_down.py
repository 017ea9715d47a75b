"""A dead host: one fault with everybody affected, nothing beside it, and its way back."""

from __future__ import annotations

import pytest
from entry_parts import PlayedEntry

from homeostat.contracts.events.fleet import (
    AgentLost,
    EvidenceBack,
    EvidenceLost,
    HostBack,
    HostDown,
    HostFenced,
)
from homeostat.contracts.nouns import FaultKind, HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import (
    Goodbye,
    Heartbeat,
    Observations,
    Outcome,
    ResourceStatus,
    ResourceTransition,
    digest,
)
from homeostat.faults.model import NO_AFFECTED, decode_affected, encode_affected
from homeostat.faults.notice_bridge import picture_of
from homeostat.faults.server import detected_ns
from homeostat.faults.what_if import exposure
from homeostat.fleet.fencing import FenceAttempt, FenceOutcome
from homeostat.fleet.model import AgentState
from homeostat.fleet.suspicion import Death
from homeostat.ingest.entry import IngestState
from homeostat.ingest.inbox import expected_nodes
from homeostat.kernel.journal import EventIndex, Seq
from homeostat.notices.content import RenderContext
from homeostat.notices.formats import render
from homeostat.notices.matching import recipients
from homeostat.notices.model import Endpoint, NoticeFormat, Subscription
from homeostat.notices.model import NoticeTransition as Told
from set_clock import SECOND, node_mono, server_mono, wall

N1 = HostId("n1")
UP, DOWN, STARTING = ResourceState.UP, ResourceState.DOWN, ResourceState.STARTING
GUESTS = {"a": "blue", "b": "green", "c": "blue"}


def level(name: str, seq: int, state: ResourceState) -> ResourceStatus:
    return ResourceStatus(
        ResourceId(name),
        ResourceKind.GUEST,
        Owner(GUESTS[name]),
        "ocf:x:y",
        state,
        "because",
        wall(seq),
        seq,
    )


class Story:
    """A world and what happens to it, at seconds of one clock."""

    def __init__(self) -> None:
        self.world, self.seq = IngestState(), 0
        self.beat(1, "i1")
        self.report(1, *(("a", UP), ("b", UP), ("c", UP)))

    def entry(self, at_s: float) -> PlayedEntry:
        return PlayedEntry(self.world, wall(at_s), server_mono(at_s))

    def settled(self, entry: PlayedEntry) -> PlayedEntry:
        first = 1000 * (1 + round((entry.wall_ns - wall(0)) / SECOND))
        self.world.settle([Seq(first + number) for number in range(len(entry.events))])
        for index, draft in enumerate(entry.events):
            if isinstance(draft.cause, EventIndex):
                assert draft.cause.index < index, "a cause comes first"
        return entry

    def beat(self, at_s: float, incarnation: str, *, looked: bool | None = True) -> PlayedEntry:
        """What the node last reported is what it says now."""
        entry = self.entry(at_s)
        rows = self.world.topology.resources.values()
        states = digest({row.id: row.state for row in rows})
        entry.heartbeat(Heartbeat(N1, "b1", incarnation, self.seq, states, looked=looked))
        return self.settled(entry)

    def report(self, at_s: float, *states: tuple[str, ResourceState]) -> PlayedEntry:
        entry, transitions = self.entry(at_s), []
        for name, state in states:
            self.seq += 1
            transitions.append(ResourceTransition(level(name, self.seq, state), node_mono(self.seq)))
        entry.observations(Observations(N1, "b1", node_mono(10**6), 0, tuple(transitions)), entry.mono_ns)
        return self.settled(entry)

    def die(self, at_s: float) -> PlayedEntry:
        entry = self.entry(at_s)
        entry.host_down(N1, Death("silent and refusing", wall(at_s - 1), server_mono(at_s - 1)))
        return self.settled(entry)

    def silence(self, at_s: float) -> PlayedEntry:
        entry = self.entry(at_s)
        entry.silence(N1, 4.0)
        return self.settled(entry)

    def tick(self, at_s: float) -> PlayedEntry:
        entry = self.entry(at_s)
        entry.tick()
        return self.settled(entry)


def tellings(entry: PlayedEntry) -> list[tuple[FaultKind, str]]:
    return [(each.fault.kind, each.transition) for each in entry.tellings]


def kinds(entry: PlayedEntry) -> list[str]:
    return [type(draft.event).__name__ for draft in entry.events]


def subscription(name: str, owner: str) -> Subscription:
    return Subscription(name, Owner(owner), (Endpoint(1, "http://x/"),), "s", "k", 0)


EVERYBODY = [subscription(name, name) for name in ("infrastructure", "blue", "green", "red")]


def test_a_dead_host_is_one_fault_with_everybody_affected() -> None:
    story = Story()
    entry = story.die(10)
    assert kinds(entry) == ["HostDown", "FaultRaised"]
    event = entry.events[0].event
    assert isinstance(event, HostDown)
    assert event.seen_ns == wall(9), "stamped with the first failed evidence"
    fault = entry.tellings[0].fault
    assert (fault.kind, fault.about, fault.severity.value) == (FaultKind.HOST_DOWN, "node/n1", "critical")
    hurt = {each.subject: each.owner for each in decode_affected(fault.affected)}
    assert hurt == {f"resource/{name}": owner for name, owner in GUESTS.items()}
    assert not [row for row in story.world.topology.resources.values() if row.state is not UP], "rows stay"
    assert not story.die(11).events, "once"


@pytest.mark.seed("order only the owner of something affected hears of a dead host, with its own list")
def test_each_owner_hears_of_its_own_and_others_nothing() -> None:
    picture = picture_of(Story().die(10).tellings[0].fault)
    assert [each.name for each, _ in recipients(EVERYBODY, picture, 0)] == ["infrastructure", "blue", "green"]
    for name, mine, foreign in (
        ("blue", b"resource/a", b"resource/b"),
        ("green", b"resource/b", b"resource/a"),
    ):
        body = render(NoticeFormat.JSON, RenderContext(name, name, Owner(name), 10**6), picture, Told.RAISED)
        assert mine in body
        assert foreign not in body


def test_how_the_host_is_looked_at_is_for_administrators_only() -> None:
    entry = Story().die(10)
    assert isinstance(entry.events[0].event, HostDown)
    assert entry.events[0].event.reason == "silent and refusing"
    fault, raised = entry.tellings[0].fault, entry.events[1].event
    assert (fault.raised_ns, detected_ns(entry.tellings[0])) == (wall(9), wall(10))
    assert fault.reason == "its node process is silent and outside probes fail"
    body = render(
        NoticeFormat.JSON, RenderContext("x", "x", Owner("blue"), 10**6), picture_of(fault), Told.RAISED
    )
    assert "refusing" not in repr(raised)
    assert b"refusing" not in body


def test_whoever_heard_it_raised_hears_it_cleared() -> None:
    picture = picture_of(Story().die(10).tellings[0].fault)
    heard = ["blue", "red"]
    assert [each.name for each, _ in recipients(EVERYBODY, picture, 0, heard)] == ["blue"]


def test_what_if_is_what_happens() -> None:
    story = Story()
    foreseen = exposure(story.world.topology, N1, EVERYBODY, 0)
    assert not story.world.faults
    picture = picture_of(story.die(10).tellings[0].fault)
    assert [row.id for row in foreseen.resources] == ["a", "b", "c"]
    raised = [each for each in foreseen.notices if each.transition is Told.RAISED]
    assert [each.subscription for each in raised] == [
        each.name for each, _ in recipients(EVERYBODY, picture, 0)
    ]
    assert dict((each.subscription, each.affected) for each in raised)["blue"] == ("resource/a", "resource/c")
    assert len(foreseen.notices) == 2 * len(raised)


def test_a_lost_agent_becomes_a_dead_host_and_never_the_other_way_round() -> None:
    story = Story()
    assert tellings(story.silence(5)) == [(FaultKind.AGENT_LOST, "raised")]
    assert tellings(story.die(10)) == [(FaultKind.HOST_DOWN, "raised"), (FaultKind.AGENT_LOST, "superseded")]
    assert not story.silence(12).events
    assert [fault.kind for fault in story.world.faults.values()] == [FaultKind.HOST_DOWN]


@pytest.mark.seed("order what fails because its host died is told with the host")
def test_the_host_comes_back_and_its_guests_are_the_same_story() -> None:
    story = Story()
    story.die(10)
    back = story.beat(20, "i2", looked=False)
    assert kinds(back) == ["HostBack"]
    node = story.world.topology.nodes[N1]
    assert (node.agent, node.down_ns, node.incarnation) == (AgentState.PRESENT, None, "i2")
    assert not story.report(21, ("a", DOWN), ("b", DOWN), ("c", DOWN)).tellings
    story.report(22, ("a", UP), ("b", STARTING))
    assert not story.tick(24).tellings, "b and c are still being started"
    story.report(25, ("b", UP), ("c", UP))
    assert not story.tick(26).tellings, "its node has not looked at everything yet"
    story.beat(26, "i2")
    over = story.tick(27)
    assert tellings(over) == [(FaultKind.HOST_DOWN, "cleared")]
    assert over.tellings[0].fault.outage_ms is None, "nobody knows when it was seen alive last"
    assert over.tellings[0].fault.outage_lower_ms == 0
    assert not story.world.faults


def test_what_stays_down_when_the_host_is_back_becomes_a_fault_of_its_own() -> None:
    story = Story()
    story.die(10)
    story.beat(20, "i2")
    story.report(21, ("a", DOWN), ("b", UP), ("c", UP))
    assert not story.tick(50).tellings
    story.beat(54, "i2")
    over = story.tick(54)
    assert tellings(over) == [(FaultKind.RESOURCE_DOWN, "raised"), (FaultKind.HOST_DOWN, "cleared")]
    assert set(story.world.faults) == {"resource/a"}


def test_an_agent_that_dies_again_before_its_host_is_told_as_back_belongs_to_the_fault_of_the_host() -> None:
    story = Story()
    story.die(10)
    story.beat(20, "i2")
    silent = story.silence(22)
    assert kinds(silent) == ["AgentLost"]
    assert not silent.tellings
    assert [fault.kind for fault in story.world.faults.values()] == [FaultKind.HOST_DOWN]


def test_a_host_that_dies_again_before_its_fault_is_cleared_goes_on_with_the_same_one() -> None:
    story = Story()
    first = story.die(10).tellings[0].fault.id
    story.beat(20, "i2")
    again = story.die(22)
    assert kinds(again) == ["HostDown"]
    assert story.world.faults["node/n1"].id == first
    assert story.world.topology.is_down(N1)
    assert kinds(story.beat(30, "i3")) == ["HostBack"]


def test_the_same_incarnation_may_be_lost_twice() -> None:
    story, seen = Story(), []
    for start in (10, 20):
        lost = story.silence(start)
        assert any(isinstance(draft.event, AgentLost) for draft in lost.events)
        seen.append(lost.tellings[0].fault.id)
        story.beat(start + 2, "i1")
        assert tellings(story.tick(start + 5)) == [(FaultKind.AGENT_LOST, "cleared")]
    assert seen[0] != seen[1]


def test_every_return_of_a_restart_loop_is_caused_by_the_fault_and_a_fault_is_cleared_once() -> None:
    story, returns, keys = Story(), [], []
    story.die(10)
    for number in range(3):
        for entry in (story.beat(11 + number, f"j{number}"), story.die(11.5 + number)):
            returns += [d.cause for d in entry.events if isinstance(d.event, HostBack)]
            keys += [d.key for d in entry.events if d.key is not None]
    assert len(returns) == 3
    assert all(isinstance(cause, int) for cause in returns), "the true cause, as often as it comes back"
    assert len(keys) == len(set(keys))


@pytest.mark.seed("order intent, act and receipt of fencing are in the journal")
def test_only_a_receipt_makes_a_host_fenced() -> None:
    story = Story()
    fault = story.die(10).tellings[0].fault

    def attempt(number: int, outcome: Outcome) -> PlayedEntry:
        entry = story.entry(11 + number)
        entry.fence_intended(FenceAttempt(N1, f"fence-{number}", 30, "down"))
        story.settled(entry)
        assert f"fence-{number}" in story.world.topology.actions
        entry = story.entry(11.5 + number)
        entry.fence_ended(N1, FenceOutcome(f"fence-{number}", "command", outcome, 5.0, "said"))
        return story.settled(entry)

    assert kinds(attempt(1, Outcome.FAILED)) == ["ActionFinished"]
    assert kinds(attempt(2, Outcome.UNKNOWN)) == ["ActionFinished"]
    assert not story.world.topology.nodes[N1].fenced
    done = attempt(3, Outcome.OK)
    assert kinds(done) == ["ActionFinished", "HostFenced"]
    assert {draft.trace for draft in done.events} == {fault.trace}
    assert story.world.topology.nodes[N1].fenced == "said"
    assert not story.world.topology.actions
    story.beat(20, "i2")
    assert story.world.topology.nodes[N1].fenced == "", "a receipt is for one death"


def test_a_host_that_lives_is_never_fenced_by_a_word() -> None:
    story = Story()
    entry = story.entry(5)
    entry.fenced(N1, "manual", "I pulled the plug")
    assert not any(isinstance(draft.event, HostFenced) for draft in entry.events)
    assert not story.world.topology.nodes[N1].fenced


def test_lost_evidence_is_told_once_and_taken_back() -> None:
    story = Story()

    def evidence(at_s: float, unknown: str) -> PlayedEntry:
        entry = story.entry(at_s)
        entry.evidence(unknown)
        entry.tick()
        return story.settled(entry)

    first = evidence(5, "200 of 300")
    assert isinstance(first.events[0].event, EvidenceLost)
    assert tellings(first) == [(FaultKind.EVIDENCE_LOST, "raised")]
    assert first.tellings[0].fault.owner == "infrastructure"
    assert not evidence(6, "201 of 300").events
    assert isinstance(evidence(7, "").events[0].event, EvidenceBack)
    assert tellings(evidence(8, "")) == [(FaultKind.EVIDENCE_LOST, "cleared")]
    assert not evidence(9, "").events


def test_a_goodbye_is_no_death() -> None:
    story = Story()
    entry = story.entry(5)
    entry.goodbye(Goodbye(N1, "i1"))
    story.settled(entry)
    assert not expected_nodes(story.world.topology)


def test_the_affected_are_the_same_text_whatever_their_order() -> None:
    rows = list(Story().world.topology.resources.values())
    assert (
        encode_affected(rows)
        == encode_affected(reversed(rows))
        == '{"guest":{"blue":["a","c"],"green":["b"]}}'
    )
    assert decode_affected(NO_AFFECTED) == ()


def test_a_host_is_back_only_by_its_agent() -> None:
    story = Story()
    story.die(10)
    assert not story.tick(100).events
    assert story.world.topology.is_down(N1)
    assert any(isinstance(draft.event, HostBack) for draft in story.beat(101, "i1").events)


def test_a_receipt_is_for_the_death_it_was_asked_for() -> None:
    """The host came back and died again while the power switch was still at work."""
    story = Story()
    story.die(10)
    story.beat(20, "i2")
    story.die(22)
    entry = story.entry(23)
    entry.fence_ended(N1, FenceOutcome("fence-n1-1", "switch", Outcome.OK, 9.0, "off", died_ns=wall(9)))
    assert not entry.events
    assert not story.world.topology.nodes[N1].fenced
    entry.fence_ended(N1, FenceOutcome("fence-n1-2", "switch", Outcome.OK, 1.0, "off", died_ns=wall(21)))
    assert kinds(story.settled(entry)) == ["HostFenced"]


def test_a_goodbye_that_was_on_its_way_when_its_host_died_explains_nothing() -> None:
    story = Story()
    story.die(10)
    entry = story.entry(11)
    entry.goodbye(Goodbye(N1, "i1"))
    assert not story.settled(entry).tellings
    assert story.world.topology.is_down(N1) and story.world.faults["node/n1"].up_ns is None


def test_a_goodbye_of_a_host_that_was_down_a_moment_ago_does_not_end_its_fault() -> None:
    story = Story()
    story.die(10)
    story.beat(20, "i2")
    entry = story.entry(21)
    entry.goodbye(Goodbye(N1, "i2"))
    assert not story.settled(entry).tellings
    assert story.world.topology.nodes[N1].agent is AgentState.STOPPED
    assert tellings(story.die(22)) == [], "the same outage goes on"
    assert story.world.faults["node/n1"].up_ns is None
