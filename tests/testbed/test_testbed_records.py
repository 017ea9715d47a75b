"""The folder of evidence: what is there is whole, and what is not whole is run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from homeostat.kernel.errors import CorruptState
from homeostat.monitors.verdicts import Verdict
from testbed.drilling import DrillFailed, Drilling
from testbed.records import Record, keep, path_of, read_records, verdicts_of


def record(run: int, attempt: int, verdict: str = "PASS", case: str = "keystone-down") -> Record:
    return Record(case, run, attempt, {"verdict": verdict}, {"load_before": 1.5})


def test_what_is_kept_is_read_again_in_order(tmp_path: Path) -> None:
    kept = [record(1, 1, "INCONCLUSIVE"), record(1, 2), record(2, 1), record(1, 1, "FAIL", "nova-api-down")]
    for each in reversed(kept):
        keep(tmp_path, each, "<p>page</p>")
    assert read_records(tmp_path) == kept
    assert path_of(tmp_path, "keystone-down", 1, 2).with_suffix(".html").read_text() == "<p>page</p>"
    assert verdicts_of(kept) == {
        ("keystone-down", 1): [Verdict.INCONCLUSIVE, Verdict.PASS],
        ("keystone-down", 2): [Verdict.PASS],
        ("nova-api-down", 1): [Verdict.FAIL],
    }


def test_an_attempt_that_was_cut_off_before_its_report_is_not_there(tmp_path: Path) -> None:
    keep(tmp_path, record(1, 1), "")
    path_of(tmp_path, "keystone-down", 1, 1).unlink()
    assert read_records(tmp_path) == []


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_file_that_is_no_report_is_named(tmp_path: Path, text: str) -> None:
    keep(tmp_path, record(3, 1), "")
    path_of(tmp_path, "keystone-down", 3, 1).write_text(text)
    with pytest.raises(CorruptState, match=r"keystone-down/3\.1\.json"):
        read_records(tmp_path)


def test_a_command_that_leaves_no_run_is_an_error_and_no_verdict(tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text("site: nowhere\nhosts: {}\nservices: {}\n")
    with pytest.raises(DrillFailed, match="drill no-such-drill: ended with"):
        Drilling(site, tmp_path / "state").run("no-such-drill", seed=1, within_s=60)
