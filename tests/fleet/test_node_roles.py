"""Role processes: real ones, that speak well, badly, not at all, or do not want to stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from homeostat.contracts.nouns import ResourceId
from homeostat.contracts.wire import ResourceTransition
from homeostat.kernel.processes import identify
from homeostat.node.observations import ObservationStore
from homeostat.node.roles import RoleCommand, RoleProcess
from homeostat.node.runner_protocol import RunnerProtocol
from real_parts import eventually

FAKE_ROLE = Path(__file__).with_name("fake_role.py")


@dataclass
class Scene:
    """A role that runs, its store, and the diary that its processes write."""

    role: RoleProcess
    protocol: RunnerProtocol
    store: ObservationStore
    diary_file: Path
    recorded: list[ResourceTransition] = field(default_factory=list)

    @property
    def diary(self) -> list[str]:
        return self.diary_file.read_text().splitlines() if self.diary_file.exists() else []

    @property
    def pids(self) -> list[int]:
        return [int(line.split()[1]) for line in self.diary if line.startswith("pid ")]


@asynccontextmanager
async def running(folder: Path, *words: str, stop_s: float = 5.0) -> AsyncIterator[Scene]:
    """A role of `words`, run until the end of the block, then cancelled if it still runs."""
    diary = folder / "diary"
    store = ObservationStore(folder / "observations.db")
    recorded: list[ResourceTransition] = []
    command = RoleCommand("fake", (sys.executable, str(FAKE_ROLE), str(diary), *words), stop_s)
    protocol = RunnerProtocol(store, recorded.append)
    role = RoleProcess(command, protocol)
    task = asyncio.create_task(role.run())
    try:
        yield Scene(role, protocol, store, diary, recorded)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        store.close()


async def test_a_report_is_on_disk_before_it_is_answered(tmp_path: Path) -> None:
    async with running(tmp_path, "report:web:up", "intend:web:web-1", "finish:web:web-1") as scene:
        await eventually(lambda: "waits" in scene.diary)
        assert [line for line in scene.diary if line.startswith("recorded")] == [
            "recorded web up",
            "recorded web down",
            "recorded web up",
        ]
        assert [each.level.seq for each in scene.recorded] == [1, 2, 3]
        assert scene.store.pending(10) == tuple(scene.recorded)


async def test_a_role_is_told_what_is_assigned_at_once_and_after_its_start(tmp_path: Path) -> None:
    async with running(tmp_path, "report:web:up", "hear", "report:web:down") as scene:
        await eventually(lambda: "hears" in scene.diary)
        scene.store.assign({ResourceId("g"): 2})
        scene.protocol.assigned()
        await eventually(lambda: "recorded web down" in scene.diary)
        told = 'assigned {"confirmed": true, "mine": {"g": 2}}'
        assert scene.diary.count(told) == 1
        os.kill(scene.pids[0], signal.SIGKILL)
        await eventually(lambda: len(scene.pids) == 2)
        await eventually(lambda: scene.diary.count(told) == 2)


async def test_a_killed_role_comes_back_and_remembers(tmp_path: Path) -> None:
    async with running(tmp_path, "report:mail:up", "intend:web:web-1") as scene:
        await eventually(lambda: "waits" in scene.diary)
        os.kill(scene.pids[0], signal.SIGKILL)
        await eventually(lambda: len(scene.pids) == 2)
        recalled = [json.loads(line[9:]) for line in scene.diary if line.startswith("recalled ")]
        assert recalled[0] == {"levels": [], "open_intents": {}, "hears_looked": True}
        assert [(each["resource"], each["state"]) for each in recalled[1]["levels"]] == [
            ("mail", "up"),
            ("web", "down"),
        ]
        assert recalled[1]["open_intents"]["web"]["action"] == "web-1"


@pytest.mark.parametrize("word", ["garbage", "long", "half", "exit:1", "exit:0"])
async def test_a_role_that_fails_is_started_again(
    tmp_path: Path, word: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(tmp_path, "report:web:up", word) as scene:
        await eventually(lambda: len(scene.pids) >= 3)
        assert identify(scene.pids[0]) is None
        assert scene.store.seq >= 2, "what it said before counts"
    said = "".join(capfd.readouterr())
    assert ("sent an invalid message" in said) == (not word.startswith("exit"))
    assert "Traceback" not in said


async def test_it_waits_longer_and_longer(tmp_path: Path) -> None:
    started_s = time.monotonic()
    async with running(tmp_path, "exit:1") as scene:
        await eventually(lambda: len(scene.pids) >= 4)
    assert time.monotonic() - started_s >= 0.1 + 0.2 + 0.4


async def test_what_a_dead_role_left_running_does_not_keep_it_dead(tmp_path: Path) -> None:
    """A service that inherited the role's output must neither delay its restart nor be killed."""
    async with running(tmp_path, "orphan") as scene:
        try:
            await eventually(lambda: len(scene.pids) >= 2, 5)
            orphans = [int(line.split()[1]) for line in scene.diary if line.startswith("orphan ")]
            assert identify(orphans[0]) is not None
        finally:
            await scene.role.stop()
            for line in scene.diary:
                if line.startswith("orphan "):
                    os.kill(int(line.split()[1]), signal.SIGKILL)


