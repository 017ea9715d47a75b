"""A fault that gives way to another is told as that, after it, and to everybody who heard of the first."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from homeostat.contracts.faults import Fault, FaultState
from homeostat.contracts.nouns import INFRASTRUCTURE, FaultKind, Owner
from homeostat.faults.notice_bridge import Announcement, NoticeBridge, picture_of
from homeostat.ingest.entry import PendingNotice
from homeostat.kernel.journal import EventIndex, Submission
from homeostat.notices.content import RenderContext
from homeostat.notices.formats import render
from homeostat.notices.model import NoticeFormat, NoticeState, NoticeTransition, Silence
from homeostat.notices.store import insert_silence
from homeostat.notices.subscriptions import Silences
from notices_parts import NoDelivery, World, fault_of, picture, subscription, world

AFFECTED = '{"guest":{"shop":["a","b"]}}'
GUEST = replace(fault_of(picture("f-a", about="resource/a")), host="n1")
HOST = replace(
    fault_of(picture("f-n1", owner="infrastructure", kind=FaultKind.HOST_DOWN, about="node/n1")),
    host="n1",
    affected=AFFECTED,
)
OVER = replace(
    GUEST, state=FaultState.CLEARED, cleared_ns=1, superseded_by=HOST.id, cleared_reason="its host is down"
)


def telling(fault: Fault, transition: str, **more: object) -> PendingNotice:
    return PendingNotice(fault, transition, EventIndex(0), 5, **more)  # type: ignore[arg-type]


DEATH = [telling(HOST, "raised", follows=(GUEST.id,)), telling(OVER, "superseded")]


def keys(told: Announcement) -> list[str]:
    return [each.key for each in told.notices if each.state is not NoticeState.SILENCED]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def test_it_is_told_after_what_takes_its_place(here: World) -> None:
    await here.subscribe(subscription())
    assert keys(here.herald.announce([telling(GUEST, "raised")], 0)) == ["s:f-a:raised"]
    assert keys(here.herald.announce(DEATH, 0)) == ["s:f-n1:raised", "s:f-a:superseded"]


async def test_whoever_heard_of_it_hears_what_takes_its_place_whatever_it_asks_for(here: World) -> None:
    await here.subscribe(subscription(kinds=(FaultKind.RESOURCE_DOWN,)))
    here.herald.announce([telling(GUEST, "raised")], 0)
    assert keys(here.herald.announce(DEATH, 0)) == ["s:f-n1:raised", "s:f-a:superseded"]
    cleared = replace(HOST, state=FaultState.CLEARED, cleared_ns=9)
    assert keys(here.herald.announce([telling(cleared, "cleared")], 0)) == ["s:f-n1:cleared"]


async def test_who_did_not_hear_of_it_is_asked_as_always(here: World) -> None:
    await here.subscribe(subscription(kinds=(FaultKind.AGENT_LOST,)))
    here.herald.announce([telling(GUEST, "raised")], 0)
    assert keys(here.herald.announce(DEATH, 0)) == []


async def test_a_silence_that_began_meanwhile_does_not_leave_half_of_the_story(here: World) -> None:
    await here.subscribe(subscription("told"), subscription("bank", owner="bank"))
    known = Silences(here.readers)
    herald = NoticeBridge(here.subscriptions, NoDelivery(), here.readers, known)  # type: ignore[arg-type]
    herald.announce([telling(GUEST, "raised")], 0)
    row = Silence("s-0", INFRASTRUCTURE, "disks", "admin", 0, 0, 9 * 10**18, host="n1")
    await here.appender.append(Submission("test", changes=(insert_silence(row),)))
    await known.reload()
    of_both = replace(HOST, affected='{"guest":{"bank":["x"],"shop":["a","b"]}}')
    told = herald.announce([telling(of_both, "raised", follows=(GUEST.id,)), DEATH[1]], 0)
    assert keys(told) == ["told:f-n1:raised", "told:f-a:superseded"]
    kept_back = [each.subscription for each in told.notices if each.state is NoticeState.SILENCED]
    assert kept_back == ["bank"]


def body(fault: Fault, shape: NoticeFormat, transition: str) -> dict:  # type: ignore[type-arg]
    frame = RenderContext("s", "s", Owner("shop"), 10**6)
    return json.loads(render(shape, frame, picture_of(fault), NoticeTransition(transition)))  # type: ignore[no-any-return]


@pytest.mark.seed("002 1.2: a consumer acts on the state that it is told")
def test_no_format_says_that_it_is_right() -> None:
    doctor = body(OVER, NoticeFormat.DOCTOR, "superseded")
    traits = {name: value for name, _, value in doctor["reason_data"]["event"]["traits"]}
    assert (traits["state"], doctor["previous"], doctor["current"]) == ("error", "alarm", "alarm")
    ours = body(OVER, NoticeFormat.JSON, "superseded")
    assert (ours["transition"], ours["fault"]["superseded_by"]) == ("superseded", HOST.id)
    alerts = body(OVER, NoticeFormat.ALERTMANAGER, "superseded")["alerts"]
    assert [each["annotations"]["superseded_by"] for each in alerts] == [HOST.id]


def test_of_a_host_that_is_back_only_what_is_right_is_told_as_active() -> None:
    half = replace(HOST, state=FaultState.CLEARED, cleared_ns=9, remaining='{"guest":{"shop":["b"]}}')
    doctor = body(half, NoticeFormat.DOCTOR, "cleared")
    traits = {name: value for name, _, value in doctor["reason_data"]["event"]["traits"]}
    assert (traits["state"], traits["instance_ids"]) == ("active", '["a"]')
    nothing = replace(half, remaining=AFFECTED)
    doctor = body(nothing, NoticeFormat.DOCTOR, "cleared")
    traits = {name: value for name, _, value in doctor["reason_data"]["event"]["traits"]}
    assert (traits["state"], doctor["current"]) == ("error", "alarm")


async def test_a_project_whose_guests_all_run_elsewhere_hears_no_second_end(here: World) -> None:
    await here.subscribe(subscription(), subscription("ops", owner="infrastructure"))
    here.herald.announce([telling(HOST, "raised")], 0)
    first = replace(HOST, restored='{"a":["n2",7,1.0,2.0,"shop",1]}')
    told = here.herald.announce([telling(first, "recovered", project=Owner("shop"), part=1)], 0)
    assert keys(told) == ["s:f-n1:recovered"]
    both = replace(HOST, restored='{"a":["n2",7,1.0,2.0,"shop",1],"b":["n3",8,1.0,2.0,"shop",2]}')
    told = here.herald.announce([telling(both, "recovered", project=Owner("shop"), part=2)], 0)
    assert keys(told) == ["s:f-n1:recovered-2"]
    over = telling(replace(both, state=FaultState.CLEARED, cleared_ns=9), "cleared")
    assert keys(here.herald.announce([over], 0)) == ["ops:f-n1:cleared"]


async def test_a_project_that_still_waits_for_one_hears_the_end(here: World) -> None:
    await here.subscribe(subscription())
    here.herald.announce([telling(HOST, "raised")], 0)
    first = replace(HOST, restored='{"a":["n2",7,1.0,2.0,"shop",1]}')
    here.herald.announce([telling(first, "recovered", project=Owner("shop"), part=1)], 0)
    over = telling(replace(first, state=FaultState.CLEARED, cleared_ns=9), "cleared")
    assert keys(here.herald.announce([over], 0)) == ["s:f-n1:cleared"]
