"""A small real site: services behind a balancer, kept up by parents; each host has its own node.yaml."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from homeostat.drills.node.settings import read_drilled_node
from homeostat.drills.shipped.keeper import machine, orders
from real_parts import PATIENCE

T = TypeVar("T")
HOSTS = ("n1", "n2", "n3")
KINDS = ["node_kill", "node_freeze", "node_cpu", "node_disk", "node_network"]
PARENT = Path(__file__).with_name("restarting_parent.py")
HOMEOSTAT = [sys.executable, "-m", "homeostat.cli"]


def until(ask: Callable[[], T], what: str, deadline_s: float = 30.0) -> T:
    """The first truthy answer; fails naming what never came."""
    end_s = time.monotonic() + PATIENCE * deadline_s
    while not (answer := ask()):
        assert time.monotonic() < end_s, f"never within {deadline_s} s: {what}"
        time.sleep(0.02)
    return answer


def free_port() -> int:
    """Nobody listens there now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


DRILL: dict[str, Any] = {
    "drill": "quick",
    "title": "A web process dies",
    "preconditions": [
        {"kind": "redundancy", "requirement": "R0.1", "service": "web", "at_least": 2},
        {"kind": "no_open_faults", "requirement": "R0.2"},
    ],
    "baseline": {"samples": 30},
    "window": {"effect_within": "700ms", "settle": "500ms", "longest": "15s"},
    "monitors": [
        {"id": "web", "kind": "http", "layer": "service", "target": {"service": "web"}},
        {"id": "there", "kind": "http", "layer": "backend", "target": {"service": "web", "on": "victim"}},
        {
            "id": "processes",
            "kind": "process",
            "layer": "process",
            "target": {"service": "web", "on": "victim"},
            "stable": "500ms",
        },
    ],
    "fault": {"injector": "kill", "target": {"service": "web", "choose": "seeded"}},
    "operations": {
        "during": [{"id": "canary", "target": {"service": "web"}, "deadline": "2s"}],
        "after": [{"id": "ask", "target": {"service": "web"}, "deadline": "5s"}],
    },
    "checks": [
        {"kind": "service_outage", "requirement": "R1.11", "monitors": ["web"], "limit": "5s"},
        {"kind": "process_recovery", "requirement": "R0.5", "monitor": "processes", "limit": "10s"},
        {"kind": "operations", "requirement": "R1.11"},
    ],
    "cleanup": [{"kind": "restart_if_down", "service": "web"}],
}
"""Changed by tests: what a clean run of it passes."""

FROZEN: dict[str, Any] = {
    **{name: DRILL[name] for name in ("preconditions", "baseline", "operations")},
    "drill": "frozen",
    "title": "A web process stands still",
    "window": {"effect_within": "700ms", "settle": "500ms", "longest": "40s"},
    "monitors": DRILL["monitors"][:2],
    "fault": {"injector": "freeze", "target": {"service": "web", "choose": "first"}, "hold": "30s"},
    "checks": [{"kind": "service_outage", "requirement": "R0.4", "monitors": ["there"], "limit": "35s"}],
}
"""A fault that stands for long enough to be interrupted."""


