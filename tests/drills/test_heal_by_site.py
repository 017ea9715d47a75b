"""`homeostat drill heal` touches runs of its own site alone, and closes none whose fault may still stand."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from drilled_site import HOMEOSTAT
from played_run import shipped

from homeostat.drills.records.evidence import Ledger, read_leftovers
from homeostat.drills.records.facts import Injecting, RunPlan
from homeostat.drills.records.history import LEDGER, VERDICT, Recording, check_folder, read_cleanup
from homeostat.kernel.files import read_json

RUN = "r-1"
RECORD = {"fault": "f-1", "injector": "node_kill", "deadline_s": 60, "plan": {"undo": None}}


def heal(state: Path) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and rows."""
    argv = [*HOMEOSTAT, "drill", "heal", "--dir", str(state), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["items"]


def is_site(state: Path, name: str, *hosts: str) -> None:
    """site.yaml says this from now on; nothing was ever injected on its hosts."""
    for host in hosts:
        given = {"host": host, "state_dir": str(state / host)}
        (state / f"{host}.yaml").write_text(yaml.safe_dump(given))
    site = {"site": name, "hosts": {each: {"config": f"{each}.yaml"} for each in hosts}}
    (state / "site.yaml").write_text(yaml.safe_dump(site))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of site-a that broke something on n1, and whose tool is gone."""
    folder = tmp_path / "drills" / RUN
    with Recording.begin(folder, RunPlan(RUN, shipped("service-down"), 0, ("n1",), (), 0)) as recording:
        recording.note(Injecting(), 1)
    with Ledger(folder) as ledger:
        ledger.to_undo("n1", RECORD)
    dead = {"kind": "tool", "site": "site-a", "pid": os.getpid(), "start_ticks": 1}
    with (folder / LEDGER).open("a") as file:
        file.write(json.dumps(dead) + "\n")
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@pytest.mark.seed("order heal leaves the runs of another site alone, whatever its hosts are called")
def test_a_run_of_another_site_is_named_and_not_touched(tmp_path: Path, folder: Path) -> None:
    is_site(tmp_path, "site-b", "n1")
    was = contents(folder)
    code, rows = heal(tmp_path)
    assert (code, [(each["what"], each["ok"]) for each in rows]) == (1, [(RUN, False)]), rows
    assert "it is of site site-a" in rows[0]["seen"] and "heal --site" in rows[0]["seen"]
    assert contents(folder) == was
    is_site(tmp_path, "site-a", "n1")
    code, rows = heal(tmp_path)
    assert (code, rows[0]["seen"]) == (0, "n1 has undone it")
    assert check_folder(folder).closed
    assert heal(tmp_path) == (0, [])


@pytest.mark.seed("order heal closes no run whose fault is not proven to be gone")
def test_a_run_stays_open_until_its_host_has_said_that_it_is_undone(tmp_path: Path, folder: Path) -> None:
    is_site(tmp_path, "site-a", "n2")
    for _ in range(2):
        code, rows = heal(tmp_path)
        assert (code, rows[0]["ok"]) == (1, False), rows
        assert "has no host n1 any more" in rows[0]["seen"]
        assert not check_folder(folder).closed and check_folder(folder).changes == ()
        assert [each.fault for each in read_leftovers(folder).faults] == ["f-1"]
    verdict = read_json(folder / VERDICT)
    assert verdict is not None and verdict["verdict"] == "ABORTED"
    is_site(tmp_path, "site-a", "n1", "n2")
    code, rows = heal(tmp_path)
    assert (code, rows[0]["ok"]) == (0, True), rows
    assert read_json(folder / VERDICT) == verdict, "what was known then"
    assert check_folder(folder).closed and check_folder(folder).changes == ()
    steps = [(each.step, each.ok, each.seen) for each in read_cleanup(folder)]
    assert [ok for _, ok, _ in steps] == [False, True]
    assert steps[-1] == ("undo f-1 on n1 by drill heal", True, "n1 has undone it")
    assert read_leftovers(folder).faults == ()
    assert heal(tmp_path) == (0, [])
