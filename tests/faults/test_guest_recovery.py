"""Guests that run again elsewhere: their tenants hear it at once, each with its true outage; the host stays
down."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from homeostat.contracts.events.faults import GuestRecovered
from homeostat.contracts.faults import Fault, FaultState
from homeostat.contracts.nouns import FaultKind, HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import ResourceTransition
from homeostat.faults.hosts import on_host_down
from homeostat.faults.inspection import on_tick, on_transition
from homeostat.faults.notice_bridge import picture_of
from homeostat.fleet.model import AgentState, Node, Resource
from homeostat.fleet.suspicion import Death
from homeostat.ingest.entry import Decision, IngestState, Moment
from homeostat.ingest.watches import AgentLife
from homeostat.kernel.journal import Seq
from homeostat.notices.content import RenderContext
from homeostat.notices.formats import render
from homeostat.notices.matching import MatchReason, decide_raised
from homeostat.notices.model import NoticeFormat, NoticeTransition
from notices_parts import subscription
from set_clock import node_mono, server_mono, wall

UP, DOWN, STARTING = ResourceState.UP, ResourceState.DOWN, ResourceState.STARTING
N1, N2, N3 = HostId("n1"), HostId("n2"), HostId("n3")
OWNERS = {"a": "blue", "b": "blue", "c": "green", "fixed": "blue"}
WAIT_S = 5.0


def row(name: str, host: str, state: ResourceState, generation: int) -> Resource:
    return Resource(
        id=ResourceId(name),
        host=HostId(host),
        kind=ResourceKind.GUEST,
        owner=Owner(OWNERS[name]),
        agent="ocf:x:y",
        state=state,
        reason="because",
        since_ns=wall(1),
        seq=1,
        generation=generation,
    )


class Site:
    """n1 with guests of two projects; it dies at second 10, heard last at 9, and is fenced at 10.5.

    Its runner last saw all of them at `seen_s`, None: nobody knows.
    """

    def __init__(self, *guests: str, seen_s: float | None = 8.9, **down: float) -> None:
        """`down`: guests that were last right at this second, and have been down since."""
        self.world = IngestState()
        self.world.lives = {N1: AgentLife("i", server_mono(9), offset_ns=server_mono(0) - node_mono(0))}
        nodes = [Node(host, "b", "i", 1, AgentState.PRESENT, 0) for host in (N1, N2, N3)]
        self.world.topology.adopt(nodes, [row(each, "n1", UP, int(each != "fixed")) for each in guests])
        for name, good_s in down.items():
            self.reports(good_s + 0.1, name, "n1", DOWN, good_s)
        if seen_s is not None:
            self.world.seen_ns[N1] = server_mono(seen_s)
        now = Moment(wall(10), server_mono(10), 0.5, 0)
        self.take(
            on_host_down(self.world, N1, Death("dead", wall(9.5), server_mono(9.5), server_mono(9)), now)
        )
        node = self.world.topology.nodes[N1]
        self.world.adopt(Decision(nodes=[replace(node, fenced="it is off", fenced_ns=wall(10.5))]))
        self.tick(10.5)

    def reports(self, at_s: float, name: str, host: str, state: ResourceState, before_s: float) -> Decision:
        """Its node saw it so at this second, and otherwise last at that one; the server hears it 0.3 s later,
        and its tick with it."""
        known = row(name, host, state, int(host == "n1") or 2)
        seen = ResourceTransition(
            replace(known.to_level(state, "because", wall(at_s)), seq=2),
            node_mono(at_s),
            before_mono_ns=node_mono(before_s),
        )
        self.take(on_transition(self.world, HostId(host), "b", (seen, server_mono(at_s + 0.3)), (0, 0.5)))
        return self.tick(at_s + 0.3)

    def take(self, decision: Decision) -> Decision:
        self.world.adopt(decision)
        self.world.settle([Seq(100 + number) for number in range(len(decision.events))])
        return decision

    def is_now(self, at_s: float, name: str, host: str, state: ResourceState) -> Decision:
        self.world.adopt(Decision(resources=[replace(row(name, host, state, 2), since_ns=wall(at_s))]))
        return self.tick(at_s)

    def tick(self, at_s: float) -> Decision:
        return self.take(on_tick(self.world, server_mono(at_s), wall(at_s), 0, WAIT_S))

    @property
    def fault(self) -> Fault:
        return self.world.faults["node/n1"]


def told(decision: Decision) -> list[tuple[str, str | None, int]]:
    return [(each.transition, each.project, each.part) for each in decision.tellings]


def test_a_project_hears_once_when_the_last_of_its_guests_is_back() -> None:
    site = Site("a", "b", "c", "fixed")
    site.is_now(11, "a", "n2", STARTING)
    site.is_now(11, "b", "n3", STARTING)
    assert not site.is_now(12, "a", "n2", UP).tellings, "b is awaited"
    back = site.is_now(13, "b", "n3", UP)
    assert told(back) == [("recovered", "blue", 1)]
    found = {each.event.guest: each.event for each in back.events if isinstance(each.event, GuestRecovered)}
    assert {name: (each.host, each.owner) for name, each in found.items()} == {
        "a": ("n2", "blue"),
        "b": ("n3", "blue"),
    }
    assert (found["a"].outage_lower_ms, found["a"].outage_upper_ms) == (500.0, 3100.0)
    assert (found["b"].outage_lower_ms, found["b"].outage_upper_ms) == (500.0, 4100.0)
    assert site.fault.state is FaultState.OPEN, "the host is as dead as before"
    assert not site.tick(60).tellings, "once"


def test_one_that_never_comes_back_does_not_hide_the_others() -> None:
    site = Site("a", "b")
    site.is_now(11, "b", "n3", STARTING)
    assert not site.is_now(12, "a", "n2", UP).tellings
    assert not site.tick(16.9).tellings
    late = site.tick(17)
    assert told(late) == [("recovered", "blue", 1)]
    assert set(json.loads(late.tellings[0].fault.restored)) == {"a"}
    assert told(site.is_now(90, "b", "n3", UP)) == [("recovered", "blue", 2)], "with a key of its own"


def test_a_guest_that_is_placed_nowhere_is_not_told_as_back() -> None:
    site = Site("a", "c")
    site.is_now(11, "c", "n2", UP)
    assert not site.tick(60).tellings
    assert "a" not in json.loads(site.fault.restored)


def test_one_that_fails_again_before_it_is_told_is_not_told() -> None:
    site = Site("a", "b")
    site.is_now(11, "a", "n2", UP)
    site.is_now(12, "a", "n2", DOWN)
    assert not site.tick(60).tellings
    again = site.is_now(61, "a", "n2", UP)
    assert not again.tellings, "b is awaited"
    assert told(site.tick(66)) == [("recovered", "blue", 1)]


def test_the_next_leader_goes_on_and_knows_less_of_the_end() -> None:
    site = Site("a")
    site.is_now(11, "a", "n2", STARTING)
    site.world.watched_guests.clear()
    (event,) = (each.event for each in site.is_now(13, "a", "n2", UP).events)
    assert isinstance(event, GuestRecovered)
    assert (event.outage_lower_ms, event.outage_upper_ms) == (0.0, None)


def bounds(decision: Decision) -> tuple[float | None, float | None]:
    (event,) = (each.event for each in decision.events if isinstance(each.event, GuestRecovered))
    return event.outage_lower_ms, event.outage_upper_ms


@pytest.mark.seed("order each outage's bounds hold the truth: a guest's are from evidence of the guest")
def test_an_outage_begins_when_the_guest_was_last_seen_and_not_when_its_host_was() -> None:
    """A host's address and its node process may outlive the guests: 20 of 137 outages were said too short."""
    site = Site("a", seen_s=7.5)
    assert bounds(site.is_now(12, "a", "n2", UP))[1] == 4500.0


