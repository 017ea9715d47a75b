"""Real parts that tests stand on: a NATS server on a free loopback port, ended by its pid; waiting."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PATIENCE = 5.0
"""A test that waits in vain fails after so many times what it usually takes; a green one waits no longer."""


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def nats_binary() -> str:
    """The nats-server that came with the environment of this Python, else the one in PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found, "no nats-server: run `make setup`"
    return found


def accounts(*hosts: str) -> str:
    """The users of a NATS server: one `server`, one for each host, each with what it needs and no more."""
    nodes = "\n".join(
        f"""    {{ user: {host}, password: "{host}-secret", permissions: {{
        publish: {{ allow: ["node.{host}.>"] }}
        subscribe: {{ allow: ["to.{host}.>"] }} }} }}"""
        for host in hosts
    )
    return f"""authorization {{
  users: [
    {{ user: server, password: "server-secret", permissions: {{
        publish: {{ allow: ["to.>"] }}
        subscribe: {{ allow: ["node.>"] }} }} }}
{nodes}
  ]
}}
"""


class NatsServer:
    """One nats-server process on one port, started and killed as often as a test likes."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._folder = folder
        self._config = folder / "nats.conf"
        self._process: subprocess.Popen[bytes] | None = None
        self.write(accounts("n1", "n2"))

    def write(self, configuration: str) -> None:
        """The configuration of the next start."""
        self._config.write_text(f'listen: "127.0.0.1:{self.port}"\n{configuration}')

    def start(self) -> None:
        """Start, and return when it answers."""
        with (self._folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(
                [nats_binary(), "-c", str(self._config)], stdout=log, stderr=log, cwd=self._folder
            )
        deadline_s = time.monotonic() + 10 * PATIENCE
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                    if probe.recv(4) == b"INFO":
                        return
            except OSError:
                pass
            assert self._process.poll() is None, (self._folder / "nats.log").read_text()
            assert time.monotonic() < deadline_s, "nats-server does not answer"
            time.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        """Signal the process."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


async def eventually(true: Callable[[], object], within_s: float = 10.0, what: str = "") -> None:
    """Return when `true()` is; fail after `within_s`."""
    try:
        async with asyncio.timeout(PATIENCE * within_s):
            while not true():  # noqa: ASYNC110 - anything may be waited for
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"not within {within_s:g} s: {what or true}")
