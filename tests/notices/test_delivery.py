"""Delivery with a real store and real consumers: order, sameness, limits, restart, recovery."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from aiohttp import web
from sqlalchemy import Connection

from homeostat.contracts.events.notices import NoticeDelivered
from homeostat.contracts.nouns import Owner
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.errors import Deposed, StoreUnavailable
from homeostat.kernel.journal import Receipt, Submission
from homeostat.notices import outbox, store
from homeostat.notices.attempts import OutcomeWriter
from homeostat.notices.delivery import Delivery
from homeostat.notices.model import FaultPicture, NoticeState
from homeostat.notices.send_queue import DueNotice
from homeostat.notices.set_points import notice_set_points
from homeostat.notices.signing import verify
from homeostat.ports import WebhookReply, WebhookRequest, WebhookResult
from notices_parts import QUICK, SECRET, World, consumer, dead_url, picture, subscription, until, world

T = TypeVar("T")
DELIVERED, GIVEN_UP = NoticeState.DELIVERED, NoticeState.GIVEN_UP


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def cleared(fault: str = "f-1", owner: str = "shop") -> FaultPicture:
    return picture(fault, owner, cleared_ns=1_700_000_002_000_000_000, outage_ms=10.0)


async def test_raised_and_cleared_are_told_once_signed_and_written_down(here: World) -> None:
    async with consumer() as there, here.delivering() as delivery:
        await here.subscribe(subscription(url=there.url), subscription("foreign", "bank", there.url))
        await here.tell(delivery, picture())
        await here.tell(delivery, cleared())
        rows = await here.until_none_pending()
        await until(lambda: delivery.figures().uncommitted == 0)
        figures = delivery.figures()
    assert there.keys == ["s:f-1:raised", "s:f-1:cleared"]
    for heard in there.heard:
        verify(heard.signature, heard.body, {"k1": SECRET}, SystemClock().wall_ns() / 1e9)
    assert {key: (row.state, row.attempts) for key, row in rows.items()} == {
        "s:f-1:raised": (DELIVERED, 1),
        "s:f-1:cleared": (DELIVERED, 1),
    }
    events = await here.journal.read(0, 100, subject="notice/s:f-1:raised")  # type: ignore[arg-type]
    assert [each.kind for each in events] == ["NoticeQueued", "NoticeDelivered"]
    assert events[1].cause == events[0].seq and events[1].trace == "trace-f-1"
    assert (figures.waiting, figures.in_flight, figures.uncommitted) == (0, 0, 0)
    shop = delivery.by_project()[Owner("shop")]
    assert (shop.answered, shop.late, shop.unmeasured, shop.silent) == (2, 0, 0, frozenset())
    assert shop.slowest_ms is not None
    assert [row.standing for row in notice_set_points({Owner("shop"): shop}, 1e6, 3600)] == ["kept", "kept"]


async def test_failures_are_repeated_with_the_same_key_and_body_in_order(here: World) -> None:
    async def behave(_request: web.Request, number: int) -> web.Response:
        return web.Response(status=(503, 404, 302, 200)[min(number, 3)])

    async with consumer(behave) as there, here.delivering() as delivery:
        await here.subscribe(subscription(url=there.url))
        await here.tell(delivery, picture(), cleared())
        rows = await here.until_none_pending()
    assert there.keys == ["s:f-1:raised"] * 4 + ["s:f-1:cleared"]
    assert len({heard.body for heard in there.heard[:4]}) == 1
    assert rows["s:f-1:raised"].attempts == 4


async def test_a_connection_that_breaks_and_a_hanging_consumer_are_tried_again(here: World) -> None:
    async def behave(request: web.Request, number: int) -> web.Response:
        if number == 0:
            assert request.transport is not None
            request.transport.abort()
        if number == 1:
            await asyncio.Event().wait()
        return web.Response()

    async with consumer(behave) as there, here.delivering() as delivery:
        await here.subscribe(subscription(url=there.url))
        await here.tell(delivery, picture())
        rows = await here.until_none_pending()
    assert there.keys == ["s:f-1:raised"] * 3
    assert rows["s:f-1:raised"].state is DELIVERED


async def test_the_dead_and_the_hanging_do_not_hold_up_the_living(here: World) -> None:
    async def hang(_request: web.Request, _number: int) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    faults = [picture(f"f-{index}") for index in range(20)]
    settings = QUICK.model_copy(update={"workers": 8, "total_timeout_s": 30.0, "stop_timeout_s": 0.05})
    async with consumer(hang) as hanging, consumer() as living, here.delivering(settings=settings) as running:
        await here.subscribe(
            *(subscription(f"dead-{index}", url=dead_url()) for index in range(5)),
            *(subscription(f"hang-{index}", url=hanging.url) for index in range(5)),
            subscription("living", url=living.url),
        )
        await here.tell(running, *faults)
        await until(lambda: len(living.heard) == 20)
    assert sorted(living.keys) == sorted(f"living:f-{index}:raised" for index in range(20))
    assert hanging.most_at_once <= 5


async def test_a_consumer_that_returns_gets_all_at_once_and_was_only_probed(here: World) -> None:
    healthy = asyncio.Event()

    async def behave(_request: web.Request, _number: int) -> web.Response:
        return web.Response(status=200 if healthy.is_set() else 500)

    settings = QUICK.model_copy(update={"longest_wait_s": 0.05})
    async with consumer(behave) as there, here.delivering(settings=settings) as delivery:
        await here.subscribe(subscription(url=there.url))
        await here.tell(delivery, *(picture(f"f-{index}") for index in range(30)))
        await until(lambda: len(there.heard) >= 8)
        assert there.most_at_once == 1
        assert delivery.figures().suspects == ("s",)
        healthy.set()
        rows = await here.until_none_pending()
    assert {row.state for row in rows.values()} == {DELIVERED}
    assert len(rows) == 30


async def test_gone_is_given_up_at_once_with_its_reason(here: World) -> None:
    async def behave(_request: web.Request, _number: int) -> web.Response:
        return web.Response(status=410)

    async with consumer(behave) as there, here.delivering() as delivery:
        await here.subscribe(subscription(url=there.url))
        await here.tell(delivery, picture())
        rows = await here.until_none_pending()
    assert (rows["s:f-1:raised"].state, rows["s:f-1:raised"].attempts) == (GIVEN_UP, 1)
    assert rows["s:f-1:raised"].reason == "the consumer answered 410 Gone"
    assert await here.kinds("notice/s:f-1:raised") == ["NoticeQueued", "NoticeGivenUp"]


async def test_too_old_is_given_up_also_behind_a_broken_circuit(here: World) -> None:
    settings = QUICK.model_copy(update={"give_up_after_s": 0.4, "first_wait_s": 0.1, "longest_wait_s": 9.0})
    async with here.delivering(settings=settings) as delivery:
        await here.subscribe(subscription(url=dead_url()))
        await here.tell(delivery, *(picture(f"f-{index}") for index in range(10)))
        await here.tell(delivery, cleared("f-3"))
        rows = await here.until_none_pending()
    assert {row.state for row in rows.values()} == {GIVEN_UP}
    assert all(row.reason.startswith("no attempt succeeded in time") for row in rows.values())
    assert len(rows) == 11
    raised = (await here.journal.read(0, 100, subject="notice/s:f-3:raised"))[-1]  # type: ignore[arg-type]
    ended = (await here.journal.read(0, 100, subject="notice/s:f-3:cleared"))[-1]  # type: ignore[arg-type]
    assert raised.seq < ended.seq


async def test_what_waits_for_a_removed_subscription_is_given_up(here: World) -> None:
    async with here.delivering() as delivery:
        await here.subscribe(subscription(url=dead_url()))
        await here.tell(delivery, picture(), cleared())
        await until(lambda: delivery.figures().suspects == ("s",))
        await here.remove("s")
        delivery.release("s")
        rows = await here.until_none_pending()
    assert {row.reason for row in rows.values()} == {"the subscription was removed"}


async def test_a_name_taken_by_another_project_does_not_hear_of_the_first_ones_faults(here: World) -> None:
    await here.subscribe(subscription(url=dead_url()))
    await here.tell(None, picture())
    await here.remove("s")
    async with consumer() as there:
        await here.subscribe(subscription(owner="bank", url=there.url))
        async with here.delivering():
            rows = await here.until_none_pending()
        assert there.heard == []
    assert "another project" in rows["s:f-1:raised"].reason


async def test_a_restart_sends_what_was_pending_with_the_same_key_and_body(here: World) -> None:
    healthy = asyncio.Event()

    async def behave(_request: web.Request, _number: int) -> web.Response:
        return web.Response(status=200 if healthy.is_set() else 500)

    async with consumer(behave) as there:
        await here.subscribe(subscription(url=there.url))
        async with here.delivering() as first:
            await here.tell(first, picture())
            await here.tell(first, cleared())
            await until(lambda: len(there.heard) >= 2)
        tried = (await here.rows())["s:f-1:raised"].attempts
        assert tried >= 2
        here.pictures["f-1"] = cleared()  # type: ignore[index]
        healthy.set()
        before = len(there.heard)
        here.recalled.clear()  # the first one may have found the notice in the outbox, too
        async with here.delivering():
            rows = await here.until_none_pending()
    assert there.keys[before:] == ["s:f-1:raised", "s:f-1:cleared"]
    assert len({each.body for each in there.heard if each.key.endswith("raised")}) == 1
    assert rows["s:f-1:raised"].attempts == tried + 1
    assert here.recalled == ["f-1"]


async def test_a_fault_that_nobody_knows_any_more_is_given_up(here: World) -> None:
    await here.subscribe(subscription(url=dead_url()))
    await here.tell(None, picture())
    here.pictures.clear()
    async with here.delivering():
        rows = await here.until_none_pending()
    assert "no longer known" in rows["s:f-1:raised"].reason


async def test_more_than_memory_holds_waits_in_the_outbox_and_keeps_its_order(here: World) -> None:
    settings = QUICK.model_copy(update={"waiting_per_subscription": 7, "sends_per_subscription": 2})
    faults = [picture(f"f-{index:03}") for index in range(60)]
    async with consumer() as there, here.delivering(settings=settings) as delivery:
        await here.subscribe(subscription(url=there.url), subscription("t", url=there.url))
        for fault in faults:
            await here.tell(delivery, fault)
        for fault in faults:  # each offered before it can be told: else it may have ended by then
            await here.tell(delivery, cleared(fault.id))
        rows = await here.until_none_pending()
    assert {row.state for row in rows.values()} == {DELIVERED}
    assert len(there.keys) == len(set(there.keys)) == 240
    for fault in faults:
        for name in "st":
            raised, ended = (there.keys.index(f"{name}:{fault.id}:{kind}") for kind in ("raised", "cleared"))
            assert raised < ended


class Fragile:
    """A store that refuses for a while, before or after it has done what was asked."""

    def __init__(self, here: World, failures: int, *, lost_answer: bool = False) -> None:
        self._here, self.failures, self._lost_answer = here, failures, lost_answer

    async def append(self, submission: Submission) -> Receipt:
        if submission.loop == "notices" and submission.events and self.failures > 0:
            self.failures -= 1
            if self._lost_answer:
                await self._here.appender.append(submission)
            raise StoreUnavailable("gone for a while")
        return await self._here.appender.append(submission)


@pytest.mark.parametrize("lost_answer", [False, True])
async def test_an_outcome_is_written_when_the_store_is_back_and_nothing_is_sent_twice(
    here: World, lost_answer: bool
) -> None:
    fragile = Fragile(here, 3, lost_answer=lost_answer)
    async with consumer() as there, here.delivering(appender=fragile) as delivery:
        await here.subscribe(subscription(url=there.url))
        await here.tell(delivery, *(picture(f"f-{index}") for index in range(3)), cleared("f-0"))
        await here.until_none_pending()
        await until(lambda: delivery.figures().uncommitted == 0)
    assert fragile.failures == 0
    assert sorted(there.keys) == ["s:f-0:cleared", "s:f-0:raised", "s:f-1:raised", "s:f-2:raised"]
    assert await here.kinds("notice/s:f-0:raised") == ["NoticeQueued", "NoticeDelivered"]


async def test_one_refused_outcome_does_not_take_the_others_with_it(here: World) -> None:
    await here.subscribe(subscription(url=dead_url()))
    waiting = await here.tell(None, *(picture(f"f-{index}") for index in range(5)))
    already = outbox.given_up_submission(waiting[2], 1, 1, "somebody was faster")
    await here.appender.append(already)
    committed: list[str] = []
    outcomes = OutcomeWriter(here.appender, lambda due: committed.append(due.key))
    for each in waiting:
        due = DueNotice(each, picture(each.fault), 0, 0)
        given_up = (
            outbox.given_up_submission(each, 1, 2, "it is enough") if each is not waiting[2] else already
        )
        outcomes.add(due, lambda given_up=given_up: given_up)  # type: ignore[misc]
    await outcomes.flush()
    assert committed == [each.key for each in waiting]
    assert {row.state for row in (await here.rows()).values()} == {NoticeState.GIVEN_UP}
    for each in waiting:
        assert await here.kinds(f"notice/{each.key}") == ["NoticeQueued", "NoticeGivenUp"]


async def test_a_lost_commit_means_the_same_key_again_after_the_restart(here: World) -> None:
    settings = QUICK.model_copy(update={"stop_timeout_s": 0.05})
    async with consumer() as there:
        await here.subscribe(subscription(url=there.url))
        broken = Fragile(here, 10**6)
        async with here.delivering(settings=settings, appender=broken) as delivery:
            await here.tell(delivery, picture(), cleared())
            await until(lambda: len(there.heard) == 1)
        async with here.delivering():
            await here.until_none_pending()
    assert there.keys == ["s:f-1:raised", "s:f-1:raised", "s:f-1:cleared"]
    assert there.heard[0].body == there.heard[1].body


async def test_a_stop_lets_sends_finish_and_commits_their_outcomes(here: World) -> None:
    async def behave(_request: web.Request, _number: int) -> web.Response:
        await asyncio.sleep(0.15)
        return web.Response()

    async with consumer(behave) as there:
        await here.subscribe(subscription(url=there.url))
        async with here.delivering() as delivery:
            await here.tell(delivery, picture("f-1"), picture("f-2"))
            await until(lambda: len(there.heard) == 1)
        rows = await here.rows()
    assert len(there.heard) == 1
    assert [rows[key].state for key in sorted(rows)] == [DELIVERED, NoticeState.PENDING]


class Puzzling:
    """A transport with a bug, for one notice."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def post(self, request: WebhookRequest) -> WebhookResult:
        key = request.headers["Idempotency-Key"]
        self.sent.append(key)
        if key == "s:f-1:raised" and self.sent.count(key) < 3:
            raise ZeroDivisionError
        return WebhookReply(200)

    async def close(self) -> None:
        pass


