"""Where everything of a report's picture stands, in percent of its width. Pure; no colours, no HTML.

A band is drawn from the earliest beginning to the latest end of an outage, and within it, solid, the time
that was out for sure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from homeostat.drills.model import Layer
from homeostat.drills.reports.model import DrillReport, EpisodeReport, LayerReport
from homeostat.drills.reports.words import span

_BEFORE_SHARE = 0.06
_AFTER_SHARE = 1.12
_SHORTEST_MS = 1_000.0
_TICKS_MAX = 4
_TOLD = 3
_VISIBLE = 0.35
"""Percent of the width: what is shorter could not be seen."""


@dataclass(frozen=True, slots=True)
class Band:
    """One outage. `x`, `width`: all that may have been out; `sure_x`, `sure_width`: what was."""

    x: float
    width: float
    sure_x: float
    sure_width: float
    words: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One monitor."""

    monitor: str
    layer: str
    bands: tuple[Band, ...]
    words: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line; `anchor` keeps its words within the picture."""

    x: float
    words: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Picture:
    """Lanes, the user's first and the deepest last; marks; ticks of the time axis."""

    lanes: tuple[Lane, ...]
    marks: tuple[Mark, ...]
    ticks: tuple[Mark, ...]


def picture(report: DrillReport) -> Picture:
    """From shortly before the fault to shortly after the last thing that happened."""
    ends = [
        *(mark.at_ms for mark in report.marks),
        *(_end(each, report) for layer in report.layers for each in layer.episodes),
        _SHORTEST_MS,
    ]
    last_ms = max(ends)
    from_ms, to_ms = -last_ms * _BEFORE_SHARE, last_ms * _AFTER_SHARE

    def at(ms: float) -> float:
        return round(min(100.0, max(0.0, (ms - from_ms) / (to_ms - from_ms) * 100)), 3)

    depth = {layer.value: number for number, layer in enumerate(Layer)}
    layers = sorted(report.layers, key=lambda layer: -depth[layer.layer])
    lanes = tuple(_lane(layer, report, at) for layer in layers)
    marks = tuple(
        _mark(at(mark.at_ms), mark.name if not mark.at_ms else f"{mark.name} {span(mark.at_ms)}")
        for mark in sorted(report.marks, key=lambda mark: mark.at_ms)
    )
    step = _step(to_ms)
    inside = [number * step for number in range(int(to_ms // step) + 1)]
    return Picture(lanes, marks, tuple(_mark(at(ms), span(ms) if ms else "0") for ms in inside))


def _end(episode: EpisodeReport, report: DrillReport) -> float:
    if episode.until_ms is not None:
        return episode.until_ms
    return max(report.window_ms or 0.0, episode.from_ms + episode.lower_ms)


def _lane(layer: LayerReport, report: DrillReport, at: Callable[[float], float]) -> Lane:
    bands = tuple(_band(each, report, at) for each in layer.episodes)
    if not layer.samples:
        words = "no samples"
    elif not bands:
        words = "never seen out"
    else:
        words = ", ".join(band.words for band in bands[:_TOLD]) + (" ..." if len(bands) > _TOLD else "")
    return Lane(layer.monitor, layer.layer, bands, words)


def _band(episode: EpisodeReport, report: DrillReport, at: Callable[[float], float]) -> Band:
    """What was out for sure stands in the middle of what may have been."""
    end_ms = _end(episode, report)
    slack_ms = max(0.0, end_ms - episode.from_ms - episode.lower_ms)
    sure_from_ms = episode.from_ms + (slack_ms / 2 if episode.until_ms is not None else slack_ms)
    x, sure_x = at(episode.from_ms), at(sure_from_ms)
    width = max(_VISIBLE, at(end_ms) - x)
    sure_width = at(sure_from_ms + episode.lower_ms) - sure_x
    if episode.upper_ms is None:
        words = f"at least {span(episode.lower_ms)}, had not ended"
    else:
        words = f"{span(episode.lower_ms)} to {span(episode.upper_ms)}"
    return Band(x, round(width, 3), sure_x, round(max(0.0, sure_width), 3), words)


def _mark(x: float, words: str) -> Mark:
    return Mark(x, words, "start" if x < 6 else "end" if x > 90 else "middle")


def _step(span_ms: float) -> float:
    """A round distance of ticks, so that there are few of them."""
    for power in count():
        for factor in (1, 2, 5):
            step = float(factor * 10**power)
            if span_ms / step <= _TICKS_MAX:
                return step
    raise AssertionError("unreachable")
