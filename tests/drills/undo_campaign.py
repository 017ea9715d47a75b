"""One round of a campaign: all is broken at once, somebody dies at a moment, all must be undone in time."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from broken_host import KINDS, BrokenHost, identity, state, until
from control_groups import ControlGroup, control_group
from test_abandoned_faults import AllKinds, gone, tool_of
from test_node_power import TARGET, Room

from homeostat.drills.shipped.keeper import machine, orders

LASTS_S = 10.0
"""A deadline with a margin of 1 s for the undo; with 4 s (0.4 s) a starved keeper was 10 ms late once."""
ALL = (*KINDS, "node_power")
WAYS = (
    "SIGINT of the tool",
    "SIGTERM of the tool",
    "SIGKILL of the tool",
    "freeze of the node process",
    "kill of the node process",
    "OOM-kill of the node process",
)
ALLOCATE = """
import os, sys
sys.stdin.readline()
held = []
while os.path.exists(f"/proc/{sys.argv[1]}") and open(f"/proc/{sys.argv[1]}/stat").read().split()[2] != "Z":
    held.append(b"x" * (1 << 20))
"""
"""Takes memory until a process of its group was killed for it; the kernel chooses another one first."""


@dataclass(frozen=True)
class Came:
    """What came of one fault. `before_s`: undone so long before its deadline; None: it was never armed."""

    kind: str
    way: str
    before_s: float | None
    reason: str | None


class NodeProcess:
    """The real node process of the host, which cannot reach its server."""

    def __init__(self, host: BrokenHost, before: list[str]) -> None:
        given = yaml.safe_load(host.config.read_text())
        password = host.root / "nats.password"
        password.write_text("none")
        password.chmod(0o600)
        given["nats"] = {"url": "nats://127.0.0.1:9", "user": "n1", "password_file": str(password)}
        host.config.write_text(yaml.safe_dump(given))
        argv = [*before, sys.executable, "-m", "homeostat.cli", "run", "node", "--config", str(host.config)]
        self.process = host.start(*argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: self._children(), "the node's runner", 60)

    def _children(self) -> str:
        pid = self.process.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text()

    def dies(self, way: str, group: ControlGroup | None) -> None:
        """Freeze, kill or OOM-kill it, for good."""
        if way.startswith("freeze"):
            self.process.send_signal(signal.SIGSTOP)
            until(lambda: state(self.process) == "T", "the stop of the node process")
        elif way.startswith("kill"):
            self.process.kill()
            self.process.wait(10)
        else:
            assert group is not None
            Path(f"/proc/{self.process.pid}/oom_score_adj").write_text("1000")
            argv = [*group.prefix(), sys.executable, "-I", "-S", "-c", ALLOCATE, str(self.process.pid)]
            with subprocess.Popen(argv, stdin=subprocess.PIPE) as hog:
                hog.communicate(b"go\n", timeout=60)
            assert self.process.wait(10) == -signal.SIGKILL
            assert group.oom_kills() > 0


def everything_else(host: BrokenHost, victims: AllKinds, elsewhere: Path) -> dict[str, object]:
    """What no fault is about: rules, disciplines, files."""
    inside = ["nsenter", f"--net=/proc/{victims.apart.pid}/ns/net"]
    # Of the machine itself only what is nobody else's: others may use it meanwhile.
    ours = (["nft", "list", "tables"], ["tc", "qdisc", "show", "dev", "lo"])
    all_ = (["nft", "list", "ruleset"], ["tc", "qdisc", "show"], ["ip", "-br", "link"])
    shown = {
        " ".join(argv): subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        for argv in (*ours, *([*inside, *words] for words in all_))
    }
    tables = shown["nft list tables"].splitlines()
    shown["nft list tables"] = "\n".join(line for line in tables if " homeostat_" in line)
    files = {
        str(path): (
            path.stat().st_ino,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(elsewhere.rglob("*"))
    }
    return {**shown, **files, "host": sorted(path.name for path in host.root.glob("homeostat-drill-*"))}


@contextmanager
def memory_group(way: str) -> Iterator[ControlGroup | None]:
    """A group with little memory, for who is to be killed for it."""
    with control_group("memory") as group:
        if way.startswith("OOM") and group is not None:
            group.limit_memory(192)
        yield group


def one_round(host: BrokenHost, way: str, moment_s: float | None) -> list[Came]:
    """Break all kinds, let who dies die at a moment (None: once all stands), look."""
    room = Room(host)
    room.permit(injectors=list(ALL))
    victims = AllKinds(host, f"{random.getrandbits(24)}")
    elsewhere = host.root / "elsewhere"
    elsewhere.mkdir()
    for number in range(5):
        (elsewhere / f"{number}").write_bytes(os.urandom(4096))
    bystanders = [*victims.bystanders, room.neighbour]
    known = [identity(each) for each in bystanders]
    before = everything_else(host, victims, elsewhere)
    with memory_group(way) as group:
        prefix = group.prefix() if group is not None and way.startswith("OOM") else []
        node = NodeProcess(host, prefix)
        plans = {kind: victims.order(kind) for kind in KINDS} | {
            "node_power": host.order("node_power", TARGET)
        }
        for plan in plans.values():
            plan.write_text(json.dumps(json.loads(plan.read_text()) | {"deadline_s": LASTS_S}))
        tools = [tool_of(host, plan) for plan in plans.values()]
        if moment_s is None:
            until(lambda: all(host.stands(plan) for plan in plans.values()), "everything to be broken", 90)
            assert len(victims.left()) >= 4 and not room.is_on
        else:
            time.sleep(
                moment_s
            )  # the moment is what the campaign is about; what must hold does not depend on it
        if way.endswith("node process"):
            node.dies(way, group)
        died_with = signal.Signals[way.split()[0]] if way.endswith("tool") else signal.SIGKILL
        for tool in tools:
            if died_with is signal.SIGKILL:
                os.killpg(tool.pid, signal.SIGKILL)
            else:
                tool.send_signal(died_with)
        for tool in tools:
            tool.wait(30)
            until(gone(tool), "the end of what the tool had started")
        until(lambda: not host.open_faults(), "the undo of everything", LASTS_S + 30)
        came = [_came(host, kind, way, plan) for kind, plan in plans.items()]
        assert victims.left() == [] and state(victims.frozen) == "S" and room.is_on
        assert [identity(each) for each in bystanders] == known
        assert [state(each) for each in victims.bystanders] == ["S"] * len(victims.bystanders)
        assert everything_else(host, victims, elsewhere) == before
        if node.process.poll() is None:
            node.process.kill()
            node.process.wait(10)
        if group is not None:
            until(_emptied(group, host), "the group to be empty", 30)
    return came


def _emptied(group: ControlGroup, host: BrokenHost) -> Callable[[], bool]:
    """The keeper was started from the group, and stays for a while."""

    def ask() -> bool:
        life = orders.status(host.keeper)["keeper"]
        if life is not None:
            found = machine.Process(life["pid"], life["start_ticks"], life["boot_id"])
            machine.send(found, signal.SIGTERM)
        return not (group.folder / "cgroup.procs").read_text().strip()

    return ask


def _came(host: BrokenHost, kind: str, way: str, plan: Path) -> Came:
    outcome = orders.outcome(host.keeper, plan.stem)
    if outcome is None:
        assert "inject" not in json.loads(plan.read_text())
        return Came(kind, way, None, None)
    assert outcome["undone"] and outcome["within_deadline"], outcome
    return Came(kind, way, (outcome["deadline_ns"] - outcome["done_ns"]) / 1e9, outcome["reason"])
