"""The engine end to end on hosts that are reached by SSH alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from drilled_site import DRILL, FROZEN, HOSTS, KINDS, DrilledSite, drilled_site
from real_sshd import RealSshd, needs_sshd, real_sshd

pytestmark = needs_sshd


def reach_by_ssh(site: DrilledSite, server: RealSshd) -> None:
    """The same hosts, each with a file of its own in the place of its node.yaml."""
    given = yaml.safe_load((site.state / "site.yaml").read_text())
    hop = {name: value if isinstance(value, int) else str(value) for name, value in server.hop().items()}
    for host in HOSTS:
        drills = yaml.safe_load(site.node(host).read_text())["drills"]
        permitted = site.root / host / "drills.json"
        permitted.write_text(json.dumps(drills | {"state_dir": str(site.root / host), "injectors": KINDS}))
        given["hosts"][host] = {"ssh": {**hop, "permitted_file": str(permitted)}}
    (site.state / "site.yaml").write_text(yaml.safe_dump(given, sort_keys=False))


def patient(drill: dict[str, Any]) -> list[dict[str, Any]]:
    """Its monitors, for which a busy machine is not a late service."""
    return [each if each["kind"] == "process" else {**each, "deadline": "5s"} for each in drill["monitors"]]


@pytest.mark.seed("000 hosts are reached through SSH")
def test_drills_over_ssh_pass_and_leave_nothing_broken(tmp_path: Path) -> None:
    with drilled_site(tmp_path) as site, real_sshd(tmp_path / "sshd") as server:
        reach_by_ssh(site, server)
        site.write_drill(DRILL, monitors=patient(DRILL))
        ran = site.run("quick", "--seed", "3")
        assert (ran.code, ran.report["verdict"]) == (0, "PASS"), (ran.report, ran.said)
        assert ran.row("processes back")["upper_ms"] >= 200
        assert ran.report["verification"]["sound"] and ran.report["verification"]["closed"]
        (injected,) = site.facts("Injected")
        assert injected["node_before_ns"] <= injected["node_after_ns"]
        fault = {**FROZEN["fault"], "hold": "1s"}
        site.write_drill(FROZEN, fault=fault, monitors=patient(FROZEN))
        ran = site.run("frozen")
        assert (ran.code, ran.report["verdict"]) == (0, "PASS"), (ran.report, ran.said)
        assert not site.stopped() and not site.open_faults()
