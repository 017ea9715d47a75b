"""Two balancers with one address: the standby serves as soon as the holder is dead, and never before."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from lab_waiting import accepts, free_port, get, running, until

from homeostat.lab.preparation import listens


class Pair:
    """The balancers of two hosts before one service."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self._root, self._stack = root, stack
        self.front, self._behind = free_port(), free_port()
        service = [sys.executable, "-m", "homeostat.lab.service", "--name", "web", "--host", "n1"]
        service += ["--port", str(self._behind), "--ready-file", str(root / "web.ready")]
        stack.enter_context(running(service, root / "web.log"))
        until(lambda: accepts(self._behind), "the service")

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """A balancer that serves or stands by."""
        ready = self._root / f"{name}.ready"
        argv = [sys.executable, "-m", "homeostat.lab.balancer", "--port", str(self.front)]
        argv += ["--lock", str(self._root / "lock"), "--ready-file", str(ready)]
        argv.append(f"web=127.0.0.1:{self._behind}")
        process = self._stack.enter_context(running(argv, self._root / f"{name}.log"))
        until(lambda: ready.exists() and ready.read_text() == f"{process.pid}\n", f"{name} is ready")
        return process

    def log(self, name: str) -> str:
        return (self._root / f"{name}.log").read_text()


@pytest.mark.seed("order a balancer dies that holds the address, and one that does not")
def test_the_standby_takes_over_from_a_killed_holder(tmp_path: Path) -> None:
    with ExitStack() as stack:
        pair = Pair(tmp_path, stack)
        holder, standby = pair.start("a"), pair.start("b")
        assert listens(holder.pid, pair.front) and not listens(standby.pid, pair.front)
        assert get(pair.front)[0] == 200
        holder.kill()
        holder.wait()
        until(lambda: listens(standby.pid, pair.front), "the takeover")
        assert get(pair.front)[0] == 200
        assert pair.log("b").splitlines() == [
            f"stands by for port {pair.front}",
            f"holds port {pair.front}",
        ]
        again = pair.start("a")
        assert not listens(again.pid, pair.front), "who comes back takes nothing away"
        assert listens(standby.pid, pair.front)


def test_a_standby_that_dies_is_not_felt(tmp_path: Path) -> None:
    with ExitStack() as stack:
        pair = Pair(tmp_path, stack)
        holder, standby = pair.start("a"), pair.start("b")
        standby.kill()
        standby.wait()
        assert [get(pair.front)[0] for _ in range(20)] == [200] * 20
        assert listens(holder.pid, pair.front)


def test_both_end_when_asked_and_a_frozen_holder_keeps_the_address(tmp_path: Path) -> None:
    with ExitStack() as stack:
        pair = Pair(tmp_path, stack)
        holder, standby = pair.start("a"), pair.start("b")
        holder.send_signal(signal.SIGSTOP)
        until(lambda: Path(f"/proc/{holder.pid}/stat").read_text().split()[2] == "T", "the holder stands")
        assert not listens(standby.pid, pair.front)
        standby.send_signal(signal.SIGTERM)
        assert standby.wait(timeout=120) == 0, "also one that waits for the lock"
        holder.send_signal(signal.SIGCONT)
        holder.send_signal(signal.SIGTERM)
        assert holder.wait(timeout=120) == 0
        assert not accepts(pair.front)
