"""Real monitor processes on a real server: what they see, and what happens when they are hurt."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from sampled_server import SampledServer, answer_of, sampled_server

from homeostat.kernel.processes import is_alive
from homeostat.monitors.node.sampler import SamplerConfig
from homeostat.monitors.outage import Outage, ProbeAnswer, Sample, SamplingPlan, measure, read_samples
from homeostat.monitors.supervision import Measurement, MonitorLoss, Monitors, monitor_command
from homeostat.monitors.verdicts import Verdict, VerdictReason, decide

WITHIN_S = 30.0
PERIOD_MS = 10.0


@pytest.fixture
def server() -> Iterator[SampledServer]:
    with sampled_server() as running:
        yield running


def config(folder: Path, server: SampledServer, **changes: object) -> SamplerConfig:
    values: dict[str, object] = {
        "name": "api",
        "url": f"http://127.0.0.1:{server.port}/v3?full=1",
        "samples_file": str(folder / f"{changes.get('name', 'api')}.jsonl"),
        "period_ms": PERIOD_MS,
        "deadline_ms": 5_000.0,  # and late after 500: a busy machine is not a late service
    }
    return SamplerConfig(**(values | changes))  # type: ignore[arg-type]


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not check():  # noqa: ASYNC110  a file that grows has no event
            await asyncio.sleep(0.01)


def last_samples(path: Path, number: int) -> list[Sample]:
    return list(read_samples(path))[-number:]


async def measured(
    chosen: SamplerConfig, fault: Callable[[], None], repair: Callable[[], None], wanted: ProbeAnswer
) -> tuple[Measurement, Outage]:
    """One monitor, a fault until its samples are `wanted`, the repair until they are good again."""
    file = Path(chosen.samples_file)
    async with Monitors([monitor_command(chosen, file.parent)]) as monitors:
        assert await monitors.ready(WITHIN_S), monitors.lost
        fault_ns = last_samples(file, 1)[0].done_ns + 1
        await asyncio.to_thread(fault)
        await until(lambda: sum(each.answer is wanted for each in read_samples(file)) >= 5)
        await asyncio.to_thread(repair)
        await until(lambda: all(each.answer is ProbeAnswer.OK for each in last_samples(file, 20)))
        (found,) = await monitors.stop()
    assert found.ready is not None and found.ended is not None
    plan = SamplingPlan(
        round(PERIOD_MS * 1e6), fault_ns, found.samples[-1].scheduled_ns, found.ready.since_ns
    )
    return found, measure(found.samples, plan)


@pytest.mark.seed("000 service outage time is measured by continuously asking the service")
async def test_refused_and_back(tmp_path: Path, server: SampledServer) -> None:
    chosen = config(tmp_path, server)
    found, outage = await measured(
        chosen, server.refuse, lambda: server.call(server.listen()), ProbeAnswer.REFUSED
    )
    assert found.lost is None
    assert outage.longest is not None and outage.longest.upper_ms is not None
    assert 0 < outage.longest.lower_ms <= outage.gap_ms <= outage.longest.upper_ms
    assert outage.baseline_samples >= 20 and outage.baseline_failed == 0


async def test_wrong_answers(tmp_path: Path, server: SampledServer) -> None:
    def set_answer(status: int) -> Callable[[], None]:
        return lambda: setattr(server, "answer", answer_of(status))

    chosen = config(tmp_path, server)
    found, outage = await measured(chosen, set_answer(503), set_answer(200), ProbeAnswer.ERROR)
    assert {each.status for each in found.samples if each.answer is ProbeAnswer.ERROR} == {503}
    assert outage.lower_ms > 0


async def test_no_answers(tmp_path: Path, server: SampledServer) -> None:
    def hang() -> None:
        server.answer = None

    def serve() -> None:
        server.answer = answer_of(200)

    chosen = config(tmp_path, server, deadline_ms=300.0)
    found, outage = await measured(chosen, hang, serve, ProbeAnswer.TIMEOUT)
    expired = [each for each in found.samples if each.answer is ProbeAnswer.TIMEOUT]
    assert all(each.done_ns - each.sent_ns >= 300e6 for each in expired)
    assert outage.answers[ProbeAnswer.TIMEOUT] >= 5
    # Open loop: those that wait hold up none of the others.
    assert any(later.sent_ns < earlier.done_ns for earlier, later in pairwise(expired))


async def test_every_tenth_goes_on_a_new_connection(tmp_path: Path, server: SampledServer) -> None:
    chosen = config(tmp_path, server)
    async with Monitors([monitor_command(chosen, tmp_path)]) as monitors:
        assert await monitors.ready(WITHIN_S)
        await until(lambda: len(read_samples(Path(chosen.samples_file))) > 50)
        (found,) = await monitors.stop()
    fresh = [each.fresh for each in found.samples]
    assert fresh[0] and all(fresh[9::10])
    assert found.cpu_ms_per_sample is None or found.cpu_ms_per_sample > 0
    assert fresh.count(False) > len(fresh) / 2
    assert server.heard[0].startswith(b"GET /v3?full=1 HTTP/1.1\r\nHost: 127.0.0.1")


async def test_a_kept_connection_closed_by_the_server_is_no_outage(
    tmp_path: Path, server: SampledServer
) -> None:
    chosen = config(tmp_path, server)
    file = Path(chosen.samples_file)
    async with Monitors([monitor_command(chosen, tmp_path)]) as monitors:
        assert await monitors.ready(WITHIN_S)
        for number in range(5):
            await asyncio.to_thread(server.drop)
            await until(lambda wanted=30 + 10 * number: len(read_samples(file)) >= wanted)
        (found,) = await monitors.stop()
    assert {each.answer for each in found.samples} == {ProbeAnswer.OK}


async def test_an_answer_that_ends_with_its_connection(tmp_path: Path, server: SampledServer) -> None:
    server.answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nas long as it takes"
    async with Monitors([monitor_command(config(tmp_path, server), tmp_path)]) as monitors:
        assert await monitors.ready(WITHIN_S)
        (found,) = await monitors.stop()
    assert all(each.answer is ProbeAnswer.OK and each.fresh for each in found.samples)


async def test_an_answer_cut_short_and_nonsense_are_errors(tmp_path: Path, server: SampledServer) -> None:
    for answer in (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 99\r\n\r\nshort",
        b"\x16\x03\x01?\r\n\r\n",
    ):
        server.answer = answer
        chosen = config(tmp_path, server)
        async with Monitors([monitor_command(chosen, tmp_path)]) as monitors:
            await until(lambda path=Path(chosen.samples_file): len(read_samples(path)) >= 5)
            (found,) = await monitors.stop()
        assert {each.answer for each in found.samples} == {ProbeAnswer.ERROR}
        assert found.ready is None


async def test_a_slow_service_has_a_baseline_and_is_late_later(tmp_path: Path, server: SampledServer) -> None:
    server.delay_s = 0.06
    chosen = config(tmp_path, server, deadline_ms=2_000.0)
    async with Monitors([monitor_command(chosen, tmp_path)]) as monitors:
        assert await monitors.ready(WITHIN_S)
        server.delay_s = 1.0
        file = Path(chosen.samples_file)
        await until(lambda: any(each.answer is ProbeAnswer.LATE for each in read_samples(file)))
        (found,) = await monitors.stop()
    assert found.ready is not None
    assert found.ready.late_ns == max(200_000_000, 3 * found.ready.rho_ns)
    baseline = [each for each in found.samples if each.done_ns <= found.ready.at_ns]
    assert {each.answer for each in baseline} == {ProbeAnswer.OK}


async def test_a_token_is_sent_and_does_not_stay(tmp_path: Path, server: SampledServer) -> None:
    chosen = config(tmp_path, server, headers={"X-Auth-Token": "planted"})
    command = monitor_command(chosen, tmp_path)
    assert command.config_file.stat().st_mode & 0o077 == 0
    async with Monitors([command]) as monitors:
        assert await monitors.ready(WITHIN_S)
        await monitors.stop()
    assert b"\r\nX-Auth-Token: planted\r\n" in server.heard[0]
    assert not any(b"planted" in path.read_bytes() for path in tmp_path.iterdir())


async def test_tcp_asks_for_a_connection_only(tmp_path: Path, server: SampledServer) -> None:
    chosen = config(tmp_path, server, url=f"tcp://127.0.0.1:{server.port}")
    async with Monitors([monitor_command(chosen, tmp_path)]) as monitors:
        assert await monitors.ready(WITHIN_S)
        (found,) = await monitors.stop()
    assert {each.answer for each in found.samples} == {ProbeAnswer.OK}
    assert server.requests == 0 and server.connections >= 20


@pytest.mark.seed("000 each monitor is an independent process")
async def test_a_killed_monitor_is_noticed_and_makes_it_an_error(
    tmp_path: Path, server: SampledServer
) -> None:
    commands = [monitor_command(config(tmp_path, server, name=name), tmp_path) for name in ("one", "two")]
    async with Monitors(commands) as monitors:
        assert await monitors.ready(WITHIN_S)
        killed, other = (monitors.identities[name] for name in ("one", "two"))
        os.kill(killed.pid, signal.SIGKILL)
        async with asyncio.timeout(WITHIN_S):
            await monitors.lost_one.wait()
        assert monitors.lost == {"one": MonitorLoss.DIED}
        assert is_alive(other)
        one, two = await monitors.stop()
    assert (one.ended, two.lost) == (None, None) and two.ended is not None
    assert len(one.samples) >= 20  # what it wrote can still be read
    plan = SamplingPlan(round(PERIOD_MS * 1e6), one.samples[-1].done_ns, one.samples[-1].sent_ns)
    assert decide(measure(one.samples, plan), 5_000, monitor_lost=True).reason is VerdictReason.MONITOR_LOST


async def test_a_frozen_monitor_is_noticed_and_stays_lost(tmp_path: Path, server: SampledServer) -> None:
    async with Monitors([monitor_command(config(tmp_path, server), tmp_path)], silence_s=1.5) as monitors:
        assert await monitors.ready(WITHIN_S)
        frozen = monitors.identities["api"]
        os.kill(frozen.pid, signal.SIGSTOP)
        async with asyncio.timeout(WITHIN_S):
            await monitors.lost_one.wait()
        os.kill(frozen.pid, signal.SIGCONT)
        (found,) = await monitors.stop()
    assert found.lost is MonitorLoss.SILENT
    assert found.ended is not None and found.ended.lateness_max_ns > 1e9
    assert found.ended.skipped > 50


async def test_a_short_freeze_is_in_the_samples(tmp_path: Path, server: SampledServer) -> None:
    chosen = config(tmp_path, server)
    file = Path(chosen.samples_file)
    async with Monitors([monitor_command(chosen, tmp_path)], silence_s=20) as monitors:
        assert await monitors.ready(WITHIN_S)
        before = last_samples(file, 1)[0]
        os.kill(monitors.identities["api"].pid, signal.SIGSTOP)
        await asyncio.sleep(0.5)  # how long it is frozen: part of the scene
        os.kill(monitors.identities["api"].pid, signal.SIGCONT)
        await until(lambda: last_samples(file, 1)[0].sent_ns > before.sent_ns + 600e6)
        (found,) = await monitors.stop()
    assert found.lost is None and found.ready is not None
    plan = SamplingPlan(
        round(PERIOD_MS * 1e6), before.done_ns, found.samples[-1].scheduled_ns, found.ready.since_ns
    )
    outage = measure(found.samples, plan)
    # Nobody can say what the service did meanwhile: up to half a second, and never a PASS against it.
    assert outage.upper_ms is not None and outage.upper_ms >= 450
    assert decide(outage, 400).verdict is Verdict.INCONCLUSIVE


async def test_a_frozen_monitor_is_ended_all_the_same(tmp_path: Path, server: SampledServer) -> None:
    async with Monitors([monitor_command(config(tmp_path, server), tmp_path)], silence_s=20) as monitors:
        assert await monitors.ready(WITHIN_S)
        frozen = monitors.identities["api"]
        os.kill(frozen.pid, signal.SIGSTOP)
        (found,) = await monitors.stop()
        assert not is_alive(frozen)
    assert found.lost is MonitorLoss.DID_NOT_STOP


async def test_without_a_clean_baseline_nothing_begins(tmp_path: Path, server: SampledServer) -> None:
    server.answer = answer_of(503)
    chosen = config(tmp_path, server)
    async with Monitors([monitor_command(chosen, tmp_path)]) as monitors:
        await until(lambda: len(read_samples(Path(chosen.samples_file))) > 30)
        assert not await monitors.ready(0.01)
        assert monitors.lost == {"api": MonitorLoss.NOT_READY}


async def test_leaving_ends_every_monitor(tmp_path: Path, server: SampledServer) -> None:
    with pytest.raises(KeyError):
        async with Monitors([monitor_command(config(tmp_path, server), tmp_path)]) as monitors:
            left = monitors.identities["api"]
            raise KeyError
    assert not is_alive(left)


WITH_A_STEPPING_WALL_CLOCK = """
import time
from homeostat.monitors.node.sampler import main
def stepped(*_):
    raise RuntimeError("the wall clock was read")
