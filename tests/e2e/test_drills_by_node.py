"""A shipped drill on the lab through its node processes: tool, server, NATS, node, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from lab_drilled import Tool, rows, said
from running_lab import Lab, eventually

from homeostat.drills.shipped.keeper import machine, orders

pytestmark = pytest.mark.e2e
DRILL = """
drill: web-frozen
title: A web process stands still for a while
window: {effect_within: 2s, settle: 1s, longest: 40s}
monitors:
  - {id: web, kind: http, layer: service, target: {service: web}, period: 50ms, deadline: 1s}
fault: {injector: freeze, target: {service: web, choose: first}, hold: 12s}
checks:
  - {kind: service_outage, requirement: R1, monitors: [web], limit: 5s}
"""
HOSTS = ("n1", "n2", "n3")


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's own site file, but for how the three hosts are reached."""
    given: dict[str, Any] = yaml.safe_load((lab.directory / "site.yaml").read_text())
    for host in HOSTS:
        given["hosts"][host].pop("config")
        given["hosts"][host]["node"] = True
    given["drills"] = {"undo_deadline_s": 6, "renew_s": 1}
    path = tmp_path_factory.mktemp("site") / "site.yaml"
    path.write_text(yaml.safe_dump(given))
    return path


@pytest.mark.seed("order a host of a data centre that has our node process is drilled through it")
@pytest.mark.seed("000 tc001 on the lab")
def test_a_web_process_dies_on_the_lab_through_the_node_process(lab: Lab, site: Path) -> None:
    code, report = Tool(lab).report("run", "service-down", "--seed", "1", "--site", str(site), within_s=240)
    assert (code, report["verdict"]) == (0, "PASS"), said(report)
    (host,) = report["victims"]
    assert host in HOSTS
    back = rows(report, "processes back")
    assert back and all(row["result"] == "PASS" for row in back), back
    assert rows(report, "the fault is gone")[0]["result"] == "PASS"
    assert any(f"web-{host}" in line for line in report["brought_back"])


@pytest.mark.seed("order the undo needs neither the server nor the tool: each killed, undone in time")
@pytest.mark.parametrize("who", ["tool", "server"])
@pytest.mark.slow
def test_a_fault_on_the_lab_is_undone_whoever_is_killed(lab: Lab, site: Path, who: str) -> None:
    tool, before = Tool(lab), len(Tool(lab).runs())
    mine = site.parent / f"mine-{who}"
    mine.mkdir()
    (mine / "web-frozen.yaml").write_text(DRILL)
    words = ("run", "web-frozen", "--drills", str(mine), "--site", str(site), "--json")
    process = tool.start(*words)
    run = tool.injected(before)
    (fact,) = tool.facts(run, "Injected")
    host = str(fact["hit"][0]).split(":")[0]
    folder = machine.Folder(lab.directory / "hosts" / host / "keeper")
    assert folder.open_faults() == [run.name]
    if who == "tool":
        process.kill()
    else:
        lab.kill_child("server")
    eventually(lambda: folder.open_faults() == [], 40, "the fault is undone")
    outcome = orders.outcome(folder.root, run.name)
    assert outcome is not None and outcome["undone"] and outcome["within_deadline"], outcome
    assert who != "tool" or outcome["reason"] == "lapsed"
    process.communicate(timeout=60)
    code, out, err = tool("heal", "--site", str(site))
    assert code == 0, (out, err)
    eventually(lab.all_up, 60, "the lab is well again")