async def test_a_bug_in_one_notice_does_not_stop_the_others(here: World) -> None:
    transport = Puzzling()
    async with here.delivering(transport) as delivery:
        await here.subscribe(subscription(), subscription("t"))
        await here.tell(delivery, picture())
        rows = await here.until_none_pending()
    assert {row.state for row in rows.values()} == {DELIVERED}
    assert transport.sent.count("s:f-1:raised") == 3


class Deposing:
    async def append(self, _submission: Submission) -> Receipt:
        raise Deposed("another server leads")


async def test_a_deposed_server_stops_telling(here: World) -> None:
    await here.subscribe(subscription())
    async with here.delivering(Puzzling()) as delivery:
        pass
    delivery._parts = replace(delivery._parts, appender=Deposing(), transport=Puzzling())
    run = asyncio.create_task(delivery.run())
    await here.tell(delivery, picture("f-9"))
    with pytest.raises(BaseExceptionGroup) as ended:
        await run
    assert ended.group_contains(Deposed)


async def test_hundreds_of_notices_at_once_stay_within_the_workers(here: World) -> None:
    async with consumer() as there, here.delivering() as delivery:
        await here.subscribe(*(subscription(f"s{index}", url=there.url) for index in range(40)))
        await here.tell(delivery, *(picture(f"f-{index}") for index in range(10)))
        await here.until_none_pending()
    assert len(set(there.keys)) == len(there.keys) == 400
    assert there.most_at_once <= QUICK.sends_per_host