time.time = time.time_ns = stepped
real = time.clock_gettime_ns
time.clock_gettime_ns = lambda clock: stepped() if clock == time.CLOCK_REALTIME else real(clock)
main()
"""


@pytest.mark.seed("order a clock step of 60 s is never a PASS")
async def test_the_wall_clock_is_never_read(tmp_path: Path, server: SampledServer) -> None:
    chosen = config(tmp_path, server)
    command = monitor_command(chosen, tmp_path)
    argv = [sys.executable, "-c", WITH_A_STEPPING_WALL_CLOCK, *command.argv[3:]]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: ASYNC220
        await until(lambda: process.poll() is not None or len(read_samples(command.file)) > 30)
        process.terminate()
        said, complained = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0, complained
    assert "ended" in json.loads(said.splitlines()[-1])
    now_ns = read_samples(command.file)[-1].done_ns
    uptime_ns = float(Path("/proc/uptime").read_text().split()[0]) * 1e9
    assert abs(uptime_ns - now_ns) < WITHIN_S * 1e9  # since boot, not since 1970


def refused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"url": "ftp://x"}, "url: 'ftp://x' is not accepted"),
        ({"url": "tcp://127.0.0.1"}, "url: 'tcp://127.0.0.1' is not accepted"),
        ({"period_ms": 0}, "period_ms: 0 is not accepted"),
        ({"fresh_every": 0}, "fresh_every: 0 is not accepted"),
        ({"often": 1}, "often: 1 is not accepted; one of name, url"),
        ({"headers": {"X-Auth-Token": "planted\nsecret"}}, "headers: '***' is not accepted"),
    ],
)
def test_a_wrong_configuration_is_one_line(tmp_path: Path, change: dict[str, object], says: str) -> None:
    path = tmp_path / "config.json"
    right = {"name": "a", "url": "http://127.0.0.1:1/", "samples_file": str(tmp_path / "s")}
    path.write_text(json.dumps(right | change))
    ran = subprocess.run(
        [sys.executable, "-m", "homeostat.monitors.node.sampler", "--config", str(path)],
        capture_output=True, text=True, timeout=WITHIN_S,
    )  # fmt: skip
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"homeostat: {says}") and ran.stderr.count("\n") == 1
    assert "planted" not in ran.stderr


async def test_nobody_there_is_refused(tmp_path: Path) -> None:
    chosen = SamplerConfig("gone", f"http://127.0.0.1:{refused_port()}/", str(tmp_path / "gone.jsonl"))
    async with Monitors([monitor_command(chosen, tmp_path)]) as monitors:
        await until(lambda: len(read_samples(Path(chosen.samples_file))) >= 3)
        (found,) = await monitors.stop()
    assert {each.answer for each in found.samples} == {ProbeAnswer.REFUSED}
    assert found.lost is None and found.ready is None