def test_a_guest_may_run_on_until_its_host_is_fenced_and_is_gone_until_its_start_elsewhere() -> None:
    site = Site("a")
    site.is_now(10.6, "a", "n2", STARTING)
    site.world.lives = {N2: AgentLife("i", server_mono(11), offset_ns=server_mono(0) - node_mono(0))}
    lower_ms, upper_ms = bounds(site.reports(12, "a", "n2", UP, 11.5))
    assert lower_ms == pytest.approx(1000), "from 10.5, the receipt, to 11.5, the start"
    assert upper_ms == pytest.approx(3400), "from 8.9, when it was seen, to 12.3, by when it was reported"


def test_one_that_was_down_before_its_host_died_was_right_when_its_own_fault_says_so() -> None:
    site = Site("a", a=6.0)
    assert bounds(site.is_now(12, "a", "n2", UP))[1] == pytest.approx(6000)


def test_nobody_knows_the_longest_outage_of_a_guest_that_nobody_saw() -> None:
    site = Site("a", seen_s=None)
    site.is_now(11, "a", "n2", STARTING)
    assert bounds(site.is_now(12, "a", "n2", UP)) == (500.0, None)


def body(fault: Fault, shape: NoticeFormat, transition: str, owner: str = "blue", part: int = 0) -> dict:  # type: ignore[type-arg]
    frame = RenderContext("s", "s", Owner(owner), 10**6, "", part)
    return json.loads(render(shape, frame, picture_of(fault), NoticeTransition(transition)))  # type: ignore[no-any-return]


