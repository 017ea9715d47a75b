"""The engine end to end on a small real site: real processes, real signals, the program as the tool."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from drilled_site import DRILL, FROZEN, HOSTS, DrilledSite, drilled_site, until

from engines import leave_out
from homeostat.drills.shipped.injectors.node_disk import device_of


@pytest.fixture
def site(tmp_path: Path) -> Iterator[DrilledSite]:
    """Three hosts with one service behind a balancer."""
    with drilled_site(tmp_path) as made:
        yield made


def monitor_of(tool: subprocess.Popen[str], module: str) -> int:
    """The pid of a monitor process that the tool has started."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        if parent == tool.pid and module in words:
            return int(path.name)
    return 0


def frozen(site: DrilledSite, drill: str) -> subprocess.Popen[str]:
    """The tool, once its fault stands."""
    tool = site.tool(drill)
    until(lambda: site.facts("EffectSeen") or tool.poll() is not None, "the effect", 60)
    assert tool.poll() is None, tool.communicate()
    return tool


@pytest.mark.seed("000 tc001 pass criteria")
def test_a_service_that_is_kept_up_passes(site: DrilledSite) -> None:
    site.write_drill(DRILL)
    ran = site.run("quick", "--seed", "3")
    assert (ran.code, ran.report["verdict"]) == (0, "PASS"), (ran.report, ran.said)
    assert ran.report["seed"] == 3
    assert ran.row("processes back")["upper_ms"] >= 200
    assert ran.row("1 operation after")["result"] == "PASS"
    assert [each["ok"] for each in ran.report["cleanup"]] == [True]
    assert ran.report["verification"]["sound"] and ran.report["verification"]["closed"]
    folder = site.runs / ran.report["run"]
    ledger = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in ledger] == ["tool", "undo", "undone"]
    injecting, injected = site.facts("Injecting"), site.facts("Injected")
    assert len(injecting) == len(injected) == 1
    assert injected[0]["node_before_ns"] <= injected[0]["node_after_ns"]
    assert not site.open_faults()


@pytest.mark.slow
@pytest.mark.seed("000 recovery of a killed process")
def test_without_recovery_it_fails(site: DrilledSite) -> None:
    for host in HOSTS:
        site.returns_after(host, "never")
        control = site.root / host / "control"
        again = ["sh", "-c", f"echo 0 > {control}.new && mv {control}.new {control}"]
        site.permit(host, programs={"restart-web": {"argv": again}})
    checks = [DRILL["checks"][0], {**DRILL["checks"][1], "limit": "4s"}, DRILL["checks"][2]]
    window = {"effect_within": "700ms", "settle": "500ms", "longest": "6s"}
    site.write_drill(DRILL, checks=checks, window=window)
    ran = site.run("quick")
    assert (ran.code, ran.report["verdict"]) == (10, "FAIL"), (ran.report, ran.said)
    row = ran.row("processes back")
    assert row["censored"] and row["lower_ms"] >= 4000
    assert ran.row("1 operation after")["result"] == "PASS", "the others still serve"
    (step,) = ran.report["cleanup"]
    assert step["ok"] and "started by restart-web" in step["seen"], step


@pytest.mark.slow
@pytest.mark.parametrize(("back_s", "code"), [(2.6, 0), (3.4, 10)])
def test_the_limit_decides(site: DrilledSite, back_s: float, code: int) -> None:
    for host in HOSTS:
        site.returns_after(host, back_s)
    checks = [DRILL["checks"][0], {**DRILL["checks"][1], "limit": "3s"}]
    site.write_drill(DRILL, checks=checks)
    ran = site.run("quick")
    assert ran.code == code, (ran.report, ran.said)
    row = ran.row("processes back")
    assert row["lower_ms"] <= back_s * 1000 + 400 and row["upper_ms"] >= back_s * 1000


@pytest.mark.slow
def test_a_pattern_that_matches_nothing_is_an_error(site: DrilledSite) -> None:
    for host in HOSTS:
        site.permit(host, profiles={"web": {"command_line": "no such program"}})
    site.write_drill(DRILL)
    ran = site.run("quick")
    assert (ran.code, ran.report["verdict"]) == (12, "ERROR"), (ran.report, ran.said)
    assert any("no process here matches" in line or "matches profile" in line for line in said(ran.report))


