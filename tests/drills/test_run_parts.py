"""The parts of a run that need no host: ledger, reopened history, ends that are asked for, halts, words."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from played_run import MS, Played, finished

from homeostat.drills.records.evidence import Ledger, read_leftovers
from homeostat.drills.records.facts import Aborted, Undone
from homeostat.drills.records.history import HISTORY, LEDGER, Recording, read_log
from homeostat.drills.reports.model import DrillReport
from homeostat.drills.running import cancellation as site_lock
from homeostat.drills.running.cancellation import (
    BackgroundTasks,
    MonitorGone,
    NotBegun,
    Stopped,
    StopRequest,
    shielded,
)
from homeostat.drills.running.injection import hit_words, section_words, undo_words
from homeostat.drills.running.measurement import FollowedSampler
from homeostat.drills.running.series import (
    read_report,
    undecided_by_baseline,
    undecided_by_lateness,
    undecided_by_resolution,
)
from homeostat.drills.verdicts.judgement import RowReason, judged, judgement_record
from homeostat.kernel.errors import AlreadyRunning, CorruptState
from homeostat.kernel.files import hold_lock
from homeostat.monitors.outage import ProbeAnswer, Sample, sample_line
from homeostat.monitors.verdicts import Verdict, VerdictReason

# ---- ledger and history -----------------------------------------------------------------------------


def test_what_is_left_is_what_was_not_undone(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.began("lab")
        for fault in ("f-1", "f-2"):
            plan = {"undo": ["SIGCONT to 7"]}
            ledger.to_undo("n1", {"fault": fault, "injector": "node_freeze", "deadline_s": 30, "plan": plan})
        ledger.undone("f-1", "gone")
        for number in (1, 2, 3):
            ledger.made(f"http://a/{number}")
        ledger.deleted("http://a/2")
    left = read_leftovers(tmp_path)
    assert left.site == "lab" and left.tool_lives
    assert [(each.fault, each.host) for each in left.faults] == [("f-2", "n1")]
    assert left.objects == ("http://a/3", "http://a/1"), "the newest first"
    assert json.loads((tmp_path / LEDGER).read_text().splitlines()[1])["by"] == "the undo keeper of n1"


def test_a_ledger_may_end_in_the_middle_of_a_line_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / LEDGER
    path.write_text('{"kind": "made", "url": "http://a/1"}\n{"kind": "ma')
    assert read_leftovers(tmp_path).objects == ("http://a/1",)
    path.write_text('{"kind": "made"}\n')
    with pytest.raises(CorruptState, match="line 1"):
        read_leftovers(tmp_path)


def test_a_tool_that_is_gone_is_known_by_its_identity(tmp_path: Path) -> None:
    path = tmp_path / LEDGER
    path.write_text(json.dumps({"kind": "tool", "site": "lab", "pid": os.getpid(), "start_ticks": 1}) + "\n")
    assert not read_leftovers(tmp_path).tool_lives


def test_the_history_of_a_dead_tool_goes_on_after_its_last_whole_line(tmp_path: Path) -> None:
    folder = tmp_path / "r-1"
    with Played().recorded(folder):
        pass
    before = read_log(folder / HISTORY)
    with (folder / HISTORY).open("ab") as file:
        file.write(b'{"n": 99, "at')
    with Recording(folder, goes_on=True) as recording:
        recording.note(Aborted("heal", "dead"), before[-1].at_ns + 1)
        with pytest.raises(CorruptState, match="one clock"):
            recording.note(Undone(True, "gone"), before[-1].at_ns)
    after = read_log(folder / HISTORY)
    assert after[:-1] == before and after[-1].number == len(before) + 1
    with pytest.raises(AlreadyRunning):
        Recording(folder)


# ---- ends that are asked for ------------------------------------------------------------------------


async def test_who_asks_first_is_who_stopped_it() -> None:
    heard: list[str] = []
    stop = StopRequest(heard.append)
    waiting = asyncio.create_task(stop.wait())
    stop.ask("SIGINT", "a person")
    stop.ask("SIGTERM", "impatience")
    reason = await waiting
    assert (reason.by, reason.why) == ("SIGINT", "a person")
    assert heard[0].startswith("SIGINT: a person") and "ending already" in heard[1]


async def test_an_act_is_not_cut_short_by_who_ends_the_run() -> None:
    began, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def act() -> None:
        began.set()
        await go_on.wait()
        done.set()

    task = asyncio.create_task(shielded(act()))
    await began.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()


async def test_an_act_that_fails_says_so() -> None:
    async def act() -> None:
        raise CorruptState("broken")

    with pytest.raises(CorruptState):
        await shielded(act())


async def test_the_first_reason_ends_what_is_watched() -> None:
    async with BackgroundTasks() as beside:
        assert await beside.watched(asyncio.sleep(0, "done")) == "done"
        beside.end(MonitorGone())
        beside.end(Stopped("a", "b"))
        with pytest.raises(MonitorGone):
            await beside.watched(asyncio.Event().wait())


async def test_a_task_beside_that_breaks_ends_the_run() -> None:
    async def broken() -> None:
        raise NotBegun("fault", "gone")

    async with BackgroundTasks() as beside:
        beside.start(broken(), "broken")
        with pytest.raises(NotBegun, match="gone"):
            await beside.watched(asyncio.Event().wait())


# ---- one at a time ----------------------------------------------------------------------------------


def test_the_lock_names_its_holder_and_goes_with_him(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from homeostat.kernel.files import hold_lock\n"
        "with hold_lock(Path(sys.argv[1])): print('has it', flush=True); input()"
    )
    lock = tmp_path / site_lock.LOCK
    argv = [sys.executable, "-c", code, str(lock)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "has it\n"
        refused = pytest.raises(AlreadyRunning, match=f"a drill runs here, pid {other.pid};")
        with refused, hold_lock(lock, site_lock.TAKEN):
            pass
        other.kill()
        other.wait()
    with hold_lock(lock, site_lock.TAKEN):
        pass


def test_a_halt_stays_until_it_is_taken_back(tmp_path: Path) -> None:
    assert site_lock.halt_reason(tmp_path) is None and not site_lock.resume(tmp_path)
    site_lock.halt(tmp_path, "fire")
    assert site_lock.halt_reason(tmp_path) == "fire"
    assert site_lock.resume(tmp_path) and site_lock.halt_reason(tmp_path) is None


# ---- reading what monitors write ----------------------------------------------------------------------


def test_a_growing_file_is_read_by_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "web.jsonl"
    followed = FollowedSampler("web", path, 20, 50)
    followed.look()
    assert followed.known_until_ns == 0 and followed.good_since_ns() is None
    samples = [Sample(at * MS, (at + 1) * MS, (at + 3) * MS, ProbeAnswer.OK) for at in range(0, 200, 20)]
    text = "".join(map(sample_line, samples))
    path.write_text(text[:-5])
    followed.look()
    assert followed.known_until_ns == 110 * MS
    with path.open("a") as file:
        file.write(text[-5:])
    followed.look()
    assert followed.known_until_ns == 130 * MS and followed.good_since_ns() == 0
    row = followed.baseline(0, 5)
    assert row is not None and (row.since_ns, row.lateness_ms, row.rho_ms) == (100 * MS, 1.0, 2.0)
    assert followed.baseline(120 * MS, 5) is None, "not so many since then"
    with path.open("a") as file:
        file.write(sample_line(Sample(200 * MS, 200 * MS, 201 * MS, ProbeAnswer.REFUSED)))
    followed.look()
    assert followed.baseline(0, 5) is None and followed.good_since_ns() is None
    assert followed.outage(0, 190 * MS, 300 * MS).longest is not None


# ---- words and decisions ------------------------------------------------------------------------------


def test_what_was_hit_is_said_exactly() -> None:
    matched = [{"pid": 7, "start_ticks": 1, "boot_id": "b", "command_line": "web --port 1"}]
    record = {"plan": {"matched": matched, "does": "x"}, "inject": {"signalled": 1, "of": 1}}
    assert hit_words("n1", record) == ("n1: pid 7 web --port 1",)
    assert hit_words("n1", record | {"inject": {"signalled": 0, "of": 1}}) == ()
    assert hit_words("n1", {"plan": {"does": "fill 2 processors"}, "inject": {}}) == (
        "n1: fill 2 processors",
    )


def test_proofs_are_told_in_a_line() -> None:
    assert section_words({"proven": True, "left": [], "gone_by_ns": 7}, "proven") == "seen"
    assert section_words({"proven": False, "left": [7]}, "proven") == "left 7"
    cores = [{"cpu": 0, "busy": 1.0, "full": True}, {"cpu": 1, "busy": 0.5, "full": False}]
    words = "cores cpu 0 busy 1.0 full yes and cpu 1 busy 0.5 full no"
    assert section_words({"proven": False, "cores": cores}, "proven") == words
    outcome = {
        "reason": "asked",
        "steps": [
            {"step": {"kind": "cont"}, "result": "undone", "reason": None},
            {"step": {"kind": "cont"}, "result": "failed", "reason": "no such process"},
        ],
    }
    said = undo_words({"undo": outcome, "verify_undone": {"within_deadline": True}})
    assert said == "2 x cont, asked, within its deadline; no such process"


def coarse(tmp_path: Path, *reasons: VerdictReason | RowReason) -> DrillReport:
    """A report whose undecided rows have these reasons."""
    report = read_report(finished(tmp_path / "r-1"))
    row = next(each for each in report.rows if each.binding and each.limit_ms)
    undecided = [
        row.model_copy(update={"result": Verdict.INCONCLUSIVE, "reason": reason.name}) for reason in reasons
    ]
    return report.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "rows": undecided})


def test_a_run_is_repeated_only_when_half_the_period_would_help(tmp_path: Path) -> None:
    within = VerdictReason.LIMIT_WITHIN_BOUNDS
    report = coarse(tmp_path, within, within)
    assert undecided_by_resolution(report)
    assert not undecided_by_resolution(report.model_copy(update={"verdict": Verdict.ERROR}))
    late = report.rows[0].model_copy(update={"reason": VerdictReason.PROBER_LATE.name})
    assert not undecided_by_resolution(report.model_copy(update={"rows": [*report.rows, late]}))
    shown = late.model_copy(update={"binding": False})
    assert undecided_by_resolution(report.model_copy(update={"rows": [shown, *report.rows]}))


def test_a_run_of_a_late_prober_is_repeated_as_it_was(tmp_path: Path) -> None:
    report = coarse(tmp_path, VerdictReason.PROBER_LATE, VerdictReason.LIMIT_WITHIN_BOUNDS)
    late, within = report.rows
    assert undecided_by_lateness(report) and not undecided_by_resolution(report)
    assert undecided_by_lateness(report.model_copy(update={"rows": [late]}))
    assert not undecided_by_lateness(report.model_copy(update={"rows": [within]})), "half the period helps"
    short = late.model_copy(update={"reason": VerdictReason.WINDOW_TOO_SHORT.name})
    assert not undecided_by_lateness(report.model_copy(update={"rows": [late, short]}))
    assert not undecided_by_lateness(report.model_copy(update={"verdict": Verdict.ERROR}))
    shown = late.model_copy(update={"binding": False})
    assert not undecided_by_lateness(report.model_copy(update={"rows": [shown, within]}))


def test_a_run_is_repeated_when_only_the_moment_before_the_fault_was_bad(tmp_path: Path) -> None:
    report = read_report(finished(tmp_path / "r-1"))
    row = next(each for each in report.rows if each.binding and each.limit_ms)
    bad = row.model_copy(update={"result": Verdict.ERROR, "reason": VerdictReason.BASELINE_FAILED.name})
    passed = [each for each in report.rows if each.result is Verdict.PASS]
    disturbed = report.model_copy(update={"verdict": Verdict.ERROR, "rows": [*passed, bad]})
    assert undecided_by_baseline(disturbed)
    assert not undecided_by_baseline(report.model_copy(update={"verdict": Verdict.PASS, "rows": passed}))
    failed = bad.model_copy(update={"result": Verdict.FAIL, "reason": VerdictReason.NOT_BELOW_LIMIT.name})
    assert not undecided_by_baseline(disturbed.model_copy(update={"rows": [bad, failed]}))
    lost = bad.model_copy(update={"reason": VerdictReason.MONITOR_LOST.name})
    assert not undecided_by_baseline(disturbed.model_copy(update={"rows": [bad, lost]}))


def test_a_verdict_without_evidence_is_an_error() -> None:
    record = judgement_record(judged([]))
    assert (record["verdict"], record["exit_code"]) == ("ERROR", 12)
    assert replace(judged([]), because=("x",)).exit_code == 12