class Racing:
    """Readers that let something happen between a snapshot of the pending rows and its return."""

    def __init__(self, here: World, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self._here, self._meanwhile, self.raced = here, meanwhile, False

    async def read(self, fn: Callable[[Connection], T]) -> T:
        rows = await self._here.readers.read(fn)
        if not self.raced and isinstance(fn, partial) and fn.func is store.pending_of:
            self.raced = True
            await self._meanwhile()
        return rows


async def test_what_is_queued_while_the_outbox_is_read_is_not_forgotten(here: World) -> None:
    async with consumer() as there:
        await here.subscribe(subscription(url=there.url))
        await here.tell(None, picture("f-1"))
        running: list[Delivery] = []
        racing = Racing(here, lambda: here.tell(running[0], picture("f-2")))
        async with here.delivering(readers=racing) as delivery:
            running.append(delivery)
            await here.until_none_pending()
    assert racing.raced
    assert there.keys == ["s:f-1:raised", "s:f-2:raised"]


async def test_each_row_knows_the_event_that_queued_it(here: World) -> None:
    await here.subscribe(*(subscription(f"s{index}") for index in range(3)))
    told = await here.tell(None, picture())
    events = await here.journal.read(0, 10, kinds=["NoticeQueued"])  # type: ignore[arg-type]
    assert {row.key: row.queued_seq for row in (await here.rows()).values()} == {
        each.payload["key"]: each.seq for each in events
    }
    assert [each.queued_seq for each in told] == [each.seq for each in events]
    raised = (await here.journal.read(0, 1))[0]  # type: ignore[arg-type]
    assert {each.cause for each in events} == {raised.seq}


async def test_the_moment_of_telling_is_the_answers_first_line_not_its_end_nor_the_commit(
    here: World,
) -> None:
    moments: list[int] = []
    go_on = asyncio.Event()

    async def behave(request: web.Request, _number: int) -> web.StreamResponse:
        moments.append(time.time_ns())
        answer = web.StreamResponse(headers={"Content-Length": "2"})
        await answer.prepare(request)
        moments.append(time.time_ns())
        await go_on.wait()
        moments.append(time.time_ns())
        await answer.write(b"ok")
        return answer

    ended: list[tuple[NoticeState, float | None]] = []
    async with consumer(behave) as there, here.delivering() as delivery:
        delivery.on_end(lambda state, took_s: ended.append((state, took_s)))
        await here.subscribe(subscription(url=there.url))
        await here.tell(delivery, picture())
        await until(lambda: len(moments) == 2)
        asyncio.get_running_loop().call_later(0.2, go_on.set)
        await here.until_none_pending()
    events = await here.journal.read(0, 100, subject="notice/s:f-1:raised")  # type: ignore[arg-type]
    told = events[1].event
    assert isinstance(told, NoticeDelivered)
    assert told.offered_ns is not None and told.sent_ns is not None
    came_ns, answered_ns, finished_ns = moments
    assert events[0].at_ns <= told.offered_ns <= told.sent_ns <= came_ns
    assert came_ns <= events[1].at_ns < finished_ns - 100_000_000, "not when its body was there"
    assert events[1].at_ns <= answered_ns + 150_000_000
    assert [state for state, _ in ended] == [DELIVERED]
    assert ended[0][1] == pytest.approx((events[1].at_ns - told.offered_ns) / 1e9, abs=0.001)