def said(report: dict[str, object]) -> list[str]:
    """Every detail and reason of a report."""
    rows = report["rows"]
    assert isinstance(rows, list)
    return [str(row["detail"]) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("drills", [{"enabled": False}, {"injectors": ["node_cpu"]}])
def test_what_a_host_does_not_permit_is_an_error(site: DrilledSite, drills: dict[str, object]) -> None:
    for host in HOSTS:
        site.permit(host, **drills)
    site.write_drill(DRILL)
    ran = site.run("quick")
    assert (ran.code, ran.report["verdict"]) == (12, "ERROR"), (ran.report, ran.said)
    assert any("node.yaml" in line for line in said(ran.report))
    assert not site.facts("Injecting")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.seed("000 independent monitors")
def test_a_lost_monitor_is_an_error_and_the_fault_is_undone(
    site: DrilledSite, number: signal.Signals
) -> None:
    tool = frozen(site, site.write_drill(FROZEN))
    os.kill(monitor_of(tool, "monitors.node.sampler"), number)
    out, err = tool.communicate(timeout=60)
    assert tool.returncode == 12, err
    report = json.loads(out)
    assert report["verdict"] == "ERROR"
    assert site.facts("MonitorLost") and site.facts("Undone")[0]["proven"]
    assert not site.stopped() and not site.open_faults()


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param([signal.SIGINT], id="SIGINT"),
        pytest.param([signal.SIGTERM], id="SIGTERM", marks=pytest.mark.slow),
        pytest.param([signal.SIGINT] * 3, id="SIGINT again", marks=pytest.mark.slow),
    ],
)
def test_a_person_ends_it_and_it_is_undone(site: DrilledSite, numbers: list[signal.Signals]) -> None:
    tool = frozen(site, site.write_drill(FROZEN))
    assert site.stopped()
    for number in numbers:
        tool.send_signal(number)
    out, err = tool.communicate(timeout=60)
    assert tool.returncode == 13, err
    report = json.loads(out)
    assert (report["verdict"], report["verification"]["sound"]) == ("ABORTED", True)
    assert site.facts("Undone")[0]["proven"]
    assert not site.stopped() and not site.open_faults()


@pytest.mark.slow
def test_a_killed_tool_leaves_nothing_broken_and_heal_closes_its_run(site: DrilledSite) -> None:
    tool = frozen(site, site.write_drill(FROZEN))
    tool.kill()
    tool.communicate()
    assert site.stopped(), "nobody has undone it yet"
    until(lambda: not site.stopped(), "the keeper has undone it at its deadline", 15)
    until(lambda: not site.open_faults(), "the keeper has said so")
    healed = subprocess.run(
        [*site.argv("heal"), "--json"], capture_output=True, text=True, check=False, timeout=60
    )
    assert healed.returncode == 0, healed.stderr
    items = json.loads(healed.stdout)["items"]
    assert [item["ok"] for item in items] == [True], items
    verified = subprocess.run(
        site.argv("verify", items[0]["what"]), capture_output=True, text=True, check=False, timeout=60
    )
    assert verified.returncode == 13 and "evidence valid" in verified.stdout, verified
    again = subprocess.run(site.argv("heal"), capture_output=True, text=True, check=False, timeout=60)
    assert (again.returncode, again.stdout) == (0, "Nothing to undo.\n")


@pytest.mark.slow
def test_heal_undoes_at_once(site: DrilledSite) -> None:
    site.write_site(undo_deadline_s=300)
    tool = frozen(site, site.write_drill(FROZEN))
    tool.kill()
    tool.communicate()
    assert site.stopped()
    healed = subprocess.run(
        [*site.argv("heal"), "--json"], capture_output=True, text=True, check=False, timeout=60
    )
    assert healed.returncode == 0, healed
    assert not site.stopped() and not site.open_faults()


@pytest.mark.slow
def test_one_drill_at_a_time_and_halt_ends_it(site: DrilledSite) -> None:
    drill = site.write_drill(FROZEN)
    tool = frozen(site, drill)
    second = site.run(drill)
    assert second.code == 3 and "one drill at a time" in second.said, second
    halted = subprocess.run(
        [*site.argv("halt"), "--why", "fire drill"], capture_output=True, text=True, check=False, timeout=60
    )
    assert halted.returncode == 0, halted
    out, err = tool.communicate(timeout=60)
    assert tool.returncode == 13, err
    assert any("fire drill" in line for line in json.loads(out)["because"] + said(json.loads(out)))
    assert not site.stopped()
    third = site.run(drill)
    assert third.code == 5 and "fire drill" in third.said, third
    resumed = subprocess.run(site.argv("resume"), capture_output=True, text=True, check=False, timeout=60)
    assert resumed.stdout == "drills resumed\n"