@dataclass
class DrilledSite:
    """The site below `root`."""

    root: Path
    ports: dict[str, int] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    """Words before the tool's own."""
    env: dict[str, str] = field(default_factory=dict)
    """Beside our own variables, for the tool alone."""
    without: list[str] = field(default_factory=list)
    """Variables with these words in their names are not the tool's."""

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def runs(self) -> Path:
        return self.state / "drills"

    def node(self, host: str) -> Path:
        return self.root / host / "node.yaml"

    def command(self, host: str) -> list[str]:
        """Of a host's service."""
        ready = str(self.root / host / "ready")
        argv = [sys.executable, "-m", "homeostat.lab.service", "--name", f"web-{host}", "--host", host]
        return [*argv, "--port", str(self.ports[host]), "--ready-file", ready]

    def permit(self, host: str, **drills: Any) -> None:
        """Write a host's node.yaml."""
        profiles = {"web": {"command_line": re.escape(" ".join(self.command(host)))}}
        permitted = {"enabled": True, "injectors": KINDS, "profiles": profiles}
        permitted["writable_paths"] = [str(self.root / host)]
        given = {"host": host, "state_dir": str(self.root / host), "drills": permitted | drills}
        self.node(host).write_text(yaml.safe_dump(given))

    def returns_after(self, host: str, seconds: float | str) -> None:
        """When a service that died is started again."""
        fresh = self.root / host / "control.new"
        fresh.write_text(f"{seconds}\n")
        fresh.replace(self.root / host / "control")

    def start(self) -> None:
        """Everything, and wait until it answers."""
        for name in (*HOSTS, "balancer"):
            self.ports[name] = free_port()
        for host in HOSTS:
            (self.root / host).mkdir()
            self.permit(host)
            self.returns_after(host, 0.2)
            control = str(self.root / host / "control")
            self.spawn(sys.executable, str(PARENT), control, *self.command(host))
        backends = [f"web-{host}=127.0.0.1:{self.ports[host]}" for host in HOSTS]
        port = str(self.ports["balancer"])
        self.spawn(sys.executable, "-m", "homeostat.lab.balancer", "--port", port, *backends)
        self.write_site()
        for name in self.ports:
            until(lambda name=name: accepts(self.ports[name]), f"{name} answers")
        for host in HOSTS:  # each names its process there only after it listens
            until((self.root / host / "ready").exists, f"web-{host} says so")

    def write_site(self, **settings: Any) -> None:
        """site.yaml where the tool looks for it."""
        url = "http://127.0.0.1:{}".format
        on = {host: {"url": url(self.ports[host]), "profile": "web"} for host in HOSTS}
        given = {
            "site": "small",
            "hosts": {host: {"config": str(self.node(host))} for host in HOSTS},
            "services": {"web": {"endpoint": url(self.ports["balancer"]), "hosts": on}},
            "drills": {"ready_within_s": 60, "undo_deadline_s": 10, "renew_s": 1} | settings,
        }
        self.state.mkdir(exist_ok=True)
        (self.state / "site.yaml").write_text(yaml.safe_dump(given, sort_keys=False))

    def spawn(self, *argv: str) -> None:
        """A process that `end` ends."""
        self.processes.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def write_drill(self, given: dict[str, Any], /, **changes: Any) -> str:
        """One's own drill file; its id."""
        folder = self.root / "own"
        folder.mkdir(exist_ok=True)
        name = str((given | changes)["drill"])
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(given | changes, sort_keys=False))
        return name

    def argv(self, *words: str) -> list[str]:
        """The command line for a verb of `homeostat drill` that runs things."""
        return [*HOMEOSTAT, "drill", *words, "--dir", str(self.state)]

    def tool(self, *words: str) -> subprocess.Popen[str]:
        """The tool, running."""
        argv = [*self.before, *self.argv("run", *words), "--drills", str(self.root / "own"), "--json"]
        ours = {name: value for name, value in os.environ.items() if not any(w in name for w in self.without)}
        return subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=ours | self.env,
        )

    def run(self, *words: str, during: Callable[[subprocess.Popen[str]], None] = lambda _: None) -> Ran:
        """The tool to its end. `during`: done beside it, when it has been started."""
        tool = self.tool(*words)
        beside = threading.Thread(target=during, args=(tool,))
        beside.start()
        try:
            out, err = tool.communicate(timeout=180)
        finally:
            beside.join()
        return Ran(tool.returncode, json.loads(out) if out else {}, err)

    def open_faults(self) -> list[str]:
        """What the hosts' keepers still have to undo."""
        return [
            fault
            for host in HOSTS
            for fault in machine.Folder(read_drilled_node(self.node(host)).keeper).open_faults()
        ]

    def facts(self, kind: str) -> list[dict[str, Any]]:
        """Facts of the newest run so far."""
        newest = max(self.runs.glob("r-*"), key=lambda path: path.stat().st_mtime_ns, default=None)
        if newest is None or not (newest / "history.jsonl").exists():
            return []
        lines = (newest / "history.jsonl").read_text().splitlines(keepends=True)
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        return [line for line in whole if line["fact"] == kind]

    def stopped(self) -> list[int]:
        """Pids of services that stand still."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if f"--ready-file {self.root}" in words and (path / "stat").read_text().split()[2] == "T":
                    found.append(int(path.name))
        return found

    def end(self) -> None:
        """Nothing of this test runs on."""
        for pid in self.stopped():
            os.kill(pid, signal.SIGCONT)
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(10)
        for host in HOSTS:
            if not self.node(host).exists():
                continue
            root = read_drilled_node(self.node(host)).keeper
            while (life := orders.status(root)["keeper"]) is not None:
                found = machine.Process(life["pid"], life["start_ticks"], life["boot_id"])
                machine.send(found, signal.SIGTERM)
                time.sleep(0.01)


@dataclass(frozen=True)
class Ran:
    """What a run of the tool ended with."""

    code: int
    report: dict[str, Any]
    said: str

    def row(self, what: str) -> dict[str, Any]:
        """The first row whose words begin so."""
        return next(row for row in self.report["rows"] if row["what"].startswith(what))


@contextmanager
def drilled_site(root: Path) -> Iterator[DrilledSite]:
    """A site that answers, until the end of the test."""
    made = DrilledSite(root)
    try:
        made.start()
        yield made
    finally:
        made.end()
