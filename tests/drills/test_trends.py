"""The outages of one drill over its runs: bounds, statement, in text and as a picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from played_run import Played, finished, sampled

from homeostat.drills.cli import sparkline, trend_lines
from homeostat.drills.records.history import read_cleanup
from homeostat.drills.reports.model import DrillReport, report_of
from homeostat.drills.reports.trends import Trend, trend_picture, trends_of
from homeostat.drills.verdicts.evaluation import verify
from homeostat.monitors.verdicts import Verdict


def reports(folder: Path, *outs_ms: int) -> list[DrillReport]:
    """Runs that were out for so long."""
    made = []
    for number, out_ms in enumerate(outs_ms):
        web = sampled(3_000, 3_000 + out_ms)
        path = finished(
            folder / f"r-{number}", Played(samples={"web": web, "web-there": sampled(3_000, 3_600)})
        )
        report = report_of(verify(path), read_cleanup(path))
        made.append(report.model_copy(update={"run": f"r-{number}"}))
    return made


def outage(trends: list[Trend]) -> Trend:
    return next(each for each in trends if each.monitor == "web")


@pytest.mark.seed("order database history and trends: repeats give the statistical statement")
def test_a_trend_has_the_bounds_of_every_run_and_what_they_prove(tmp_path: Path) -> None:
    made = reports(tmp_path, 400, 600, 1_000)
    trend = outage(trends_of(made))
    assert [each.run for each in trend.points] == ["r-0", "r-1", "r-2"]
    for point, out_ms in zip(trend.points, (400, 600, 1_000), strict=True):
        assert point.lower_ms is not None
        assert point.upper_ms is not None
        assert point.lower_ms <= out_ms <= point.upper_ms
    assert trend.statement.startswith("all 3 runs passed; at most 63.2% do not")
    assert trends_of([]) == []
    assert outage(trends_of(made[:1])).statement == "", "one run proves nothing together"


def test_a_run_that_failed_is_counted_and_59_clean_ones_bound_the_percentile(tmp_path: Path) -> None:
    good, bad = reports(tmp_path, 400, 6_000)
    assert bad.verdict is Verdict.FAIL
    assert outage(trends_of([good, bad])).statement.startswith("1 of 2 runs passed")
    many = outage(trends_of([good] * 59)).statement
    assert "the 95th percentile is at most" in many
    assert "below the limit of 5000 ms" in many


def test_it_is_drawn_in_text_against_its_limit(tmp_path: Path) -> None:
    trend = outage(trends_of(reports(tmp_path, 400, 6_000))).model_dump(mode="json")
    head, drawn, first, second, said = trend_lines(trend)
    assert "service-down" in head
    assert "limit 5.00 s" in head
    assert drawn.strip().startswith("▁█")
    assert "PASS" in first
    assert "FAIL" in second
    assert "1 of 2 runs passed" in said
    assert sparkline([{"lower_ms": None, "upper_ms": None}, {"lower_ms": 1, "upper_ms": None}], 5) == "·█"


def test_the_picture_keeps_every_bar_within_and_tells_the_open_and_the_unmeasured(tmp_path: Path) -> None:
    trend = outage(trends_of(reports(tmp_path, 400, 6_000)))
    points = [
        *trend.points,
        trend.points[0].model_copy(update={"upper_ms": None}),
        trend.points[0].model_copy(update={"lower_ms": None, "upper_ms": None, "verdict": Verdict.ERROR}),
    ]
    drawn = trend_picture(trend.model_copy(update={"points": points}))
    assert [each.kind for each in drawn.bars] == ["pass", "fail", "pass", "none"]
    assert [each.open for each in drawn.bars] == [False, False, True, False]
    assert drawn.bars[3].height == 0
    assert drawn.bars[0].y > drawn.limit_y > drawn.bars[1].y, "below the limit, and above it"
    for bar in drawn.bars:
        assert 0 <= bar.y <= bar.y + bar.height <= 100.01
        assert 0 <= bar.x <= bar.x + bar.width <= 100
    assert drawn.words.endswith("not measured, ERROR")
