"""One action of one agent: what it finds, how it ends, what the deadline does to it and its children."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from played_node import eventually

from homeostat.kernel.processes import Identity, identify, is_alive
from homeostat.resources.node.agents import ActInFlight, RunningAction, Scratch, run_action, settle_act
from homeostat.resources.ocf import ActionOutcome, AgentCall, AgentName, OcfCode, exit_reason, outcome_of

NAME = AgentName("test", "agent")


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    made = Scratch(tmp_path)
    made.prepare()
    return made


def call(tmp_path: Path, script: str, verb: str = "start", **other: object) -> AgentCall:
    path = tmp_path / "agent"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    options: dict[str, object] = {"timeout_s": 10.0, "parameters": {}} | other
    return AgentCall(NAME, path, "r1", verb, **options)  # type: ignore[arg-type]


Noted = Callable[[str], Identity]


def _is_gone(identity: Identity) -> bool:
    return not is_alive(identity)


@pytest.mark.seed("004 B7: OCF_RESKEY_CRM_meta_timeout is in milliseconds")
async def test_the_timeout_reaches_the_agent_in_milliseconds(tmp_path: Path, scratch: Scratch) -> None:
    script = 'echo "$OCF_RESKEY_CRM_meta_timeout $OCF_RESKEY_CRM_meta_interval"'
    result = await run_action(
        call(tmp_path, script, "monitor", timeout_s=7.5, interval_s=5.0), scratch, Path("/usr/lib/ocf")
    )
    assert result.stdout == "7500 5000\n"


@pytest.mark.parametrize("verb", ["start", "stop", "monitor", "meta-data"])
async def test_the_environment_is_what_ocf_says_and_nothing_of_ours(
    tmp_path: Path, scratch: Scratch, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEOSTAT_TOKEN", "secret")
    result = await run_action(
        call(tmp_path, 'env; echo "arguments=$*"', verb, parameters={"port": "80"}), scratch, Path("/o")
    )
    env = dict(line.split("=", 1) for line in result.stdout.splitlines())
    expected = {
        "OCF_ROOT": "/o",
        "OCF_RA_VERSION_MAJOR": "1",
        "OCF_RA_VERSION_MINOR": "1",
        "OCF_RESOURCE_INSTANCE": "r1",
        "OCF_RESOURCE_TYPE": "agent",
        "OCF_RESOURCE_PROVIDER": "test",
        "OCF_RESKEY_port": "80",
        "OCF_RESKEY_CRM_meta_timeout": "10000",
        "OCF_RESKEY_CRM_meta_interval": "0",
        "OCF_RESKEY_CRM_meta_name": verb,
        "OCF_CHECK_LEVEL": "0",
        "__OCF_ACTION": verb,
        "HA_RSCTMP": str(tmp_path / "runner" / "rsctmp"),
        "arguments": verb,
    }
    assert expected.items() <= env.items()
    assert Path(env["HA_RSCTMP"]).is_dir()
    assert "/usr/sbin" in env["PATH"].split(":")
    assert "HOMEOSTAT_TOKEN" not in env


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (0, ActionOutcome.OK),
        (1, ActionOutcome.SOFT),
        (2, ActionOutcome.HARD),
        (3, ActionOutcome.HARD),
        (4, ActionOutcome.HARD),
        (5, ActionOutcome.HARD),
        (6, ActionOutcome.FATAL),
        (7, ActionOutcome.NOT_RUNNING),
        (8, ActionOutcome.OK),
        (9, ActionOutcome.SOFT),
        (42, ActionOutcome.SOFT),
        (143, ActionOutcome.SOFT),
        (190, ActionOutcome.OK),
    ],
)
async def test_an_exit_code_has_its_meaning(
    tmp_path: Path, scratch: Scratch, code: int, answer: ActionOutcome
) -> None:
    result = await run_action(call(tmp_path, f"exit {code}"), scratch, Path("/o"))
    assert (result.code, result.answer) == (code, answer)
    assert outcome_of(code) is answer


async def test_an_agent_ended_by_a_signal_is_a_soft_error(tmp_path: Path, scratch: Scratch) -> None:
    result = await run_action(call(tmp_path, "kill -9 $$"), scratch, Path("/o"))
    assert (result.code, result.answer) == (137, ActionOutcome.SOFT)


async def test_the_agents_reason_is_kept(tmp_path: Path, scratch: Scratch) -> None:
    script = "echo noise >&2; echo 'ocf-exit-reason:first' >&2; echo 'ocf-exit-reason:no disk' >&2; exit 5"
    result = await run_action(call(tmp_path, script), scratch, Path("/o"))
    assert result.reason == "no disk"
    assert result.detail == "no disk; exit code 5"


def test_a_reason_is_one_short_printable_line() -> None:
    assert exit_reason("ocf-exit-reason:a\x1b[2Jb\tc" + "x" * 900) == ("a [2Jb c" + "x" * 900)[:200]
    assert exit_reason("nothing\n") == ""


async def test_output_is_kept_from_both_ends(tmp_path: Path, scratch: Scratch) -> None:
    script = "echo begin; head -c 300000 /dev/zero | tr '\\0' x; echo end"
    result = await run_action(call(tmp_path, script, "monitor"), scratch, Path("/o"))
    assert result.stdout.startswith("begin\nxx") and result.stdout.endswith("xx" + "end\n")
    assert len(result.stdout) < 33_000


async def test_a_hung_agent_is_killed_at_its_deadline_with_its_grandchildren(
    tmp_path: Path, scratch: Scratch, noted: Noted
) -> None:
    script = f"(sleep 300 & echo $! > {tmp_path}/grandchild; wait) & sleep 300"
    running = asyncio.create_task(run_action(call(tmp_path, script, timeout_s=0.5), scratch, Path("/o")))
    grandchild = await asyncio.to_thread(noted, "grandchild")
    began = time.monotonic()
    result = await running
    assert (result.answer, result.code) == (ActionOutcome.TIMED_OUT, None)
    assert time.monotonic() - began < 250
    await asyncio.to_thread(eventually, lambda: not is_alive(grandchild), "the grandchild is gone")
    assert scratch.act_in_flight("r1") is None


async def test_a_service_that_keeps_the_output_open_makes_nobody_wait(
    tmp_path: Path, scratch: Scratch, noted: Noted
) -> None:
    script = f"setsid sh -c 'echo $$ > {tmp_path}/service; exec sleep 300' & sleep 0.1; echo started"
    result = await run_action(call(tmp_path, script, timeout_s=250.0), scratch, Path("/o"))
    assert (result.answer, result.stdout) == (ActionOutcome.OK, "started\n")
    service = await asyncio.to_thread(noted, "service")
    assert is_alive(service)


@pytest.mark.parametrize(
    ("content", "mode", "code"),
    [(None, 0, OcfCode.ERR_INSTALLED), ("#!/bin/sh\n", 0o644, OcfCode.ERR_PERM), ("what", 0o755, None)],
)
async def test_an_agent_that_cannot_be_run(
    tmp_path: Path, scratch: Scratch, content: str | None, mode: int, code: OcfCode | None
) -> None:
    wanted = call(tmp_path, "", "monitor")
    wanted.executable.unlink()
    if content is not None:
        wanted.executable.write_text(content)
        wanted.executable.chmod(mode)
    result = await run_action(wanted, scratch, Path("/o"))
    assert result.answer is ActionOutcome.HARD
    assert code is None or result.code == code


async def test_the_deadline_of_a_look_does_not_outlive_its_caller(
    tmp_path: Path, scratch: Scratch, noted: Noted
) -> None:
    script = f"echo $$ > {tmp_path}/pid; exec sleep 300"
    for verb, survives in (("monitor", False), ("start", True)):
        action = RunningAction.begin(call(tmp_path, script, verb), scratch, Path("/o"))
        agent = await asyncio.to_thread(noted, "pid")
        waiting = asyncio.create_task(action.result())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        if not survives:
            await asyncio.to_thread(eventually, functools.partial(_is_gone, agent), "the look is gone")
        assert is_alive(agent) is survives
        if survives:
            os.killpg(agent.pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitpid, agent.pid, 0)
        (tmp_path / "pid").unlink()


async def test_an_act_is_on_record_before_it_runs_and_its_successor_waits_for_it(
    tmp_path: Path, scratch: Scratch
) -> None:
    script = f"cat {tmp_path}/runner/acts/r1.json > {tmp_path}/seen; sleep 0.3; touch {tmp_path}/done"
    action = RunningAction.begin(call(tmp_path, script), scratch, Path("/o"))
    act = scratch.act_in_flight("r1")
    assert act is not None and act.identity == identify(action.pid)
    assert await settle_act("r1", Scratch(tmp_path))
    assert (tmp_path / "done").exists()
    assert str(action.pid) in (tmp_path / "seen").read_text()
    assert scratch.act_in_flight("r1") is None
    await action.result()


async def test_an_act_left_behind_is_killed_at_its_own_deadline(tmp_path: Path, scratch: Scratch) -> None:
    action = RunningAction.begin(call(tmp_path, "sleep 300", timeout_s=300), scratch, Path("/o"))
    act = scratch.act_in_flight("r1")
    assert act is not None
    soon_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 200_000_000
    scratch.begin_act("r1", ActInFlight("start", act.pid, act.start_ticks, soon_ns))
    assert await settle_act("r1", Scratch(tmp_path))
    assert not is_alive(act.identity)
    await action.result()


async def test_a_record_of_a_pid_that_is_somebody_else_now_hurts_nobody(
    tmp_path: Path, scratch: Scratch
) -> None:
    scratch.begin_act("r1", ActInFlight("stop", os.getpid(), 1, 0))
    assert await settle_act("r1", scratch)
    assert scratch.act_in_flight("r1") is None


def test_an_unreadable_record_counts_as_none(tmp_path: Path, scratch: Scratch) -> None:
    (tmp_path / "runner" / "acts" / "r1.json").write_text("{")
    assert scratch.act_in_flight("r1") is None


def test_scratch_space_is_of_this_boot_only(tmp_path: Path, scratch: Scratch) -> None:
    kept, acts = scratch.rsctmp / "Dummy.state", tmp_path / "runner" / "acts" / "r1.json"
    kept.touch()
    acts.touch()
    Scratch(tmp_path).prepare()
    assert kept.exists() and acts.exists()
    (tmp_path / "runner" / "boot_id").write_text("an earlier boot\n")
    Scratch(tmp_path).prepare()
    assert not kept.exists() and not acts.exists() and scratch.rsctmp.is_dir()
