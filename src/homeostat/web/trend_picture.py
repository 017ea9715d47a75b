"""Where the outage of each run stands in the picture of a trend: percent across, percent down. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from homeostat.drills.reports.trends import Trend, TrendPoint
from homeostat.monitors.verdicts import Verdict
from homeostat.web.rendering import duration

_ROOM = 1.15
"""What is above the highest value, so that it does not touch the edge."""
_THIN = 2.5
"""Percent of the height: what is lower could not be seen."""
_WIDEST, _GAP = 4.0, 0.75


@dataclass(frozen=True, slots=True)
class Bar:
    """One run, from lower to upper bound; `open`: it had not ended. Without height it is a mark."""

    run: str
    x: float
    width: float
    y: float
    height: float
    kind: str
    open: bool
    words: str


@dataclass(frozen=True, slots=True)
class TrendPicture:
    """`limit_y` is where the limit is drawn; `words` says the newest run to who cannot see the picture."""

    bars: tuple[Bar, ...]
    limit_y: float
    words: str


def trend_picture(trend: Trend) -> TrendPicture:
    """Oldest on the left; time goes by runs and not by days."""
    values = [each for point in trend.points for each in (point.lower_ms, point.upper_ms) if each is not None]
    top_ms = max(trend.limit_ms, *values, 1.0) * _ROOM if values else trend.limit_ms * _ROOM
    step = min(100.0 / max(1, len(trend.points)), _WIDEST)
    bars = tuple(
        _bar(point, (number * step, step * _GAP), top_ms) for number, point in enumerate(trend.points)
    )
    newest = trend.points[-1]
    words = (
        f"{len(bars)} {'run' if len(bars) == 1 else 'runs'}; newest {_said(newest)}, {newest.verdict.value}"
    )
    return TrendPicture(bars, round(100 - trend.limit_ms / top_ms * 100, 2), words)


def _bar(point: TrendPoint, place: tuple[float, float], top_ms: float) -> Bar:
    x, width = (round(each, 3) for each in place)
    kind = {Verdict.PASS: "pass", Verdict.FAIL: "fail"}.get(point.verdict, "none")
    words = f"{point.run}, {point.began_at[:19].replace('T', ' ')}: {_said(point)}, {point.verdict.value}"
    if point.lower_ms is None:
        return Bar(point.run, x, width, 100.0, 0.0, kind, False, words)
    upper_ms = top_ms if point.upper_ms is None else point.upper_ms
    height = max(_THIN, (upper_ms - point.lower_ms) / top_ms * 100)
    y = min(100 - height, max(0.0, 100 - upper_ms / top_ms * 100))
    return Bar(point.run, x, width, round(y, 2), round(height, 2), kind, point.upper_ms is None, words)


def _said(point: TrendPoint) -> str:
    if point.lower_ms is None:
        return "not measured"
    if point.upper_ms is None:
        return f"at least {duration(point.lower_ms)}"
    return f"{duration(point.lower_ms)} to {duration(point.upper_ms)}"
