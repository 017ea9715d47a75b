"""Drills whose operations go to a cloud, the program as the tool.

What is made has its name in the ledger first, and goes, whatever becomes of tool, cloud and drill.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from drilled_site import DRILL, FROZEN, DrilledSite, Ran, drilled_site, until
from small_openstack import TOKEN, SmallOpenstack, small_openstack

from engines import leave_out


def step(does: str, what: str, **more: Any) -> dict[str, Any]:
    """One operation."""
    return {"id": f"{what}-{does}", "kind": "cloud", "does": does, "what": what, "deadline": "20s"} | more


BEFORE = [step("create", "image"), step("active", "image"), step("create", "flavor")]
CYCLE = ("create", "active", "delete", "gone")
SERVER = [step(does, "server") for does in CYCLE]
VOLUME = [step(does, "volume", optional=True) for does in CYCLE]
CLOUDY: dict[str, Any] = {
    **DRILL,
    "drill": "cloudy",
    "operations": {
        "before": BEFORE,
        "during": [step(does, "server") for does in CYCLE],
        "after": [*SERVER, *VOLUME],
    },
    "cleanup": [{"kind": "restart_if_down", "service": "web"}, {"kind": "delete_test_objects"}],
}


@pytest.fixture
def cloud() -> Iterator[SmallOpenstack]:
    """A small OpenStack."""
    with small_openstack() as made:
        yield made


@pytest.fixture
def site(tmp_path: Path, cloud: SmallOpenstack) -> Iterator[DrilledSite]:
    """Three hosts with one service behind a balancer, and a cloud."""
    with drilled_site(tmp_path) as made:
        name_cloud(made, cloud)
        yield made


def name_cloud(site: DrilledSite, cloud: SmallOpenstack, **changes: object) -> None:
    """The site's cloud."""
    path = site.state / "site.yaml"
    given = yaml.safe_load(path.read_text())
    given["cloud"] = {"name": "small", "clouds_file": str(cloud.clouds_file(site.root))} | changes
    path.write_text(yaml.safe_dump(given))


def heal(site: DrilledSite) -> tuple[int, list[dict[str, Any]]]:
    """`homeostat drill heal`: exit code and what it did."""
    argv = [*site.argv("heal"), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=240)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["items"]


def ledger(site: DrilledSite) -> list[dict[str, Any]]:
    """Of the newest run: one that was inconclusive, because the machine was busy, is repeated."""
    path = max(site.runs.glob("r-*/ledger.jsonl"), key=lambda each: each.stat().st_mtime_ns)
    return [json.loads(line) for line in path.read_text().splitlines()]


def named_first(site: DrilledSite, cloud: SmallOpenstack) -> list[str]:
    """From now on: names that the cloud was asked to make before the ledger had them."""
    early: list[str] = []

    def heard(name: str) -> None:
        if all(line.get("name") != name for line in ledger(site)):
            early.append(name)

    cloud.hears = heard
    return early


def deleted(ran: Ran) -> dict[str, Any]:
    """The step that deletes test objects."""
    return next(each for each in ran.report["cleanup"] if each["step"] == "delete_test_objects")


@pytest.mark.seed("000 I20 what is made is in the undo stack before it exists, and deleted")
@pytest.mark.seed("000 I8 operations during the fault inform, those after it bind")
def test_operations_before_during_and_after_pass_and_leave_nothing(
    site: DrilledSite, cloud: SmallOpenstack
) -> None:
    early = named_first(site, cloud)
    site.write_drill(CLOUDY)
    ran = site.run("cloudy")
    assert (ran.code, ran.report.get("verdict")) == (0, "PASS"), (ran.report, ran.said)
    assert ran.row("3 operations before")["result"] == "PASS"
    row = ran.row("4 operations after the fault")
    assert (row["result"], row["binding"]) == ("PASS", True)
    extension = ran.row("4 operations after the fault, as an extension")
    assert (extension["result"], extension["binding"]) == ("PASS", False)
    assert not ran.row("4 operations during")["binding"]
    asked = [line["name"] for line in ledger(site) if line["kind"] == "creating"]
    assert len(set(asked)) == len(asked) >= 5, "each name stands once"
    assert all(name.startswith(f"homeostat-{ran.report['run']}-") for name in asked)
    assert any(name.endswith("-server-d1") for name in asked), "a round has names of its own"
    assert not early
    assert deleted(ran)["ok"] and cloud.everything() == []
    assert any("made-up" in each for each in ran.report["deviations"])
    written = b"".join(path.read_bytes() for path in site.runs.rglob("*") if path.is_file())
    assert b"planted-secret" not in written and TOKEN.encode() not in written
    assert "planted-secret" not in ran.said + json.dumps(ran.report)


