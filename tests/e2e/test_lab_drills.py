"""The shipped drills, and one of a user's own, on a running lab, by the command line alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_drilled import Tool, drill_in_docs, rows, said
from running_lab import Lab, eventually, running

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tool]:
    with running(tmp_path_factory.mktemp("drilled") / "lab") as lab:
        yield Tool(lab)


def calm(lab: Lab) -> bool:
    answer = lab.get("/faults", state="open")
    return answer is not None and not answer["items"]


@pytest.fixture(autouse=True)
def _calm(drill: Tool) -> None:
    """What the drill before has raised is over."""
    eventually(drill.lab.all_up, 60, "everything is up")
    eventually(lambda: calm(drill.lab), 60, "no open fault")


@pytest.mark.seed("000 a drill is felt by monitors, noticed by the fault manager, and undone")
def test_a_service_dies_is_noticed_and_brought_back(drill: Tool) -> None:
    code, report = drill.report("run", "service-down")
    assert (code, report["verdict"]) == (0, "PASS"), said(report)
    victim = report["victims"][0]
    (noticed,) = rows(report, "noticed")
    assert noticed["result"] == "PASS" and noticed["upper_ms"] < 10_000, noticed
    assert f"web-{victim}: the runner on {victim} (restart)" in report["brought_back"]
    (there,) = rows(report, "outage of web-there")
    assert there["lower_ms"] > 0, "on its host it was out"
    code, out, err = drill("verify", report["run"])
    assert code == 0, out + err
    listed = drill.lab.read("/drills/runs")["items"]
    assert [(row["run"], row["verdict"]) for row in listed[:1]] == [(report["run"], "PASS")]


@pytest.mark.seed("000 a balancer that holds the address dies: the standby takes over")
def test_the_balancer_that_holds_the_address_dies(drill: Tool) -> None:
    code, report = drill.report("run", "balancer-down")
    assert (code, report["verdict"]) == (0, "PASS"), said(report)
    (back,) = rows(report, "processes back")
    assert back["result"] == "PASS" and back["upper_ms"] < 30_000, back


def test_a_drill_of_my_own_as_the_docs_show_it(drill: Tool) -> None:
    file = drill.lab.directory / "mine" / "mine.yaml"
    file.parent.mkdir()
    file.write_text(drill_in_docs())
    assert drill("check", str(file))[0] == 0
    code, report = drill.report("run", "mine", "--drills", str(file.parent))
    assert (code, report["drill"], report["verdict"]) == (0, "mine", "PASS"), said(report)


@pytest.mark.seed("order drills: one at a time; halted, it is undone at once")
def test_a_second_one_is_refused_and_the_server_halts_the_first(drill: Tool) -> None:
    before = len(drill.runs())
    first = drill.start("run", "node-frozen", "--json")
    try:
        run = drill.injected(before)
        code, _, err = drill("run", "service-down")
        assert code == 3 and "one drill at a time" in err, err
        drill.lab.client.call("POST", "/drills/halt", {"why": "somebody is at work"})
        first.communicate(timeout=60)
    finally:
        if first.poll() is None:
            first.terminate()
            first.communicate(timeout=60)
        drill.lab.client.call("POST", "/drills/resume")
    assert first.returncode == 13
    (aborted,) = drill.facts(run, "Aborted")
    assert "somebody is at work" in aborted["why"]
    (undone,) = drill.facts(run, "Undone")
    assert undone["proven"], undone
    assert len(drill.runs()) == before + 1
    assert drill("heal")[1].strip() == "Nothing to undo."
