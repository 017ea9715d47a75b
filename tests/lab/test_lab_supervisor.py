"""The supervisor with trivial real children: restarts, orderly ends, sudden ends, one owner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_waiting import running, until

from engines import needs
from homeostat.kernel.processes import Identity, is_alive, send_signal
from homeostat.lab.children import (
    backoff_s,
    end_all,
    processes_in_pid_files,
    processes_of_lab,
    read_children,
    rotate_log,
)
from homeostat.lab.supervisor import TerminalOutput
from small_disk import fill, small_disk

PROGRAM = str(Path(__file__).with_name("supervised_program.py"))
SLEEPER = {"name": "sleeper", "argv": ["sleep", "600"]}
STUBBORN = {
    "name": "stubborn",
    "argv": ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"],
    "stop_deadline_s": 0.3,
}


class Lab:
    """One state directory and the supervisors that a test starts on it."""

    def __init__(self, root: Path) -> None:
        self.root = root / "state"
        self.output = root / "output"
        self.output.touch()

    def argv(self, *specs: dict[str, Any]) -> list[str]:
        return [sys.executable, PROGRAM, str(self.root), *(json.dumps(spec) for spec in specs)]

    def said(self) -> str:
        return self.output.read_text()

    def child(self, name: str) -> Identity | None:
        path = self.root / "children.json"
        return read_children(path).get(name) if path.exists() else None

    def await_child(self, name: str, *, other_than: Identity | None = None) -> Identity:
        def fresh() -> Identity | None:
            found = self.child(name)
            return found if found != other_than else None

        found = until(fresh, f"{name} in children.json; said: {self.said()}")
        assert found is not None
        return found


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    end_all(lambda: processes_of_lab(made.root) | processes_in_pid_files(tmp_path), grace_s=0.0)


def stop(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> int:
    process.send_signal(number)
    return process.wait(timeout=120)


@pytest.mark.parametrize(
    ("deaths", "expected_s"), [(1, 0.1), (2, 0.2), (3, 0.4), (6, 3.2), (7, 5.0), (1000, 5.0)]
)
def test_backoff(deaths: int, expected_s: float) -> None:
    assert backoff_s(deaths) == pytest.approx(expected_s)


def test_a_child_that_dies_comes_back_under_a_growing_backoff(lab: Lab) -> None:
    with running(lab.argv(SLEEPER), lab.output) as supervisor:
        first = lab.await_child("sleeper")
        send_signal(first, signal.SIGKILL)
        second = lab.await_child("sleeper", other_than=first)
        until(lambda: f"sleeper is up again (pid {second.pid})" in lab.said(), "is back")
        send_signal(second, signal.SIGKILL)
        third = lab.await_child("sleeper", other_than=second)
        assert f"sleeper (pid {first.pid}) was killed by SIGKILL; restarting in 0.1 s" in lab.said()
        until(lambda: f"(pid {second.pid}) was killed by SIGKILL; restarting in 0.2 s" in lab.said(), "0.2")
        assert stop(supervisor) == 0
    assert not is_alive(third)
    assert lab.child("sleeper") is None


def test_a_child_that_is_not_wanted_stays_dead_until_it_is(lab: Lab, tmp_path: Path) -> None:
    off = tmp_path / "off"
    with running(lab.argv({**SLEEPER, "unwanted_file": str(off)}), lab.output) as supervisor:
        first = lab.await_child("sleeper")
        off.touch()
        send_signal(first, signal.SIGKILL)
        until(lambda: "its host is switched off" in lab.said(), "it says why it does not start")
        until(lambda: lab.child("sleeper") is None, "nobody carries the name")
        off.unlink()
        lab.await_child("sleeper", other_than=first)
        assert "restarting in" not in lab.said()
        assert stop(supervisor) == 0


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_an_orderly_stop_leaves_nothing_even_of_what_its_children_started(
    lab: Lab, number: signal.Signals
) -> None:
    # The grandchild leaves its session, as a daemon does, and ignores SIGTERM.
    script = "setsid sh -c \"trap '' TERM; exec sleep 601\" & exec sleep 602"
    with running(lab.argv({"name": "parent", "argv": ["sh", "-c", script]}), lab.output) as supervisor:
        lab.await_child("parent")
        until(lambda: len(processes_of_lab(lab.root)) >= 2, "the grandchild")
        family = processes_of_lab(lab.root)
        assert stop(supervisor, number) == 0
    assert not [each for each in family if is_alive(each)]
    assert "still running, killed: pid" in lab.said()
    assert "no process of" in lab.said()


def test_a_child_that_will_not_stop_is_killed_after_its_deadline(lab: Lab) -> None:
    with running(lab.argv(STUBBORN, SLEEPER), lab.output) as supervisor:
        stubborn = lab.await_child("stubborn")
        lab.await_child("sleeper")
        assert stop(supervisor) == 0
    assert not is_alive(stubborn)
    assert f"stubborn (pid {stubborn.pid}) killed after 0." in lab.said()
    assert "sleeper (pid" not in lab.said()


def test_the_second_request_does_not_wait_for_deadlines(lab: Lab, tmp_path: Path) -> None:
    trapped = tmp_path / "trapped"
    script = f"trap '' TERM; touch {trapped}; while :; do sleep 0.05; done"
    patient = {"name": "patient", "argv": ["sh", "-c", script], "stop_deadline_s": 600}
    with running(lab.argv(patient), lab.output) as supervisor:
        patient_child = lab.await_child("patient")
        until(trapped.exists, "the trap")
        supervisor.send_signal(signal.SIGINT)

        def ask_again() -> bool:
            supervisor.send_signal(signal.SIGINT)
            return supervisor.poll() is not None

        until(ask_again, "the end after a second request", deadline_s=5)
        # A request that comes while Python itself ends finds no handler any more.
        assert supervisor.returncode in (0, -signal.SIGINT)
    assert not is_alive(patient_child)


def test_children_are_stopped_in_waves(lab: Lab, tmp_path: Path) -> None:
    order = tmp_path / "order"
    specs = []
    for wave, name in enumerate(("first", "second", "third")):
        up = tmp_path / f"{name}.up"
        script = f"trap 'echo {name} >> {order}; exit' TERM; touch {up}; while :; do sleep 0.02; done"
        specs.append({"name": name, "argv": ["sh", "-c", script], "stop_wave": wave, "ready_file": str(up)})
    with running(lab.argv(*reversed(specs)), lab.output) as supervisor:
        for name in ("first", "second", "third"):
            until((tmp_path / f"{name}.up").exists, name)
        assert stop(supervisor) == 0
    assert order.read_text().split() == ["first", "second", "third"]


def test_kill_9_takes_the_children_along_and_the_next_start_takes_over(lab: Lab) -> None:
    # `guest` stands for what a node's agent starts: not a child that dies, known by its pid file.
    pid_file = lab.root / "hosts" / "n1" / "rsctmp" / "guest.pid"
    pid_file.parent.mkdir(parents=True)
    daemon = (
        f"setsid sh -c 'read -r line < /proc/self/stat; set -- $line; echo $1 ${{22}} > {pid_file}.new; "
        f"mv {pid_file}.new {pid_file}; exec sleep 603' & exec sleep 604"
    )
    starter = {"name": "starter", "argv": ["sh", "-c", f"test -e {pid_file} && exec sleep 604; {daemon}"]}
    with running(lab.argv(starter, SLEEPER), lab.output) as supervisor:
        first = lab.await_child("sleeper")
        until(pid_file.exists, "the guest")
        supervisor.kill()
        supervisor.wait()
    until(lambda: not is_alive(first), "the end of the child by PDEATHSIG")
    (guest,) = processes_in_pid_files(lab.root / "hosts")
    with running(lab.argv(starter, SLEEPER), lab.output) as supervisor:
        second = lab.await_child("sleeper", other_than=first)
        assert "took over" in lab.said()
        assert "1 services and guests still run" in lab.said()
        assert is_alive(guest)
        assert stop(supervisor) == 0
    assert not is_alive(guest)
    assert not is_alive(second)


def test_a_leftover_that_outlived_its_supervisor_is_ended_by_identity(lab: Lab, tmp_path: Path) -> None:
    with running(["sleep", "605"], tmp_path / "sink") as leftover:
        with running(lab.argv(SLEEPER), lab.output) as supervisor:
            lab.await_child("sleeper")
            assert stop(supervisor) == 0
        document = json.loads((lab.root / "children.json").read_text())
        stat = Path(f"/proc/{leftover.pid}/stat").read_text().rpartition(")")[2].split()
        exact = {"pid": leftover.pid, "start_ticks": int(stat[19])}
        reused = {"pid": os.getpid(), "start_ticks": 1}
        document["children"] = {"left": exact, "somebody-else": reused}
        (lab.root / "children.json").write_text(json.dumps(document))
        with running(lab.argv(SLEEPER), lab.output) as supervisor:
            assert leftover.wait(timeout=120) == -signal.SIGKILL
            lab.await_child("sleeper")
            assert stop(supervisor) == 0


def test_a_second_owner_is_refused_in_one_line(lab: Lab, tmp_path: Path) -> None:
    with running(lab.argv(SLEEPER), lab.output) as supervisor:
        child = lab.await_child("sleeper")
        second = subprocess.run(lab.argv(SLEEPER), capture_output=True, text=True, timeout=120)
        assert second.returncode == 3
        assert second.stdout == ""
        assert second.stderr == (
            f"`homeostat up` already runs on {lab.root} as pid {supervisor.pid}; "
            "stop it or choose another --dir\n"
        )
        assert is_alive(child)
        assert stop(supervisor) == 0


def test_corrupt_children_are_set_aside_not_overwritten(lab: Lab) -> None:
    lab.root.mkdir()
    (lab.root / "children.json").write_text("{ half")
    with running(lab.argv(SLEEPER), lab.output) as supervisor:
        until(lambda: "moved to children.json.corrupt-" in lab.said(), "the line")
        lab.await_child("sleeper")
        assert stop(supervisor) == 0
    (aside,) = lab.root.glob("children.json.corrupt-*")
    assert aside.read_text() == "{ half"


def test_a_first_start_that_never_succeeds_fails_with_the_end_of_the_log(lab: Lab, tmp_path: Path) -> None:
    broken = {
        "name": "broken",
        "argv": ["sh", "-c", "echo no such database >&2; exit 2"],
        "ready_file": str(tmp_path / "never"),
    }
    done = subprocess.run(lab.argv(SLEEPER, broken), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "broken: exited with code 2 (5 times), never ready" in done.stdout
    assert "| no such database" in done.stdout
    assert not processes_of_lab(lab.root)


def test_a_first_start_that_cannot_succeed_is_tried_once_and_said_once(lab: Lab, tmp_path: Path) -> None:
    broken = {
        "name": "broken",
        "argv": [
            "sh",
            "-c",
            "echo starting >&2; echo 'homeostat: /a/file: is damaged; restore it' >&2; exit 6",
        ],
        "ready_file": str(tmp_path / "never"),
    }
    done = subprocess.run(lab.argv(SLEEPER, broken), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    said = [line for line in done.stdout.splitlines() if "broken" in line or "damaged" in line]
    assert said == ["homeostat up: broken: /a/file: is damaged; restore it"]
    assert not processes_of_lab(lab.root)


def test_order_of_the_start_and_what_a_child_says(lab: Lab, tmp_path: Path) -> None:
    up = tmp_path / "base.up"
    base = {
        "name": "base",
        "argv": ["sh", "-c", f"sleep 0.3; touch {up}; exec sleep 606"],
        "ready_file": str(up),
    }
    check = {
        "name": "check",
        "argv": ["sh", "-c", f"test -e {up} && echo all is well"],
        "after": ["base"],
        "once": True,
        "shown_as": "check: ",
    }
    with running(lab.argv(check, base), lab.output) as supervisor:
        until(lambda: "check: all is well\n" in lab.said(), "the child's line")
        until(lambda: lab.child("check") is None, "its end, which is no death")
        assert "started again" not in lab.said()
        assert (lab.root / "logs" / "check.log").read_text() == "all is well\n"
        assert stop(supervisor) == 0


def test_a_check_that_fails_ends_the_whole(lab: Lab) -> None:
    failing = {
        "name": "check",
        "argv": ["sh", "-c", "echo web-n2 is down; exit 1"],
        "once": True,
        "shown_as": "",
    }
    done = subprocess.run(lab.argv(SLEEPER, failing), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "web-n2 is down" in done.stdout
    assert not processes_of_lab(lab.root)


def test_a_log_is_cut_under_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 100)
        rotate_log(path, bytes_max=100)
        writer.write(b"new\n")
    assert path.read_bytes() == b"new\n"
    assert path.with_name("x.log.1").read_bytes() == b"old\n" * 100


def test_a_paused_terminal_stops_nobody_and_what_it_missed_is_counted() -> None:
    reading, writing = os.pipe()
    screen = TerminalOutput(writing)
    for number in range(20_000):
        screen.say(f"line {number}")
    assert screen.waiting
    seen = b""
    while screen.waiting:
        seen += os.read(reading, 65_536)
        screen.flush()
    os.close(writing)
    while more := os.read(reading, 65_536):
        seen += more
    os.close(reading)
    lines = seen.decode().splitlines()
    assert lines[-1] == "line 19999"
    dropped = sum(int(line.split()[1]) for line in lines if line.startswith("..."))
    assert dropped + sum(line.startswith("line ") for line in lines) == 20_000


def test_a_reader_that_went_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    screen = TerminalOutput(writing)
    screen.say("nobody hears")
    assert not screen.waiting
    os.close(writing)


@needs("mount")
@pytest.mark.seed("order full disk: up keeps its children, and says once what is full")
def test_on_a_full_disk_children_are_kept_and_nothing_goes_in_circles(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        lab = Lab(disk)
        lab.output = tmp_path / "output"
        lab.output.touch()
        script = f"head -c 8192 /dev/zero > {disk}/needed-$$ || exit 3; touch {disk}/ready; exec sleep 600"
        child = {"name": "writer", "argv": ["sh", "-c", script], "ready_file": str(disk / "ready")}
        with running(lab.argv(SLEEPER, child), lab.output) as process:
            writer, sleeper = lab.await_child("writer"), lab.await_child("sleeper")
            until((disk / "ready").exists, "the writer is ready")
            fill(disk / "filler")
            until(lambda: "is full: 0.0 MiB free; make room" in lab.said(), "one clear line")
            send_signal(writer, signal.SIGKILL)
            until(lambda: "started again in 5 s and then more rarely" in lab.said(), "it is not hurried")
            assert process.poll() is None and is_alive(sleeper)
            assert lab.said().count("is full") == 1 + lab.said().count("the disk is full, started"), (
                lab.said()
            )
            (disk / "filler").unlink()
            until(lambda: "the disk has free space again" in lab.said(), "it says so")
            until(lambda: is_alive(lab.child("writer") or writer), "the writer runs again")
            assert is_alive(sleeper)
            assert stop(process) == 0
        assert lab.said().count("exited with code 3; restarting") == 0, lab.said()


@needs("mount")
def test_what_is_said_on_a_full_disk_is_not_lost_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        handle = os.open(disk / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            screen = TerminalOutput(handle)
            fill(disk / "filler")
            screen.say("this waits")
            assert screen.waiting
            (disk / "filler").unlink()
            screen.flush()
            assert (disk / "said").read_text() == "this waits\n"
        finally:
            os.close(handle)
