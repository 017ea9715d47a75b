"""Rounds of kills, freezes, full disks and dead hosts on a lab.

`Campaign.run` does one thing after the other to a running lab while two others write down what they see: the
prober (truth_prober.py) what works, the reader what Homeostat shows. What the three amount to is judged
afterwards, in campaign_judge.py.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from running_lab import Lab, eventually

from homeostat.contracts.nouns import HostId
from homeostat.kernel.processes import Identity, is_alive, send_signal
from homeostat.lab.plan import HOSTS, RESOURCES, StateDirectory
from homeostat.lab.power import switch_off, switch_on

LOOK_S = 0.25
WEIGHTS: Mapping[str, int] = {
    "service killed": 34,
    "service frozen": 16,
    "server killed": 20,
    "nats killed": 14,
    "node killed": 14,
    "node restarted in order": 8,
    "node frozen, a service killed": 14,
    "runner frozen, a service killed": 6,
    "server frozen": 8,
    "node disk full": 12,
    "server disk full": 10,
    "both disks full": 6,
    "host dead": 8,
    "host dead, a service dead before": 18,
    "host shut down in order": 12,
}
"""Two hundred rounds; 38 of them end with the return of a host."""


def plan(rounds: int, seed: int, kinds: Collection[str] = ()) -> list[str]:
    """Which kinds of rounds, in which order; `rounds` of them in the proportion of WEIGHTS, of these kinds
    only if any is named."""
    unknown = set(kinds) - WEIGHTS.keys()
    assert not unknown, f"no such kinds of rounds: {sorted(unknown)}; there are {list(WEIGHTS)}"
    whole = [kind for kind, weight in WEIGHTS.items() for _ in range(weight) if not kinds or kind in kinds]
    order = random.Random(seed)
    order.shuffle(whole)
    return [whole[at % len(whole)] for at in range(rounds)]


@contextmanager
def small_disks(root: Path) -> Iterator[None]:
    """The state directories of server and hosts on file systems of their own, which can be filled."""
    sizes = {"server": "320m", **{f"hosts/{host}": "24m" for host in HOSTS}}
    mounted: list[Path] = []
    try:
        for name, size in sizes.items():
            folder = root / name
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
            mounted.append(folder)
        yield
    finally:
        for folder in mounted:
            subprocess.run(["umount", "--lazy", folder], check=False)


class Reader(threading.Thread):
    """Asks the API what it shows, and keeps one line a change of any row."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(daemon=True)
        self._lab, self._over = lab, threading.Event()
        self.shown: list[tuple[int, int, dict[str, str]]] = []
        """When asked and answered (wall, ns), and the state of each resource."""

    def run(self) -> None:
        while not self._over.wait(LOOK_S):
            asked_ns = time.time_ns()
            answer = self._lab.get("/resources")
            if answer is not None:
                rows = {row["id"]: row["state"] for row in answer["items"]}
                self.shown.append((asked_ns, time.time_ns(), rows))

    def stop(self) -> None:
        self._over.set()
        self.join()


