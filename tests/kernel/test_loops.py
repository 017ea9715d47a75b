"""Named tasks in virtual time: crash, back-off, give up, stop."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest

from homeostat.kernel.errors import BadInput, Deposed, StoreUnavailable
from homeostat.kernel.loops import LoopLag, Task, run_tasks


def now_s() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.looptime
async def test_a_crash_is_told_and_started_again_ever_later() -> None:
    stopping = asyncio.Event()
    starts: list[float] = []
    told: list[tuple[str, str]] = []

    async def crash() -> None:
        starts.append(now_s())
        if len(starts) == 9:
            stopping.set()
            await asyncio.sleep(1000)
        raise StoreUnavailable("no database")

    async def on_crash(name: str, error: BaseException) -> None:
        told.append((name, str(error)))

    await run_tasks([Task("writer", crash)], stopping=stopping, on_crash=on_crash)
    waits = [round(after - before, 3) for before, after in pairwise(starts)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert told == [("writer", "no database")] * 8


@pytest.mark.looptime
async def test_a_task_that_was_healthy_for_long_starts_again_soon() -> None:
    stopping = asyncio.Event()
    starts: list[float] = []

    async def crash() -> None:
        starts.append(now_s())
        if len(starts) == 4:
            stopping.set()
        await asyncio.sleep(31)
        raise RuntimeError

    await run_tasks([Task("slow", crash)], stopping=stopping)
    assert [round(b - a, 3) for a, b in pairwise(starts)] == [31.1, 31.1, 31.1]


@pytest.mark.looptime
@pytest.mark.parametrize("error", [Deposed("another server holds the term"), BadInput("x", 1, "2 is")])
async def test_giving_up_stops_the_others_and_is_raised_as_it_was(error: Exception) -> None:
    cancelled = asyncio.Event()

    async def neighbour() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            cancelled.set()

    async def gives_up() -> None:
        await asyncio.sleep(1)
        raise error

    with pytest.raises(type(error)) as caught:
        await run_tasks([Task("a", neighbour), Task("b", gives_up)], stopping=asyncio.Event())
    assert caught.value is error
    assert cancelled.is_set()
    assert now_s() == 1


@pytest.mark.looptime
async def test_giving_up_inside_a_group_of_the_task_s_own_is_giving_up() -> None:
    async def with_children() -> None:
        async def gives_up() -> None:
            raise Deposed("another server holds the term")

        async with asyncio.TaskGroup() as group:
            group.create_task(gives_up())

    with pytest.raises(Deposed):
        await run_tasks([Task("a", with_children)], stopping=asyncio.Event())


@pytest.mark.looptime
async def test_a_stop_cancels_everything_even_a_task_that_waits_to_start_again() -> None:
    stopping = asyncio.Event()
    cleaned: list[str] = []

    async def crash() -> None:
        raise RuntimeError

    async def works() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0.5)
            cleaned.append("works")

    async def stops() -> None:
        await asyncio.sleep(10)
        stopping.set()

    await run_tasks([Task("crash", crash), Task("works", works), Task("stops", stops)], stopping=stopping)
    assert cleaned == ["works"]
    assert now_s() == 10.5


@pytest.mark.looptime
async def test_all_finished_ends_the_group_without_a_stop() -> None:
    async def once() -> None:
        await asyncio.sleep(3)

    await run_tasks([Task("once", once), Task("twice", once)], stopping=asyncio.Event())
    assert now_s() == 3


@pytest.mark.looptime
async def test_returning_is_a_crash_of_a_task_that_runs_for_ever() -> None:
    stopping = asyncio.Event()
    told: list[str] = []

    async def returns() -> None:
        pass

    async def on_crash(name: str, error: BaseException) -> None:
        told.append(str(error))
        stopping.set()

    await run_tasks([Task("beat", returns, forever=True)], stopping=stopping, on_crash=on_crash)
    assert told == ["beat: returned, but runs for ever"]


@pytest.mark.looptime
async def test_a_cancellation_from_inside_is_a_crash_and_no_silent_end() -> None:
    stopping = asyncio.Event()
    told: list[str] = []

    async def cancelled_inside() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def on_crash(name: str, error: BaseException) -> None:
        told.append(str(error))
        stopping.set()

    await run_tasks([Task("hears", cancelled_inside)], stopping=stopping, on_crash=on_crash)
    assert told == ["hears: cancelled from inside"]


@pytest.mark.looptime
@pytest.mark.parametrize("stuck", [True, False])
async def test_a_journal_that_cannot_be_told_does_not_keep_the_task_down(stuck: bool) -> None:
    stopping = asyncio.Event()
    starts: list[float] = []

    async def crash() -> None:
        starts.append(now_s())
        if len(starts) == 2:
            stopping.set()
        raise RuntimeError

    async def on_crash(name: str, error: BaseException) -> None:
        if stuck:
            await asyncio.sleep(1000)
        raise StoreUnavailable

    await run_tasks([Task("crash", crash)], stopping=stopping, on_crash=on_crash)
    assert len(starts) == 2
    assert starts[1] - starts[0] <= 5.2


@pytest.mark.looptime
async def test_being_deposed_while_telling_stops_the_group() -> None:
    async def crash() -> None:
        raise RuntimeError

    async def on_crash(name: str, error: BaseException) -> None:
        raise Deposed

    with pytest.raises(Deposed):
        await run_tasks([Task("crash", crash)], stopping=asyncio.Event(), on_crash=on_crash)


@pytest.mark.looptime
async def test_cancelling_the_group_from_outside_cancels_its_tasks() -> None:
    cancelled = asyncio.Event()

    async def works() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            cancelled.set()

    group = asyncio.create_task(run_tasks([Task("works", works)], stopping=asyncio.Event()))
    await asyncio.sleep(1)
    group.cancel()
    with pytest.raises(asyncio.CancelledError):
        await group
    assert cancelled.is_set()


@pytest.mark.looptime
async def test_tasks_carry_their_names() -> None:
    names: set[str] = set()

    async def look() -> None:
        task = asyncio.current_task()
        assert task is not None
        names.add(task.get_name())

    await run_tasks([Task("a", look), Task("b", look)], stopping=asyncio.Event())
    assert names == {"a", "b"}


async def test_lag_sees_a_blocked_loop_and_forgets_it() -> None:
    lag = LoopLag(period_s=0.01, window_s=0.3)
    measuring = asyncio.create_task(lag.run())
    await asyncio.sleep(0.05)
    time.sleep(0.15)  # noqa: ASYNC251 - blocking the loop is what is measured
    assert lag.worst_s >= 0.1, "a lag is seen while it lasts"
    await asyncio.sleep(0.02)
    assert lag.worst_s >= 0.1, "and remembered"
    async with asyncio.timeout(5):
        while lag.worst_s >= 0.1:  # noqa: ASYNC110 - a window passes
            await asyncio.sleep(0.02)
    measuring.cancel()
    await asyncio.gather(measuring, return_exceptions=True)


@pytest.mark.looptime
async def test_giving_up_inside_a_task_group_stops_everything_too() -> None:
    async def deposed() -> None:
        raise Deposed("another server holds the term")

    async def grouped() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(deposed())

    with pytest.raises(Deposed):
        await run_tasks([Task("delivery", grouped)], stopping=asyncio.Event())


@pytest.mark.looptime
async def test_a_stop_that_meets_a_crash_inside_a_task_group_is_a_stop() -> None:
    stopping = asyncio.Event()
    starts = 0

    async def fail_when_cancelled() -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            raise RuntimeError("the connection is gone") from None

    async def grouped() -> None:
        nonlocal starts
        starts += 1
        async with asyncio.TaskGroup() as group:
            group.create_task(fail_when_cancelled())

    async def stop() -> None:
        await asyncio.sleep(1)
        stopping.set()

    async with asyncio.timeout(100):
        await run_tasks([Task("grouped", grouped), Task("stop", stop)], stopping=stopping)
    assert starts == 1
