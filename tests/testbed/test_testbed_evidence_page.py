"""The page of evidence, from a report that a run on the testbed left, and from variations of it."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from testbed.campaign import PLAIN, SLOW, Case
from testbed.evidence_page import page
from testbed.records import Record

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).with_name("recorded") / "keystone-down.json").read_text()
)
CONTEXT = {"load_before": 1.5, "load_after": 4.25, "cpu_busy": 0.731}
CASES = (Case("keystone-down", PLAIN), Case("keystone-down", SLOW))


def record(
    report: dict[str, Any] = RECORDED, *, case: Case = CASES[0], run: int = 1, attempt: int = 1
) -> Record:
    return Record(case.id, run, attempt, report, CONTEXT)


def table(text: str, heading: str) -> list[dict[str, str]]:
    """The first table under a heading, as rows by column."""
    lines = text.partition(f"{heading}\n")[2].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return [dict(zip([cell.strip() for cell in rows[0]], row, strict=True)) for row in rows[2:]]


def changed(monitor: str, **fields: object) -> dict[str, Any]:
    """The recorded report with other figures in the deciding row of one monitor."""
    report = deepcopy(RECORDED)
    row = next(each for each in report["rows"] if each["monitor"] == monitor and each["binding"])
    row.update(fields)
    return report


def deciding(of_layers: tuple[str, ...]) -> dict[str, Any]:
    """The worst deciding row of the recorded run, found without the page's own code."""
    names = {each["monitor"] for each in RECORDED["layers"] if each["layer"] in of_layers}
    rows = [each for each in RECORDED["rows"] if each["binding"] and each["monitor"] in names]
    return max(rows, key=lambda row: row["upper_ms"])


def test_a_run_is_told_with_its_worst_bounds_and_what_they_rest_on() -> None:
    worst = deciding(("service",))
    assert worst["monitor"] == "users"  # not the other one, whose bounds are narrower
    row = table(page(CASES, [record()], "opnfv-ha"), "### keystone-down, plain")[0]
    assert row["run"] == "[1.1](opnfv-ha/keystone-down/1.1.html) ([json](opnfv-ha/keystone-down/1.1.json))"
    assert row["verdict"] == "PASS"
    assert row["service outage"] == f"[0 ms, {worst['upper_ms']:.0f} ms] users"
    assert (row["literal"], row["p99 before"], row["p99 during"]) == ("0 ms", "74 ms", "801 ms")
    assert row["process gone for"] == "[240 ms, 263 ms]"
    assert row["Node1 answers"] == "after 4.89 s"
    assert (row["effect"], row["undo"]) == ("PASS", "PASS")
    assert row["load"] == "1.5 to 4.25, 73% busy"
    assert row["prober late by"] == "2 ms"


def test_an_outage_that_never_ended_is_the_worst_and_says_so() -> None:
    gone = changed("keystone", upper_ms=None, lower_ms=41_000.0, censored=True, result="FAIL")
    gone |= {"verdict": "FAIL", "because": ["R3.7 outage of keystone < 5s: it was still out"]}
    row = table(page(CASES, [record(gone)], "opnfv-ha"), "### keystone-down, plain")[0]
    assert row["service outage"] == "at least 41.00 s keystone"
    assert row["because"] == "R3.7 outage of keystone < 5s: it was still out"


def test_what_was_not_measured_is_a_dash_and_no_zero() -> None:
    bare = deepcopy(RECORDED) | {"rows": [], "layers": [], "verdict": "ERROR", "because": ["R0.3 no effect"]}
    row = table(page(CASES, [record(bare)], "opnfv-ha"), "### keystone-down, plain")[0]
    unknown = ("service outage", "literal", "p99 during", "process gone for", "Node1 answers", "effect")
    assert {row[name] for name in unknown} == {"–"}


def test_every_attempt_is_counted_and_only_the_last_one_says_the_verdict() -> None:
    undecided = deepcopy(RECORDED) | {"verdict": "INCONCLUSIVE", "because": ["too coarse"]}
    records = [record(undecided), record(attempt=2), record(run=2)]
    text = page(CASES, records, "opnfv-ha")
    plain, slow = table(text, "## Verdicts")
    assert (plain["runs"], plain["attempts"], plain["verdicts"]) == ("2", "3", "2 x PASS")
    assert (slow["runs"], slow["attempts"], slow["verdicts"]) == ("0", "0", "not run")
    assert [row["verdict"] for row in table(text, "### keystone-down, plain")] == [
        "INCONCLUSIVE",
        "PASS",
        "PASS",
    ]


def test_a_run_that_still_has_attempts_left_is_no_run_yet() -> None:
    undecided = deepcopy(RECORDED) | {"verdict": "INCONCLUSIVE"}
    assert table(page(CASES, [record(undecided)], "opnfv-ha"), "## Verdicts")[0]["runs"] == "0"


def test_slow_checks_stand_beside_fast_ones_monitor_by_monitor() -> None:
    slower = changed("keystone", lower_ms=1_790.0, upper_ms=1_910.0, latency_during_p99_ms=5_000.0)
    records = [record(), record(run=2), record(slower, case=CASES[1])]
    rows = table(page(CASES, records, "opnfv-ha"), "## Slow checks beside fast ones")
    row = next(each for each in rows if each["monitor"] == "keystone")
    assert row["fast: outages"] == "[118 ms, 708 ms]; [118 ms, 708 ms]"
    assert (row["slow: outages"], row["slow: p99 during"]) == ("[1.79 s, 1.91 s]", "5.00 s")


def test_the_command_alone_is_told_beside_what_the_run_said() -> None:
    row = table(page(CASES, [record()], "opnfv-ha"), "## What the command alone would have said")[0]
    assert (row["command alone"], row["its first to last"], row["its calls"]) == ("PASS", "0 ms", "7")
    assert row["its bounds"] == "[0 ms, 4.40 s]"
    assert row["ours"] == "PASS [0 ms, 901 ms]"


def test_what_only_some_drills_prove_is_told_with_its_detail() -> None:
    moved = {"what": "the address of balancer moved", "result": "PASS", "detail": "from ctl1 to ctl2"}
    done = {"what": "3 operations after the fault", "result": "FAIL", "detail": "", "sentence": "one failed"}
    plain = {**RECORDED["rows"][0], "binding": True, "monitor": None}
    more = deepcopy(RECORDED) | {"rows": [*RECORDED["rows"], {**plain, **moved}, {**plain, **done}]}
    told = table(page(CASES, [record(), record(more, run=2)], "opnfv-ha"), "### keystone-down, plain")
    assert [(row["operations"], row["besides"]) for row in told] == [
        ("–", "–"),
        ("FAIL one failed", "PASS from ctl1 to ctl2"),
    ]


def test_deviations_head_the_page_each_once() -> None:
    text = page(CASES, [record(), record(run=2)], "opnfv-ha")
    assert text.count("* nova's driver is fake: no guest runs\n") == 1
    assert text.index("nova's driver is fake") < text.index("## Verdicts")
