"""The undo keeper, with real processes: whoever dies, all is undone, and nothing else is touched."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import zipapp
from collections.abc import Callable
from pathlib import Path

import pytest
from broken_host import BrokenHost, identity, state, until
from hypothesis import given
from hypothesis import strategies as st

from homeostat.drills.shipped.keeper import daemon, machine, orders, steps

PROGRAM = Path(orders.__file__).parent


@pytest.mark.seed("order the keeper is one file that can be shipped: standard library, python3.8")
@pytest.mark.parametrize("source", sorted(PROGRAM.glob("*.py")), ids=lambda path: path.stem)
def test_the_keeper_needs_itself_and_the_standard_library_of_old_pythons(source: Path) -> None:
    tree = ast.parse(source.read_text(), feature_version=(3, 8))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names |= {str(node.module) for node in froms if node.level == 0}
    assert names <= set(sys.stdlib_module_names) | {"__future__"}
    assert {node.level for node in froms} <= {0, 1}, "nothing beside the folder"
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "shell"]
    assert calls == []


def folder_alone(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PROGRAM, tmp_path / "k", ignore=shutil.ignore_patterns("__pycache__")))


def one_file(tmp_path: Path) -> Path:
    zipapp.create_archive(folder_alone(tmp_path), tmp_path / "k.pyz")
    shutil.rmtree(tmp_path / "k")
    return tmp_path / "k.pyz"


@pytest.mark.seed("order the keeper is one file that can be shipped: standard library, python3.8")
@pytest.mark.parametrize("copied", [folder_alone, one_file])
def test_a_copy_alone_does_its_work(copied: Callable[[Path], Path], tmp_path: Path) -> None:
    copy = copied(tmp_path)
    folder = tmp_path / "state"

    def tell(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-I", "-S", str(copy), *words, "--state", str(folder)]
        return subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")

    life = json.loads(tell("start").stdout)
    try:
        assert os.getsid(life["pid"]) == life["pid"] != os.getsid(0)
        assert json.loads(tell("status").stdout)["open"] == []
        unknown = tell("undo", "--fault", "f1")
        assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    finally:
        os.kill(life["pid"], signal.SIGTERM)
    until(lambda: orders.status(folder)["keeper"] is None, "the end of the keeper")


@given(
    deadline_s=st.floats(0.1, 3600),
    armed_ns=st.integers(0, 10**15),
    since_ns=st.integers(0, 10**13),
    renewed=st.none() | st.integers(-(10**13), 10**13),
)
def test_the_undo_begins_before_the_deadline_and_no_renewal_lies_in_the_future(
    deadline_s: float, armed_ns: int, since_ns: int, renewed: int | None
) -> None:
    at_ns = armed_ns + since_ns
    ledger = {"armed_ns": armed_ns, "deadline_s": deadline_s}
    due = steps.due_ns(ledger, None if renewed is None else at_ns + renewed, at_ns)
    last_ns = armed_ns if renewed is None else max(armed_ns, min(at_ns + renewed, at_ns))
    assert last_ns < due < last_ns + deadline_s * 1e9
    assert due < at_ns + deadline_s * 1e9


@given(deadline_s=st.floats(0.1, 3600), takes_s=st.floats(0, 100))
def test_an_undo_that_takes_long_begins_earlier_but_not_before_half_of_the_deadline(
    deadline_s: float, takes_s: float
) -> None:
    given = [steps.step_program("power-on", "n2", "power-state", "on", takes_s), steps.step_nothing("why")]
    ledger = {"armed_ns": 0, "deadline_s": deadline_s, "steps": given}
    short = steps.margin_s({**ledger, "steps": []})
    assert short == min(2.0, deadline_s / 10)
    assert steps.margin_s(ledger) == max(short, min(takes_s, deadline_s / 2))
    assert steps.due_ns(ledger, None, 0) >= int(deadline_s / 2 * 1e9) - 1


def armed(host: BrokenHost, fault: str, steps: list[steps.Step], deadline_s: float = 30.0) -> None:
    """A fault whose injector is done."""
    injector = host.victim(f"hd-injector-{fault}")
    orders.arm(host.keeper, fault, deadline_s, injector.pid, steps)
    orders.injected(host.keeper, fault)


def frozen(host: BrokenHost, fault: str, deadline_s: float) -> subprocess.Popen[bytes]:
    victim = host.victim(f"hd-frozen-{fault}")
    armed(host, fault, [steps.step_cont(identity(victim))], deadline_s)
    machine.send(identity(victim), signal.SIGSTOP)
    until(lambda: state(victim) == "T", "the stop")
    return victim


def keeper_of(host: BrokenHost) -> machine.Process:
    life = until(lambda: daemon.sign_of_life(host.keeper), "a keeper that answers")
    return machine.Process(life["pid"], life["start_ticks"], life["boot_id"])


@pytest.mark.seed("order undo deadline lapses: the keeper undoes by itself")
def test_a_fault_that_nobody_renews_is_undone_within_its_deadline(host: BrokenHost) -> None:
    victim = frozen(host, "f1", 1.0)
    outcome = host.outcome(host.root / "f1.json")
    assert (outcome["reason"], outcome["undone"], outcome["within_deadline"]) == ("lapsed", True, True)
    assert state(victim) == "S"


def test_a_renewed_fault_stands_beyond_its_deadline(host: BrokenHost) -> None:
    victim = frozen(host, "f1", 3.0)
    began_ns = machine.now_ns()
    while machine.now_ns() - began_ns < 4e9:
        orders.renew(host.keeper, "f1")
        assert state(victim) == "T"
    assert orders.undo(host.keeper, "f1")["reason"] == "asked"
    assert state(victim) == "S"
    with pytest.raises(machine.KeeperError, match="may have been undone"):
        orders.renew(host.keeper, "f1")


@pytest.mark.seed("order keeper killed mid-fault: replayed on start, undone within the deadline")
def test_a_killed_keeper_is_started_again_by_its_guard_and_goes_on(host: BrokenHost) -> None:
    victim = frozen(host, "f1", 4.0)
    first = keeper_of(host)
    for _ in range(3):
        now = keeper_of(host)
        machine.send(now, signal.SIGKILL)
        until(lambda gone=now: not machine.lives(gone), "the death of the keeper")
    assert state(victim) == "T"
    outcome = host.outcome(host.root / "f1.json")
    assert (outcome["reason"], outcome["within_deadline"]) == ("lapsed", True)
    assert state(victim) == "S"
    assert keeper_of(host) != first


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_keeper_and_guard_killed_the_next_start_replays_what_is_on_disk(host: BrokenHost) -> None:
    victim = frozen(host, "f1", 1.0)
    life = keeper_of(host)
    guard = machine.identify(parent_of(life.pid))
    assert guard is not None and guard.pid != 1
    for each in (guard, life):
        machine.send(each, signal.SIGKILL)
        until(lambda gone=each: not machine.lives(gone), "the death")
    assert state(victim) == "T"
    daemon.start(host.keeper)
    assert host.outcome(host.root / "f1.json")["undone"]
    assert state(victim) == "S"


@pytest.mark.slow
def test_a_keeper_that_stands_still_is_replaced(host: BrokenHost) -> None:
    victim = frozen(host, "f1", 20.0)
    life = keeper_of(host)
    machine.send(life, signal.SIGSTOP)
    until(lambda: not machine.lives(life), "the end of the frozen keeper", 30.0)
    assert host.outcome(host.root / "f1.json")["within_deadline"]
    assert state(victim) == "S"


def test_one_keeper_a_folder(host: BrokenHost) -> None:
    first = daemon.start(host.keeper)
    argv = [sys.executable, str(PROGRAM), "keep", "--state", str(host.keeper)]
    assert subprocess.run(argv, check=False, stdout=subprocess.DEVNULL).returncode == 3
    assert daemon.start(host.keeper)["pid"] == first["pid"]


@pytest.mark.seed("order a reused pid is never touched")
def test_a_reused_pid_is_not_touched(host: BrokenHost) -> None:
    bystander = host.victim("hd-bystander")
    alive = identity(bystander)
    earlier = alive._replace(start_ticks=alive.start_ticks - 1)
    of_another_boot = alive._replace(boot_id="another")
    given = [steps.step_kill(earlier), steps.step_kill(of_another_boot)]
    armed(host, "f1", given)
    outcome = orders.undo(host.keeper, "f1")
    assert [step["result"] for step in outcome["steps"]] == ["already", "already"]
    assert machine.lives(alive)


@pytest.mark.seed("order power loss: what of the undo still makes sense is replayed")
def test_after_a_power_loss_files_are_removed_and_reused_pids_left_alone(host: BrokenHost) -> None:
    bystander = host.victim("hd-bystander")
    ours, not_ours = host.root / "ours", host.root / "not-ours"
    ours.write_text("x")
    not_ours.write_text("x")
    folder = machine.Folder(host.keeper)
    folder.make()
    before = identity(bystander)._replace(boot_id="before")
    given = [
        steps.step_remove(str(ours), ours.stat().st_ino),
        steps.step_remove(str(not_ours), ours.stat().st_ino),
        steps.step_kill(before),
        steps.step_cont(before),
        steps.step_table(1, "homeostat_gone"),
        steps.step_qdisc(1, "eth0", "8a01:"),
    ]
    ledger = {"fault": "f1", "boot_id": "before", "armed_ns": 2**62, "deadline_s": 3600, "steps": given}
    folder.ledger("f1").write_text(json.dumps({**ledger, "actor": before._asdict()}))
    daemon.start(host.keeper)
    outcome = host.outcome(host.root / "f1.json")
    assert (outcome["reason"], outcome["undone"]) == ("rebooted", True)
    assert not ours.exists() and not_ours.exists()
    assert machine.lives(identity(bystander))


def test_a_step_that_fails_stops_no_other_and_is_tried_again(host: BrokenHost) -> None:
    victim = host.victim("hd-frozen")
    folder = host.root / "folder"
    folder.mkdir()
    path = folder / "file"
    path.write_text("x")
    given = [
        steps.step_cont(identity(victim)),
        {"kind": "rm -rf /"},
        steps.step_remove(str(path), path.stat().st_ino),
    ]
    armed(host, "f1", given)
    machine.send(identity(victim), signal.SIGSTOP)
    outcome = orders.undo(host.keeper, "f1", within_s=1.5)
    assert [step["result"] == "failed" for step in outcome["steps"]] == [False, True, False]
    assert not outcome["undone"] and host.open_faults() == ["f1"]
    assert state(victim) == "S" and not path.exists()
    ledger = machine.Folder(host.keeper).ledger("f1")
    healed = json.loads(ledger.read_text())
    ledger.write_text(json.dumps({**healed, "steps": [given[0]]}))
    assert host.outcome(host.root / "f1.json")["undone"]


@pytest.mark.seed("order an injector that dies before it is done: undone at once")
def test_who_dies_while_injecting_is_undone_at_once(host: BrokenHost) -> None:
    victim, injector = host.victim("hd-frozen"), host.victim("hd-injector")
    orders.arm(host.keeper, "f1", 3000.0, injector.pid, [steps.step_cont(identity(victim))])
    machine.send(identity(victim), signal.SIGSTOP)
    injector.kill()
    outcome = host.outcome(host.root / "f1.json")
    assert outcome["reason"] == "injector died"
    assert state(victim) == "S"


@pytest.mark.seed("order no act comes after its own undo: who still injects is ended first")
def test_a_stuck_injector_is_ended_before_the_undo(host: BrokenHost) -> None:
    victim, injector = host.victim("hd-frozen"), host.victim("hd-injector")
    orders.arm(host.keeper, "f1", 1.0, injector.pid, [steps.step_cont(identity(victim))])
    injector.send_signal(signal.SIGSTOP)
    outcome = host.outcome(host.root / "f1.json")
    assert [step["step"]["kind"] for step in outcome["steps"]] == ["kill", "cont"]
    assert injector.wait(timeout=120) == -signal.SIGKILL


@pytest.mark.seed("order halt on a node: everything undone, new faults refused until resume")
def test_a_halted_host_undoes_everything_and_refuses(host: BrokenHost) -> None:
    victims = [frozen(host, fault, 3000.0) for fault in ("f1", "f2", "f3")]
    outcomes = orders.halt(host.keeper)
    assert [(one["fault"], one["reason"], one["undone"]) for one in outcomes] == [
        (fault, "halted", True) for fault in ("f1", "f2", "f3")
    ]
    assert [state(victim) for victim in victims] == ["S", "S", "S"]
    with pytest.raises(machine.KeeperRefusal, match="resume"):
        armed(host, "f4", [])
    assert orders.resume(host.keeper) and not orders.resume(host.keeper)
    armed(host, "f4", [])


def test_a_terminated_keeper_undoes_everything_first(host: BrokenHost) -> None:
    victim = frozen(host, "f1", 3000.0)
    machine.send(keeper_of(host), signal.SIGTERM)
    assert host.outcome(host.root / "f1.json")["reason"] == "terminated"
    assert state(victim) == "S"


def test_a_name_is_used_once_and_is_a_name(host: BrokenHost) -> None:
    armed(host, "f1", [])
    with pytest.raises(machine.KeeperError, match="has been used"):
        armed(host, "f1", [])
    orders.undo(host.keeper, "f1")
    with pytest.raises(machine.KeeperError, match="has been used"):
        armed(host, "f1", [])
    with pytest.raises(machine.KeeperError, match="is no name"):
        armed(host, "../f2", [])


def test_an_unreadable_ledger_is_told_and_stays(host: BrokenHost) -> None:
    folder = machine.Folder(host.keeper)
    folder.make()
    folder.ledger("f1").write_text('{"fault": ')
    victim = frozen(host, "f2", 1.0)
    outcome = until(lambda: orders.outcome(host.keeper, "f1"), "an outcome of the unreadable ledger")
    assert (outcome["reason"], outcome["undone"]) == ("unreadable", False)
    assert host.outcome(host.root / "f2.json")["undone"] and state(victim) == "S"
    assert host.open_faults() == ["f1"]
    folder.ledger("f1").unlink()


def test_a_keeper_with_nothing_to_keep_leaves(host: BrokenHost) -> None:
    daemon.start(host.keeper, linger_s=0.2)
    until(lambda: orders.status(host.keeper)["keeper"] is None, "the end of the keeper")
