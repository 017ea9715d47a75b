"""Plays the node process for a real runner: keeps what it reports as the node's store would, and answers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from homeostat.contracts.nouns import ResourceId, ResourceState
from homeostat.contracts.roles import Recalled, Recorded, Report
from homeostat.contracts.wire import Intent, ResourceStatus, decode, encode
from homeostat.kernel.processes import Identity, is_alive, send_signal
from homeostat.resources.node.agents import recorded_identity

DEADLINE_S = 60.0


def eventually(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """The first true value of `condition`."""
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        if value := condition():
            return value
        time.sleep(0.005)
    raise AssertionError(f"not within {deadline_s} s: {what}")


class PlayedNode:
    """One node's state directory and, from `start` to `kill`, a runner in it."""

    def __init__(self, directory: Path, runner: dict[str, Any]) -> None:
        self.state_dir = directory / "n1"
        self.state_dir.mkdir()
        self._config = directory / "node.yaml"
        self.configure(runner)
        self.levels: dict[ResourceId, ResourceStatus] = {}
        self.open_intents: dict[ResourceId, Intent] = {}
        self.reports: list[Report] = []
        self.answering = True
        self._process: subprocess.Popen[bytes] | None = None
        self._reading: threading.Thread | None = None
        self._log = directory / "runner.log"

    def configure(self, runner: dict[str, Any]) -> None:
        content = {"host": "n1", "state_dir": str(self.state_dir), "heartbeat_s": 1.0, "runner": runner}
        self._config.write_text(yaml.safe_dump(content))

    @property
    def rsctmp(self) -> Path:
        return self.state_dir / "runner" / "rsctmp"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self) -> None:
        """Start a runner and tell it what the store remembers."""
        argv = [sys.executable, "-m", "homeostat.resources.node.main", "--config", str(self._config)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self.send(Recalled(tuple(self.levels.values()), dict(self.open_intents)))
        self._reading = threading.Thread(target=self._read, args=(self._process,))
        self._reading.start()

    def send(self, message: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(encode(message) + b"\n")
        self._process.stdin.flush()

    def record(self, report: Report) -> None:
        """Store a report and say so."""
        level = ResourceStatus(
            report.resource,
            report.kind,
            report.owner,
            report.agent,
            report.state,
            report.reason,
            report.at_ns,
            len(self.reports),
            generation=report.generation,
        )
        self.levels[report.resource] = level
        if report.finished is not None:
            assert self.open_intents.pop(report.resource).action == report.finished.action
        if report.intended is not None:
            assert report.resource not in self.open_intents
            self.open_intents[report.resource] = report.intended
        self.send(Recorded(report.number))

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            report = decode(Report, line)
            self.reports.append(report)
            if self.answering:
                try:
                    self.record(report)
                except (BrokenPipeError, ValueError):
                    return

    def reported(self, resource: str, state: ResourceState, after: int = 0, why: str = "") -> Report:
        """The first report number `after` or later that says this."""

        def find() -> Report | None:
            wanted = (r for r in self.reports[after:] if r.resource == resource and r.state is state)
            return next((r for r in wanted if r.reason.startswith(why)), None)

        try:
            found: Report = eventually(find, f"{resource} {state.value} {why}")
        except AssertionError as error:
            raise AssertionError(f"{error}\nreports: {self.reports}\nlog: {self.log}") from None
        return found

    def service(self, resource: str) -> Identity:
        """Who runs as ocf:homeostat:process under this name."""
        identity = recorded_identity(self.rsctmp / f"homeostat-process-{resource}.pid")
        assert identity is not None and is_alive(identity)
        return identity

    def kill_service(self, resource: str) -> Identity:
        identity = self.service(resource)
        assert send_signal(identity, signal.SIGKILL)
        return identity

    @property
    def runner_pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def end(self, number: signal.Signals | None = signal.SIGKILL) -> int:
        """End the runner by a signal, or by closing its line; its exit code."""
        assert self._process is not None and self._process.stdin is not None
        if number is None:
            self._process.stdin.close()
        else:
            self._process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait until the runner has ended; its exit code."""
        assert self._process is not None and self._process.stdin is not None
        assert self._reading is not None and self._process.stdout is not None
        code = self._process.wait(DEADLINE_S)
        self._reading.join(DEADLINE_S)
        self._process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process = None
        return code

    def close(self) -> None:
        """Leave nothing behind: the runner, then every service in its session."""
        if self._process is not None:
            self.end()
        eventually(self._nobody_is_left, "the node's processes are gone")

    def _nobody_is_left(self) -> bool:
        """Kill every agent and service that carries this node's scratch directory in its environment."""
        mark = f"HA_RSCTMP={self.rsctmp}\0".encode()
        left = False
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes():
                    left = True
                    os.kill(int(entry.name), signal.SIGKILL)
        return not left
