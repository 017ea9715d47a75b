"""Who is told: the owner before every filter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.nouns import FaultKind, Owner, Severity
from homeostat.notices.matching import Reason, decide, decide_cleared, told
from homeostat.notices.model import Affected
from notices_parts import picture, subscription


@pytest.mark.parametrize(
    ("owner", "fault_owner", "reason"),
    [
        ("shop", "shop", Reason.OWNER),
        ("shop", "bank", Reason.NOT_YOURS),
        ("shop", "infrastructure", Reason.NOT_YOURS),
        ("infrastructure", "shop", Reason.ADMINISTRATOR),
        ("infrastructure", "infrastructure", Reason.OWNER),
        ("Shop", "shop", Reason.NOT_YOURS),
        ("", "shop", Reason.NOT_YOURS),
    ],
)
def test_owner_isolation(owner: str, fault_owner: str, reason: Reason) -> None:
    assert decide(subscription(owner=owner), picture(owner=fault_owner), 0) is reason


def test_a_lost_agent_is_told_to_administrators_only() -> None:
    lost = picture(owner="infrastructure", kind=FaultKind.AGENT_LOST, about="node/n1")
    affected = (Affected("resource/web", Owner("shop")),)
    everyone = [subscription("a", "shop"), subscription("b", "infrastructure"), subscription("c", "bank")]
    for fault in (lost, picture(owner="infrastructure", kind=FaultKind.AGENT_LOST, affected=affected)):
        assert [each.name for each, _ in told(everyone, fault, 0)] == ["b"]


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        ({}, Reason.OWNER),
        ({"kinds": (FaultKind.RESOURCE_DOWN,)}, Reason.OWNER),
        ({"kinds": (FaultKind.AGENT_LOST,)}, Reason.KIND_NOT_WANTED),
        ({"resources": ("web-f-1",)}, Reason.OWNER),
        ({"resources": ("guest",)}, Reason.OWNER),
        ({"resources": ("foreign",)}, Reason.RESOURCE_NOT_WANTED),
        ({"resources": ("other",)}, Reason.RESOURCE_NOT_WANTED),
        ({"minimum_severity": Severity.MAJOR}, Reason.OWNER),
        ({"minimum_severity": Severity.WARNING}, Reason.OWNER),
        ({"minimum_severity": Severity.CRITICAL}, Reason.BELOW_SEVERITY),
    ],
)
def test_filters(filters: dict[str, Any], reason: Reason) -> None:
    affected = (Affected("resource/guest", Owner("shop")), Affected("resource/foreign", Owner("bank")))
    assert decide(subscription(**filters), picture(affected=affected), 0) is reason


def test_cleared_goes_to_those_who_heard_it_raised_whatever_they_ask_for_now() -> None:
    changed = subscription("changed", kinds=(FaultKind.AGENT_LOST,))
    everyone = [changed, subscription("late"), subscription("thief", "bank")]
    answer = told(everyone, picture(), 0, heard={"changed", "thief", "gone"})
    assert answer == ((changed, Reason.HEARD_IT_RAISED),)


@given(
    owners=st.lists(st.sampled_from(["shop", "bank", "infrastructure"]), max_size=8),
    fault_owner=st.sampled_from(["shop", "bank", "infrastructure"]),
    heard=st.none() | st.sets(st.integers(0, 7)),
)
def test_no_filter_opens_what_the_owner_closes(
    owners: list[str], fault_owner: str, heard: set[int] | None
) -> None:
    everyone = [subscription(f"s{index}", owner) for index, owner in enumerate(owners)]
    names = None if heard is None else {f"s{index}" for index in heard}
    for each, _ in told(everyone, picture(owner=fault_owner), 0, names):
        assert each.owner in ("infrastructure", fault_owner)


@pytest.mark.parametrize(
    ("now_ns", "raised", "cleared"),
    [
        (99, Reason.OWNER, Reason.HEARD_IT_RAISED),
        (100, Reason.EXPIRED, Reason.EXPIRED),
        (10**30, Reason.EXPIRED, Reason.EXPIRED),
    ],
)
def test_an_expired_subscription_hears_nothing(now_ns: int, raised: Reason, cleared: Reason) -> None:
    row = subscription("s", expires_ns=100)
    assert decide(row, picture(), now_ns) is raised
    assert decide_cleared(row, picture(), {"s"}, now_ns) is cleared
    assert bool(told([row], picture(), now_ns)) == (now_ns < 100)
