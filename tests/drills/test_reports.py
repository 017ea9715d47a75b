"""Reports: the same facts in each form, valid for whoever reads them, and never greener than the evidence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree as Xml

import jsonschema_rs
import pytest
from played_run import Played, finished, rewritten, sampled
from typer.testing import CliRunner

from homeostat.cli import app
from homeostat.drills.records.facts import BroughtBack, EffectSeen, FaultNoticed
from homeostat.drills.records.history import read_cleanup
from homeostat.drills.reports.model import DrillReport, report_of, schema
from homeostat.drills.reports.renderings import html_page, junit_xml, outage_chart
from homeostat.drills.reports.trends import repeats_of
from homeostat.drills.verdicts.evaluation import judge, verify
from homeostat.drills.verdicts.judgement import judgement_record
from homeostat.monitors.verdicts import Verdict

DOCS = Path(__file__).parents[2] / "docs"
FAILED = Played(samples={"web": sampled(3_000, 8_100), "web-there": sampled(3_000, 99_000)})


def reported(folder: Path, played: Played | None = None) -> DrillReport:
    """The report of a finished run."""
    finished(folder, played)
    return report_of(verify(folder), read_cleanup(folder))


def run(*words: str) -> tuple[int, str]:
    """Our command line: exit code and everything it said."""
    result = CliRunner().invoke(app, ["drill", *words])
    return result.exit_code, result.output


@pytest.mark.seed("order JSON report with a published schema")
@pytest.mark.parametrize("played", [Played(), FAILED, Played().without(EffectSeen)])
def test_a_report_is_valid_by_the_published_schema(tmp_path: Path, played: Played) -> None:
    published = json.loads((DOCS / "drill-report.schema.json").read_text())
    assert published == schema(), "make docs writes it anew"
    record = reported(tmp_path / "r", played).model_dump(mode="json")
    validator = jsonschema_rs.validator_for(published)
    validator.validate(record)
    assert not validator.is_valid(record | {"verdict": "GREEN"})


def test_a_report_says_what_is_known_and_what_our_own_monitors_noticed(tmp_path: Path) -> None:
    report = reported(tmp_path / "r", Played().also(3_350, BroughtBack("web-n2", "the runner on n2")))
    assert (report.verdict, report.exit_code, report.because) == (Verdict.PASS, 0, [])
    assert [mark.name for mark in report.marks] == ["fault", "effect proven", "noticed by us", "undo proven"]
    assert report.brought_back == ["web-n2: the runner on n2"]
    assert [step.ok for step in report.cleanup] == [True]
    assert report.window_ms == 15_000


def test_a_picture_claims_no_proof_that_failed(tmp_path: Path) -> None:
    played = Played().changed(EffectSeen, lambda _: EffectSeen(False, "pid 100 still runs"))
    names = {mark.name for mark in reported(tmp_path / "r", played).marks}
    assert "effect not proven" in names
    assert "effect proven" not in names


def test_changed_files_are_an_error_whatever_they_say(tmp_path: Path) -> None:
    folder = finished(tmp_path / "r", FAILED)
    lines = (folder / "samples/web.jsonl").read_text().splitlines(keepends=True)
    rewritten(folder / "samples/web.jsonl", "".join(line for line in lines if "refused" not in line))
    report = report_of(verify(folder))
    assert report.verdict is Verdict.ERROR
    assert report.because[0] == "samples/web.jsonl: has changed"


_ATTRIBUTES = {
    "testsuites": {"name", "tests", "failures", "errors", "skipped"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname"},
    "properties": set(),
    "property": {"name", "value"},
    "testcase": {"name", "classname", "time"},
    "failure": {"type", "message"},
    "error": {"type", "message"},
    "skipped": {"message"},
}
_CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"properties", "testcase"},
    "properties": {"property"},
    "testcase": {"failure", "error", "skipped"},
}


def check_element(element: Xml.Element) -> None:
    """The rules of the common JUnit schema: every attribute and no others; children allowed and in order."""
    assert set(element.keys()) == _ATTRIBUTES[element.tag]
    assert {child.tag for child in element} <= _CHILDREN.get(element.tag, set())
    if element.tag == "testsuite":
        tags = [child.tag for child in element]
        assert tags == sorted(tags)  # properties before testcases
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", element.get("timestamp", ""))
    if element.tag in ("testsuites", "testsuite"):
        cases = list(element.iter("testcase"))
        assert int(element.get("tests", "")) == len(cases)
        kinds = (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))
        for count, kind in kinds:
            assert int(element.get(count, "")) == sum(case.find(kind) is not None for case in cases)
    if element.tag == "testcase":
        assert len(element) <= 1
    if element.get("time") is not None:
        assert float(element.get("time", "")) >= 0
    for child in element:
        check_element(child)


@pytest.mark.seed("order JUnit report")
def test_junit_keeps_the_rules_of_the_common_schema(tmp_path: Path) -> None:
    odd = Played().changed(EffectSeen, lambda _: EffectSeen(False, "</error>\x00\x1b & more"))
    reports = [reported(tmp_path / str(at), each) for at, each in enumerate((Played(), FAILED, odd))]
    text = junit_xml(reports)
    root = Xml.fromstring(text)
    check_element(root)
    assert "\x1b" not in text
    passed, failed, error = root
    assert (passed.get("failures"), passed.get("errors")) == ("0", "0")
    assert failed.find("testcase/failure[@type='FAIL.NOT_BELOW_LIMIT']") is not None
    assert error.find("testcase/error[@type='ERROR.NO_EFFECT']") is not None


def test_junit_is_never_green_when_the_verdict_is_not(tmp_path: Path) -> None:
    near = sampled(3_000, 7_990)
    for at, played in enumerate(
        (Played(samples={"web": near, "web-there": near}), Played().without(FaultNoticed))
    ):
        report = reported(tmp_path / str(at), played)
        root = Xml.fromstring(junit_xml([report]))
        bad = int(root.get("failures", "")) + int(root.get("errors", ""))
        assert (bad == 0) == (report.verdict is Verdict.PASS)
        assert int(root.get("skipped", "")) == sum(
            not row.binding and row.result is not Verdict.PASS for row in report.rows
        )


@pytest.mark.seed("order self-contained HTML with the outage drawn per layer")
def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    report = reported(
        tmp_path / "r", Played().changed(EffectSeen, lambda _: EffectSeen(True, "<script>alert(1)"))
    )
    page = html_page([report])
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"(src|href)=|url\(|@import", page)
    assert page.count("<svg") == len(report.layers) + 2
    for row in report.rows:
        assert row.requirement in page


def test_the_picture_draws_bounds_where_they_are(tmp_path: Path) -> None:
    drawn = outage_chart(reported(tmp_path / "r", FAILED))
    assert [lane.layer for lane in drawn.lanes] == ["service", "backend", "process"]
    (band,) = drawn.lanes[0].bands
    assert band.x <= band.sure_x
    assert band.sure_x + band.sure_width <= band.x + band.width
    (endless,) = drawn.lanes[1].bands
    assert "had not ended" in endless.words
    for lane in drawn.lanes:
        for each in lane.bands:
            assert 0 <= each.x <= each.x + each.width <= 100.4
    assert all(0 <= mark.x <= 100 for mark in (*drawn.marks, *drawn.ticks))


def test_a_flawless_run_has_a_picture_too(tmp_path: Path) -> None:
    quiet = Played(samples={"web": sampled(0, 0), "web-there": sampled(0, 0)})
    drawn = outage_chart(reported(tmp_path / "r", quiet))
    assert drawn.lanes[0].words == "never seen out"
    assert (
        outage_chart(reported(tmp_path / "e", Played(facts=[], samples={}, sightings={}))).lanes[0].words
        == "no samples"
    )


def test_runs_together_count_whole_verdicts(tmp_path: Path) -> None:
    reports = [reported(tmp_path / str(at), each) for at, each in enumerate((Played(), FAILED))]
    web = next(each for each in repeats_of(reports) if each.what.startswith("outage of web <"))
    assert web.results == (Verdict.PASS, Verdict.FAIL)
    assert repeats_of(reports[:1]) == []


@pytest.mark.seed("order only PASS exits 0; each other verdict has its own code")
@pytest.mark.parametrize(
    ("played", "code"),
    [(Played(), 0), (FAILED, 10), (Played().without(EffectSeen), 12)],
)
def test_verify_and_report_exit_with_the_verdict(tmp_path: Path, played: Played, code: int) -> None:
    folder = str(finished(tmp_path / "drills" / "r-1", played))
    assert run("verify", folder)[0] == code
    assert run("verify", "r-1", "--dir", str(tmp_path))[0] == code
    for form in ("console", "json", "junit", "html"):
        exit_code, said = run("report", folder, "-f", form)
        assert exit_code == code
        assert "service-down" in said


def test_verify_of_changed_evidence_exits_as_an_error(tmp_path: Path) -> None:
    folder = finished(tmp_path / "r")
    rewritten(folder / "samples/web.jsonl", "")
    code, said = run("verify", str(folder))
    assert code == 12
    assert "EVIDENCE NOT VALID" in said


def test_a_report_goes_into_a_file(tmp_path: Path) -> None:
    folder = str(finished(tmp_path / "r"))
    assert run("report", folder, "-f", "html", "-o", str(tmp_path / "out.html"))[0] == 0
    assert (tmp_path / "out.html").read_text().startswith("<!doctype html>")
    assert run("report", folder, "-o", str(tmp_path / "out"))[0] == 2
    assert run("report", folder, "-f", "json", "-o", str(tmp_path / "no" / "out"))[0] == 2
    assert run("verify", str(tmp_path / "nothing"))[0] == 4


def test_check_ls_and_show(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    good, bad = own / "good.yaml", tmp_path / "bad.yaml"
    assert run("show", "service-down")[0] == 0
    good.write_text(run("show", "service-down")[1].replace("drill: service-down", "drill: mine"))
    bad.write_text("drill: mine\n")
    assert run("check", str(good))[0] == 0
    code, said = run("check", str(good), str(bad))
    assert code == 2
    assert f"{bad}:1: fault: it must be there" in said
    assert "mine" in {
        each["id"] for each in json.loads(run("ls", "--drills", str(own), "--json")[1])["items"]
    }
    listed = json.loads(run("ls", "--json")[1])["items"]
    assert {"service-down", "lab"} <= {each["id"] for each in listed}
    assert run("show", "tc003")[0] == 2
    assert run("show", "nothing")[0] == 4
    assert run("show", "service-down", "--shuffle")[0] == 2
    shuffled = json.loads(run("show", "lab", "--shuffle", "--seed", "3", "--json")[1])
    assert sorted(shuffled["drills"]) == sorted(json.loads(run("show", "lab", "--json")[1])["drills"])


def test_verdict_json_is_what_the_report_says(tmp_path: Path) -> None:
    report = reported(tmp_path / "r")
    record = judgement_record(judge(Played().evidence))
    assert [row.model_dump(mode="json") for row in report.rows] == record["rows"]
