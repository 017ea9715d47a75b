"""Full disks of a running lab, real ones: of one host's node, and of everything that `up` keeps."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from running_lab import Lab, eventually, running
from typer.testing import CliRunner

from engines import needs
from homeostat.cli import app
from homeostat.kernel.processes import Identity
from small_disk import fill, small_disk

pytestmark = [pytest.mark.e2e, needs("mount")]
VICTIMS = ("web-n1", "guest-n1-a")


def full_host(lab: Lab) -> list[dict[str, Any]]:
    """The open faults of full stores."""
    answer = lab.get("/faults", state="open")
    return [row for row in (answer or {"items": []})["items"] if row["kind"] == "node_store_full"]


def host(lab: Lab, name: str) -> dict[str, Any]:
    rows = (lab.get("/hosts") or {"items": []})["items"]
    return next((row for row in rows if row["host"] == name), {"store": None})


def kill_both(lab: Lab) -> None:
    """Kill a service and a guest of n1; both are restarted, raised and cleared."""
    before: dict[str, Identity] = {}
    told = {name: len(lab.told("on-call", f"resource/{name}")) for name in VICTIMS}
    for name in VICTIMS:
        found = lab.service(name)
        assert found is not None
        before[name] = found
        lab.kill(found)
    for name in VICTIMS:
        eventually(lambda name=name: lab.restarted(name, before[name]), 30, f"{name} is restarted")  # type: ignore[misc]
        heard = lambda name=name: lab.told("on-call", f"resource/{name}")[told[name] :]  # type: ignore[misc]  # noqa: E731
        eventually(lambda heard=heard: heard() == ["raised", "cleared"], 30, f"{name} is told")  # type: ignore[misc]
    eventually(lab.all_up, 20, "all is up")


@pytest.mark.seed("order full disk: of a host, what dies there is restarted and told, and so is the disk")
def test_a_host_whose_disk_is_full_restarts_what_dies_and_says_that_it_is_full(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "hosts").mkdir(parents=True, mode=0o700)
    with small_disk(state / "hosts" / "n1", "8m") as disk, running(state) as lab:
        store = disk / "observations.db"
        with closing(sqlite3.connect(store, isolation_level=None)) as reader:
            reader.execute("BEGIN")  # whoever reads keeps the log from being used again: it has to grow
            reader.execute("SELECT count(*) FROM facts").fetchone()
            fill(disk / "filler")
            (fault,) = eventually(lambda: full_host(lab), 20, "an administrator is told")
            assert (fault["about"], fault["owner"]) == ("store/n1", "infrastructure")
            assert "the disk is full" in fault["reason"]
            assert "the disk is full" in host(lab, "n1")["store"]
            assert host(lab, "n2")["store"] == ""
            kill_both(lab)
            assert not (disk / "observations.db.reserve").exists(), "the reserve took their intents"

            fill(disk / "filler-2")  # and now that is gone, too
            kill_both(lab)
            kill_both(lab)
        assert [row["id"] for row in full_host(lab)] == [fault["id"]], "one fault, all the time"
        node = lab.get("/nodes/n1")

        (disk / "filler").unlink()
        (disk / "filler-2").unlink()
        eventually(lambda: not full_host(lab), 20, "the fault is over")
        eventually((disk / "observations.db.reserve").exists, 20, "the reserve is there again")
        assert host(lab, "n1")["store"] == ""
        assert lab.all_up()
        kill_both(lab)
        assert lab.get("/nodes/n1")["boot"] == node["boot"]
        assert lab.get("/nodes/n1")["observations"] > node["observations"]

        answer = json.loads(CliRunner().invoke(app, ["check", "--dir", str(state), "--json"]).output)
        assert answer["violations"] == []
        assert {act["by"] for act in answer["uncommitted"]} == {"node/n1"}
        about = {act["about"] for act in answer["uncommitted"]}
        assert about == {f"resource/{name}" for name in VICTIMS}
        said = CliRunner().invoke(app, ["check", "--dir", str(state)]).output
        assert f"I1: {len(answer['uncommitted'])} acts with an intent that was only in memory" in said
        assert answer["uncommitted"][0]["action"] in said
        assert lab.stop() == 0


@pytest.mark.seed(
    "order full disk: of a whole lab, nobody is restarted, and the server is read-only and says so"
)
def test_a_lab_on_a_full_disk_goes_on_and_heals_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state", "300m") as disk, running(disk) as lab:
        names = ("server", "nats", "consumer", "node-n1", "node-n2", "node-n3", "balancer-edge1")
        before = {name: lab.child(name) for name in names}
        fill(disk / "filler")
        eventually(lambda: not (disk / "server" / "ballast").exists(), 30, "the ballast is given back")
        fill(disk / "filler-2")
        eventually(lambda: "more than 128 MiB are free" in lab.output(), 20, "up says what is full")
        web = lab.service("web-n2")
        assert web is not None
        lab.kill(web)
        eventually(lambda: lab.restarted("web-n2", web), 30, "a service is restarted all the same")

        (disk / "filler").unlink()
        (disk / "filler-2").unlink()
        eventually(lambda: "the disk has free space again" in lab.output(), 60, "up says so")
        eventually(lambda: lab.told("on-call", "resource/web-n2") == ["raised", "cleared"], 60, "told then")
        assert {name: lab.child(name) for name in names} == before, "nobody was restarted"
        assert lab.output().count("MiB free; make room") == 1, lab.output()
        assert lab.stop() == 0