@pytest.mark.seed("000 I20 what a killed tool has asked for is deleted by heal, whenever it comes")
@pytest.mark.parametrize("what", [pytest.param("image", marks=pytest.mark.slow), "server"])
def test_heal_deletes_what_a_tool_killed_in_the_middle_of_a_create_has_made(
    site: DrilledSite, cloud: SmallOpenstack, what: str
) -> None:
    operations = {**CLOUDY["operations"], "during": []}
    site.write_drill(CLOUDY, operations=operations)
    site.write_site(undo_deadline_s=5, comes_within_s=60)
    name_cloud(site, cloud)
    cloud.held.add(("POST", what))
    tool = site.tool("cloudy")
    until(lambda: cloud.requests("POST", what) or tool.poll() is not None, f"{what} is asked for", 90)
    tool.kill()
    tool.communicate()
    assert cloud.names(what) == [], "it is being made, and nobody is there to hear of it"
    looked = cloud.requests("GET", what)
    with ThreadPoolExecutor() as beside:
        healing = beside.submit(heal, site)
        until(lambda: cloud.requests("GET", what) > looked or healing.done(), "heal has looked for it", 90)
        cloud.held.clear()
        code, items = healing.result()
    assert (code, [each["ok"] for each in items]) == (0, [True]), items
    assert cloud.everything() == [], items
    assert cloud.requests("POST", what) == 1
    kinds = [(line["kind"], line.get("what")) for line in ledger(site)]
    assert ("gone", what) in kinds and ("answered", what) not in kinds
    assert heal(site) == (0, [])


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(
    site: DrilledSite, cloud: SmallOpenstack
) -> None:
    site.write_drill(CLOUDY)
    argv = [*site.argv("run", "cloudy"), "--drills", str(site.root / "own"), "--dry-run", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    (plan,) = json.loads(done.stdout)["items"]
    assert plan["operations"][0] == "before image-create: create homeostat-RUN-image in cloud small"
    assert len(plan["operations"]) == 3 + 4 + 8
    assert cloud.asked == []


@pytest.mark.openstack
@pytest.mark.slow
@pytest.mark.seed("000 I20 what a killed tool has asked for is deleted by heal, whenever it comes")
def test_heal_deletes_from_a_real_cloud_what_a_killed_tool_has_made(site: DrilledSite) -> None:
    file = os.environ.get("HOMEOSTAT_CLOUDS")
    if file is None:
        leave_out("cloud")
    name = os.environ.get("HOMEOSTAT_CLOUD", "testbed")
    (site.state / "clouds.yaml").write_bytes(Path(file).read_bytes())
    given = yaml.safe_load((site.state / "site.yaml").read_text())
    given["cloud"] = {"name": name, "clouds_file": "clouds.yaml"}
    (site.state / "site.yaml").write_text(yaml.safe_dump(given))
    patient = [each | {"deadline": "120s"} for each in (*BEFORE, *SERVER)]
    site.write_drill(CLOUDY, operations={"before": patient[:3], "after": patient[3:]})
    tool = site.tool("cloudy")

    def asked() -> bool:
        lines = [line for path in site.runs.glob("r-*/ledger.jsonl") for line in path.read_text().split("\n")]
        return any('"creating"' in line and '"what": "server"' in line for line in lines)

    until(lambda: asked() or tool.poll() is not None, "a server is asked for", 300)
    tool.kill()
    tool.communicate()
    code, items = heal(site)
    assert (code, [each["ok"] for each in items]) == (0, [True]), items
    gone = {line["what"] for line in ledger(site) if line["kind"] == "gone"}
    assert gone == {"image", "flavor", "server"}
    assert heal(site) == (0, [])


@pytest.mark.slow
@pytest.mark.seed("000 I19 ERROR fails at once with its reason")
def test_a_server_that_is_not_built_fails_the_drill_and_goes(
    site: DrilledSite, cloud: SmallOpenstack
) -> None:
    cloud.fails["server"] = "No valid host was found."
    site.write_drill(CLOUDY)
    began_s = time.monotonic()
    ran = site.run("cloudy")
    assert (ran.code, ran.report["verdict"]) == (10, "FAIL"), (ran.report, ran.said)
    row = ran.row("4 operations after the fault")
    assert row["reason"] == "OPERATION_FAILED" and "ERROR: No valid host was found." in row["detail"], row
    assert ran.row("4 operations after the fault, as an ext")["reason"] == "OPERATIONS_NOT_RUN"
    assert cloud.everything() == [] and deleted(ran)["ok"]
    assert time.monotonic() - began_s < 90, "it did not wait for deadlines"


@pytest.mark.slow
def test_a_set_up_that_fails_breaks_nothing(site: DrilledSite, cloud: SmallOpenstack) -> None:
    cloud.refuses["POST", "flavor"] = (403, "Policy does not allow it.")
    site.write_drill(CLOUDY)
    ran = site.run("cloudy")
    assert (ran.code, ran.report["verdict"]) == (12, "ERROR"), (ran.report, ran.said)
    assert any("Policy does not allow it." in row["detail"] for row in ran.report["rows"])
    assert not site.facts("Injecting")
    assert cloud.everything() == []


@pytest.mark.slow
def test_a_round_that_was_cut_off_leaves_nothing(site: DrilledSite, cloud: SmallOpenstack) -> None:
    operations = {**CLOUDY["operations"], "during": [step("create", "server")], "after": []}
    cloud.held.add(("POST", "server"))

    def let_go_after_the_window(tool: subprocess.Popen[str]) -> None:
        until(lambda: site.facts("WindowEnded") or tool.poll() is not None, "the end of the window", 150)
        cloud.held.clear()

    checks = [each for each in CLOUDY["checks"] if each["kind"] != "operations"]
    site.write_drill(CLOUDY, operations=operations, checks=checks)
    ran = site.run("cloudy", during=let_go_after_the_window)
    assert ran.report["verdict"] == "PASS", (ran.report, ran.said)
    lines = ledger(site)
    asked = {line["name"] for line in lines if line["kind"] == "creating" and line["what"] == "server"}
    answered = {line["name"] for line in lines if line["kind"] == "answered"}
    assert asked - answered, "the last one was cut off"
    assert deleted(ran)["ok"] and cloud.everything() == []


@pytest.mark.slow
def test_heal_goes_on_where_a_clean_up_could_not(site: DrilledSite, cloud: SmallOpenstack) -> None:
    operations = {**CLOUDY["operations"], "during": [], "after": []}
    checks = [each for each in CLOUDY["checks"] if each["kind"] != "operations"]
    site.write_drill(CLOUDY, operations=operations, checks=checks)
    cloud.silent.add(("DELETE", "image"))
    tool = site.tool("cloudy")
    until(lambda: cloud.requests("DELETE", "image") or tool.poll() is not None, "an image is deleted", 90)
    tool.kill()
    tool.communicate()
    cloud.silent.clear()
    (folder,) = site.runs.glob("r-*")
    verdict = (folder / "verdict.json").read_bytes()
    assert len(cloud.everything()) >= 1
    code, items = heal(site)
    assert (code, [each["ok"] for each in items]) == (0, [True]), items
    assert cloud.everything() == []
    assert (folder / "verdict.json").read_bytes() == verdict and b'"PASS"' in verdict
    verified = subprocess.run(
        site.argv("verify", folder.name), capture_output=True, text=True, check=False, timeout=60
    )
    assert verified.returncode == 0 and "evidence valid" in verified.stdout, verified
    assert heal(site) == (0, [])


@pytest.mark.slow
def test_what_the_cloud_will_not_delete_stays_in_the_ledger_until_it_does(
    site: DrilledSite, cloud: SmallOpenstack
) -> None:
    operations = {**CLOUDY["operations"], "during": [], "after": []}
    checks = [each for each in CLOUDY["checks"] if each["kind"] != "operations"]
    site.write_drill(CLOUDY, operations=operations, checks=checks)
    site.write_site(delete_within_s=3)
    name_cloud(site, cloud)
    cloud.refuses["DELETE", "image"] = (409, "Image is in use.")
    ran = site.run("cloudy")
    assert ran.report["verdict"] == "PASS", (ran.report, ran.said)
    assert not deleted(ran)["ok"] and "Image is in use." in deleted(ran)["seen"]
    assert not ran.report["verification"]["closed"]
    name_cloud(site, cloud, name="another")
    code, items = heal(site)
    assert code != 0 and "in cloud small, which the site does not name" in items[0]["seen"], items
    name_cloud(site, cloud)
    del cloud.refuses["DELETE", "image"]
    code, items = heal(site)
    assert (code, [each["ok"] for each in items]) == (0, [True]), items
    assert cloud.everything() == [] and heal(site) == (0, [])


HELD: dict[str, Any] = {
    **{name: words for name, words in FROZEN.items() if name != "operations"},
    "drill": "held",
    "fault": FROZEN["fault"] | {"hold": "10s"},
    "operations": {
        "while_held": [step(does, "flavor", deadline="5s") for does in ("create", "there")],
        "after": [step(does, "flavor") for does in ("delete", "gone")],
    },
    "cleanup": [{"kind": "delete_test_objects"}],
}


@pytest.mark.slow
@pytest.mark.seed("000 R7.8 operations under the fault are carried out without error")
@pytest.mark.parametrize("well", [True, False])
def test_operations_under_the_fault_itself_decide(
    site: DrilledSite, cloud: SmallOpenstack, well: bool
) -> None:
    if not well:  # a cloud that answers again after the fault is no good one
        cloud.silent.add(("POST", "flavor"))
    site.write_drill(HELD)
    ran = site.run("held")
    row = ran.row("2 operations while the fault is held")
    assert (row["result"], row["binding"]) == ("PASS" if well else "FAIL", True), (ran.report, ran.said)
    assert (ran.code, ran.report["verdict"]) == ((0, "PASS") if well else (10, "FAIL")), ran.report
    (undone,) = [each["at_ns"] for each in site.facts("Undone")]
    done = [each for each in site.facts("OperationDone") if each["phase"] == "while_held"]
    assert all(each["ended_ns"] < undone for each in done), "all of it before the fault was undone"
    assert deleted(ran)["ok"] and cloud.everything() == []


@pytest.mark.slow
@pytest.mark.seed("000 I10 zero operations are said and never passed silently")
def test_an_extension_that_the_cloud_lacks_is_left_out(site: DrilledSite, cloud: SmallOpenstack) -> None:
    cloud.services = {kind: path for kind, path in cloud.services.items() if kind != "volumev3"}
    site.write_drill(CLOUDY, operations={"after": VOLUME})
    ran = site.run("cloudy")
    assert (ran.code, ran.report.get("verdict")) == (0, "PASS"), (ran.report, ran.said)
    assert ran.row("0 operations after")["reason"] == "NO_OPERATIONS"
    extension = ran.row("4 operations after the fault, as an extension")
    assert extension["reason"] == "LEFT_OUT" and "no block-storage service" in extension["detail"]


@pytest.mark.slow
def test_a_site_without_a_cloud_is_told_so(site: DrilledSite) -> None:
    site.write_site()
    site.write_drill(CLOUDY)
    ran = site.run("cloudy")
    assert ran.code == 12, ran.said
    assert any("cloud: nothing is given; the site's OpenStack" in row["detail"] for row in ran.report["rows"])
