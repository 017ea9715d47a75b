"""A real watch of real processes: killed, born again, crashing, zombies, present but not listening."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from homeostat.monitors.node.sampler import SamplerConfig
from homeostat.monitors.outage import SamplingPlan, measure, read_samples
from homeostat.monitors.shipped.process_watch import WatchConfig
from homeostat.monitors.shipped.statements import ProcessChange, read_sightings
from homeostat.monitors.supervision import Measurement, MonitorLoss, Monitors, monitor_command
from homeostat.monitors.verdicts import (
    ProcessOutage,
    ProcessPlan,
    ProcessState,
    Verdict,
    decide,
    process_outage,
)

WITHIN_S = 30.0
WAIT = "import sys; sys.stdin.read()"


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not check():  # noqa: ASYNC110  a file that grows has no event
            await asyncio.sleep(0.01)


class Workers:
    """Processes that can be found by a mark of their own."""

    def __init__(self) -> None:
        self.mark = f"worker-{uuid4().hex}"
        self._all: list[subprocess.Popen[bytes]] = []

    def start(self, program: str = WAIT) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-c", program, self.mark]
        self._all.append(subprocess.Popen(argv, stdin=subprocess.PIPE))
        return self._all[-1]

    def end(self) -> None:
        for process in self._all:
            process.kill()
            process.communicate()


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers()
    yield made
    made.end()


def config(folder: Path, workers: Workers, at_least: int = 1) -> WatchConfig:
    return WatchConfig("processes", workers.mark, str(folder / "sightings.jsonl"), 5.0, at_least)


def seen(folder: Path, change: ProcessChange) -> int:
    return sum(each.change is change for each in read_sightings(folder / "sightings.jsonl"))


def concluded(found: Measurement, before_ns: int, stable_ms: int = 100) -> ProcessOutage:
    assert found.ended is not None and found.lost is None
    return process_outage(found.sightings, ProcessPlan(before_ns, found.ended.at_ns, stable_ms * 1_000_000))


@pytest.mark.seed("000 process outage time")
async def test_killed_and_born_again(tmp_path: Path, workers: Workers) -> None:
    old = [workers.start(), workers.start()]
    async with Monitors([monitor_command(config(tmp_path, workers, 2), tmp_path)]) as monitors:
        assert await monitors.ready(WITHIN_S)
        before_ns = now_ns()
        for each in old:
            each.kill()
        for each in old:
            await asyncio.to_thread(each.communicate)
        dead_ns = now_ns()
        new = [workers.start()]
        born_before_ns = now_ns()
        new.append(workers.start())
        born_after_ns = now_ns()
        await until(lambda: seen(tmp_path, ProcessChange.PRESENT) == 4)
        stable_ns = now_ns() + 200_000_000
        await until(lambda: now_ns() > stable_ns)
        (found,) = await monitors.stop()
    outage = concluded(found, before_ns)
    assert outage.state is ProcessState.RECOVERED and outage.upper_ms is not None
    assert {each.pid for each in outage.died} == {each.pid for each in old}
    assert {each.pid for each in outage.recovered} == {each.pid for each in new}
    # The truth lies between what this test saw from outside.
    assert outage.lower_ms <= (born_after_ns - before_ns) / 1e6
    assert outage.upper_ms >= (born_before_ns - dead_ns) / 1e6
    assert outage.zombies == ()


async def test_a_crash_loop_is_seen(tmp_path: Path, workers: Workers) -> None:
    first = workers.start()
    async with Monitors([monitor_command(config(tmp_path, workers), tmp_path)]) as monitors:
        assert await monitors.ready(WITHIN_S)
        before_ns = now_ns()
        first.kill()
        first.communicate()
        for number in range(3):
            again = workers.start()
            await until(lambda wanted=number + 2: seen(tmp_path, ProcessChange.PRESENT) == wanted)
            again.kill()
            again.communicate()
        await until(lambda: seen(tmp_path, ProcessChange.GONE) == 4)
        (found,) = await monitors.stop()
    outage = concluded(found, before_ns, stable_ms=5_000)
    assert (outage.state, outage.restarts, outage.upper_ms) == (ProcessState.CRASH_LOOP, 3, None)


CUT_NAME = "import ctypes; ctypes.CDLL(None).prctl(15, b'0123456789abcd\\xc3', 0, 0, 0); " + WAIT
"""The kernel cuts a name at 15 bytes, also in the middle of a character."""


@pytest.mark.parametrize("program", [WAIT, CUT_NAME])
async def test_a_zombie_is_dead(tmp_path: Path, workers: Workers, program: str) -> None:
    worker = workers.start(program)
    async with Monitors([monitor_command(config(tmp_path, workers), tmp_path)]) as monitors:
        assert await monitors.ready(WITHIN_S)
        before_ns = now_ns()
        os.kill(worker.pid, signal.SIGKILL)  # and nobody waits for it
        await until(lambda: seen(tmp_path, ProcessChange.GONE) == 1)
        (found,) = await monitors.stop()
    outage = concluded(found, before_ns)
    assert outage.state is ProcessState.NOT_RECOVERED
    assert [each.pid for each in outage.zombies] == [worker.pid]


LISTEN = "import socket, sys; s = socket.create_server(('127.0.0.1', {port})); sys.stdin.read()"


@pytest.mark.seed("order process exists and service answers on its host are two results")
async def test_present_and_not_listening_are_two_results(tmp_path: Path, workers: Workers) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    worker = workers.start(LISTEN.format(port=port))
    samples_file = tmp_path / "port.jsonl"
    answers = SamplerConfig("port", f"tcp://127.0.0.1:{port}", str(samples_file), 10.0)
    commands = [monitor_command(config(tmp_path, workers), tmp_path), monitor_command(answers, tmp_path)]
    async with Monitors(commands) as monitors:
        assert await monitors.ready(WITHIN_S)
        before_ns = now_ns()
        worker.kill()
        worker.communicate()
        workers.start(WAIT)  # it exists, and does not listen
        await until(lambda: seen(tmp_path, ProcessChange.PRESENT) == 2)
        enough_ns = now_ns() + 300_000_000
        await until(lambda: read_samples(samples_file)[-1].sent_ns > enough_ns)
        processes, port_open = await monitors.stop()
    assert concluded(processes, before_ns).state is ProcessState.RECOVERED
    assert port_open.ready is not None
    plan = SamplingPlan(10_000_000, before_ns, port_open.samples[-1].scheduled_ns, port_open.ready.since_ns)
    outage = measure(port_open.samples, plan)
    assert outage.upper_ms is None and outage.lower_ms > 200
    assert decide(outage, 200).verdict is not Verdict.PASS


async def test_nobody_matches_is_never_ready(tmp_path: Path, workers: Workers) -> None:
    watch = monitor_command(config(tmp_path, workers), tmp_path)
    async with Monitors([watch]) as monitors:
        # The configuration file's name is among the watch's own arguments; it must not find itself.
        assert not await monitors.ready(1.0)
        assert monitors.lost == {"processes": MonitorLoss.NOT_READY}


async def test_who_becomes_another_program_is_gone(tmp_path: Path, workers: Workers) -> None:
    worker = workers.start(f"import os, sys; sys.stdin.readline(); os.execv({sys.executable!r}, "
                           f"[{sys.executable!r}, '-c', {WAIT!r}])")  # fmt: skip
    async with Monitors([monitor_command(config(tmp_path, workers), tmp_path)]) as monitors:
        assert await monitors.ready(WITHIN_S)
        before_ns = now_ns()
        assert worker.stdin is not None
        worker.stdin.write(b"\n")
        worker.stdin.flush()
        await until(lambda: seen(tmp_path, ProcessChange.GONE) == 1)
        (found,) = await monitors.stop()
    assert concluded(found, before_ns).state is ProcessState.NOT_RECOVERED
    assert worker.poll() is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cmdline": "("}, "cmdline: '(' is not accepted"),
        ({"cmdline": ""}, "cmdline: '' is not accepted"),
        ({"period_ms": 0}, "period_ms: 0 is not accepted"),
        ({"at_least": 0}, "at_least: 0 is not accepted"),
        ({"pattern": "x"}, "pattern: 'x' is not accepted"),
    ],
)
def test_a_wrong_configuration_is_one_line(tmp_path: Path, change: dict[str, object], says: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"name": "a", "cmdline": "x", "sightings_file": str(tmp_path / "s")} | change))
    ran = subprocess.run(
        [sys.executable, "-m", "homeostat.monitors.shipped.process_watch", "--config", str(path)],
        capture_output=True, text=True, timeout=WITHIN_S,
    )  # fmt: skip
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"homeostat: {says}") and ran.stderr.count("\n") == 1