@pytest.mark.slow
def test_a_halted_host_ends_it(site: DrilledSite) -> None:
    tool = frozen(site, site.write_drill(FROZEN))
    halt = [*site.argv()[:-3], "node", "halt", "--config", str(site.node("n1"))]
    assert subprocess.run(halt, capture_output=True, check=False, timeout=60).returncode == 0
    out, err = tool.communicate(timeout=60)
    assert tool.returncode == 13, err
    assert json.loads(out)["verdict"] == "ABORTED"
    assert not site.stopped()


@pytest.mark.slow
def test_a_fault_that_somebody_else_ended_is_an_error(site: DrilledSite) -> None:
    tool = frozen(site, site.write_drill(FROZEN, fault={**FROZEN["fault"], "hold": "3s"}))
    for pid in site.stopped():
        os.kill(pid, signal.SIGCONT)
    out, err = tool.communicate(timeout=120)
    report = json.loads(out)
    assert (tool.returncode, report["verdict"]) == (12, "ERROR"), err
    (row,) = (each for each in report["rows"] if each["what"] == "the fault had its effect")
    assert row["reason"] == "NO_EFFECT"
    assert not site.stopped() and not site.open_faults()


@pytest.mark.slow
def test_collateral_damage_ends_it(site: DrilledSite) -> None:
    given = site.state / "site.yaml"
    given.write_text(given.read_text().replace("    hosts:", "    down_at_most: 1s\n    hosts:", 1))
    tool = frozen(site, site.write_drill(FROZEN))
    site.returns_after("n3", "never")
    pid = int((site.root / "n3" / "ready").read_text())
    os.kill(pid, signal.SIGKILL)
    out, err = tool.communicate(timeout=60)
    assert tool.returncode == 13, err
    assert any("web on n3" in line for line in said(json.loads(out)))
    assert not site.stopped()


@pytest.mark.slow
@pytest.mark.seed("000 tc001 precondition")
def test_the_last_one_that_serves_is_never_hit(site: DrilledSite) -> None:
    for host in ("n2", "n3"):
        site.returns_after(host, "never")
        os.kill(int((site.root / host / "ready").read_text()), signal.SIGKILL)
    one = {"kind": "no_open_faults", "requirement": "R0.2"}
    fault = {"injector": "kill", "target": {"service": "web", "choose": "first"}}
    site.write_drill(DRILL, preconditions=[one], fault=fault)
    ran = site.run("quick")
    assert (ran.code, ran.report["victims"]) == (12, ["n1"]), (ran.report, ran.said)
    assert any("without n1, no host would serve" in line for line in said(ran.report))
    assert not site.facts("Injecting")


def test_a_dry_run_says_exactly_what_and_touches_nothing(site: DrilledSite) -> None:
    site.write_drill(DRILL)
    ran = site.run("quick", "--each", "--dry-run")
    assert ran.code == 0, ran.said
    plans = ran.report["items"]
    assert [plan["victim"] for plan in plans] == list(HOSTS)
    for plan in plans:
        pid = int((site.root / plan["victim"] / "ready").read_text())
        (only,) = plan["matched"]
        assert only["pid"] == pid and only["start_ticks"] > 0
        assert "homeostat.lab.service" in only["command_line"]
        assert plan["undo"] and plan["refused"] == []
    assert not site.runs.exists()
    assert not any((site.root / host / "keeper" / "faults").exists() for host in HOSTS)


@pytest.mark.parametrize(
    ("drills", "words"),
    [
        pytest.param(
            {"injectors": ["node_cpu"]},
            ("n1: drills.injectors in its node.yaml", "not node_kill", "add it"),
            marks=pytest.mark.slow,
        ),
        (
            {"enabled": False},
            ("n1: drills.enabled is false in its node.yaml", "node_kill", "`enabled: true`"),
        ),
    ],
)
def test_a_dry_run_on_a_host_that_refuses_says_what_and_the_remedy(
    site: DrilledSite, drills: dict[str, object], words: tuple[str, ...]
) -> None:
    fault = {"injector": "kill", "target": {"service": "web", "choose": "first"}}
    drill = site.write_drill(DRILL, fault=fault)
    site.permit("n1", **drills)
    ran = site.run(drill, "--dry-run")
    (line,) = (each for each in ran.said.splitlines() if "would not run" in each)
    assert ran.code == 5 and all(word in line for word in ("quick on n1", *words)), ran
    (plan,) = ran.report["items"]
    assert not plan["permitted"] and "does" not in plan
    site.permit("n1", profiles={"web": {"command_line": "no such program"}})
    ran = site.run(drill, "--dry-run")
    assert ran.code == 3 and ran.report["items"][0]["permitted"], (
        "permitted, and in the way is something else"
    )
    assert "no process here matches" in ran.said


