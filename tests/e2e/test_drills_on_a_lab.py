"""Shipped drills on the lab of `homeostat up`, announced to its server, as a person would run them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from running_lab import Lab

pytestmark = pytest.mark.e2e


def drill(lab: Lab, *words: str) -> tuple[int, Any, str]:
    """Exit code, report and progress of a drill."""
    argv = [sys.executable, "-m", "homeostat.cli", "drill", *words, "--dir", str(lab.directory), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=240)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


@pytest.mark.seed("000 tc001 on the lab")
@pytest.mark.slow
def test_a_web_process_dies_on_the_lab(lab: Lab) -> None:
    code, report, said = drill(lab, "run", "service-down", "--seed", "1")
    assert (code, report["verdict"]) == (0, "PASS"), (report["because"], said)
    noticed = next(row for row in report["rows"] if row["what"].startswith("noticed"))
    assert noticed["result"] == "PASS", noticed
    (host,) = report["victims"]
    assert any(f"web-{host}" in line for line in report["brought_back"])
    kept = lab.client.call("GET", f"/drills/runs/{report['run']}")
    assert kept["verdict"] == "PASS"


@pytest.mark.slow
@pytest.mark.seed("000 tc008 load balancer")
def test_the_holder_and_the_other_balancer_are_not_the_same(lab: Lab) -> None:
    code, reports, said = drill(lab, "run", "balancer-down", "balancer-down-standby")
    assert [each["verdict"] for each in reports] == ["PASS", "PASS"], (code, said)
    # The other one has the address since the first run.
    assert {each["victims"][0] for each in reports} <= {"edge1", "edge2"}