async def test_a_stop_records_the_last_reports(tmp_path: Path) -> None:
    async with running(tmp_path, "report:web:up", "report:mail:up") as scene:
        await eventually(lambda: "waits" in scene.diary)
        await scene.role.stop()
        assert scene.diary[-1] == "stopped in order"
        assert {level.resource: level.state.value for level in scene.store.levels()} == {
            "web": "stopped",
            "mail": "stopped",
        }
        assert len(scene.recorded) == 4
        assert scene.role.identity is None
        assert identify(scene.pids[0]) is None
        assert len(scene.pids) == 1


async def test_a_role_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    async with running(tmp_path, "deaf", stop_s=0.2) as scene:
        await eventually(lambda: "waits" in scene.diary)
        await scene.role.stop()
        assert identify(scene.pids[0]) is None
        assert "stopped in order" not in scene.diary


async def test_a_stop_before_the_restart_starts_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, "exit:1") as scene:
        await eventually(lambda: len(scene.pids) == 4)
        await eventually(lambda: scene.role.identity is None)
        await scene.role.stop()
        assert len(scene.pids) == 4


async def test_cancelling_leaves_no_process(tmp_path: Path) -> None:
    async with running(tmp_path, "deaf") as scene:
        await eventually(lambda: "waits" in scene.diary)
    assert identify(scene.pids[0]) is None


async def test_a_command_that_is_not_there_is_said_and_tried_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    role = RoleProcess(RoleCommand("absent", ("/nowhere/role",)))
    task = asyncio.create_task(role.run())
    said = ""

    def twice() -> bool:
        nonlocal said
        said += "".join(capfd.readouterr())
        return said.count("cannot be started") == 2

    await eventually(twice)
    await role.stop()
    await task
    assert "No such file or directory" in said


async def test_while_the_disk_does_not_take_it_the_role_gets_no_answer(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ObservationStore(tmp_path / "observations.db").close()
    async with running(tmp_path, "report:web:up", "report:web:down") as scene:
        scene.store._file.database.execute("PRAGMA busy_timeout = 10")
        lock = sqlite3.connect(tmp_path / "observations.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        said = ""

        def refused() -> bool:
            nonlocal said
            said += "".join(capfd.readouterr())
            return "cannot be recorded" in said

        await eventually(refused)
        assert not any(line.startswith("recorded") for line in scene.diary)
        lock.execute("ROLLBACK")
        lock.close()
        await eventually(lambda: "recorded web down" in scene.diary)
        assert len(scene.pids) == 1


SPEECHLESS = """
import os, pathlib, signal, sys, time
diary = pathlib.Path(sys.argv[1])
def write(what):
    with diary.open("a") as file:
        file.write(what + "\\n")
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
write(f"pid {os.getpid()} session {os.getsid(0)} parent {os.getppid()}")
write("input " + repr(sys.stdin.read()))
print("a line of no protocol", flush=True)
if "exit" in sys.argv:
    sys.exit(1)
write("waits")
while True:
    time.sleep(60)
"""


@asynccontextmanager
async def speechless(
    folder: Path, *words: str, stop_s: float = 5.0
) -> AsyncIterator[tuple[RoleProcess, Path]]:
    """A role without a protocol, and its diary."""
    diary = folder / "diary"
    diary.touch()
    argv = (sys.executable, "-c", SPEECHLESS, str(diary), *words)
    role = RoleProcess(RoleCommand("mover", argv, stop_s))
    task = asyncio.create_task(role.run())
    try:
        yield role, diary
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def pids_in(diary: Path) -> list[int]:
    return [int(line.split()[1]) for line in diary.read_text().splitlines() if line.startswith("pid ")]


async def test_a_role_without_a_protocol_is_started_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    started_s = time.monotonic()
    async with speechless(tmp_path, "exit") as (_, diary):
        await eventually(lambda: len(pids_in(diary)) >= 4)
    assert time.monotonic() - started_s >= 0.1 + 0.2 + 0.4, "it waits longer and longer"
    said = capfd.readouterr()
    assert said.err.count("a line of no protocol") >= 3, "its words go where the log goes"
    assert "sent an invalid message" not in said.out + said.err


async def test_a_role_without_a_protocol_has_no_input_and_a_session_of_its_own(tmp_path: Path) -> None:
    async with speechless(tmp_path) as (role, diary):
        await eventually(lambda: "waits" in diary.read_text())
        first, second, _ = diary.read_text().splitlines()
        (pid,) = pids_in(diary)
        assert first == f"pid {pid} session {pid} parent {os.getpid()}"
        assert second == "input ''"
        await role.stop()
        assert identify(pid) is None
        assert pids_in(diary) == [pid]


async def test_a_deaf_role_without_a_protocol_is_killed_at_its_deadline(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with speechless(tmp_path, "deaf", stop_s=0.2) as (role, diary):
        await eventually(lambda: "waits" in diary.read_text())
        await role.stop()
        assert identify(pids_in(diary)[0]) is None
    assert "did not stop in time" in "".join(capfd.readouterr())


async def test_cancelling_leaves_no_process_without_a_protocol(tmp_path: Path) -> None:
    async with speechless(tmp_path, "deaf") as (_, diary):
        await eventually(lambda: "waits" in diary.read_text())
    assert identify(pids_in(diary)[0]) is None
