"""The end of any process, child or not, seen through its pidfd."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from homeostat.kernel.processes import Identity, identify
from homeostat.resources.node.agents import PidfdWatch, recorded_identity


async def test_the_death_of_a_stranger_is_seen_at_once(stranger: Identity) -> None:
    watch = PidfdWatch.on(stranger)
    assert watch is not None
    assert not watch.ended.done()
    os.kill(watch.identity.pid, signal.SIGKILL)
    await asyncio.wait_for(watch.ended, 60)
    watch.close()


async def test_who_is_gone_or_somebody_else_is_not_watched(stranger: Identity) -> None:
    assert PidfdWatch.on(Identity(stranger.pid, stranger.start_ticks + 1)) is None
    watch = PidfdWatch.on(stranger)
    assert watch is not None
    os.kill(stranger.pid, signal.SIGKILL)
    await asyncio.wait_for(watch.ended, 60)
    assert PidfdWatch.on(stranger) is None
    watch.close()


async def test_a_closed_watch_leaves_no_descriptor(stranger: Identity) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        watch = PidfdWatch.on(stranger)
        assert watch is not None
        watch.close()
        watch.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


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
