"""`homeostat node halt` and `resume`, with neither server nor NATS nor node process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from broken_host import OURS, BrokenHost, state

from homeostat.drills.node.settings import PROFILES, DrilledNodeSettings, InjectorKind
from homeostat.kernel.config import validate
from homeostat.lab.plan import HOSTS, PREFERRED_PORTS, LabPlan, StateDirectory, node_settings
from homeostat.node.settings import NodeSettings

HOMEOSTAT = [sys.executable, "-m", "homeostat.cli", "node"]


def tell(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*HOMEOSTAT, *words], capture_output=True, text=True, check=False, cwd="/")


@pytest.mark.seed("order homeostat node halt works without server and NATS")
def test_halt_undoes_and_refuses_until_resume(host: BrokenHost) -> None:
    victim = host.victim(f"{OURS}-api")
    target = {"command_line": f"{OURS}-api 600"}
    plan, later = host.order("node_freeze", target, 3000.0), host.order("node_freeze", target)
    for verb in ("plan", "inject", "prove"):
        host.good(verb, plan)
    halted = tell("halt", "--config", str(host.config), "--json")
    (row,) = json.loads(halted.stdout)["items"]
    assert (halted.returncode, row["host"], row["fault"], row["undone"]) == (0, "n1", plan.stem, True)
    assert state(victim) == "S"
    refused = host.run("plan", later)
    assert refused.code == 5 and "homeostat node resume" in refused.error
    again = tell("halt", "--config", str(host.config))
    assert again.returncode == 0 and "no drill fault was to be undone" in again.stdout
    assert tell("resume", "--config", str(host.config)).stdout == "n1: drills may inject faults again\n"
    host.good("plan", later)


def test_halt_without_a_host_is_one_line(tmp_path: Path) -> None:
    answer = tell("halt", "--dir", str(tmp_path))
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1 and "--config" in answer.stderr


def test_drills_are_off_unless_a_node_says_on_and_the_lab_does() -> None:
    assert not validate(DrilledNodeSettings, {"host": "n1", "state_dir": "/x"}).drills.enabled
    plan = LabPlan(StateDirectory(Path("/lab")), PREFERRED_PORTS, "python")
    for host in HOSTS:
        drills = validate(NodeSettings, node_settings(plan, host)).drills
        assert drills.enabled and set(drills.injectors) == set(InjectorKind) - {InjectorKind.node_power}
        assert drills.writable_paths == (Path(f"/lab/hosts/{host}"),)
        assert drills.profiles[f"web-{host}"].resource == f"web-{host}"


def test_every_shipped_profile_is_one_way_to_find_processes() -> None:
    profiles = validate(DrilledNodeSettings, {"host": "n1", "state_dir": "/x"}).permitted().profiles()
    assert {
        "nova-api",
        "neutron-server",
        "keystone",
        "glance-api",
        "cinder-api",
        "haproxy",
    } <= profiles.keys()
    assert PROFILES.exists() and profiles["keystone-in-apache"].shared
