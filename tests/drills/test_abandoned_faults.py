"""The tool dies at any moment, alone or with the process that injects: all is undone in time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from broken_host import KINDS, BrokenHost, one_cpu, state, until

from engines import needs
from homeostat.drills.shipped.keeper import daemon, orders, steps

TOOL = Path(__file__).with_name("renewing_tool.py")
DEADLINE_S = 4.0
MOMENTS = 5
UNTIL_INJECTED_S = 4.0
"""Random moments lie between the begin of a tool and this: before, in and after the injection."""

pytestmark = needs("root", "nftables")


class AllKinds:
    """One victim for each kind of fault, and those who must not be hurt."""

    def __init__(self, host: BrokenHost, turn: str) -> None:
        self.host, self._turn = host, turn
        self.frozen = host.victim(f"hd-freeze-{turn}")
        self.killed = host.victim(f"hd-kill-{turn}")
        self.apart = host.start("unshare", "--net", "/bin/sleep", f"6{turn}")
        until(lambda: self.netns() != Path("/proc/self/ns/net").stat().st_ino, "a namespace of its own")
        names = (f"hd-freeze-{turn}-not", f"vim hd-kill-{turn}")
        self.bystanders = [host.victim(name) for name in names]
        self.bystanders += [host.start("dd", stderr=subprocess.DEVNULL)]

    def netns(self) -> int:
        return Path(f"/proc/{self.apart.pid}/ns/net").stat().st_ino

    def order(self, kind: str) -> Path:
        cut = {"does": "cut", "namespace_of": {"command_line": f"/bin/sleep 6{self._turn}"}}
        targets = {
            "node_kill": {"command_line": f"hd-kill-{self._turn} 600"},
            "node_freeze": {"command_line": f"hd-freeze-{self._turn} 600"},
            "node_cpu": {"cpus": [one_cpu()]},
            "node_disk": {"folder": str(self.host.root), "size_mib": 1, "floor_mib": 64},
            "node_network": cut,
        }
        return self.host.order(kind, targets[kind], DEADLINE_S)

    def left(self) -> list[str]:
        """Everything of a fault that is still in effect."""
        tables = steps.run_tool(self.netns(), "nft", "list", "tables") or ""
        stressors = [
            pid.name
            for pid in Path("/proc").iterdir()
            if pid.name.isdigit()
            and b"stressor.py" in _words(pid)
            and str(self.host.root).encode() in _words(pid)
        ]
        files = [path.name for path in self.host.root.glob("homeostat-drill-*")]
        stopped = [str(self.frozen.pid)] if state(self.frozen) == "T" else []
        return [*stopped, *files, *stressors, *tables.split()]


def _words(folder: Path) -> bytes:
    try:
        return (folder / "cmdline").read_bytes()
    except OSError:
        return b""


def tool_of(host: BrokenHost, plan: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, str(TOOL), str(host.config), str(plan)]
    tool = host.start(*argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert tool.stdout is not None and tool.stdout.readline() == b"began\n"
    return tool


def gone(tool: subprocess.Popen[bytes]) -> Callable[[], bool]:
    """Whether nobody of a tool's process group is left."""

    def ask() -> bool:
        try:
            os.killpg(tool.pid, 0)
        except ProcessLookupError:
            return True
        return False

    return ask


def abandon(host: BrokenHost, number: signal.Signals, moment_s: float, wait: bool = False) -> None:
    """Break everything at once, end the tools at a moment, and look that nothing of it is left in time.

    SIGKILL goes to the tool with what it has started, another signal to the tool alone. `wait`: not before
    everything is broken.
    """
    victims = AllKinds(host, f"{random.getrandbits(24)}")
    plans = [victims.order(kind) for kind in KINDS]
    tools = [tool_of(host, plan) for plan in plans]
    if wait:
        until(lambda: all(host.stands(plan) for plan in plans), "everything to be broken", 60)
        assert len(victims.left()) >= 4
    time.sleep(moment_s)  # the moment is what the test is about; what must hold does not depend on it
    for tool in tools:
        os.killpg(tool.pid, number) if number is signal.SIGKILL else tool.send_signal(number)
    for tool in tools:
        tool.wait(30)
        until(gone(tool), "the end of what the tool had started")
    until(lambda: not host.open_faults(), "the undo of everything", DEADLINE_S + 20)
    assert victims.left() == []
    assert state(victims.frozen) == "S"
    for plan in plans:
        outcome = orders.outcome(host.keeper, plan.stem)
        assert outcome is None or (outcome["undone"] and outcome["within_deadline"]), outcome
        assert outcome is not None or not wait
        ended = [
            step["step"] for step in (outcome or {"steps": []})["steps"] if step["step"]["kind"] == "kill"
        ]
        assert not any(steps.verify_step(step)["undone"] is False for step in ended)
    assert [bystander.poll() for bystander in victims.bystanders] == [None] * 3
    assert [state(bystander) for bystander in victims.bystanders] == ["S"] * 3


@pytest.mark.seed(
    "order the tool dies by SIGINT, SIGTERM, SIGKILL: undone within the deadline, nothing else hurt"
)
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_tool_that_dies_leaves_nothing_broken(host: BrokenHost, number: signal.Signals) -> None:
    abandon(host, number, random.Random(f"one {number}").uniform(0.0, 0.5), wait=True)


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(MOMENTS))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_at_any_moment(host: BrokenHost, number: signal.Signals, turn: int) -> None:
    moment = random.Random(f"{turn} {number}")
    abandon(host, number, moment.uniform(0.0, UNTIL_INJECTED_S))


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(MOMENTS))
def test_the_keeper_dies_as_well_at_any_moment(host: BrokenHost, turn: int) -> None:
    life = daemon.start(host.keeper)
    os.kill(life["pid"], signal.SIGKILL)
    abandon(host, signal.SIGKILL, random.Random(turn).uniform(0.0, UNTIL_INJECTED_S))
