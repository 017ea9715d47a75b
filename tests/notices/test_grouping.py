"""Notices that travel together: which, when, in what order, and that all of them arrive or none."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from homeostat.contracts.nouns import FaultId, FaultKind, Owner
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.journal import Seq
from homeostat.notices.formats import ENVELOPE_BYTES, render_group, size_of
from homeostat.notices.model import (
    Endpoint,
    FaultPicture,
    GroupBy,
    Notice,
    NoticeFormat,
    NoticeState,
    NoticeTransition,
    notice_key,
)
from homeostat.notices.requests import NoticeGroups, group_of, is_grouped, wait_ns
from homeostat.notices.send_queue import DueNotice, SendLimits, SendQueue
from homeostat.notices.signing import verify
from notices_parts import QUICK, SECRET, World, consumer, picture, subscription, until, world

MS = 1_000_000
FOR_EVER = 10**15


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def faults(count: int, **more: object) -> list[FaultPicture]:
    return [picture(f"f-{number}", **more) for number in range(count)]


def keys_in(body: bytes) -> list[str]:
    return [each["notice"] for each in json.loads(body)["notices"]]


@pytest.mark.parametrize(
    ("by", "group"),
    [(GroupBy.KIND, "resource_down"), (GroupBy.HOST, "n1"), (GroupBy.OWNER, "shop"), (GroupBy.NONE, "f-1")],
)
def test_what_faults_have_in_common(by: GroupBy, group: str) -> None:
    assert group_of(by, picture(host="n1")) == group
    nowhere = picture(kind=FaultKind.EVIDENCE_LOST, about="fleet")
    assert group_of(GroupBy.HOST, nowhere) == "fleet"


def test_only_who_asks_waits_and_only_in_our_own_format() -> None:
    plain = subscription(group_by=GroupBy.KIND, group_wait_ms=20)
    ours, foreign = Endpoint(1, "http://x/"), Endpoint(2, "http://x/", NoticeFormat.ALERTMANAGER)
    assert (is_grouped(plain, ours), wait_ns(plain, ours)) == (True, 20 * MS)
    assert (is_grouped(plain, foreign), wait_ns(plain, foreign)) == (False, 0)
    alone = replace(plain, group_by=GroupBy.NONE)
    assert (is_grouped(alone, ours), wait_ns(alone, ours)) == (False, 0)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.text(max_size=9), max_size=3), min_size=1))
def test_the_body_is_the_bodies_and_as_long_as_foretold(bodies: list[dict[str, str]]) -> None:
    written = [json.dumps(each).encode() for each in bodies]
    body = render_group(written)
    assert json.loads(body) == {"notices": bodies}
    assert len(body) == size_of(len(written), sum(map(len, written)))
    assert len(render_group(written[:1])) == ENVELOPE_BYTES + len(written[0])


@pytest.mark.seed("order grouping: many faults at once are one POST with every key")
async def test_many_at_once_are_one_post(here: World) -> None:
    async with consumer() as there, here.delivering() as delivery:
        await here.subscribe(
            subscription(url=there.url, group_by=GroupBy.KIND, group_wait_ms=300),
            subscription("alone", url=there.url),
        )
        await here.tell(delivery, *faults(20))
        rows = await here.until_none_pending()
    together = [each for each in there.heard if not each.key]
    assert [keys_in(each.body) for each in together] == [[f"s:f-{n}:raised" for n in range(20)]]
    assert sorted(each.key for each in there.heard if each.key) == sorted(
        f"alone:f-{n}:raised" for n in range(20)
    )
    verify(together[0].signature, together[0].body, {"k1": SECRET}, SystemClock().wall_ns() / 1e9)
    assert {row.state for row in rows.values()} == {NoticeState.DELIVERED}
    assert len(rows) == 40


async def test_the_first_waits_and_groups_are_apart(here: World) -> None:
    async with consumer() as there, here.delivering() as delivery:
        await here.subscribe(subscription(url=there.url, group_by=GroupBy.HOST, group_wait_ms=250))
        began_s = time.monotonic()
        await here.tell(delivery, picture("f-1", host="n1"), picture("f-2", host="n2"))
        await here.tell(delivery, picture("f-3", host="n1"))
        await here.until_none_pending()
        assert time.monotonic() - began_s >= 0.25
    assert sorted(keys_in(each.body) for each in there.heard) == [
        ["s:f-1:raised", "s:f-3:raised"],
        ["s:f-2:raised"],
    ]


async def test_all_fail_together_and_the_same_body_goes_again(here: World) -> None:
    async def fail_twice(_request: web.Request, number: int) -> web.StreamResponse:
        return web.Response(status=503 if number < 2 else 200)

    async with consumer(fail_twice) as there, here.delivering() as delivery:
        await here.subscribe(subscription(url=there.url, group_by=GroupBy.KIND, group_wait_ms=150))
        await here.tell(delivery, *faults(5))
        await until(lambda: len(there.heard) >= 1)
        await here.tell(delivery, picture("f-late"))
        rows = await here.until_none_pending()
        await until(lambda: not len(delivery._parcels))  # what ended is forgotten
    first = [f"s:f-{n}:raised" for n in range(5)]
    again = [each.body for each in there.heard if keys_in(each.body)[0] != "s:f-late:raised"]
    assert len(set(again)) == 1
    assert keys_in(again[0]) == first
    assert [rows[key].attempts for key in first] == [len(again)] * 5
    told = Counter(key for each in there.heard for key in keys_in(each.body))
    assert set(told) == {*first, "s:f-late:raised"}


@pytest.mark.parametrize("status", [413, 400])
async def test_what_is_too_much_together_goes_in_smaller_groups(here: World, status: int) -> None:
    async def small_only(request: web.Request, _number: int) -> web.StreamResponse:
        return web.Response(status=200 if len(await request.read()) <= 2000 else status)

    async with consumer(small_only) as there, here.delivering() as delivery:
        await here.subscribe(subscription(url=there.url, group_by=GroupBy.KIND, group_wait_ms=150))
        await here.tell(delivery, *faults(20))
        rows = await here.until_none_pending()
        await until(lambda: not len(delivery._parcels))  # what ended is forgotten
    assert {row.state for row in rows.values()} == {NoticeState.DELIVERED}
    sizes = [len(keys_in(each.body)) for each in there.heard]
    assert sizes[0] == 20
    assert max(sizes[1:]) <= 10
    assert max(Counter(sizes)) > 1, "what fits together still travels together"
    told = Counter(key for each in there.heard if len(each.body) <= 2000 for key in keys_in(each.body))
    assert set(told.values()) == {1}


async def test_one_that_is_never_wanted_does_not_keep_the_others(here: World) -> None:
    async def without_it(request: web.Request, _number: int) -> web.StreamResponse:
        return web.Response(status=400 if "s:f-7:raised" in keys_in(await request.read()) else 200)

    async with consumer(without_it) as there, here.delivering() as delivery:
        await here.subscribe(subscription(url=there.url, group_by=GroupBy.KIND, group_wait_ms=100))
        await here.tell(delivery, *faults(20))
        alone = ["s:f-7:raised"]
        await until(lambda: sum(keys_in(each.body) == alone for each in there.heard) >= 2)
        rows = await here.rows()
        await here.tell(delivery, *(picture(f"f-{number}") for number in range(50, 60)))
        fresh = [f"s:f-{number}:raised" for number in range(50, 60)]
        await until(lambda: fresh in [keys_in(each.body) for each in there.heard])
        rows = await here.rows()
        assert rows["s:f-7:raised"].state is NoticeState.PENDING
    assert {row.state for key, row in rows.items() if key not in alone + fresh} == {NoticeState.DELIVERED}


async def test_gone_ends_all_of_them(here: World) -> None:
    async def gone(_request: web.Request, _number: int) -> web.StreamResponse:
        return web.Response(status=410)

    async with consumer(gone) as there, here.delivering() as delivery:
        await here.subscribe(subscription(url=there.url, group_by=GroupBy.OWNER, group_wait_ms=100))
        await here.tell(delivery, *faults(3))
        rows = await here.until_none_pending()
    assert len(there.heard) == 1
    assert {(row.state, row.attempts) for row in rows.values()} == {(NoticeState.GIVEN_UP, 1)}


async def test_cleared_never_travels_with_or_before_its_raised(here: World) -> None:
    async with consumer() as there, here.delivering() as delivery:
        await here.subscribe(subscription(url=there.url, group_by=GroupBy.KIND, group_wait_ms=100))
        await here.tell(delivery, *faults(3))
        await here.tell(delivery, *faults(3, cleared_ns=1_700_000_002_000_000_000))
        await here.until_none_pending()
    order = [key for each in there.heard for key in keys_in(each.body)]
    assert len(order) == len(set(order)) == 6
    for number in range(3):
        sent = [
            at for at, each in enumerate(there.heard) for key in keys_in(each.body) if f"f-{number}:" in key
        ]
        assert sent[0] < sent[1]
        assert order.index(f"s:f-{number}:raised") < order.index(f"s:f-{number}:cleared")


async def test_a_body_is_bounded(here: World) -> None:
    bounded = QUICK.model_copy(update={"body_bytes_max": 4096})
    async with consumer() as there, here.delivering(settings=bounded) as delivery:
        await here.subscribe(subscription(url=there.url, group_by=GroupBy.KIND, group_wait_ms=100))
        await here.tell(delivery, *faults(40, reason="x" * 150))
        await here.until_none_pending()
    assert all(len(each.body) <= 4096 for each in there.heard)
    assert 2 <= len(there.heard) < 20
    told = Counter(key for each in there.heard for key in keys_in(each.body))
    assert told == Counter({f"s:f-{n}:raised": 1 for n in range(40)})


@pytest.mark.seed("order grouping: a crash loses and doubles nothing, by key")
async def test_after_a_crash_everything_arrives_under_the_same_keys(here: World) -> None:
    stuck = asyncio.Event()

    async def hang_first(_request: web.Request, number: int) -> web.StreamResponse:
        if number == 0:
            stuck.set()
            await asyncio.sleep(60)
        return web.Response()

    async with consumer(hang_first) as there:
        await here.subscribe(subscription(url=there.url, group_by=GroupBy.KIND, group_wait_ms=50))
        async with here.delivering(settings=QUICK.model_copy(update={"stop_timeout_s": 0.05})) as delivery:
            await here.tell(delivery, *faults(6))
            async with asyncio.timeout(8):
                await stuck.wait()
        async with here.delivering():
            rows = await here.until_none_pending()
    expected = {f"s:f-{n}:raised" for n in range(6)}
    assert set(keys_in(there.heard[0].body)) == expected
    assert Counter(key for each in there.heard[1:] for key in keys_in(each.body)) == Counter(expected)
    assert {row.state for row in rows.values()} == {NoticeState.DELIVERED}


async def test_a_subscription_that_goes_away_ends_its_parcel(here: World) -> None:
    async def never(_request: web.Request, _number: int) -> web.StreamResponse:
        return web.Response(status=503)

    async with consumer(never) as there, here.delivering() as delivery:
        await here.subscribe(subscription(url=there.url, group_by=GroupBy.KIND, group_wait_ms=50))
        await here.tell(delivery, *faults(4))
        await until(lambda: len(there.heard) >= 2)
        await here.remove("s")
        delivery.release("s")
        rows = await here.until_none_pending()
    assert {row.reason for row in rows.values()} == {"the subscription was removed"}


def due(fault: str, transition: str, group: str) -> DueNotice:
    change = NoticeTransition(transition)
    key = notice_key("s", FaultId(fault), change)
    notice = Notice(key, "s", Owner("shop"), FaultId(fault), change, Seq(1), 0, "t")
    return DueNotice(notice, picture(fault, host=group), 0, FOR_EVER)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(["n1", "n2"]), st.integers(0, 30)),
        min_size=1,
        max_size=25,
        unique_by=lambda each: each[0],
    ),
    st.lists(st.booleans(), max_size=12),
)
def test_nothing_is_stuck_lost_or_doubled(rows: list[tuple[int, str, int]], fates: list[bool]) -> None:
    """Every notice is told once, raised first; what failed together is sent again as the same body."""
    board, parcels = SendQueue(SendLimits(4, 8, 4, 3, 1000)), NoticeGroups(10**6)
    for number, group, wait in rows:
        board.add(due(f"f-{number}", "raised", group), "p", wait)
        board.add(due(f"f-{number}", "cleared", group), "p", wait)
    told: list[str] = []
    failed: list[tuple[bytes, ...]] = []
    fate, now_ns = iter(fates), 0
    while len(board):
        lead = board.take(now_ns)
        if lead is None:
            at_ns = board.next_ns()
            assert at_ns is not None, "something is stuck"
            now_ns = max(now_ns + 1, at_ns)
            continue
        gathered = parcels.gather(board, lead, GroupBy.HOST, lambda each: each.key.encode())
        assert gathered is not None
        dues, bodies = gathered
        assert sorted(each.key.encode() for each in dues) == sorted(bodies)
        assert len({each.notice.fault for each in dues}) == len(dues)
        assert len({each.picture.host for each in dues if each.picture}) == 1
        assert not set(bodies) & {each for one in failed if one != bodies for each in one}
        parcels.tried(dues, refused=False)
        if not next(fate, True):
            if bodies not in failed:
                failed.append(bodies)
            board.failed(lead, now_ns + 5)
            for each in dues[1:]:
                board.failed_along(each, now_ns + 5)
            continue
        failed = [each for each in failed if each != bodies]
        board.succeeded(lead)
        for each in dues:
            told.append(each.key)
            board.closed(each)
            parcels.ended(each.key)
    assert sorted(told) == sorted(f"s:f-{n}:{t}" for n, _, _ in rows for t in ("raised", "cleared"))
    for number, _, _ in rows:
        assert told.index(f"s:f-{number}:raised") < told.index(f"s:f-{number}:cleared")
    assert not len(parcels)
