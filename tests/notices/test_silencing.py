"""What a silence covers, and what it never does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.nouns import INFRASTRUCTURE, FaultKind, Owner
from homeostat.kernel.journal import EventIndex, Seq
from homeostat.notices.matching import SilenceIndex, SilenceMatch, judge_silence, silence_refusal
from homeostat.notices.model import (
    Endpoint,
    FaultPicture,
    NoticeState,
    NoticeTransition,
    Silence,
    Subscription,
)
from homeostat.notices.outbox import NoticeCause, apply_silences, queue, queue_unsilenced
from notices_parts import picture, subscription

ZONES = {"n1": "rack-a", "n2": "rack-b"}
PLAIN = Silence("s-1", INFRASTRUCTURE, "new memory", "admin", 0, 100, 200)
FAULT = picture("f-1", "shop", host="n2")
DEAD = picture("f-2", "infrastructure", kind=FaultKind.HOST_DOWN, about="node/n2", host="n2")


def covering_silence(
    silences: Iterable[Silence],
    listener: Subscription,
    fault: FaultPicture,
    now_ns: int,
    zones: Mapping[str, str],
) -> Silence | None:
    """As `SilenceIndex` finds it, by reading all of them."""
    found = [
        each
        for each in silences
        if judge_silence(each, listener, fault, now_ns, zones) is SilenceMatch.COVERED
    ]
    return max(found, key=lambda each: (each.ends_ns, each.id), default=None)


@pytest.mark.parametrize(
    ("scope", "fault", "project", "why"),
    [
        ({"host": "n2"}, FAULT, "shop", SilenceMatch.COVERED),
        ({"host": "n2"}, DEAD, "shop", SilenceMatch.COVERED),
        ({"host": "n1"}, FAULT, "shop", SilenceMatch.OTHER_HOST),
        ({"host": "n2"}, replace(FAULT, host=""), "shop", SilenceMatch.OTHER_HOST),
        ({"zone": "rack-b"}, FAULT, "shop", SilenceMatch.COVERED),
        ({"zone": "rack-a"}, FAULT, "shop", SilenceMatch.OTHER_ZONE),
        ({"zone": "rack-b"}, replace(FAULT, host=""), "shop", SilenceMatch.OTHER_ZONE),
        ({"resource": "web-f-1"}, FAULT, "shop", SilenceMatch.COVERED),
        ({"resource": "web"}, FAULT, "shop", SilenceMatch.OTHER_RESOURCE),
        ({"resource": "n2"}, DEAD, "infrastructure", SilenceMatch.OTHER_RESOURCE),
        ({"kind": "host_down"}, DEAD, "shop", SilenceMatch.COVERED),
        ({"kind": "host_down"}, FAULT, "shop", SilenceMatch.OTHER_KIND),
        ({"owner": "shop"}, FAULT, "infrastructure", SilenceMatch.COVERED),
        ({"owner": "shop"}, DEAD, "shop", SilenceMatch.COVERED),
        ({"owner": "shop"}, DEAD, "infrastructure", SilenceMatch.OTHER_OWNER),
        ({"owner": "bank"}, FAULT, "shop", SilenceMatch.OTHER_OWNER),
        ({"host": "n2", "kind": "agent_lost"}, FAULT, "shop", SilenceMatch.OTHER_KIND),
        ({"host": "n2", "owner": "shop"}, FAULT, "shop", SilenceMatch.COVERED),
    ],
)
def test_what_is_named_must_fit(
    scope: dict[str, str], fault: FaultPicture, project: str, why: SilenceMatch
) -> None:
    silence = replace(PLAIN, **scope)
    assert judge_silence(silence, subscription("s", project), fault, 150, ZONES) is why


@pytest.mark.parametrize(
    ("now_ns", "why"),
    [
        (99, SilenceMatch.NOT_YET),
        (100, SilenceMatch.COVERED),
        (199, SilenceMatch.COVERED),
        (200, SilenceMatch.OVER),
        (10**9, SilenceMatch.OVER),
    ],
)
def test_it_begins_and_ends(now_ns: int, why: SilenceMatch) -> None:
    assert judge_silence(replace(PLAIN, host="n2"), subscription(), FAULT, now_ns, ZONES) is why


def test_of_several_the_one_that_lasts_longest_is_stated() -> None:
    rows = [replace(PLAIN, id=f"s-{end}", host="n2", ends_ns=end) for end in (160, 300, 200)]
    found = covering_silence(rows, subscription(), FAULT, 150, ZONES)
    assert found is not None
    assert found.id == "s-300"
    assert covering_silence(rows, subscription(), FAULT, 400, ZONES) is None


@given(
    project=st.sampled_from(["infrastructure", "shop", "bank"]),
    spared=st.sampled_from(["infrastructure", "shop", "bank"]),
    scope=st.sampled_from([{"host": "n2"}, {"kind": "resource_down"}, {"owner": "shop"}, {"zone": "rack-b"}]),
    now_ns=st.integers(0, 300),
)
def test_a_project_never_keeps_anything_from_another(
    project: str, spared: str, scope: dict[str, str], now_ns: int
) -> None:
    silence = replace(PLAIN, project=Owner(project), **scope)
    why = judge_silence(silence, subscription("s", spared), FAULT, now_ns, ZONES)
    if project not in ("infrastructure", spared) or not 100 <= now_ns < 200:
        assert why is not SilenceMatch.COVERED


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ({"host": "n2"}, "only administrators silence a host"),
        ({"zone": "rack-b"}, "only administrators silence a host"),
        ({"owner": "bank"}, "the project shop only"),
        ({"resource": "till"}, "not yours"),
        ({"resource": "nothing"}, "not yours"),
        ({"resource": "web"}, ""),
        ({"kind": "host_down"}, ""),
        ({"owner": "shop"}, ""),
    ],
)
def test_a_project_silences_what_is_its_own(scope: dict[str, str], words: str) -> None:
    owners = {"web": Owner("shop"), "till": Owner("bank")}
    why = silence_refusal(replace(PLAIN, project=Owner("shop"), **scope), owners)
    assert (words in why) if words else not why
    assert "everybody" in silence_refusal(replace(PLAIN, **scope), owners)


def test_it_is_written_down_and_later_told_under_the_same_key() -> None:
    subscriptions = {name: subscription(name) for name in "ab"}
    subscriptions["b"] = replace(subscriptions["b"], endpoints=(Endpoint(1, ""),))
    queued = queue(
        FAULT, NoticeTransition.RAISED, subscriptions.values(), NoticeCause(EventIndex(1), 5, 150, "t")
    )
    keys = [each.key for each in queued.notices]
    assert apply_silences(queued, {}) == queued
    some = apply_silences(queued, {keys[1]: PLAIN})
    assert [row.state for row in some.notices] == [NoticeState.PENDING, NoticeState.SILENCED]
    assert [type(each.event).__name__ for each in some.drafts] == ["NoticeQueued", "NoticeSilenced"]
    kept = apply_silences(queued, {key: replace(PLAIN, reason=f"because {key[0]}") for key in keys})
    assert [row.reason for row in kept.notices] == ["s-1: because a", "s-1: because b"]
    assert [row.queued_seq for row in kept.notices] == [EventIndex(5), EventIndex(6)]
    committed = [replace(row, queued_seq=Seq(70 + number)) for number, row in enumerate(kept.notices)]
    told = queue_unsilenced(committed, subscriptions.get, 3, 250)
    assert [row.key for row in told.notices] == keys
    assert [type(each.event).__name__ for each in told.drafts] == ["NoticeUnsilenced", "NoticeQueued"] * 2
    assert [each.cause for each in told.drafts] == [Seq(70), EventIndex(3), Seq(71), EventIndex(5)]
    assert [row.queued_seq for row in told.notices] == [EventIndex(4), EventIndex(6)]
    assert [row.state for row in told.notices] == [NoticeState.PENDING, NoticeState.KEPT]
    assert {row.queued_ns for row in told.notices} == {250}


def or_not(*values: str) -> st.SearchStrategy[str]:
    return st.sampled_from(["", *values])


SILENCES = st.lists(
    st.builds(
        Silence,
        id=st.sampled_from([f"s-{n}" for n in range(30)]),
        project=st.sampled_from([INFRASTRUCTURE, Owner("shop"), Owner("bank")]),
        reason=st.just("why"),
        by=st.just("admin"),
        created_ns=st.just(0),
        begins_ns=st.integers(0, 3),
        ends_ns=st.integers(4, 7),
        host=or_not("n1", "n2"),
        zone=or_not("rack-a", "rack-b"),
        resource=or_not("web-f-1", "web-f-2"),
        kind=or_not("resource_down", "host_down"),
        owner=or_not("shop", "bank", "infrastructure"),
    ),
    max_size=30,
    unique_by=lambda each: each.id,
)
FAULTS = st.builds(
    picture,
    st.sampled_from(["f-1", "f-2"]),
    st.sampled_from(["shop", "bank", "infrastructure"]),
    host=or_not("n1", "n2", "n3"),
    kind=st.sampled_from([FaultKind.RESOURCE_DOWN, FaultKind.HOST_DOWN]),
)


@given(SILENCES, FAULTS, st.sampled_from(["shop", "bank", "infrastructure"]), st.integers(0, 8))
def test_what_is_found_by_scope_is_what_a_look_at_all_finds(
    rows: list[Silence], fault: FaultPicture, owner: str, now_ns: int
) -> None:
    listener = subscription("s", owner)
    found = SilenceIndex(rows, ZONES).covering(listener, fault, now_ns)
    assert found == covering_silence(rows, listener, fault, now_ns, ZONES)
