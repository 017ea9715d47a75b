"""The set points of notices: who answers and who does not are two lines, by project, and of a window."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from sqlalchemy import insert

from homeostat.contracts.nouns import INFRASTRUCTURE, FaultId, Owner, SetPoint
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.database import journal
from homeostat.kernel.journal import Seq
from homeostat.kernel.records import row_of
from homeostat.notices.delivery_window import (
    NO_DELIVERY,
    DeliveredNotice,
    DeliveryWindow,
    ProjectDelivery,
)
from homeostat.notices.model import Notice, NoticeTransition, notice_subject
from homeostat.notices.set_points import (
    ANSWERING,
    OTHERS,
    PROJECTS_MAX,
    TOLD,
    NoticeSetPoints,
    notice_set_points,
)
from homeostat.notices.store import earlier_deliveries, outbox
from notices_parts import QUICK, World, consumer, dead_url, picture, subscription, until, world
from store_parts import Store

SECOND = 10**9
SHOP, BANK = Owner("shop"), Owner("bank")
ADMIN = Caller("root", Role.ADMIN, INFRASTRUCTURE)
TENANT = Caller("t", Role.VIEWER, "shop")


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def by_name(rows: object) -> dict[tuple[str, str], SetPoint]:
    assert isinstance(rows, list | tuple)
    return {(row.promise, row.project): row for row in rows}


@pytest.mark.seed("order a promise measures what it says: consumers that answer, and those that do not")
async def test_a_dead_webhook_of_a_tenant_is_on_his_line_and_on_no_other(here: World) -> None:
    answers = asyncio.Event()

    async def behave(_request: web.Request, _number: int) -> web.Response:
        return web.Response(status=200 if answers.is_set() else 503)

    async with consumer() as living, consumer(behave) as dead, here.delivering() as delivery:
        set_points = NoticeSetPoints(delivery, here.readers, 1e6)
        await here.subscribe(
            subscription("operator", "infrastructure", living.url), subscription("blue", "shop", dead.url)
        )
        await here.tell(delivery, picture())
        await until(lambda: len(living.heard) == 1 and len(dead.heard) > QUICK.circuit_after)
        rows = by_name(await set_points(ADMIN))
        assert rows[TOLD, "infrastructure"].standing == "kept"
        assert rows[ANSWERING, "infrastructure"].standing == "kept"
        assert rows[ANSWERING, "shop"].standing == "broken"
        assert rows[ANSWERING, "shop"].detail == "blue"
        assert rows[TOLD, "shop"].standing == "unknown", "nobody who answers was told"
        answers.set()
        await here.until_none_pending()
        rows = by_name(await set_points(ADMIN))
        assert {row.standing for name, row in rows.items() if name[1] == "infrastructure"} == {"kept"}
        assert rows[TOLD, "shop"].standing == "unknown"
        assert "1 delivered late" in rows[ANSWERING, "shop"].detail
        own = await set_points(TENANT)
        assert {row.project for row in own} == {"shop"} and len(own) == 2
        assert list(await set_points(Caller("v", Role.VIEWER, INFRASTRUCTURE))) == []


async def test_without_a_notice_nothing_is_kept(here: World) -> None:
    async with here.delivering() as delivery:
        set_points = NoticeSetPoints(delivery, here.readers, 0.5)
        for caller in (ADMIN, TENANT):
            rows = await set_points(caller)
            assert [(row.value, row.standing) for row in rows] == [(None, "unknown")] * 2


async def test_deliveries_of_before_a_start_are_counted_until_they_are_too_old(here: World) -> None:
    async with consumer() as there, here.delivering() as delivery:
        await here.subscribe(subscription(url=there.url))
        await here.tell(delivery, picture())
        await here.until_none_pending()
        await until(lambda: delivery.figures().uncommitted == 0)
    async with here.delivering() as delivery:
        rows = by_name(await NoticeSetPoints(delivery, here.readers, 1e6)(ADMIN))
        assert rows[TOLD, "shop"].standing == "kept"
        assert "slowest of 1 in the last hour" in rows[TOLD, "shop"].detail
    now_ns = SystemClock().wall_ns()
    assert await here.readers.read(lambda conn: earlier_deliveries(conn, now_ns, now_ns + SECOND)) == ()


async def test_what_waited_for_this_server_has_no_length(here: World) -> None:
    await here.subscribe(subscription(url=dead_url()))
    await here.tell(None, picture())  # committed, and the server died
    await asyncio.sleep(0.01)
    async with consumer() as there:
        await here.remove("s")
        await here.subscribe(subscription(url=there.url))
        async with here.delivering() as delivery:
            await here.until_none_pending()
            shop = delivery.by_project()[SHOP]
            assert (shop.answered, shop.unmeasured) == (0, 1)
            assert by_name(notice_set_points({SHOP: shop}, 1e6, 3600))[TOLD, "shop"].standing == "unknown"


def told(
    since_s: float | None, answered_s: float, attempts: int = 1, destination: str = "s", project: str = "shop"
) -> DeliveredNotice:
    since_ns = None if since_s is None else round(since_s * 1e9)
    return DeliveredNotice(Owner(project), destination, since_ns, round(answered_s * 1e9), attempts)


def test_what_is_older_than_the_window_is_forgotten() -> None:
    window = DeliveryWindow(3600)
    window.delivered(told(1000, 1009))
    assert window.by_project(2000 * SECOND)[SHOP].slowest_ms == 9000
    assert window.by_project(4500 * SECOND)[SHOP].slowest_ms == 9000
    window.delivered(told(4600, 4600.1))
    assert window.by_project(4600 * SECOND)[SHOP].answered == 2, "the slice of now and those before it"
    assert window.by_project(4950 * SECOND)[SHOP].slowest_ms == pytest.approx(100)
    assert window.by_project(20_000 * SECOND) == {}


def test_the_time_of_a_consumer_that_failed_meanwhile_is_its_own() -> None:
    window = DeliveryWindow(3600)
    window.failed("s", 1005 * SECOND)
    window.delivered(told(1000, 1030))  # its first attempt, behind another's failures
    window.delivered(told(1020, 1030, attempts=3, destination="other"))
    window.delivered(told(1010, 1010.5))  # the consumer was well again
    found = window.by_project(1100 * SECOND)[SHOP]
    assert (found.answered, found.slowest_ms) == (1, 500)
    assert (found.late, found.slowest_late_ms) == (2, 30_000)


def test_of_earlier_deliveries_the_failures_are_seen_by_those_that_were_repeated() -> None:
    window = DeliveryWindow(3600)
    window.load([told(1000, 1040, attempts=7), told(1030, 1041), told(1050, 1051), told(None, 1052)])
    found = window.by_project(1100 * SECOND)[SHOP]
    assert (found.answered, found.late, found.unmeasured) == (1, 2, 1)


def test_a_notice_that_is_due_and_not_sent_breaks_the_promise_before_it_is_delivered() -> None:
    overdue = NO_DELIVERY._replace(answered=9, slowest_ms=20.0, overdue_ms=4000.0)
    first = notice_set_points({SHOP: overdue}, 1.0, 3600)[0]
    assert (first.standing, first.value) == ("broken", 4.0)
    assert first.detail.startswith("one is due for 4.0 s and not sent yet; slowest of 9 in the last hour")


def test_a_notice_that_no_answer_came_for_is_remembered() -> None:
    window = DeliveryWindow(3600)
    window.given_up(SHOP, "pager/2", 1000 * SECOND)
    second = notice_set_points(window.by_project(1100 * SECOND), 1.0, 3600)[1]
    assert (second.standing, second.value, second.detail) == ("broken", 1, "pager")


def test_of_many_projects_the_worst_have_their_own_lines() -> None:
    good = ProjectDelivery(answered=1, slowest_ms=1.0)
    found = {Owner(f"p{number:04}"): good for number in range(PROJECTS_MAX + 50)}
    bad = Owner("p0149")
    found[bad] = ProjectDelivery(answered=1, slowest_ms=9e3)
    rows = notice_set_points(found, 1.0, 3600)
    assert len(rows) == 2 * (PROJECTS_MAX + 1)
    assert rows[-1].project == OTHERS
    assert by_name(rows)[TOLD, bad].standing == "broken"
    assert "slowest of 50" in by_name(rows)[TOLD, OTHERS].detail


async def test_earlier_deliveries_are_read_on_both_engines(store: Store) -> None:
    key = "s/2:f-1:raised"
    row = {
        "seq": 7, "kind": "NoticeDelivered", "version": 3, "subject": notice_subject(key), "trace": "t",
        "at_ns": 1001 * SECOND, "origin": "test", "loop": "notices",
        "payload": '{"key": "s/2:f-1:raised", "attempts": 3, "admitted_ns": 1000000000000}',
    }  # fmt: skip
    notice = Notice(
        key, "s", SHOP, FaultId("f-1"), NoticeTransition.RAISED, Seq(6), 999 * SECOND, "t", endpoint=2
    )
    with store.engine.begin() as connection:
        connection.execute(insert(journal), [row])
        connection.execute(insert(outbox), [row_of(notice)])
    found = await store.readers.read(lambda conn: earlier_deliveries(conn, 0, 2000 * SECOND))
    assert found == (told(1000, 1001, attempts=3, destination="s/2"),)
    assert await store.readers.read(lambda conn: earlier_deliveries(conn, 0, 1001 * SECOND - 1)) == ()
