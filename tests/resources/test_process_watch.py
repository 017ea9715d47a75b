"""The end of any process, child or not, seen through its pidfd."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from played_node import eventually

from homeostat.kernel.processes import Identity, identify
from homeostat.resources.node_watch import Watch, recorded_identity


def stranger(tmp_path: Path) -> Identity:
    """A process that is not our child."""
    pid_file = tmp_path / "pid"
    subprocess.run(["setsid", "--fork", "sh", "-c", f"echo $$ > {pid_file}; exec sleep 300"], check=True)
    pid = eventually(lambda: pid_file.exists() and pid_file.read_text().strip(), "the pid file")
    identity = identify(int(pid))
    assert identity is not None
    return identity


async def test_the_death_of_a_stranger_is_seen_at_once(tmp_path: Path) -> None:
    watch = Watch.on(stranger(tmp_path))
    assert watch is not None
    assert not watch.ended.done()
    began = time.monotonic()
    os.kill(watch.identity.pid, signal.SIGKILL)
    await asyncio.wait_for(watch.ended, 5)
    assert time.monotonic() - began < 0.5  # typically 0.1 ms; the margin is for a busy machine
    watch.close()


async def test_who_is_gone_or_somebody_else_is_not_watched(tmp_path: Path) -> None:
    alive = stranger(tmp_path)
    assert Watch.on(Identity(alive.pid, alive.start_ticks + 1)) is None
    watch = Watch.on(alive)
    assert watch is not None
    os.kill(alive.pid, signal.SIGKILL)
    await asyncio.wait_for(watch.ended, 5)
    assert Watch.on(alive) is None
    watch.close()


async def test_a_closed_watch_leaves_no_descriptor(tmp_path: Path) -> None:
    alive = stranger(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        watch = Watch.on(alive)
        assert watch is not None
        watch.close()
        watch.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    os.kill(alive.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("4000000 77\n", Identity(4000000, 77)),
        ("1\n", identify(1)),
        ("1\n/var/lib/data\n5432\n", identify(1)),
        ("1 of many\n", identify(1)),
        ("3999999\n", None),
        ("", None),
        ("no pid\n", None),
        ("-1\n", None),
        ("0\n", None),
        ("99999999999999999999999\n", None),
        ("\xff\xfe", None),
    ],
)
def test_who_a_pid_file_names(tmp_path: Path, content: str, expected: Identity | None) -> None:
    path = tmp_path / "x.pid"
    path.write_text(content, encoding="latin-1")
    assert recorded_identity(path) == expected


def test_no_pid_file_names_nobody(tmp_path: Path) -> None:
    assert recorded_identity(tmp_path / "none") is None
    assert recorded_identity(tmp_path) is None
