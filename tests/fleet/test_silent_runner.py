"""A runner that is frozen, dead or cannot start: its node does not go on saying that all is looked at."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from homeostat.node.observations import ObservationStore
from homeostat.node.roles import RoleCommand, RoleProcess
from homeostat.node.runner_protocol import RunnerProtocol
from real_parts import eventually


@asynccontextmanager
async def runner(folder: Path, **runner_settings: Any) -> AsyncIterator[tuple[RoleProcess, list[bool]]]:
    """A real runner under its node's protocol, and what that says of its looks, newest last."""
    (folder / "password").write_text("secret")
    config = folder / "node.yaml"
    content = {
        "host": "n1",
        "state_dir": str(folder / "n1"),
        "nats": {"url": "nats://127.0.0.1:1", "user": "n1", "password_file": str(folder / "password")},
        "runner": {"on_stop": "leave", "resources": [], **runner_settings},
    }
    config.write_text(yaml.safe_dump(content))
    argv = (sys.executable, "-m", "homeostat.resources.node.main", "--config", str(config))
    store, looks = ObservationStore(folder / "observations.db"), [False]
    role = RoleProcess(
        RoleCommand("runner", argv, 5.0),
        RunnerProtocol(store, lambda _: None, lambda looked, _: looks.append(looked), silent_s=2.5),
    )
    task = asyncio.create_task(role.run())
    try:
        yield role, looks
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        store.close()


def pid_of(role: RoleProcess) -> int:
    assert role.identity is not None
    return role.identity.pid


async def test_a_frozen_runner_is_not_believed_before_it_goes_on(tmp_path: Path) -> None:
    async with runner(tmp_path) as (role, looks):
        await eventually(lambda: looks[-1], 30, "it has nothing to look at, and says so")
        os.kill(pid_of(role), signal.SIGSTOP)
        await eventually(lambda: not looks[-1], 30, "its silence is noticed")
        os.kill(pid_of(role), signal.SIGCONT)
        await eventually(lambda: looks[-1], 30, "it says so again")


async def test_a_dead_runner_is_not_believed_before_the_next_one_has_looked(tmp_path: Path) -> None:
    async with runner(tmp_path) as (role, looks):
        await eventually(lambda: looks[-1], 30, "it has nothing to look at, and says so")
        before, said = pid_of(role), len(looks)
        os.kill(before, signal.SIGKILL)
        await eventually(lambda: role.identity is None, 30, "it is gone, and the next has not begun")
        assert False in looks[said:], "its end is said at once, not with the next start"
        await eventually(lambda: looks[-1] and pid_of(role) != before, 30, "the next one has looked")


async def test_a_runner_that_cannot_start_never_looks(tmp_path: Path) -> None:
    async with runner(tmp_path, resources="not a list") as (_, looks):
        await eventually(lambda: len(looks) > 3, 30, "two starts fail")
        assert not any(looks)
