"""Who is told: the owner before every filter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.nouns import FaultKind, Owner, Severity
from homeostat.notices.matching import MatchReason, decide_cleared, decide_raised, recipients
from homeostat.notices.model import Affected
from notices_parts import picture, subscription


@pytest.mark.parametrize(
    ("owner", "fault_owner", "reason"),
    [
        ("shop", "shop", MatchReason.OWNER),
        ("shop", "bank", MatchReason.NOT_YOURS),
        ("shop", "infrastructure", MatchReason.NOT_YOURS),
        ("infrastructure", "shop", MatchReason.ADMINISTRATOR),
        ("infrastructure", "infrastructure", MatchReason.OWNER),
        ("Shop", "shop", MatchReason.NOT_YOURS),
        ("", "shop", MatchReason.NOT_YOURS),
    ],
)
def test_owner_isolation(owner: str, fault_owner: str, reason: MatchReason) -> None:
    assert decide_raised(subscription(owner=owner), picture(owner=fault_owner), 0) is reason


def test_a_lost_agent_is_told_to_administrators_only() -> None:
    lost = picture(owner="infrastructure", kind=FaultKind.AGENT_LOST, about="node/n1")
    affected = (Affected("resource/web", Owner("shop")),)
    everyone = [subscription("a", "shop"), subscription("b", "infrastructure"), subscription("c", "bank")]
    for fault in (lost, picture(owner="infrastructure", kind=FaultKind.AGENT_LOST, affected=affected)):
        assert [each.name for each, _ in recipients(everyone, fault, 0)] == ["b"]


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        ({}, MatchReason.OWNER),
        ({"kinds": (FaultKind.RESOURCE_DOWN,)}, MatchReason.OWNER),
        ({"kinds": (FaultKind.AGENT_LOST,)}, MatchReason.KIND_NOT_WANTED),
        ({"resources": ("web-f-1",)}, MatchReason.OWNER),
        ({"resources": ("guest",)}, MatchReason.OWNER),
        ({"resources": ("foreign",)}, MatchReason.RESOURCE_NOT_WANTED),
        ({"resources": ("other",)}, MatchReason.RESOURCE_NOT_WANTED),
        ({"minimum_severity": Severity.MAJOR}, MatchReason.OWNER),
        ({"minimum_severity": Severity.WARNING}, MatchReason.OWNER),
        ({"minimum_severity": Severity.CRITICAL}, MatchReason.BELOW_SEVERITY),
    ],
)
def test_filters(filters: dict[str, Any], reason: MatchReason) -> None:
    affected = (Affected("resource/guest", Owner("shop")), Affected("resource/foreign", Owner("bank")))
    assert decide_raised(subscription(**filters), picture(affected=affected), 0) is reason


def test_cleared_goes_to_those_who_heard_it_raised_whatever_they_ask_for_now() -> None:
    changed = subscription("changed", kinds=(FaultKind.AGENT_LOST,))
    everyone = [changed, subscription("late"), subscription("thief", "bank")]
    answer = recipients(everyone, picture(), 0, heard={"changed", "thief", "gone"})
    assert answer == ((changed, MatchReason.HEARD_IT_RAISED),)


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
    for each, _ in recipients(everyone, picture(owner=fault_owner), 0, names):
        assert each.owner in ("infrastructure", fault_owner)


@pytest.mark.parametrize(
    ("now_ns", "raised", "cleared"),
    [
        (99, MatchReason.OWNER, MatchReason.HEARD_IT_RAISED),
        (100, MatchReason.EXPIRED, MatchReason.EXPIRED),
        (10**30, MatchReason.EXPIRED, MatchReason.EXPIRED),
    ],
)
def test_an_expired_subscription_hears_nothing(
    now_ns: int, raised: MatchReason, cleared: MatchReason
) -> None:
    row = subscription("s", expires_ns=100)
    assert decide_raised(row, picture(), now_ns) is raised
    assert decide_cleared(row, picture(), {"s"}, now_ns) is cleared
    assert bool(recipients([row], picture(), now_ns)) == (now_ns < 100)
