"""A run's folder: on disk at once, frozen before the clean-up, and what changes afterwards is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from played_run import MS, Played, finished, rewritten, sampled

from homeostat.drills.cli import verify as show_verified
from homeostat.drills.records.facts import CleanedUp, Injecting, WindowEnded
from homeostat.drills.records.history import (
    CLEANUP,
    HISTORY,
    MANIFEST,
    SAMPLES,
    VERDICT,
    FactLog,
    Recording,
    check_folder,
    close_frozen,
    read_cleanup,
    read_log,
    read_plan,
)
from homeostat.drills.verdicts.evaluation import judge, verify
from homeostat.drills.verdicts.judgement import judgement_record
from homeostat.kernel.errors import AlreadyRunning, CorruptState, NotFound
from homeostat.monitors.verdicts import Verdict


@pytest.mark.seed("order drill verify recomputes an old verdict")
@pytest.mark.parametrize(
    ("out_ms", "verdict"), [(400, Verdict.PASS), (4_990, Verdict.INCONCLUSIVE), (5_100, Verdict.FAIL)]
)
def test_the_files_alone_give_the_same_verdict_again(tmp_path: Path, out_ms: int, verdict: Verdict) -> None:
    samples = sampled(3_000, 3_000 + out_ms)
    played = Played(samples={"web": samples, "web-there": samples})
    verified = verify(finished(tmp_path / "r", played))
    assert (verified.recorded, verified.judgement.verdict, verified.sound) == (verdict, verdict, True)
    assert verified.evidence == played.evidence
    assert read_plan(tmp_path / "r") == played.plan
    assert read_cleanup(tmp_path / "r") == (CleanedUp("restart_if_down web", True, "it runs"),)


@pytest.mark.parametrize(
    "name", ["plan.json", "history.jsonl", "samples/web.jsonl", "verdict.json", "cleanup.jsonl"]
)
def test_a_changed_file_is_found_by_name(tmp_path: Path, name: str) -> None:
    folder = finished(tmp_path / "r")
    rewritten(folder / name, (folder / name).read_text().replace("1", "2", 1) + "")
    assert check_folder(folder).changes == (f"{name}: has changed",)


def test_a_file_that_is_gone_or_new_is_found(tmp_path: Path) -> None:
    folder = finished(tmp_path / "r")
    (folder / "samples/web.jsonl").unlink()
    (folder / "samples/more.jsonl").write_text("")
    assert check_folder(folder).changes == ("samples/web.jsonl: is gone", "samples/more.jsonl: was not there")
    assert not verify(folder).sound


def test_evidence_that_says_something_else_than_was_recorded(tmp_path: Path) -> None:
    played = Played()
    recording = played.recorded(tmp_path / "r")
    lie = judgement_record(judge(played.evidence)) | {"verdict": "FAIL"}
    recording.freeze(lie)
    verified = verify(tmp_path / "r")
    assert not verified.sound
    assert verified.differences == ("the verdict was FAIL, the evidence says PASS",)


def test_a_row_that_was_recorded_otherwise_is_named(tmp_path: Path) -> None:
    played = Played()
    record = judgement_record(judge(played.evidence))
    record["rows"][6]["upper_ms"] = 1.0
    played.recorded(tmp_path / "r").freeze(record)
    (difference,) = verify(tmp_path / "r").differences
    assert difference == "row 7, R1.11 outage of web < 5s: upper_ms differ"


@pytest.mark.seed("000 I28 the verdict is frozen before the clean-up")
def test_a_clean_up_that_fails_cannot_lose_or_change_a_verdict(tmp_path: Path) -> None:
    played = Played()
    recording = played.recorded(tmp_path / "r")
    with pytest.raises(CorruptState, match="no clean-up before the verdict"):
        recording.cleaned_up(CleanedUp("restart", True, ""), 0)
    digest = recording.freeze(judgement_record(judge(played.evidence)))
    recording.cleaned_up(CleanedUp("restart", False, "no answer"), 19_000 * MS)
    # and here the tool is killed: the manifest was never closed
    verified = verify(tmp_path / "r")
    assert (verified.sound, verified.recorded, verified.files.closed) == (True, Verdict.PASS, False)
    assert recording.close() == digest == verified.files.digest


def test_a_verdict_without_its_manifest_is_not_sound(tmp_path: Path) -> None:
    folder = finished(tmp_path / "r")
    (folder / MANIFEST).unlink()
    verified = verify(folder)
    assert not verified.sound and verified.files.changes == (
        f"{MANIFEST}: is not there, so nothing is known",
    )


def test_a_run_is_not_closed_over_a_file_that_has_changed(tmp_path: Path) -> None:
    recording = Played().recorded(tmp_path / "r")
    recording.freeze(judgement_record(judge(Played().evidence)))
    # and here the tool is killed
    samples = tmp_path / "r" / SAMPLES / "web.jsonl"
    rewritten(samples, "".join(samples.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(CorruptState, match=r"web.jsonl: has changed; the run stays open"):
        close_frozen(tmp_path / "r")
    assert not verify(tmp_path / "r").sound


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"\xff\n"), Path.mkdir])
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, spoil: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished(tmp_path / "r")
    (folder / SAMPLES / "web.jsonl").unlink()
    spoil(folder / SAMPLES / "web.jsonl")
    with pytest.raises(SystemExit):
        show_verified(str(folder))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cannot be read" in said


def test_nothing_is_added_once_it_is_frozen(tmp_path: Path) -> None:
    recording = Played().recorded(tmp_path / "r")
    recording.freeze({"verdict": "PASS"})
    with pytest.raises(CorruptState, match="frozen"):
        recording.note(Injecting(), 99_000 * MS)
    assert not (tmp_path / "r" / HISTORY).stat().st_mode & 0o222


def test_a_run_that_was_killed_is_read_and_is_no_pass(tmp_path: Path) -> None:
    played = Played().without(WindowEnded)
    with played.recorded(tmp_path / "r"):
        pass
    with (tmp_path / "r" / HISTORY).open("ab") as file:
        file.write(b'{"n":99,"at_')
    verified = verify(tmp_path / "r")
    assert (verified.recorded, verified.judgement.verdict, verified.sound) == (None, Verdict.ERROR, False)
    assert not (tmp_path / "r" / VERDICT).exists()


def test_time_never_goes_back_and_no_line_is_missing(tmp_path: Path) -> None:
    log = FactLog(tmp_path / "log")
    log.note(Injecting(), 5)
    with pytest.raises(CorruptState, match="before the last fact"):
        log.note(Injecting(), 4)
    log.note(Injecting(), 5)
    log.note(Injecting(), 7)
    log.close()
    lines = (tmp_path / "log").read_text().splitlines(keepends=True)
    (tmp_path / "log").write_text(lines[0] + lines[2])
    with pytest.raises(CorruptState, match="line 2 has the number 3"):
        read_log(tmp_path / "log")
    (tmp_path / "log").write_text(lines[0].replace("Injecting", "Rejoicing"))
    with pytest.raises(CorruptState, match="line 1 is not a fact"):
        read_log(tmp_path / "log")


def test_a_folder_belongs_to_one_run(tmp_path: Path) -> None:
    finished(tmp_path / "r")
    with pytest.raises(AlreadyRunning):
        Recording.begin(tmp_path / "r", Played().plan)
    with pytest.raises(NotFound):
        verify(tmp_path / "nothing")


def test_a_plan_may_not_point_outside_its_folder(tmp_path: Path) -> None:
    folder = finished(tmp_path / "r")
    plan = json.loads((folder / "plan.json").read_text())
    plan["monitors"][0]["file"] = "../../etc/passwd"
    rewritten(folder / "plan.json", json.dumps(plan))
    with pytest.raises(CorruptState, match="outside"):
        verify(folder)


def test_every_file_of_a_finished_run_is_in_the_manifest(tmp_path: Path) -> None:
    folder = finished(tmp_path / "r")
    named = set(json.loads((folder / MANIFEST).read_text())["sha256"])
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there - named == {MANIFEST}
    assert CLEANUP in named
