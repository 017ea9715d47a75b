"""Another host is switched off by programs that this machine permits, and switched on whoever dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from broken_host import BrokenHost, identity, until

from homeostat.drills.shipped.keeper import steps

SWITCH = Path(__file__).with_name("power_switch.py")
TOOL = Path(__file__).with_name("renewing_tool.py")
LISTEN = "import signal, socket, sys; s = socket.create_server(('127.0.0.1', 0)); "
LISTEN += "print(s.getsockname()[1], flush=True); signal.pause()"
TARGET = {"host": "n2"}


class Room:
    """Host n2 with its switch, and the machine n1 from which it is switched."""

    def __init__(self, host: BrokenHost) -> None:
        self.host = host
        self.machine, self.port = self._start("n2")
        self.neighbour, _ = self._start("n3")
        self.permit()

    def _start(self, name: str) -> tuple[subprocess.Popen[bytes], int]:
        machine = self.host.start(sys.executable, "-c", LISTEN, stdout=subprocess.PIPE)
        assert machine.stdout is not None
        port = int(machine.stdout.readline())
        self.file(f"{name}.json").write_text(json.dumps(identity(machine)._asdict()))
        return machine, port

    def permit(self, **more: object) -> None:
        words = [sys.executable, str(SWITCH), str(self.host.root)]
        programs = {f"power-{verb}": {"argv": [*words, verb, "{host}"]} for verb in ("off", "on", "state")}
        power = {name: {"answers_at": [f"127.0.0.1:{self.port}"]} for name in ("n1", "n2")}
        given = {"injectors": ["node_power"], "programs": programs, "power": power}
        self.host.permit(**(given | more))

    def file(self, name: str) -> Path:
        return self.host.root / name

    @property
    def is_on(self) -> bool:
        return not self.file("n2.off").exists()

    def switching(self) -> list[str]:
        """Who is just switching off."""
        found = []
        for each in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = each.read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if str(SWITCH) in words and str(self.host.root) in words and "off" in words:
                found.append(each.parent.name)
        return found


@pytest.fixture
def room(host: BrokenHost) -> Room:
    return Room(host)


@pytest.mark.seed("order host-down: a host is switched off, proven, and switched on")
def test_a_host_is_switched_off_and_on_again(room: Room) -> None:
    plan = room.host.order("node_power", TARGET)
    assert room.host.good("probe", plan) == {"able": True, "missing": []}
    planned = room.host.good("plan", plan)
    assert planned["does"] == "switch host n2 off" and planned["runs"].endswith(" off n2")
    assert planned["undo"][0].endswith(" on n2")
    assert room.is_on and room.machine.poll() is None and not room.file("asked").exists()
    injected = room.host.good("inject", plan)
    assert injected["before_ns"] < injected["after_ns"]
    assert room.machine.wait(10) == -signal.SIGKILL
    proof = room.host.good("prove", plan)
    assert (proof["says"], proof["silent"]) == ("off", [f"127.0.0.1:{room.port}"])
    assert not room.is_on
    assert room.host.run("verify_undone", plan).code == 1
    assert room.host.good("undo", plan)["within_deadline"]
    looked = room.host.good("verify_undone", plan)
    assert room.is_on and {step["step"]["kind"] for step in looked["steps"]} == {"program", "kill"}
    assert room.neighbour.poll() is None


def test_a_host_that_somebody_switches_off_after_the_undo_is_switched_on_again(room: Room) -> None:
    plan = room.host.order("node_power", TARGET)
    for verb in ("plan", "inject", "undo"):
        room.host.good(verb, plan)
    assert room.is_on
    subprocess.run([sys.executable, str(SWITCH), str(room.host.root), "off", "n2"], check=True)
    assert room.host.run("verify_undone", plan).code == 1, "a late fence"
    assert room.host.good("undo", plan)["again"] == "on"
    assert room.host.good("verify_undone", plan)["undone"] and room.is_on
    assert "again" not in room.host.good("undo", plan), "it is on"


def test_a_switch_that_lies_proves_nothing(room: Room) -> None:
    room.file("liar").touch()
    plan = room.host.order("node_power", {**TARGET, "silent_within_s": 0.2})
    room.host.good("plan", plan)
    room.host.good("inject", plan)
    proof = room.host.run("prove", plan)
    assert proof.code == 1 and proof.section["says"] == "off"
    assert proof.section["answering"] == [f"127.0.0.1:{room.port}"]
    assert room.host.good("undo", plan)["undone"] and room.is_on


def test_a_switch_that_fails_is_an_error_and_is_undone_at_once(room: Room) -> None:
    room.file("broken").touch()
    plan = room.host.order("node_power", TARGET, deadline_s=3000.0)
    room.host.good("plan", plan)
    failed = room.host.run("inject", plan)
    assert failed.code == 2 and "the switch is broken" in failed.error
    outcome = room.host.outcome(plan)
    assert (outcome["reason"], outcome["undone"]) == ("injector died", True)


def test_what_is_not_permitted_is_refused_in_one_line(room: Room) -> None:
    def refused(target: dict[str, str], code: int, words: str) -> None:
        answer = room.host.run("plan", room.host.order("node_power", target))
        assert answer.code == code and words in answer.error and answer.error.count("\n") == 1, answer

    refused({"host": "n1"}, 5, "switch itself off")
    refused({"host": "n9"}, 2, "drills.power")
    refused({**TARGET, "argv": "rm"}, 2, "argv")
    room.file("n2.off").touch()
    refused(TARGET, 5, "power it on first")
    room.permit(programs={})
    refused(TARGET, 2, "drills.programs.power-state")
    room.permit(injectors=["node_kill"])
    refused(TARGET, 5, "node_power")
    assert not room.file("asked").exists()


def test_a_step_runs_only_what_is_permitted_there(room: Room) -> None:
    root = room.host.keeper
    steps.permit(root, {"touch": {"argv": ["touch", str(room.file("{host}.touched"))], "timeout_s": 5}})
    step = steps.step_program("rm", "n2", "rm", "on")
    assert "not permitted" in steps.undo_step(step, root=root)["reason"]
    assert "only a keeper" in steps.undo_step(step)["reason"]
    assert steps.verify_step(step, root)["undone"] is False
    for host in ("../n2", "n2; true", "-n2", ""):
        wrong = steps.step_program("touch", host, "touch", "")
        assert "not permitted" in steps.undo_step(wrong, root=root)["reason"]
    assert steps.undo_step(steps.step_program("touch", "n2", "touch", ""), root=root)["result"] == "undone"
    assert room.file("n2.touched").exists()


def test_a_program_that_hangs_has_failed_and_the_keeper_shows_life_meanwhile(room: Room) -> None:
    root, beats = room.host.keeper, []
    argv = [sys.executable, "-c", "import signal; signal.pause()"]
    steps.permit(root, {"hang": {"argv": argv, "timeout_s": 1.2}})
    found = steps.undo_step(steps.step_program("hang", "n2", "hang", "on"), lambda: beats.append(1), root)
    assert found["result"] == "failed" and "no end in 1.2 s" in found["reason"]
    assert len(beats) >= 3


def alone(tool: subprocess.Popen[bytes]) -> None:
    tool.kill()


def with_its_injector(tool: subprocess.Popen[bytes]) -> None:
    os.killpg(tool.pid, signal.SIGKILL)


@pytest.mark.seed("order the tool dies by SIGKILL while a host is being switched off")
@pytest.mark.parametrize("end", [pytest.param(alone, marks=pytest.mark.slow), with_its_injector])
def test_a_tool_killed_half_way_leaves_the_host_on(
    room: Room, end: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    room.file("slow").touch()
    plan = room.host.order("node_power", TARGET, deadline_s=3.0)
    tool = room.host.start(
        sys.executable, str(TOOL), str(room.host.config), str(plan), stderr=subprocess.DEVNULL
    )
    until(lambda: room.file("asked").exists() and room.switching(), "it is being switched off")
    end(tool)
    tool.wait(10)
    outcome = room.host.outcome(plan)
    assert outcome["undone"], outcome
    assert room.switching() == [], "nobody is left who could switch it off later"
    room.file("slow").unlink()
    assert room.is_on and room.machine.poll() is None


@pytest.mark.seed("order the tool dies by SIGKILL: a host that is off is switched on within the deadline")
def test_a_host_that_is_off_when_the_tool_dies_is_switched_on_in_time(room: Room) -> None:
    plan = room.host.order("node_power", TARGET, deadline_s=8.0)
    tool = room.host.start(
        sys.executable, str(TOOL), str(room.host.config), str(plan), stderr=subprocess.DEVNULL
    )
    until(lambda: room.host.stands(plan), "it is off")
    assert not room.is_on and not _answers(room.port)
    with_its_injector(tool)
    outcome = room.host.outcome(plan)
    assert (outcome["reason"], outcome["undone"]) == ("lapsed", True)
    assert outcome["within_deadline"], outcome
    assert room.is_on and room.neighbour.poll() is None


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
