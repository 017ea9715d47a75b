"""What becomes of a client's calls in a run: awaited, judged beside what decides, reported, judged again."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest
from played_run import FAULT_MS, MS, UNTIL_MS, Played, finished, rewritten, sampled, shipped

from homeostat.drills.model import Drill, DrillTarget, Layer, Monitor, ServiceOutage, Weight
from homeostat.drills.records.evidence import RunRecorder, StderrProgress
from homeostat.drills.records.facts import LeftOut, LoadSeen, MonitorEnded, MonitorPlan, MonitorReady
from homeostat.drills.records.history import read_log, read_plan
from homeostat.drills.reports.model import report_of
from homeostat.drills.reports.renderings import html_page, junit_xml
from homeostat.drills.running.cancellation import NotBegun
from homeostat.drills.running.measurement import RunMeasurement
from homeostat.drills.shipped.keeper.machine import now_ns
from homeostat.drills.verdicts.evaluation import judge, verify
from homeostat.drills.verdicts.judgement import VerdictRow
from homeostat.monitors.outage import ProbeAnswer, Sample, sample_line
from homeostat.monitors.supervision import Monitors
from homeostat.monitors.verdicts import Verdict, VerdictReason

CALL_MS = 1_400


def with_client(limit_ms: float = 5_000.0) -> Drill:
    """The service-down drill, and the client beside it."""
    drill = shipped("service-down")
    cli = Monitor(
        "cli",
        "cli",
        Layer.USER,
        DrillTarget(service="web"),
        period_ms=200.0,
        deadline_ms=30_000.0,
        command="server list",
    )
    check = ServiceOutage("service_outage", "R1.5", ("cli",), limit_ms, weight=Weight.INFORMATIVE)
    return replace(drill, monitors=(*drill.monitors, cli), checks=(*drill.checks, check))


def calls(out_from_ms: int, out_to_ms: int) -> tuple[Sample, ...]:
    """A closed loop: each call asks at its end."""
    return tuple(
        Sample(
            at * MS,
            at * MS,
            (at + CALL_MS) * MS,
            ProbeAnswer.ERROR if out_from_ms <= at + CALL_MS < out_to_ms else ProbeAnswer.OK,
        )
        for at in range(0, UNTIL_MS, CALL_MS)
    )


def played(client: tuple[Sample, ...], limit_ms: float = 5_000.0, out_to_ms: float = 3_400) -> Played:
    """A clean run of it, but for what the client saw and when the service was back."""
    run = Played(drill=with_client(limit_ms))
    samples = {name: sampled(3_000, out_to_ms) for name in ("web", "web-there")}
    run = replace(run, samples=samples | {"cli": client})
    return run.also(2_500, MonitorReady("cli", 0)).also(18_100, MonitorEnded("cli"))


def client_row(run: Played) -> VerdictRow:
    return next(row for row in judge(run.evidence).rows if row.monitor == "cli")


@pytest.mark.seed("000 I6 the longest episode's upper bound decides, the literal value stands beside it")
def test_what_the_client_alone_would_have_said_stands_beside_its_own_bounds() -> None:
    # Out for 5.3 s: three calls ask within it.
    run = played(calls(3_000, 8_300), out_to_ms=8_300)
    row = client_row(run)
    failed = [each for each in run.samples["cli"] if each.answer is ProbeAnswer.ERROR]
    assert row.literal_ms == len(failed) * CALL_MS == 4_200
    assert row.literal_result is Verdict.PASS, "wrong, and only shown"
    assert (row.result, row.why, row.binding) == (
        Verdict.INCONCLUSIVE,
        VerdictReason.LIMIT_WITHIN_BOUNDS,
        False,
    )
    assert row.lower_ms is not None and row.upper_ms is not None
    assert row.lower_ms <= 5_300 <= row.upper_ms
    judgement = judge(run.evidence)
    assert judgement.verdict is Verdict.FAIL, "the open loop knows"
    assert all(row.literal_result is None for row in judgement.rows if row.monitor != "cli")


def test_a_limit_that_is_just_reached_passes_in_the_published_loop_alone() -> None:
    run = played(calls(3_000, 8_300), limit_ms=4_200.0)
    assert client_row(run).literal_result is Verdict.PASS
    assert client_row(played(calls(3_000, 8_300), limit_ms=4_199.0)).literal_result is Verdict.FAIL


def test_what_the_client_saw_changes_no_verdict() -> None:
    for client in (calls(0, 0), calls(3_000, 99_000)):
        assert judge(played(client).evidence).verdict is Verdict.PASS
    never_back = client_row(played(calls(3_000, 99_000)))
    assert never_back.censored and never_back.literal_result is Verdict.FAIL


def test_one_good_call_is_no_baseline() -> None:
    late = tuple(each for each in calls(3_000, 3_400) if each.sent_ns >= CALL_MS * MS)
    row = client_row(played(late))
    assert (row.result, row.why) == (Verdict.ERROR, VerdictReason.NO_BASELINE)


DEVIATIONS = ("nova's driver <is> its own fake one",)


def test_deviations_what_was_left_out_and_the_load_are_in_every_report(tmp_path: Path) -> None:
    run = played(calls(3_000, 8_300), out_to_ms=8_300)
    run = run.also(0, LoadSeen("begin", 0.5, 0.4, 0.3, 2)).also(18_200, LoadSeen("end", 1.25, 0.5, 0.3, 2))
    plan = replace(run.plan, deviations=DEVIATIONS, left_out=(LeftOut("stacks", "no heat here"),))

    class Told(Played):
        @property
        def plan(self):  # type: ignore[no-untyped-def]
            return plan

    folder = finished(tmp_path / "r", Told(run.drill, run.facts, run.samples, run.sightings))
    assert read_plan(folder) == plan
    report = report_of(verify(folder))
    assert report.verification.sound
    assert (report.deviations, report.left_out[0].monitor) == (list(DEVIATIONS), "stacks")
    assert [(each.when, each.load_1m) for each in report.load] == [("begin", 0.5), ("end", 1.25)]
    page = html_page([report])
    assert "deviation: nova&#39;s driver &lt;is&gt; its own fake one" in page
    assert "left out: stacks, no heat here" in page and "0.50 at the begin, 1.25 at the end" in page
    assert page.index("deviation:") < page.index("Outages by layer")
    properties = [
        (each.get("name"), each.get("value"))
        for each in Xml.fromstring(junit_xml([report])).iter("property")
    ]  # fmt: skip
    assert ("deviation", DEVIATIONS[0]) in properties
    assert ("left_out", "stacks: no heat here") in properties
    assert ("load_1m_end", "1.25") in properties
    layers = {each.monitor: each for each in report.layers}
    assert layers["web-there"].back_ms == pytest.approx(8_301 - FAULT_MS, abs=20)
    assert (layers["processes"].back_ms, layers["processes"].lateness_ms) == (305, None)
    assert layers["web"].lateness_ms == 0


def test_a_run_of_before_still_says_the_same(tmp_path: Path) -> None:
    folder = finished(tmp_path / "r")
    verdict = json.loads((folder / "verdict.json").read_text())
    for row in verdict["rows"]:
        del row["literal_result"]
    rewritten(folder / "verdict.json", json.dumps(verdict))
    plan = json.loads((folder / "plan.json").read_text())
    del plan["deviations"], plan["left_out"]
    for monitor in plan["drill"]["monitors"]:
        del monitor["token"], monitor["command"], monitor["optional"]
    rewritten(folder / "plan.json", json.dumps(plan))
    found = verify(folder)
    assert found.differences == ()
    assert found.evidence.plan.drill == Played().drill


# ---- while it runs ------------------------------------------------------------------------------------


def written(folder: Path, name: str, samples: list[Sample]) -> None:
    (folder / "samples" / f"{name}.jsonl").write_text("".join(map(sample_line, samples)))


async def measured(folder: Path, client: list[Sample]) -> tuple[RunMeasurement, int]:
    """Of a service that answers every 20 ms, once all are ready; and when its last answer was due.

    That is ahead of now: how busy this machine is does not make it old.
    """
    drill = with_client()
    drill = replace(drill, monitors=tuple(each for each in drill.monitors if each.id in ("web", "cli")))
    recording = Played(drill=drill, samples={}, sightings={}, facts=[]).recorded(folder)
    last_ns = now_ns() + 60_000 * MS
    moments = (last_ns - back * 20 * MS for back in range(99, -1, -1))
    written(folder, "web", [Sample(at, at, at + MS, ProbeAnswer.OK) for at in moments])
    written(folder, "cli", client)
    plans = {
        each.id: MonitorPlan(each.id, f"samples/{each.id}.jsonl", each.period_ms) for each in drill.monitors
    }
    measuring = RunMeasurement(drill, plans, folder)
    with recording:
        async with Monitors([]) as monitors:
            await measuring.ready(monitors, RunRecorder(recording, StderrProgress()), 0.3, None)
    return measuring, last_ns


def good_calls(count: int) -> list[Sample]:
    """Calls of 4 s each, the last of which ended 10 s ago: the next one is under way."""
    ends = [now_ns() - round((10 + 4 * back) * 1e9) for back in range(count)]
    return [Sample(end - 4_000 * MS, end - 4_000 * MS, end, ProbeAnswer.OK) for end in reversed(ends)]


async def test_two_good_calls_are_the_baseline_and_nobody_waits_for_the_next_one(tmp_path: Path) -> None:
    measuring, last_ns = await measured(tmp_path / "r", good_calls(2))
    ready = [each.fact for each in read_log(tmp_path / "r" / "history.jsonl")]
    assert [each.monitor for each in ready if isinstance(each, MonitorReady)] == ["web", "cli"]
    assert measuring.known_until_ns == last_ns - 1_000 * MS, "the service's deadline, not the client's"


async def test_one_good_call_begins_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotBegun, match="cli has not seen 2 good answers in a row"):
        await measured(tmp_path / "r", good_calls(1))


def test_the_load_is_this_machines() -> None:
    from homeostat.drills.records.evidence import load_seen

    seen = load_seen("begin")
    assert seen.cpus == os.cpu_count() and seen.load_1m >= 0
