"""A host on which things are broken on purpose: its node.yaml, its keeper, victims and bystanders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from homeostat.drills.shipped.keeper import machine, orders
from real_parts import PATIENCE

T = TypeVar("T")
Record = dict[str, Any]
KINDS = ("node_kill", "node_freeze", "node_cpu", "node_disk", "node_network")
OURS = f"hd{os.getpid()}"
"""What victims of this process are called: whoever looks for them by name sees the whole machine, and other
runs of these tests on it."""
INJECTORS = [sys.executable, "-m", "homeostat.drills.node.injector"]


def until(ask: Callable[[], T], what: str, deadline_s: float = 20.0) -> T:
    """The first truthy answer; fails naming what never came."""
    end_s = time.monotonic() + PATIENCE * deadline_s
    while not (answer := ask()):
        assert time.monotonic() < end_s, f"never within {deadline_s} s: {what}"
        time.sleep(0.01)
    return answer


@dataclass(frozen=True)
class Answer:
    """What a verb said."""

    code: int
    section: Record
    error: str


@dataclass
class BrokenHost:
    """One host below `root`."""

    root: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.root / "node.yaml"

    @property
    def keeper(self) -> Path:
        return self.root / "state" / "keeper"

    def permit(self, **drills: Any) -> None:
        """Write node.yaml."""
        permitted = {"enabled": True, "injectors": list(KINDS), "writable_paths": [str(self.root)]}
        given = {"host": "n1", "state_dir": str(self.root / "state"), "drills": permitted | drills}
        self.config.write_text(yaml.safe_dump(given))

    def order(self, injector: str, target: Mapping[str, Any], deadline_s: float = 30.0) -> Path:
        """A record with a new fault."""
        fault = f"f-{uuid.uuid4().hex[:8]}"
        path = self.root / f"{fault}.json"
        given = {"fault": fault, "injector": injector, "deadline_s": deadline_s, "target": dict(target)}
        path.write_text(json.dumps(given))
        return path

    def run(self, verb: str, plan: Path, before: Sequence[str] = ()) -> Answer:
        """One verb as the process that it is."""
        argv = [*INJECTORS, verb, "--plan", str(plan), "--config", str(self.config)]
        if json.loads(plan.read_text())["injector"] in ("node_cpu", "node_disk"):
            argv = ["nice", "-n", "10", *argv]  # what keeps the machine busy gives way to others
        # Another user could not write what the coverage tool counts beside ours.
        env = {name: value for name, value in os.environ.items() if not (before and "COVERAGE" in name)}
        done = subprocess.run([*before, *argv], capture_output=True, text=True, check=False, cwd="/", env=env)
        return Answer(done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr)

    def good(self, verb: str, plan: Path) -> Record:
        """A verb that must succeed."""
        answer = self.run(verb, plan)
        assert answer.code == 0, (verb, answer)
        return answer.section

    def start(self, *argv: str, **how: Any) -> subprocess.Popen[bytes]:
        """A process that ends with the test at the latest."""
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True, **how)
        self.processes.append(process)
        return process

    def victim(self, name: str) -> subprocess.Popen[bytes]:
        """A process with that command line, and `600`."""
        return self.start(name, "600", executable="/bin/sleep")

    def open_faults(self) -> list[str]:
        return machine.Folder(self.keeper).open_faults()

    def stands(self, plan: Path) -> bool:
        """Whether a fault has been injected to its end, and not been undone."""
        ledger = machine.Folder(self.keeper).ledger(plan.stem)
        try:
            return bool(json.loads(ledger.read_text())["actor"] is None)
        except FileNotFoundError:
            return False

    def outcome(self, plan: Path) -> Record:
        """What came of a fault, once the keeper has undone it."""
        return until(
            lambda: not machine.Folder(self.keeper).ledger(plan.stem).exists() and self._outcome(plan),
            f"the undo of {plan.stem}",
        )

    def _outcome(self, plan: Path) -> Record:
        return orders.outcome(self.keeper, plan.stem) or {}

    def end(self) -> None:
        """Nothing of this test runs on."""
        for process in self.processes:
            process.kill()
            process.wait()
            for pipe in filter(None, (process.stdin, process.stdout)):
                pipe.close()
        life = orders.status(self.keeper)["keeper"]
        while life is not None:
            machine.send(machine.Process(life["pid"], life["start_ticks"], life["boot_id"]), signal.SIGTERM)
            life = orders.status(self.keeper)["keeper"]
            time.sleep(0.01)


@contextmanager
def broken_host(root: Path) -> Iterator[BrokenHost]:
    """A host that permits everything, until the end of the test."""
    host = BrokenHost(root)
    host.permit()
    try:
        yield host
    finally:
        host.end()


def identity(process: subprocess.Popen[bytes]) -> machine.Process:
    """Of a living process."""
    found = machine.identify(process.pid)
    assert found is not None
    return found


def state(process: subprocess.Popen[bytes]) -> str:
    """Its letter in /proc."""
    found = machine.stat_of(process.pid)
    return "gone" if found is None else found[0]


def own_workers(plan: Path) -> list[machine.Process]:
    """The stressors of a fault, by what its ledger or its outcome says."""
    section = json.loads(plan.read_text()).get("inject", {})
    named: Sequence[Record] = section.get("workers", [section["writer"]] if "writer" in section else [])
    return [machine.Process(one["pid"], one["start_ticks"], one["boot_id"]) for one in named]


def one_cpu() -> int:
    """A processor that this process may use."""
    return max(os.sched_getaffinity(0))
