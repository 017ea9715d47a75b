"""Waiting for conditions with a deadline, and processes that end with the test."""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from real_parts import PATIENCE

T = TypeVar("T")


def until(ask: Callable[[], T], what: str, deadline_s: float = 10.0) -> T:
    """The first truthy answer; fails naming what never came."""
    end_s = time.monotonic() + PATIENCE * deadline_s
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < end_s, f"never within {deadline_s} s: {what}"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def get(port: int, path: str = "/") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


@contextmanager
def running(argv: list[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is killed at the latest with the test."""
    with output.open("ab") as sink:
        process = subprocess.Popen(argv, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
