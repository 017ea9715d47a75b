"""Eight spoiled drills and some more: no PASS, each for its own reason, and nothing stays broken."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from drilled_site import DRILL, HOSTS, DrilledSite, Ran, drilled_site, until
from sabotages import EIGHT, HOLDS, MORE, OUT_S, after, clock_step, monitor_of, step, stepping


@pytest.fixture
def site() -> Iterator[DrilledSite]:
    """A site in a folder that another user may be let into."""
    root = Path(tempfile.mkdtemp(prefix="hd-"))
    try:
        with drilled_site(root) as made:
            yield made
    finally:
        shutil.rmtree(root)


def spoiled(site: DrilledSite, name: str) -> Ran:
    """How that drill ended."""
    return (EIGHT | MORE)[name](site)


def said(ran: Ran) -> str:
    """Every row's details."""
    return "\n".join(f"{row['what']}: {row['sentence']} {row['detail']}" for row in ran.report["rows"])


@pytest.mark.seed("order eight sabotaged drills: 0 PASS")
@pytest.mark.parametrize(
    ("name", "verdicts", "words"),
    [
        pytest.param("pattern matches nothing", {"ERROR"}, "no process here matches", marks=pytest.mark.slow),
        ("permission denied", {"ERROR"}, "not node_kill"),
        pytest.param("signal not permitted", {"ERROR"}, "permission to signal", marks=pytest.mark.slow),
        pytest.param("wrong host", {"ERROR"}, "n2", marks=pytest.mark.slow),
        ("zero cores", {"ERROR"}, "quota"),
        pytest.param("full disk", {"ERROR"}, "do not fit", marks=pytest.mark.slow),
        ("no disk below the folder", {"ERROR"}, "no device in /proc/diskstats"),
    ],
)
def test_what_cannot_be_broken_is_an_error_and_nothing_is_done(
    site: DrilledSite, name: str, verdicts: set[str], words: str
) -> None:
    before = {host: (site.root / host / "ready").read_text() for host in HOSTS}
    ran = spoiled(site, name)
    assert ran.report.get("verdict") in verdicts and ran.code == 12, (ran.report, ran.said)
    assert words in said(ran), said(ran)
    assert not site.facts("Injecting")
    assert {host: (site.root / host / "ready").read_text() for host in HOSTS} == before
    assert not site.open_faults()


@pytest.mark.seed("order eight sabotaged drills: 0 PASS")
@pytest.mark.parametrize(
    "name",
    [
        "dead monitor",
        "frozen prober",
        pytest.param("disk full during the fault", marks=pytest.mark.slow),
    ],
)
def test_what_nobody_saw_to_its_end_is_an_error(site: DrilledSite, name: str) -> None:
    ran = spoiled(site, name)
    assert (ran.report["verdict"], ran.code) == ("ERROR", 12), (ran.report, ran.said)
    assert site.facts("Undone")[0]["proven"]
    assert not site.open_faults()


@pytest.mark.slow
def test_a_full_disk_below_the_history_is_no_pass_and_the_fault_is_undone(site: DrilledSite) -> None:
    ran = spoiled(site, "no room for the history")
    assert ran.code not in (0, 1), (ran.code, ran.report, ran.said)
    assert "Traceback" not in ran.said
    until(lambda: not site.open_faults(), "the undo")


@pytest.mark.seed("order eight sabotaged drills: 0 PASS")
def test_a_clock_that_is_set_back_makes_no_outage_shorter(site: DrilledSite) -> None:
    ran = spoiled(site, "clock step of 60 s")
    assert (ran.report["verdict"], ran.code) == ("FAIL", 10), (ran.report, ran.said)
    row = ran.row("outage of there")
    assert row["upper_ms"] >= OUT_S * 1000
    argv = ["sh", "-c", "date +%s; exec env -u LD_PRELOAD date +%s"]
    told = subprocess.run(argv, env=os.environ | site.env, capture_output=True, text=True, check=True)
    stepped, true = map(int, told.stdout.split())
    assert 58 <= true - stepped <= 60, "the step was none"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [-60, 60])
def test_a_clock_that_is_set_makes_no_outage_longer(site: DrilledSite, seconds: int) -> None:
    with stepping(site):
        drill = site.write_drill(DRILL)
        ran = site.run(drill, during=after("Injected", site, lambda _: step(site, seconds)))
    assert (ran.report["verdict"], ran.code) == ("PASS", 0), (ran.report, ran.said)
    assert ran.row("processes back")["upper_ms"] < 10_000


@pytest.mark.slow
def test_a_clock_that_is_set_forward_does_not_hide_it_either(site: DrilledSite) -> None:
    ran = clock_step(site, 60)
    assert ran.code == 10, (ran.report, ran.said)


@pytest.mark.slow
def test_a_prober_that_was_late_for_a_moment_is_asked_once_more(site: DrilledSite) -> None:
    def hold_up(tool: subprocess.Popen[str]) -> None:
        pid = monitor_of(tool, "web.monitor.json")
        os.kill(pid, signal.SIGSTOP)
        until(lambda: site.facts("Injected"), "the fault")
        os.kill(pid, signal.SIGCONT)

    ran = site.run(site.write_drill(DRILL), during=after("Injecting", site, hold_up))
    assert (ran.report["verdict"], ran.code) == ("PASS", 0), (ran.report, ran.said)
    assert "the prober itself was late; once more" in ran.said
    first, second = sorted(site.runs.glob("r-*/plan.json"))
    plans = [json.loads(each.read_text()) for each in (first, second)]
    assert plans[0]["monitors"] == plans[1]["monitors"], "with the same period"


@pytest.mark.slow
def test_what_somebody_else_lets_go_on_did_not_hold(site: DrilledSite) -> None:
    fault = {"injector": "freeze", "target": {"service": "web", "choose": "first"}, "hold": "3s"}
    drill = site.write_drill(HOLDS, drill="stands", fault=fault)

    def go_on(_: object) -> None:
        for pid in site.stopped():
            os.kill(pid, signal.SIGCONT)

    ran = site.run(drill, during=after("EffectSeen", site, go_on))
    assert (ran.report["verdict"], ran.code) == ("ERROR", 12), (ran.report, ran.said)
    assert [each["proven"] for each in site.facts("EffectSeen")] == [True, False]


@pytest.mark.slow
def test_what_is_replaced_while_it_stands_still_is_recovery(site: DrilledSite) -> None:
    fault = {"injector": "freeze", "target": {"service": "web", "choose": "first"}, "hold": "3s"}
    drill = site.write_drill(HOLDS, drill="stands", fault=fault)

    def replace(_: object) -> None:
        for pid in site.stopped():
            os.kill(pid, signal.SIGKILL)

    ran = site.run(drill, during=after("EffectSeen", site, replace))
    assert (ran.report["verdict"], ran.code) == ("PASS", 0), (ran.report, ran.said)
