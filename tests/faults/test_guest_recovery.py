"""Guests that run again elsewhere: their tenants hear it at once, each with its true outage; the host stays
down."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from homeostat.contracts.events.faults import GuestRecovered
from homeostat.contracts.faults import Fault, FaultState
from homeostat.contracts.nouns import FaultKind, HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.faults.hosts import on_host_down
from homeostat.faults.inspection import on_tick
from homeostat.faults.notice_bridge import picture_of
from homeostat.fleet.model import AgentState, Node, Resource
from homeostat.fleet.suspicion import Death
from homeostat.ingest.entry import Decision, IngestState, Moment
from homeostat.kernel.journal import Seq
from homeostat.notices.content import RenderContext
from homeostat.notices.formats import render
from homeostat.notices.matching import MatchReason, decide_raised
from homeostat.notices.model import NoticeFormat, NoticeTransition
from notices_parts import subscription
from set_clock import server_mono, wall

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
    """n1 with guests of two projects; it dies at second 10, heard last at 9."""

    def __init__(self, *guests: str) -> None:
        self.world = IngestState()
        nodes = [Node(host, "b", "i", 1, AgentState.PRESENT, 0) for host in (N1, N2, N3)]
        self.world.topology.adopt(nodes, [row(each, "n1", UP, int(each != "fixed")) for each in guests])
        now = Moment(wall(10), server_mono(10), 0.5, 0)
        self.take(
            on_host_down(self.world, N1, Death("dead", wall(9.5), server_mono(9.5), server_mono(9)), now)
        )

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
    assert (found["a"].outage_lower_ms, found["a"].outage_upper_ms) == (1500.0, 3000.0)
    assert (found["b"].outage_lower_ms, found["b"].outage_upper_ms) == (1500.0, 4000.0)
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
    assert (event.outage_lower_ms, event.outage_upper_ms) == (0.0, 4000.0)


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
    assert ours["fault"]["recovered"][0]["outage_upper_ms"] == 3000.0
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
