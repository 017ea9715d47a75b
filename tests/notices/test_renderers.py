"""The body of a notice: its form, its sameness, and what it does not tell."""

from __future__ import annotations

from dataclasses import replace

import orjson

from homeostat.contracts.nouns import Owner
from homeostat.notices.content import RenderContext
from homeostat.notices.formats import iso, render
from homeostat.notices.model import Affected, NoticeFormat, NoticeTransition
from notices_parts import SECRET, picture, subscription

LIMIT = 4 * 1024 * 1024
CLEARED = picture(cleared_ns=1_700_000_001_000_000_000, cleared_reason="it is up", outage_ms=876.5)


def frame(owner: str = "shop") -> RenderContext:
    return RenderContext("s", "s", Owner(owner), LIMIT)


def test_the_documented_form() -> None:
    body = render(NoticeFormat.JSON, frame(), CLEARED, NoticeTransition.CLEARED)
    assert orjson.loads(body) == {
        "notice": "s:f-1:cleared",
        "transition": "cleared",
        "fault": {
            "id": "f-1",
            "kind": "resource_down",
            "severity": "major",
            "about": "resource/web-f-1",
            "owner": "shop",
            "reason": "the process died",
            "raised_at": "2023-11-14T22:13:20.123456Z",
            "affected": [],
            "affected_count": 0,
            "cleared_at": "2023-11-14T22:13:21.000000Z",
            "cleared_reason": "it is up",
            "outage_ms": 876.5,
            "outage_lower_ms": None,
            "outage_upper_ms": 876.5,
            "remaining": [],
        },
    }


def test_raised_is_the_same_bytes_before_and_after_the_fault_cleared() -> None:
    before = render(NoticeFormat.JSON, frame(), picture(), NoticeTransition.RAISED)
    assert render(NoticeFormat.JSON, frame(), CLEARED, NoticeTransition.RAISED) == before


def test_only_what_the_project_owns_is_told() -> None:
    affected = (Affected("resource/a", Owner("shop")), Affected("resource/b", Owner("bank")))
    fault = replace(picture(), affected=affected)
    for owner, subjects in (("shop", ["resource/a"]), ("infrastructure", ["resource/a", "resource/b"])):
        told = orjson.loads(render(NoticeFormat.JSON, frame(owner), fault, NoticeTransition.RAISED))["fault"]
        assert [each["subject"] for each in told["affected"]] == subjects
        assert told["affected_count"] == len(subjects)


def test_a_long_body_carries_counts_and_a_link() -> None:
    affected = tuple(Affected(f"resource/g{index}", Owner("shop")) for index in range(1000))
    fault = picture(reason="x" * 100_000, affected=affected)
    here = replace(frame(), limit_bytes=4096, public_url="https://homeostat.example")
    body = render(NoticeFormat.JSON, here, fault, NoticeTransition.RAISED)
    assert len(body) <= 4096
    told = orjson.loads(body)
    assert told["link"] == "https://homeostat.example/api/v1/faults/f-1"
    assert (told["fault"]["affected"], told["fault"]["affected_count"]) == ([], 1000)


def test_the_secret_is_nowhere() -> None:
    assert SECRET.encode() not in render(NoticeFormat.JSON, frame(), CLEARED, NoticeTransition.CLEARED)
    assert SECRET not in repr(subscription())


def test_times_before_the_epoch_and_far_ahead() -> None:
    assert iso(-1_000) == "1969-12-31T23:59:59.999999Z"
    assert iso(253_402_300_799_000_000_000) == "9999-12-31T23:59:59.000000Z"
