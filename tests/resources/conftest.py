from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from played_node import PlayedNode, eventually

from homeostat.kernel.processes import Identity, identify, send_signal


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[..., PlayedNode]]:
    """Makes nodes that leave no process behind."""
    made: list[PlayedNode] = []

    def make(*resources: dict[str, Any], **runner: Any) -> PlayedNode:
        directory = tmp_path / f"node{len(made)}"
        directory.mkdir()
        made.append(PlayedNode(directory, {"resources": list(resources), **runner}))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A child of the test that sleeps."""
    made = subprocess.Popen(["sleep", "300"])
    yield made
    made.kill()
    made.wait()


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Identity]:
    """A process that is not our child."""
    pid_file = tmp_path / "stranger"
    subprocess.run(["setsid", "--fork", "sh", "-c", f"echo $$ > {pid_file}; exec sleep 300"], check=True)
    pid = eventually(lambda: pid_file.exists() and pid_file.read_text().strip(), "the pid file")
    made = identify(int(pid))
    assert made is not None
    yield made
    send_signal(made, signal.SIGKILL)


@pytest.fixture
def noted(tmp_path: Path) -> Iterator[Callable[[str], Identity]]:
    """Who wrote its pid into a file of this name; ended with the test, with its process group."""
    made: list[Identity] = []

    def read(name: str) -> Identity:
        path = tmp_path / name
        pid = eventually(lambda: path.exists() and path.read_text().strip(), str(path))
        identity = identify(int(pid))
        assert identity is not None
        made.append(identity)
        return identity

    yield read
    for each in made:
        if identify(each.pid) == each:
            os.killpg(os.getpgid(each.pid), signal.SIGKILL)
