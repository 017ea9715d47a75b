"""A lab in which something is broken on purpose: only what was meant; undone by its keeper, or by a stop."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab_waiting import accepts, running, until

from homeostat.drills.shipped.keeper import machine, orders
from homeostat.kernel.processes import Identity, is_alive
from homeostat.lab.children import (
    end_all,
    processes_in_pid_files,
    processes_of_lab,
    read_children,
    undo_keepers,
)
from homeostat.lab.plan import StateDirectory

PROGRAM = str(Path(__file__).with_name("up_program.py"))
INJECTORS = [sys.executable, "-m", "homeostat.drills.node.injector"]


class Drilled:
    """One lab, drilled by what its site file says."""

    def __init__(self, root: Path) -> None:
        self.root, self.state = root, StateDirectory(root / "state")
        self.output = root / "output"
        self.output.touch()
        self.argv = [sys.executable, PROGRAM, str(self.state.root)]

    def await_green(self, times: int = 1) -> None:
        until(lambda: self.said().count("All 9 services and guests") == times, "the green line", 60)
        until(lambda: self.child("bootstrap") is None, "the end of the bootstrap")

    def said(self) -> str:
        return self.output.read_text()

    @property
    def site(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(self.state.site_file.read_text())
        return found

    def child(self, name: str) -> Identity | None:
        return read_children(self.state.children_file).get(name)

    def order(self, injector: str, target: dict[str, Any], deadline_s: float = 60.0) -> Path:
        plan = self.root / f"f-{uuid.uuid4().hex[:8]}.json"
        order = {"fault": plan.stem, "injector": injector, "deadline_s": deadline_s, "target": target}
        plan.write_text(json.dumps(order))
        return plan

    def tell(self, host: str, verb: str, plan: Path) -> dict[str, Any]:
        """A verb that must succeed."""
        argv = [*INJECTORS, verb, "--plan", str(plan), "--config", self.site["hosts"][host]["config"]]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/", timeout=60)
        assert done.returncode == 0, (verb, done.stdout, done.stderr)
        section: dict[str, Any] = json.loads(done.stdout)
        return section

    def keeper(self, host: str) -> Path:
        return Path(self.site["hosts"][host]["config"]).with_name("keeper")

    def everything(self) -> set[Identity]:
        return (
            processes_of_lab(self.state.root)
            | processes_in_pid_files(self.state.hosts)
            | undo_keepers(self.state.root)
        )


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Drilled]:
    made = Drilled(tmp_path)
    yield made
    end_all(made.everything, grace_s=0.0)


def letter(identity: Identity) -> str:
    found = machine.stat_of(identity.pid)
    assert found is not None and found[1] == identity.start_ticks
    return found[0]


def stop(up: subprocess.Popen[bytes]) -> None:
    up.send_signal(signal.SIGTERM)
    assert up.wait(timeout=60) == 0


@pytest.mark.seed("order node-frozen: our own node process is frozen on one host, nothing else is hit")
def test_the_node_process_of_one_host_is_frozen_and_a_stop_lets_it_go_on_first(lab: Drilled) -> None:
    with running(lab.argv, lab.output) as up:
        lab.await_green()
        nodes = {host: lab.child(f"node-{host}") for host in ("n1", "n2", "n3")}
        frozen = nodes["n2"]
        assert frozen is not None
        others = (lab.everything() | {each for each in nodes.values() if each}) - {frozen}
        profile = lab.site["services"]["node"]["hosts"]["n2"]["profile"]
        plan = lab.order("node_freeze", {"profile": profile}, deadline_s=3000.0)
        (hit,) = lab.tell("n2", "plan", plan)["matched"]
        assert Identity(hit["pid"], hit["start_ticks"]) == frozen
        lab.tell("n2", "inject", plan)
        assert lab.tell("n2", "prove", plan)["proven"] and letter(frozen) == "T"
        assert all(is_alive(each) and letter(each) != "T" for each in others)
        assert undo_keepers(lab.state.hosts)
        stop(up)
        outcome = orders.outcome(lab.keeper("n2"), plan.stem)
        assert outcome is not None and outcome["undone"] and outcome["steps"][-1]["result"] == "undone"
        assert lab.everything() == set()
    assert f"n2: undoing the faults of a drill: {plan.stem}" in lab.said()
    assert "still running, " not in lab.said() and "killed after" not in lab.said()
    assert not orders.status(lab.keeper("n2"))["halted"], "it was only for the stop"


@pytest.mark.seed("order host-down: a host of the lab is switched off, and on again by another one's keeper")
def test_a_host_is_switched_off_and_comes_back_by_the_undo(lab: Drilled) -> None:
    with running(lab.argv, lab.output) as up:
        lab.await_green()
        where = lab.site["hosts"]["n2"]["power"]["host"]
        ports = json.loads(lab.state.lab_file.read_text())["ports"]
        before = {name: lab.child(name) for name in ("node-n2", "machine-n2", "node-n1", "balancer-edge1")}
        plan = lab.order("node_power", {"host": "n2"})
        for verb in ("probe", "plan", "inject", "prove"):
            lab.tell(where, verb, plan)
        dead = [each for name, each in before.items() if each and name.endswith("n2")]
        assert len(dead) == 2 and not any(map(is_alive, dead))
        assert not accepts(ports["web-n2"]) and not accepts(ports["machine-n2"])
        assert all(is_alive(each) for name, each in before.items() if each and not name.endswith("n2"))
        lab.tell(where, "undo", plan)
        assert lab.tell(where, "verify_undone", plan)["undone"]
        until(lambda: accepts(ports["machine-n2"]) and accepts(ports["web-n2"]), "the host is back", 30)
        again = lab.order("node_power", {"host": "n3"}, deadline_s=3000.0)
        for verb in ("plan", "inject"):
            lab.tell(where, verb, again)
        stop(up)
        assert lab.everything() == set()
    outcome = orders.outcome(lab.keeper(where), again.stem)
    assert outcome is not None and outcome["undone"]


@pytest.mark.seed("order balancer-down: the holder of the address dies, the other one serves")
@pytest.mark.slow
def test_the_holder_of_the_address_is_killed_by_its_own_profile(lab: Drilled) -> None:
    with running(lab.argv, lab.output) as up:
        lab.await_green()
        edges = {edge: lab.child(f"balancer-{edge}") for edge in ("edge1", "edge2")}
        for edge, other in (("edge1", "edge2"), ("edge2", "edge1")):
            victim, spared = lab.child(f"balancer-{edge}"), lab.child(f"balancer-{other}")
            assert victim is not None and spared is not None
            plan = lab.order("node_kill", {"profile": "balancer"})
            (hit,) = lab.tell(edge, "plan", plan)["matched"]
            assert Identity(hit["pid"], hit["start_ticks"]) == victim
            lab.tell(edge, "inject", plan)
            lab.tell(edge, "prove", plan)
            assert is_alive(spared)
            until(lambda: f"balancer-{edge} is up again" in lab.said(), "it is started again")  # noqa: B023
            lab.tell(edge, "undo", plan)
        assert edges["edge1"] != lab.child("balancer-edge1")
        ports = json.loads(lab.state.lab_file.read_text())["ports"]
        until(lambda: accepts(ports["balancer"]), "the address")
        stop(up)
        assert lab.everything() == set()


@pytest.mark.slow
def test_what_a_killed_up_left_broken_where_no_node_process_is_has_a_keeper_again(lab: Drilled) -> None:
    with running(lab.argv, lab.output) as up:
        lab.await_green()
        edge = lab.child("balancer-edge1")
        assert edge is not None
        plan = lab.order("node_freeze", {"profile": "balancer"}, deadline_s=3000.0)
        for verb in ("plan", "inject"):
            lab.tell("edge1", verb, plan)
        up.kill()
        up.wait()
    end_all(lambda: undo_keepers(lab.state.hosts), grace_s=0.0)
    assert orders.status(lab.keeper("edge1")) == {"keeper": None, "open": [plan.stem], "halted": False}
    with running(lab.argv, lab.output) as up:
        until(lambda: orders.status(lab.keeper("edge1"))["keeper"], "a keeper", 30)
        lab.await_green(times=2)
        lab.tell("edge1", "undo", plan)
        stop(up)
        assert lab.everything() == set()
    assert f"edge1: not yet undone faults of a drill: {plan.stem}" in lab.said()