@pytest.mark.slow
def test_a_suite_goes_on_after_a_failure(site: DrilledSite) -> None:
    bad = {**DRILL["fault"], "target": {"service": "web", "choose": "holder"}}
    site.write_drill(DRILL)
    site.write_drill(DRILL, drill="unfit", fault=bad)
    quiesce = {"green_for": "1s", "within": "60s"}
    suite = {"suite": "both", "title": "Two", "drills": ["unfit", "quick"], "quiesce": quiesce}
    (site.root / "own" / "both.suite.yaml").write_text(json.dumps(suite))
    argv = [*site.argv("suite", "run", "both"), "--drills", str(site.root / "own"), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=180)
    reports = json.loads(done.stdout)
    assert [(each["drill"], each["verdict"]) for each in reports] == [("unfit", "ERROR"), ("quick", "PASS")]
    assert done.returncode == 12
    assert {each["suite"] for each in reports} == {"both"}


@pytest.mark.slow
def test_the_file_of_another_host_is_an_error_and_nothing_is_hit(site: DrilledSite) -> None:
    given = site.state / "site.yaml"
    one, other = str(site.node("n1")), str(site.node("n2"))
    given.write_text(given.read_text().replace(one, "x").replace(other, one).replace("x\n", f"{other}\n"))
    pids = [(site.root / host / "ready").read_text() for host in HOSTS]
    site.write_drill(DRILL, fault={"injector": "kill", "target": {"service": "web", "choose": "first"}})
    ran = site.run("quick")
    assert (ran.code, ran.report["verdict"]) == (12, "ERROR"), (ran.report, ran.said)
    assert any("not of n2" in line for line in said(ran.report))
    assert [(site.root / host / "ready").read_text() for host in HOSTS] == pids


@pytest.mark.slow
@pytest.mark.seed("000 I16 a disk that nothing monitored uses proves nothing, and says so")
@pytest.mark.parametrize("data", [True, False])
def test_a_disk_is_hit_where_the_data_lies_or_the_run_does_not_count(site: DrilledSite, data: bool) -> None:
    if device_of(site.root) is None:
        leave_out("disk-device")
    path = site.state / "site.yaml"
    given = yaml.safe_load(path.read_text())
    on = {"n1": {"profile": "web"} | ({"data": str(site.root / "n1")} if data else {})}
    given["services"]["store"] = {"hosts": on}
    given["services"]["web"] |= {"uses": ["store"], "holder": "address"}
    path.write_text(yaml.safe_dump(given))
    fault = {"injector": "disk", "target": {"service": "web", "choose": "first"}, "hold": "2s"}
    more = [
        {"kind": "dependant", "requirement": "R7.8"},
        {"kind": "holder_moved", "requirement": "R8.9", "service": "web", "weight": "informative"},
    ]
    site.write_drill(
        DRILL,
        fault=fault | {"file_mib_max": 8, "free_gib_floor": 0.1},
        monitors=DRILL["monitors"][:2],
        checks=[DRILL["checks"][0], *more],
        operations={},
        cleanup=[],
    )
    (plan,) = site.run("quick", "--dry-run").report["items"]
    assert plan["dependants"] == ([f"store in {site.root / 'n1'}"] if data else [])
    ran = site.run("quick")
    row = ran.row("the disk that was hit")
    reason = ("DEPENDANT", "PASS") if data else ("NO_DEPENDANT", "INCONCLUSIVE")
    assert (row["reason"], row["result"]) == reason, (ran.report, ran.said)
    assert row["binding"] and (data or ran.code != 0)
    (seen,) = site.facts("DependantsSeen")
    assert seen["on_it"] == ([f"store in {site.root / 'n1'}"] if data else [])
    # Every host of this site is this machine, so each says that it has the address.
    asked = site.facts("HolderSeen")
    assert all(each["hosts"] == list(HOSTS) for each in asked)
    # On a busy machine the load may fall short of its proof, and then the run ends before its window does.
    ended = ["before", "during", "after"] if ran.row("the fault had")["result"] == "PASS" else ["before"]
    assert [each["when"] for each in asked][: len(ended)] == ended
    reason = "HOLDER_UNKNOWN" if len(asked) > 1 else "NOT_LOOKED"
    assert ran.row("the address of web moved")["reason"] == reason
