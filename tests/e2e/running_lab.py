"""A lab of `homeostat up` in a directory of its own, as a person at the terminal would run it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from homeostat.kernel.client import Client
from homeostat.kernel.processes import Identity, die_with_parent, is_alive, send_signal
from homeostat.lab.plan import PREFERRED_PORTS
from homeostat.lab.preparation import is_free
from real_parts import PATIENCE

T = TypeVar("T")
START_WITHIN_S = 90.0


def eventually(check: Callable[[], T], within_s: float, what: str) -> T:
    """The first true answer of `check`; fails with `what` when there is none in time.

    It asks less and less often: a lab that is asked fifty times a second does less of its work.
    """
    end_s, pause_s = time.monotonic() + PATIENCE * within_s, 0.02
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > end_s:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        time.sleep(pause_s)
        pause_s = min(1.3 * pause_s, 0.1)


@dataclass
class Lab:
    """One running `homeostat up`."""

    directory: Path
    process: subprocess.Popen[bytes]

    @property
    def client(self) -> Client:
        return Client.find(self.directory)

    def get(self, path: str, **query: str) -> Any:
        """An answer of the API; None while the server cannot answer."""
        try:
            return self.client.call("GET", path, **query)
        except Exception:
            return None

    def read(self, path: str, **query: str) -> Any:
        """An answer of a server that is there, though it may take its time on a busy machine."""
        return eventually(lambda: self.get(path, **query), 10, f"GET {path} is answered")

    def child(self, name: str) -> Identity:
        """The identity of one of the supervisor's children."""
        found = json.loads((self.directory / "children.json").read_text())["children"][name]
        return Identity(found["pid"], found["start_ticks"])

    def service(self, resource: str) -> Identity | None:
        """The identity of a resource's process, from its pid file; one that is gone when none lives."""
        found = None
        for path in self.directory.glob(f"hosts/*/**/*{resource}.pid"):
            try:
                words = path.read_text().split()
            except FileNotFoundError:
                continue
            if len(words) == 2:
                found = Identity(int(words[0]), int(words[1]))
                if is_alive(found):
                    return found
        return found

    def kill(self, identity: Identity, number: signal.Signals = signal.SIGKILL) -> None:
        """End exactly this process."""
        assert send_signal(identity, number), f"{identity} was not there to be killed"

    def kill_child(self, name: str) -> Identity:
        """kill -9 one of the supervisor's children and wait until another one is there."""
        eventually(lambda: self.lives(name), 20, f"{name} is started")
        before = self.child(name)
        self.kill(before)
        eventually(lambda: self.reborn(name, before), 20, f"{name} is started again")
        return before

    def lives(self, name: str) -> bool:
        """Whether a child of this name is recorded and alive."""
        try:
            return is_alive(self.child(name))
        except (KeyError, ValueError):
            return False

    def reborn(self, name: str, before: Identity) -> bool:
        """Whether another process carries the name now."""
        try:
            now = self.child(name)
        except (KeyError, ValueError):
            return False
        return now != before and is_alive(now)

    def restarted(self, resource: str, before: Identity) -> Identity | None:
        """The living process of a resource when it is another one than before."""
        now = self.service(resource)
        return now if now is not None and now != before and is_alive(now) else None

    def heard(self, subscription: str = "on-call") -> list[dict[str, Any]]:
        """What the consumer wrote down for one subscription, each key once, in the order of arrival."""
        path = self.directory / "heard.jsonl"
        if not path.exists():
            return []
        seen: dict[str, dict[str, Any]] = {}
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if entry["status"] != 200:
                continue
            body = entry["body"]
            if body["notice"].split(":")[0] == subscription:
                seen.setdefault(body["notice"], body)
        return list(seen.values())

    def told(self, subscription: str, about: str) -> list[str]:
        """The transitions that a subscription heard about one subject."""
        return [body["transition"] for body in self.heard(subscription) if body["fault"]["about"] == about]

    def all_up(self) -> bool:
        """Whether the server knows nine resources and all of them are up."""
        answer = self.get("/resources")
        return bool(answer) and [row["state"] for row in answer["items"]] == ["up"] * 9

    def balancer(self) -> str:
        """What the service behind the balancer answers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port('balancer')}/", timeout=5) as answer:
            return str(answer.read().decode())

    def port(self, field: str) -> int:
        """One of the ports in lab.json."""
        return int(json.loads((self.directory / "lab.json").read_text())["ports"][field])

    @property
    def secrets(self) -> dict[str, Any]:
        """What is in credentials.json."""
        found: dict[str, Any] = json.loads((self.directory / "credentials.json").read_text())
        return found

    def output(self) -> str:
        """What `up` has printed so far."""
        return (self.directory.parent / "up.out").read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask `up` to stop; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


def choose_ports(directory: Path) -> None:
    """Ports of its own for a new lab: two that start at once on one machine would want the same."""
    file = directory / "lab.json"
    if file.exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    ports: dict[str, int] = {}
    while len(ports) < len(PREFERRED_PORTS):
        port = random.randrange(20_000, 32_000)
        if port not in ports.values() and is_free(port):
            ports[tuple(PREFERRED_PORTS)[len(ports)]] = port
    file.write_text(json.dumps({"version": 1, "ports": ports}))


def start(directory: Path) -> Lab:
    """`homeostat up`, waited for until the whole lab is up."""
    choose_ports(directory)
    out = (directory.parent / "up.out").open("ab")
    process = subprocess.Popen(
        [sys.executable, "-m", "homeostat.cli", "up", "--dir", str(directory)],
        stdout=out,
        stderr=out,
        stdin=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if not name.startswith("HOMEOSTAT")},
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGTERM),  # an aborted test run leaves no lab behind
    )
    out.close()
    lab = Lab(directory, process)

    def is_there() -> bool:
        assert process.poll() is None, f"`homeostat up` ended with {process.returncode}:\n{lab.output()}"
        return (directory / "client.json").exists() and lab.all_up()

    eventually(is_there, START_WITHIN_S, f"the lab is up; it said:\n{lab.output()}")
    return lab


@contextmanager
def running(directory: Path) -> Iterator[Lab]:
    """A lab for one block; whatever happens, nothing of it lives afterwards."""
    lab = start(directory)
    try:
        yield lab
    finally:
        if lab.process.poll() is None:
            lab.stop()


@dataclass(frozen=True)
class Footprint:
    """Every process of one lab, and every port that they listen on."""

    pids: frozenset[tuple[int, float]]
    ports: frozenset[int]


def footprint(directory: Path) -> Footprint:
    """What of the lab in `directory` runs and listens now, found by its path in words and environments."""
    found: set[tuple[int, float]] = set()
    for process in psutil.process_iter():
        try:
            told = [*process.cmdline(), *process.environ().values()]
            if any(str(directory) in word for word in told):
                found.add((process.pid, process.create_time()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return Footprint(frozenset(found), frozenset(listening({pid for pid, _ in found})))


def listening(pids: set[int] | None = None) -> set[int]:
    """The TCP ports that these processes listen on, or anybody."""
    return {
        each.laddr.port
        for each in psutil.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and (pids is None or each.pid in pids)
    }
