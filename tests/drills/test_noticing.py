"""What our own fault manager made of a drill: its faults, when who was told, who acted."""

from __future__ import annotations

import pytest

from homeostat.contracts.events.faults import FaultRaised
from homeostat.contracts.events.fleet import AgentReturned, HostBack
from homeostat.contracts.events.notices import NoticeDelivered
from homeostat.contracts.events.resources import (
    ActionFinished,
    ActionIntended,
    GuestMoved,
    ResourceDown,
    ResourceUp,
)
from homeostat.contracts.nouns import FaultId, FaultKind, HostId, Owner, ResourceId, ResourceKind, Severity
from homeostat.drills.leader.runs import RaisedFault, Restored, reactions_of
from homeostat.kernel.journal import Envelope, Seq

BLUE = Owner("blue")


def told(*events: tuple[str, object], at_ns: int = 5_000_000) -> list[Envelope]:
    return [
        Envelope(Seq(number), type(event).__name__, 1, subject, None, "t", at_ns, "x", {}, event)
        for number, (subject, event) in enumerate(events, start=1)
    ]


def down(name: str, host: str = "n1") -> tuple[str, object]:
    event = ResourceDown(ResourceId(name), HostId(host), ResourceKind.SERVICE, BLUE, "down", "died", 1)
    return f"resource/{name}", event


def up(name: str, host: str = "n1") -> tuple[str, object]:
    return f"resource/{name}", ResourceUp(ResourceId(name), HostId(host), ResourceKind.SERVICE, BLUE, "", 2)


def raised(fault: str, about: str, kind: FaultKind = FaultKind.RESOURCE_DOWN) -> tuple[str, object]:
    event = FaultRaised(FaultId(fault), kind, Severity.MAJOR, about, BLUE, "why", 1)
    return f"fault/{fault}", event


def act(name: str, action: str, outcome: str) -> list[tuple[str, object]]:
    subject = f"resource/{name}"
    return [
        (subject, ActionIntended(action, "restart", "node/n1", 20.0, "died")),
        (subject, ActionFinished(action, outcome, 12.0, "")),
    ]


@pytest.mark.seed("order our own monitors noticed: which faults, and the runner that brought it back")
def test_a_fault_on_the_host_is_ours_and_the_runner_gets_the_credit() -> None:
    delivered = NoticeDelivered("s/2:f-1:raised", "s", 1, offered_ns=1_000_000)
    later = NoticeDelivered("t:f-1:raised", "t", 1, offered_ns=0)
    found = reactions_of(
        told(
            down("web"),
            raised("f-1", "resource/web"),
            *act("web", "a-1", "failed"),
            *act("web", "a-2", "ok"),
            up("web"),
            ("notice/x", delivered),
            ("notice/y", later),
        ),
        ["n1"],
        [],
    )
    assert found.faults == (RaisedFault("f-1", "resource_down", "resource/web", 4.0),), "the first one told"
    assert found.returns == (Restored("web", "the runner on n1 (restart)"),)


def test_what_is_elsewhere_is_not_the_drill_s() -> None:
    events = told(
        down("web", "n2"), raised("f-1", "resource/web"), *act("web", "a-1", "ok"), up("web", "n2"),
        raised("f-2", "node/n2", FaultKind.AGENT_LOST),
    )  # fmt: skip
    assert reactions_of(events, ["n1"], ["db"]) == reactions_of([], [], [])
    assert [each.fault for each in reactions_of(events, [], ["web"]).faults] == ["f-1"]
    assert [each.fault for each in reactions_of(events, ["n2"], []).faults] == ["f-1", "f-2"]


def test_what_returns_without_an_act_of_ours_did_so_by_itself() -> None:
    found = reactions_of(told(down("web"), *act("web", "a-1", "failed"), up("web"), up("web")), ["n1"], [])
    assert found.returns == (Restored("web", "itself: no act of ours"),)


def test_a_moved_guest_a_host_and_a_node_process_are_told_apart() -> None:
    moved = GuestMoved(ResourceId("vm"), BLUE, HostId("n1"), HostId("n3"), 2)
    found = reactions_of(
        told(
            raised("f-1", "node/n1", FaultKind.HOST_DOWN),
            ("resource/vm", moved),
            up("vm", "n3"),
            ("node/n1", HostBack(HostId("n1"), "it answers", 3)),
            ("node/n1", AgentReturned(HostId("n1"), "i2")),
            ("node/n2", AgentReturned(HostId("n2"), "i2")),
        ),
        ["n1"],
        [],
    )
    assert found.faults == (RaisedFault("f-1", "host_down", "node/n1"),)
    assert [(each.what, each.by.split(",")[0]) for each in found.returns] == [
        ("vm", "the leader"),
        ("host n1", "itself: it answers"),
        ("node process on n1", "its own supervisor"),
    ]
