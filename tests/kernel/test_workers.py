"""The pool of worker processes: every end of a piece of work, and that none is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeostat.kernel.errors import BadInput, RetryLater
from homeostat.kernel.processes import Identity, die_with_parent, identify
from homeostat.kernel.workers import (
    WorkCancelled,
    WorkCrashed,
    WorkDone,
    Workers,
    WorkerSettings,
    WorkOutcome,
    WorkTimedOut,
)
from store_parts import until

TESTS = Path(__file__).parent.parent
LONG_S = 120.0


@pytest.fixture(autouse=True)
def importable_jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Worker processes find worker_jobs.py."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    yield


async def marked(mark: Path) -> Identity:
    """The worker that wrote this file."""
    await until(mark.exists, deadline_s=LONG_S)
    identity = identify(int(mark.read_text()))
    assert identity is not None
    return identity


async def gone(worker: Identity) -> None:
    await until(lambda: identify(worker.pid) != worker, deadline_s=LONG_S)


async def test_work_is_done_in_another_process_that_is_kept_for_the_next() -> None:
    async with Workers(WorkerSettings(processes=1)) as workers:
        assert await workers.run("worker_jobs:double", 21, deadline_s=LONG_S) == WorkDone(42)
        first = await workers.run("worker_jobs:own_pid", None, deadline_s=LONG_S)
        assert first == await workers.run("worker_jobs:own_pid", None, deadline_s=LONG_S)
        assert first != WorkDone(os.getpid())


async def pid_of_the_worker(workers: Workers) -> Identity:
    """The only worker of a pool, which has started."""
    outcome = await workers.run("worker_jobs:own_pid", None, deadline_s=LONG_S)
    assert isinstance(outcome, WorkDone) and isinstance(outcome.value, int)
    identity = identify(outcome.value)
    assert identity is not None
    return identity


async def test_work_that_loops_for_ever_is_killed_at_its_deadline(tmp_path: Path) -> None:
    async with Workers(WorkerSettings(processes=1)) as workers:
        worker = await pid_of_the_worker(workers)
        mark = str(tmp_path / "mark")
        assert await workers.run("worker_jobs:deaf_spin", mark, deadline_s=1.0) == WorkTimedOut(1.0)
        await gone(worker)
        assert await workers.run("worker_jobs:double", 2, deadline_s=LONG_S) == WorkDone(4)


async def test_the_event_loop_is_not_held_up_by_work_that_never_ends(tmp_path: Path) -> None:
    """Counted in processor time of its own thread, which nothing else on the machine can lengthen."""
    longest_s = 0.0

    async def turn() -> None:
        nonlocal longest_s
        while True:
            before_s = time.thread_time()
            await asyncio.sleep(0.001)
            longest_s = max(longest_s, time.thread_time() - before_s)

    gc.collect()
    gc.disable()  # a look at all the objects of a long test run is not ours
    try:
        async with Workers(WorkerSettings(processes=1)) as workers:
            await pid_of_the_worker(workers)
            turning = asyncio.create_task(turn())
            mark = str(tmp_path / "mark")
            assert await workers.run("worker_jobs:spin", mark, deadline_s=1.0) == WorkTimedOut(1.0)
            assert await workers.run("worker_jobs:double", 2, deadline_s=LONG_S) == WorkDone(4)
            turning.cancel()
    finally:
        gc.enable()
    assert 0 < longest_s < 0.02


@pytest.mark.parametrize(
    ("function", "argument", "reason"),
    [
        ("worker_jobs:fail", "no plan", "ValueError: no plan"),
        ("worker_jobs:exit_with", 3, "its process ended with status 3"),
        ("worker_jobs:kill_itself", None, "its process was killed by SIGKILL"),
        ("worker_jobs:nothing", None, "AttributeError: module 'worker_jobs' has no attribute 'nothing'"),
        ("worker_jobs:grow", 2000, "the result has"),
        ("worker_jobs:broken", None, "its result cannot be read: LookupError: nobody"),
    ],
)
async def test_a_crash_is_an_outcome_and_the_pool_goes_on(
    function: str, argument: object, reason: str
) -> None:
    async with Workers(WorkerSettings(processes=1, bytes_max=1000)) as workers:
        outcome = await workers.run(function, argument, deadline_s=LONG_S)
        assert isinstance(outcome, WorkCrashed)
        assert outcome.reason.startswith(reason)
        assert await workers.run("worker_jobs:double", 2, deadline_s=LONG_S) == WorkDone(4)


async def test_a_worker_that_dies_while_idle_is_replaced() -> None:
    async with Workers(WorkerSettings(processes=1)) as workers:
        worker = await pid_of_the_worker(workers)
        os.kill(worker.pid, signal.SIGKILL)
        await gone(worker)
        # The loop may not have heard of it yet: then this one ends as a crash, and the next one is done.
        outcomes = [await workers.run("worker_jobs:double", 2, deadline_s=LONG_S) for _ in range(2)]
        assert outcomes[-1] == WorkDone(4)


async def test_what_a_function_prints_does_not_stand_between_the_answers() -> None:
    async with Workers(WorkerSettings(processes=1)) as workers:
        for text in ("one", "two"):
            assert await workers.run("worker_jobs:chatter", text, deadline_s=LONG_S) == WorkDone(text)


async def test_cancelling_who_waits_kills_the_work(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    async with Workers(WorkerSettings(processes=1)) as workers:
        waiting = asyncio.create_task(workers.run("worker_jobs:deaf_spin", str(mark), deadline_s=LONG_S))
        worker = await marked(mark)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await gone(worker)
        assert await workers.run("worker_jobs:double", 2, deadline_s=LONG_S) == WorkDone(4)


async def test_a_pool_that_is_closed_cancels_what_works_and_what_waits(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    workers = Workers(WorkerSettings(processes=1))
    works = [
        asyncio.create_task(workers.run("worker_jobs:deaf_spin", str(mark), deadline_s=LONG_S))
        for _ in range(2)
    ]
    worker = await marked(mark)
    await workers.close()
    assert await asyncio.gather(*works) == [WorkCancelled(), WorkCancelled()]
    assert identify(worker.pid) != worker
    assert await workers.run("worker_jobs:double", 2, deadline_s=LONG_S) == WorkCancelled()


async def test_work_is_late_too_when_it_never_got_a_worker(tmp_path: Path) -> None:
    async with Workers(WorkerSettings(processes=1)) as workers:
        first = asyncio.create_task(workers.run("worker_jobs:spin", str(tmp_path / "m"), deadline_s=LONG_S))
        await marked(tmp_path / "m")
        assert await workers.run("worker_jobs:double", 2, deadline_s=0.05) == WorkTimedOut(0.05)
        assert workers.waiting == 0
        first.cancel()


async def test_what_waits_is_bounded_in_bytes(tmp_path: Path) -> None:
    settings = WorkerSettings(processes=1, bytes_max=10_000, waiting_bytes_max=15_000)
    go = tmp_path / "go"
    async with Workers(settings) as workers:
        first = asyncio.create_task(workers.run("worker_jobs:wait_for", str(go), deadline_s=LONG_S))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second: asyncio.Task[WorkOutcome] = asyncio.create_task(
            workers.run("builtins:len", b"x" * 9000, deadline_s=LONG_S)
        )
        await until(lambda: workers.waiting == 1)
        with pytest.raises(RetryLater):
            await workers.run("builtins:len", b"x" * 9000, deadline_s=LONG_S)
        go.touch()
        assert (await first, await second) == (WorkDone(str(go)), WorkDone(9000))


@pytest.mark.parametrize(
    ("function", "argument", "field"),
    [
        ("os.system", "x", "function"),
        ("builtins:len", b"x" * 2000, "argument"),
        ("builtins:len", lambda: None, "argument"),
    ],
)
async def test_what_cannot_be_sent_is_refused(function: str, argument: object, field: str) -> None:
    async with Workers(WorkerSettings(bytes_max=1000)) as workers:
        with pytest.raises(BadInput) as refused:
            await workers.run(function, argument, deadline_s=1.0)
    assert refused.value.field == field


def parent_with_workers(marks: list[Path]) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(TESTS / "working_parent.py"), *map(str, marks)]
    return subprocess.Popen(command, preexec_fn=die_with_parent())


async def test_no_worker_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    marks = [tmp_path / "a", tmp_path / "b"]
    parent = parent_with_workers(marks)
    found = [await marked(mark) for mark in marks]
    parent.send_signal(signal.SIGKILL)
    parent.wait(LONG_S)
    for worker in found:
        await gone(worker)
