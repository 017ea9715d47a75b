"""The last evidence before a change: when a resource was last seen right, and last seen wrong."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest

from homeostat.contracts.nouns import ResourceState
from homeostat.kernel.processes import identify
from homeostat.resources.model import RunAction
from homeostat.resources.node.agents import PidfdWatch
from homeostat.resources.node.resource import RunnerPulse, SeenMoments
from homeostat.resources.ocf import ActionOutcome
from set_clock import SetClock, server_mono

MONITOR, START = RunAction("monitor", 5.0), RunAction("start", 5.0)
UP, DOWN = ResourceState.UP, ResourceState.DOWN


def test_a_look_counts_from_its_beginning() -> None:
    moments = SeenMoments()
    moments.ended(MONITOR, 100, ActionOutcome.OK)
    moments.ended(MONITOR, 200, ActionOutcome.NOT_RUNNING)
    assert moments.before(DOWN) == 100
    assert moments.before(UP) == 200


def test_what_is_started_was_not_up_when_the_start_began() -> None:
    moments = SeenMoments()
    moments.ended(MONITOR, 100, ActionOutcome.NOT_RUNNING)
    moments.ended(START, 300, ActionOutcome.OK)
    moments.ended(MONITOR, 400, ActionOutcome.OK)
    assert moments.before(UP) == 300


@pytest.mark.seed("order a process that was frozen itself does not call an outage short")
def test_a_watched_process_lived_at_the_last_moment_that_is_settled() -> None:
    """The runner may have been frozen between that moment and now."""
    moments = SeenMoments()
    moments.ended(MONITOR, 100, ActionOutcome.OK)
    moments.watched_ns = 120
    moments.died(RunnerPulse(seen_ns=250))
    assert moments.before(DOWN) == 250
    moments.died(RunnerPulse(seen_ns=400))
    assert moments.before(DOWN) == 250, "it died once"


def test_a_moment_before_the_watch_says_nothing() -> None:
    moments = SeenMoments()
    moments.ended(MONITOR, 100, ActionOutcome.OK)
    moments.watched_ns = 300
    moments.died(RunnerPulse(seen_ns=250))
    assert moments.before(DOWN) == 100


async def test_a_moment_counts_when_an_end_before_it_is_noted() -> None:
    """However late the loop is: the end of a process that it has not polled yet is before no such moment."""
    pulse, clock = RunnerPulse(), SetClock()
    with subprocess.Popen(["sleep", "300"]) as process:  # noqa: ASYNC220 - it is waited for here
        identity = identify(process.pid)
        assert identity is not None
        watch = PidfdWatch.on(identity)
        assert watch is not None
        waiting = asyncio.ensure_future(note_end(watch, pulse))
        await pulse.beat(clock)
        assert pulse.seen_ns == server_mono(0)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - the loop is to stand still
        clock.pass_s(1)
        await pulse.beat(clock)
        assert waiting.done() and waiting.result() == server_mono(0)
        watch.close()


async def note_end(watch: PidfdWatch, pulse: RunnerPulse) -> int:
    """What a runner's task does: it waits for the end of one of several."""
    forever: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await asyncio.wait([watch.ended, forever], return_when=asyncio.FIRST_COMPLETED)
    return pulse.seen_ns


def test_nobody_knows_before_the_first_look() -> None:
    assert SeenMoments().before(UP) == SeenMoments().before(DOWN) == 0
    assert SeenMoments(good_ns=5, bad_ns=7).before(ResourceState.STARTING) == 0
