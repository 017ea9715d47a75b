"""The monitor that calls a client as people do: a real script, real groups of processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from called_client import CalledClient
from hypothesis import given
from hypothesis import strategies as st

from homeostat.monitors.node.command_sampler import CommandConfig
from homeostat.monitors.outage import ProbeAnswer, Sample, SamplingPlan, measure, read_samples
from homeostat.monitors.supervision import MonitorLoss, Monitors, monitor_command
from homeostat.monitors.verdicts import Verdict, VerdictReason, decide, reference_result

WITHIN_S = 60.0
MS = 1_000_000
WORDS = ("--os-cloud", "testbed", "server", "list", "-f", "json")


@pytest.fixture
def client(tmp_path: Path) -> CalledClient:
    """It answers."""
    return CalledClient(tmp_path / "bin")


def config(folder: Path, client: CalledClient, **changes: object) -> CommandConfig:
    values: dict[str, object] = {
        "name": "cli",
        "argv": (str(client.path), *WORDS),
        "samples_file": str(folder / "cli.jsonl"),
        "environment": {"OS_CLIENT_CONFIG_FILE": "/x/clouds.yaml"},
        "period_ms": 20.0,
        "deadline_ms": 30_000.0,
    }
    return CommandConfig(**(values | changes))  # type: ignore[arg-type]


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not check():  # noqa: ASYNC110  a file that grows has no event
            await asyncio.sleep(0.01)


def runs(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def count(file: Path, answer: ProbeAnswer) -> int:
    return sum(each.answer is answer for each in read_samples(file))


@pytest.mark.seed("000 R1.5 the list command of the user is asked again and again")
async def test_it_calls_the_client_as_people_do_one_call_after_the_other(
    tmp_path: Path, client: CalledClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_PASSWORD", "of another cloud")
    chosen = config(tmp_path, client)
    async with Monitors([monitor_command(chosen, tmp_path)]) as monitors:
        assert await monitors.ready(WITHIN_S), monitors.lost
        await until(lambda: len(client.calls) >= 5)
        (found,) = await monitors.stop()
    assert found.lost is None and found.ready is not None and found.ended is not None
    assert all(tuple(call["argv"]) == WORDS for call in client.calls)
    assert all(call["env"] == {"OS_CLIENT_CONFIG_FILE": "/x/clouds.yaml"} for call in client.calls)
    assert all(call["leads"] for call in client.calls), "a group of its own"
    assert found.ended.samples == len(found.samples) == len(client.calls)
    assert {each.answer for each in found.samples} == {ProbeAnswer.OK}
    for before, after in pairwise(found.samples):
        assert after.sent_ns >= before.done_ns
        assert after.sent_ns - before.sent_ns >= 20 * MS
    assert found.ended.cpu_ns > found.ready.cpu_ns, "what the calls cost is counted"


async def test_the_first_call_waits_for_its_phase(tmp_path: Path, client: CalledClient) -> None:
    chosen = config(tmp_path, client, phase_ms=600.0)
    begun_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    async with Monitors([monitor_command(chosen, tmp_path)]) as monitors:
        assert await monitors.ready(WITHIN_S), monitors.lost
        (found,) = await monitors.stop()
    assert found.samples[0].sent_ns - begun_ns >= 600 * MS


async def test_the_period_is_kept_when_calls_are_short(tmp_path: Path, client: CalledClient) -> None:
    chosen = config(tmp_path, client, period_ms=700.0)
    async with Monitors([monitor_command(chosen, tmp_path)]) as monitors:
        assert await monitors.ready(WITHIN_S), monitors.lost
        (found,) = await monitors.stop()
    assert all(after.sent_ns - before.sent_ns >= 700 * MS for before, after in pairwise(found.samples))


async def test_a_failing_call_is_a_sample_with_its_exit_code(tmp_path: Path, client: CalledClient) -> None:
    chosen = config(tmp_path, client)
    file = Path(chosen.samples_file)
    async with Monitors([monitor_command(chosen, tmp_path)]) as monitors:
        assert await monitors.ready(WITHIN_S), monitors.lost
        fault_ns = read_samples(file)[-1].done_ns
        client.does("fail")
        await until(lambda: count(file, ProbeAnswer.ERROR) >= 3)
        client.does("answer")
        good = count(file, ProbeAnswer.OK)
        await until(lambda: count(file, ProbeAnswer.OK) >= good + 2)
        (found,) = await monitors.stop()
    assert found.lost is None and found.ready is not None
    failed = [each for each in found.samples if each.answer is ProbeAnswer.ERROR]
    assert {each.status for each in failed} == {1}
    until_ns = found.samples[-1].sent_ns
    outage = measure(found.samples, SamplingPlan(20 * MS, fault_ns, until_ns, found.ready.since_ns))
    assert outage.longest is not None and outage.upper_ms is not None
    said = reference_result(found.samples, found.ready.since_ns, until_ns, outage.literal_ms)
    assert said.outage_ms == (failed[-1].done_ns - failed[0].sent_ns) / MS
    assert outage.lower_ms <= said.outage_ms <= outage.upper_ms
    assert said.verdict is Verdict.FAIL


async def test_a_hung_call_is_killed_with_its_whole_group(tmp_path: Path, client: CalledClient) -> None:
    chosen = config(tmp_path, client, deadline_ms=3_000.0)
    file = Path(chosen.samples_file)
    async with Monitors([monitor_command(chosen, tmp_path)]) as monitors:
        assert await monitors.ready(WITHIN_S), monitors.lost
        client.does("hang")
        await until(lambda: client.child is not None)
        client.does("answer")
        hung, child = client.calls[-1]["pid"], client.child
        assert child is not None and os.getpgid(child) == hung
        await until(lambda: count(file, ProbeAnswer.TIMEOUT) == 1)
        await until(lambda: not runs(hung) and not runs(child))
        (found,) = await monitors.stop()
    assert found.lost is None
    (late,) = [each for each in found.samples if each.answer is ProbeAnswer.TIMEOUT]
    assert late.done_ns - late.sent_ns >= 3_000 * MS


async def test_the_call_under_way_has_its_end_and_the_monitor_is_not_lost(
    tmp_path: Path, client: CalledClient
) -> None:
    # Longer than the silence after which a monitor is lost: it says meanwhile that it is there.
    chosen = config(tmp_path, client, deadline_ms=4_000.0)
    async with Monitors([monitor_command(chosen, tmp_path)]) as monitors:
        assert await monitors.ready(WITHIN_S), monitors.lost
        client.does("hang")
        await until(lambda: client.child is not None)
        (found,) = await monitors.stop()
    assert found.lost is None
    assert found.samples[-1].answer is ProbeAnswer.TIMEOUT


async def test_a_killed_monitor_is_lost_and_leaves_no_call(tmp_path: Path, client: CalledClient) -> None:
    async with Monitors([monitor_command(config(tmp_path, client), tmp_path)]) as monitors:
        assert await monitors.ready(WITHIN_S), monitors.lost
        client.does("hang")
        await until(lambda: client.child is not None)
        hung, child = client.calls[-1]["pid"], client.child
        assert child is not None
        os.kill(monitors.identities["cli"].pid, 9)
        async with asyncio.timeout(WITHIN_S):
            await monitors.lost_one.wait()
        assert monitors.lost == {"cli": MonitorLoss.DIED}
        await until(lambda: not runs(hung))
        os.kill(child, 9)


async def test_without_a_client_there_is_no_baseline(
    tmp_path: Path, client: CalledClient, capfd: pytest.CaptureFixture[str]
) -> None:
    chosen = config(tmp_path, client, argv=(str(tmp_path / "none"), *WORDS))
    async with Monitors([monitor_command(chosen, tmp_path)]) as monitors:
        await until(lambda: count(Path(chosen.samples_file), ProbeAnswer.CLIENT_ERROR) >= 5)
        assert not await monitors.ready(0.01)
        assert monitors.lost == {"cli": MonitorLoss.NOT_READY}
    told = capfd.readouterr().err
    assert told.count("No such file or directory") == 3, "said, and not again and again"


async def test_why_there_is_no_baseline_is_said(
    tmp_path: Path, client: CalledClient, capfd: pytest.CaptureFixture[str]
) -> None:
    client.does("fail")
    chosen = config(tmp_path, client)
    async with Monitors([monitor_command(chosen, tmp_path)]):
        await until(lambda: count(Path(chosen.samples_file), ProbeAnswer.ERROR) >= 1)
    assert "server list -f json`: ended with 1: Unable to establish connection to" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [({"argv": []}, "argv"), ({"deadline_ms": 0}, "deadline_ms"), ({"colour": 1}, "colour")],
)
def test_a_wrong_configuration_is_one_line(tmp_path: Path, change: dict[str, object], said: str) -> None:
    given: dict[str, object] = {"name": "cli", "argv": ["x"], "samples_file": str(tmp_path / "s")}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(given | change))
    argv = [sys.executable, "-m", "homeostat.monitors.node.command_sampler", "--config", str(path)]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert len(ran.stderr.splitlines()) == 1 and said in ran.stderr


def calls(length_ms: int, asks_ms: int, out_ms: int, truth_ms: int) -> list[Sample]:
    """A closed loop in virtual time: every call takes `length_ms` and asks at `asks_ms` within it."""
    found = []
    for at_ms in range(0, out_ms + truth_ms + 5 * length_ms, length_ms):
        good = not out_ms <= at_ms + asks_ms < out_ms + truth_ms
        answer = ProbeAnswer.OK if good else ProbeAnswer.ERROR
        found.append(Sample(at_ms * MS, at_ms * MS, (at_ms + length_ms) * MS, answer))
    return found


@given(
    length_ms=st.integers(100, 9_000),
    share=st.integers(0, 99),
    out_ms=st.integers(20_000, 40_000),
    truth_ms=st.integers(1, 20_000),
)
def test_its_own_bounds_hold_the_truth_where_the_published_number_may_not(
    length_ms: int, share: int, out_ms: int, truth_ms: int
) -> None:
    found = calls(length_ms, length_ms * share // 100, out_ms, truth_ms)
    until_ns = found[-1].sent_ns
    outage = measure(found, SamplingPlan(1, out_ms * MS, until_ns, 0))
    assert outage.upper_ms is not None
    assert outage.lower_ms <= truth_ms <= outage.upper_ms
    said = reference_result(found, 0, until_ns, 5_000.0)
    assert -length_ms < said.outage_ms - truth_ms < length_ms
    assert said.verdict is (Verdict.FAIL if said.outage_ms > 5_000 else Verdict.PASS)


def test_the_published_loop_passes_what_the_bounds_leave_open() -> None:
    # Out for 5.4 s, calls of 1.5 s: three of them fail.
    found = calls(1_500, 700, 20_300, 5_400)
    outage = measure(found, SamplingPlan(1, 20_300 * MS, found[-1].sent_ns, 0))
    said = reference_result(found, 0, found[-1].sent_ns, 5_000.0)
    assert (said.verdict, said.outage_ms) == (Verdict.PASS, 4_500)
    ours = decide(outage, 5_000.0, baseline_min=2)
    assert (ours.verdict, ours.reason) == (Verdict.INCONCLUSIVE, VerdictReason.LIMIT_WITHIN_BOUNDS)
    assert decide(outage, 5_000.0).reason is VerdictReason.NO_BASELINE, "20 calls would take half a minute"