@dataclass
class Campaign:
    """`lab` has its state on small disks. `did` is what was done, with its times."""

    lab: Lab
    seed: int
    did: list[dict[str, Any]] = field(default_factory=list)
    returns: int = 0

    def __post_init__(self) -> None:
        self.choose = random.Random(self.seed)
        self.state = StateDirectory(self.lab.directory)
        self.acts: dict[str, Callable[[], None]] = {
            "service killed": lambda: self.kill_service(self.any_resource()),
            "service frozen": self.freeze_service,
            "server killed": lambda: self.child("server", signal.SIGKILL),
            "nats killed": lambda: self.child("nats", signal.SIGKILL),
            "node killed": lambda: self.child(f"node-{self.any_host()}", signal.SIGKILL),
            "node restarted in order": lambda: self.child(f"node-{self.any_host()}", signal.SIGTERM),
            "node frozen, a service killed": self.freeze_node,
            "runner frozen, a service killed": self.freeze_runner,
            "server frozen": lambda: self.freeze("server", self.choose.uniform(1, 8)),
            "node disk full": lambda: self.fill(f"hosts/{self.any_host()}"),
            "server disk full": lambda: self.fill("server"),
            "both disks full": lambda: self.fill("server", f"hosts/{self.any_host()}"),
            "host dead": lambda: self.end_host(None),
            "host dead, a service dead before": lambda: self.end_host("service"),
            "host shut down in order": lambda: self.end_host("order"),
        }

    def run(self, kinds: list[str], until_s: float) -> None:
        """Each kind after the other, as long as the monotonic clock is before `until_s`."""
        for number, kind in enumerate(kinds, 1):
            if time.monotonic() > until_s:
                return
            began_s = time.monotonic()
            self.did.append({"round": number, "kind": kind, "at_ns": time.time_ns()})
            self.acts[kind]()
            eventually(self.settled, 120, f"round {number} ({kind}) is over: {self.did[-1]}")
            self.did[-1]["over_ns"] = time.time_ns()
            print(
                f"{number}/{len(kinds)} {kind} {time.monotonic() - began_s:.1f} s",
                file=sys.stderr,
                flush=True,
            )

    def settled(self) -> bool:
        """Everything is up and no fault of a host or resource is open: the next round can begin."""
        for host in HOSTS:  # a late leader may fence a host that was switched on already
            if self.state.off_file(host).exists():
                switch_on(self.state, host)
        faults = self.lab.get("/faults", state="open")
        return self.lab.all_up() and faults is not None and not faults["items"]

    def any_host(self) -> HostId:
        return self.choose.choice(HOSTS)

    def any_resource(self) -> str:
        return str(self.choose.choice(RESOURCES).id)

    def on(self, host: HostId) -> list[str]:
        """What runs on a host now, by where its process keeps its files."""
        return [
            str(each.id)
            for each in RESOURCES
            for path in self.lab.directory.glob(f"hosts/{host}/**/*{each.id}.pid")
            if (found := _identity(path)) is not None and is_alive(found)
        ]

    def kill_service(self, resource: str) -> None:
        found = self.lab.service(resource)
        if found is not None and send_signal(found, signal.SIGKILL):
            self.did[-1].setdefault("killed", []).append([resource, time.time_ns()])

    def freeze_service(self) -> None:
        resource = self.any_resource()
        found = self.lab.service(resource)
        if found is None or not send_signal(found, signal.SIGSTOP):
            return
        self.did[-1]["frozen"] = [resource, time.time_ns()]
        time.sleep(self.choose.uniform(1, 12))
        send_signal(found, signal.SIGCONT)

    def child(self, name: str, number: signal.Signals) -> None:
        """A signal to a child of `up`, and perhaps a service that dies at about the same moment."""
        eventually(lambda: self.lab.lives(name), 30, f"{name} is started")
        before = self.lab.child(name)
        if self.choose.random() < 0.5:
            self.kill_service(self.any_resource())
            time.sleep(self.choose.uniform(0, 0.3))
        send_signal(before, number)
        eventually(lambda: self.lab.reborn(name, before), 60, f"{name} is started again")

    def freeze(self, name: str, seconds: float) -> None:
        before = self.lab.child(name)
        send_signal(before, signal.SIGSTOP)
        try:
            if self.choose.random() < 0.5:
                self.kill_service(self.any_resource())
            time.sleep(seconds)
        finally:
            send_signal(before, signal.SIGCONT)

    def freeze_node(self) -> None:
        host = self.any_host()
        before = self.lab.child(f"node-{host}")
        send_signal(before, signal.SIGSTOP)
        try:
            for resource in self.on(host)[:1]:
                self.kill_service(resource)
            time.sleep(self.choose.uniform(1, 10))
        finally:
            send_signal(before, signal.SIGCONT)

    def freeze_runner(self) -> None:
        """What looks after services and guests of a host stands still; its node process does not."""
        host = self.any_host()
        node = psutil.Process(self.lab.child(f"node-{host}").pid)
        runners = [each for each in node.children() if "homeostat.resources.node.main" in each.cmdline()]
        for runner in runners:
            runner.suspend()
        try:
            for resource in self.on(host)[:1]:
                self.kill_service(resource)
            time.sleep(self.choose.uniform(8, 20))
        finally:
            for runner in runners:
                with suppress(psutil.NoSuchProcess):
                    runner.resume()

    def fill(self, *names: str) -> None:
        """Fill these file systems to the last byte, kill a service and a guest, make room again."""
        fillers = [self.lab.directory / name / "filler" for name in names]
        try:
            for path in fillers:
                with suppress(OSError), path.open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(65_536))
                with suppress(OSError), path.open("ab", buffering=0) as file:
                    while True:
                        file.write(b"x")
            self.did[-1]["full"] = list(names)
            hosts = [HostId(name.partition("/")[2]) for name in names if "/" in name] or [self.any_host()]
            for resource in self.on(hosts[0])[:2]:
                self.kill_service(resource)
                time.sleep(self.choose.uniform(0, 1))
            time.sleep(self.choose.uniform(2, 6))
        finally:
            for path in fillers:
                path.unlink(missing_ok=True)

    def end_host(self, before: str | None) -> None:
        """A host loses its power, and gets it back after its death was seen."""
        host = self.any_host()
        if before == "service":
            for resource in self.choose.sample(self.on(host), 1):
                self.kill_service(resource)
            time.sleep(self.choose.choice([0, 0.02, 0.1, 0.5]))
        elif before == "order":
            send_signal(self.lab.child(f"node-{host}"), signal.SIGTERM)
            time.sleep(self.choose.uniform(0.1, 0.5))
        self.did[-1]["host"] = [host, time.time_ns()]
        switch_off(self.state, host)
        eventually(lambda: self.is_down(host), 60, f"{host} is found dead")
        time.sleep(self.choose.uniform(0, 8))
        self.did[-1]["back"] = time.time_ns()
        switch_on(self.state, host)
        self.returns += 1
        eventually(lambda: self.is_back(host), 90, f"{host} is back")

    def is_back(self, host: HostId) -> bool:
        """Whether it is up. A fence on its way may have met it: then a person switches it on again."""
        switch_on(self.state, host)
        return not self.is_down(host)

    def is_down(self, host: HostId) -> bool:
        faults = self.lab.get("/faults", state="open") or {"items": []}
        return any(row["about"] == f"node/{host}" and row["kind"] == "host_down" for row in faults["items"])


def _identity(path: Path) -> Identity | None:
    try:
        words = path.read_text().split()
        return Identity(int(words[0]), int(words[1]))
    except (OSError, ValueError, IndexError):
        return None


@contextmanager
def prober(state: Path, log: Path) -> Iterator[None]:
    """The independent prober beside a lab, from when it has seen all of it."""
    argv = [sys.executable, str(Path(__file__).with_name("truth_prober.py")), str(state), str(log)]
    process = subprocess.Popen(argv)

    def has_begun() -> bool:
        return log.exists() and log.read_text().count("resource") >= len(RESOURCES)

    try:
        eventually(has_begun, 30, "the prober has looked at everything")
        yield
    finally:
        process.terminate()
        process.wait(10)