def traits(said: dict) -> dict[str, object]:  # type: ignore[type-arg]
    return {name: value for name, _, value in said["reason_data"]["event"]["traits"]}


@pytest.mark.seed("002 1.2: the consumer hears which of its resources are concerned")
def test_all_formats_agree_about_who_is_back() -> None:
    site = Site("a", "b", "c")
    site.is_now(11, "b", "n3", STARTING)
    site.is_now(12, "a", "n2", UP)
    site.tick(17)
    ours = body(site.fault, NoticeFormat.JSON, "recovered", part=1)
    assert ours["notice"] == f"s:{site.fault.id}:recovered"
    assert [(each["subject"], each["host"]) for each in ours["fault"]["recovered"]] == [("resource/a", "n2")]
    assert ours["fault"]["recovered"][0]["outage_upper_ms"] == 3100.0
    assert ours["fault"]["still_affected"] == ["resource/b"]
    assert "cleared_at" not in ours["fault"]
    doctor = body(site.fault, NoticeFormat.DOCTOR, "recovered", part=1)
    assert (traits(doctor)["state"], traits(doctor)["instance_ids"]) == ("active", '["a"]')
    assert doctor["current"] == "alarm", "b is still down"
    alerts = body(site.fault, NoticeFormat.ALERTMANAGER, "recovered", part=1)
    states = {each["labels"]["about"]: each["status"] for each in alerts["alerts"]}
    assert states == {"node/n1": "firing", "resource/a": "resolved", "resource/b": "firing"}
    first = json.dumps(ours)
    site.is_now(30, "b", "n3", UP)
    assert json.dumps(body(site.fault, NoticeFormat.JSON, "recovered", part=1)) == first, "the same for ever"
    rest = body(site.fault, NoticeFormat.DOCTOR, "recovered", part=2)
    assert (rest["current"], traits(rest)["instance_ids"]) == ("ok", '["b"]')
    assert body(site.fault, NoticeFormat.ALERTMANAGER, "recovered", part=2)["status"] == "resolved"
    assert picture_of(site.fault).is_recovered(Owner("blue"))
    assert not picture_of(site.fault).is_recovered(Owner("green"))


def test_the_end_of_the_host_is_no_word_about_guests_that_run_elsewhere() -> None:
    """One of them may have failed there meanwhile, which its own fault says."""
    site = Site("a", "c")
    site.is_now(12, "a", "n2", UP)
    over = replace(site.fault, cleared_ns=wall(60), kind=FaultKind.HOST_DOWN)
    said = traits(body(over, NoticeFormat.DOCTOR, "cleared", owner="infrastructure"))
    assert (said["state"], said["instance_ids"]) == ("active", '["c"]')
    raised = traits(body(over, NoticeFormat.DOCTOR, "raised", owner="blue"))
    assert raised["state"] == "error", "what was told first stays as it was"


def test_who_is_all_right_again_is_not_told_late_that_it_was_not() -> None:
    """A silence ends, or a subscription is made, after its guests run elsewhere is late for it."""
    site = Site("a", "b", "c")
    site.is_now(12, "a", "n2", UP)
    blue, green, staff = (subscription(owner=owner) for owner in ("blue", "green", "infrastructure"))
    assert decide_raised(blue, picture_of(site.fault), 0) is MatchReason.AFFECTED, "b is still away"
    site.is_now(13, "b", "n2", UP)
    now = picture_of(site.fault)
    assert [decide_raised(each, now, 0) for each in (blue, green, staff)] == [
        MatchReason.RECOVERED,
        MatchReason.AFFECTED,
        MatchReason.OWNER,
    ]
