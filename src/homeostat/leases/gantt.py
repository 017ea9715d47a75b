"""The picture of hosts and leases over time: bars in their places, free slots, failures, holds, moves. Pure.

Places are per cent of the width and pixels of the height, so that one picture fits every window. Invariants:
no two bars of a host lie on each other, and a free slot touches nothing that holds the host or keeps it from
being booked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from homeostat.contracts.nouns import HostId

HOUR_NS = 3_600 * 10**9
DAY_NS = 24 * HOUR_NS
PAST_SHARE = 0.15
"""So much of the picture is past: what failed and moved just now is to be seen."""
NO_HOST = HostId("")
"""The row of what has no host."""
TICKS_MAX = 7
_STEPS_NS = tuple(hours * HOUR_NS for hours in (1, 2, 3, 6, 12, 24, 48, 96, 168))
_AXIS, _LABEL, _LANE, _LANE_GAP, _ROW_GAP = 22, 20, 18, 2, 10
_NARROWEST = 0.25


class BarKind(StrEnum):
    """How a bar is drawn."""

    ACTIVE = "active"
    PENDING = "pending"
    MISSING = "missing"
    FREE = "free"
    FAILED = "failed"
    UNKNOWN = "unknown"
    HELD = "held"


BACKGROUND = frozenset({BarKind.FREE, BarKind.FAILED, BarKind.UNKNOWN, BarKind.HELD})
"""They fill the height of their row, behind the leases."""


@dataclass(frozen=True, slots=True)
class Span:
    """Something on a host from one moment to another; `end_ns` None: nobody knows its end.

    `label` is written into the bar, `words` say all of it. `is_doubtful`: at risk if one host fails.
    """

    host: HostId
    kind: BarKind
    start_ns: int
    end_ns: int | None
    label: str
    words: str
    is_doubtful: bool = False


@dataclass(frozen=True, slots=True)
class ChartMove:
    """A reservation left `old` for `new`; NO_HOST where it had none."""

    at_ns: int
    old: HostId
    new: HostId
    words: str


@dataclass(frozen=True, slots=True)
class ChartHost:
    """A row: its name, and what is said of it in a few words."""

    host: HostId
    name: str
    state: str
    about: str = ""


@dataclass(frozen=True, slots=True)
class ChartWindow:
    """What is drawn: from `start_ns` to `end_ns`; `now_ns` is marked."""

    start_ns: int
    end_ns: int
    now_ns: int

    def x(self, at_ns: int) -> float:
        """Per cent of the width, kept within the picture."""
        share = (at_ns - self.start_ns) / (self.end_ns - self.start_ns)
        return round(100 * min(1.0, max(0.0, share)), 2)

    def touches(self, span: Span) -> bool:
        return span.start_ns < self.end_ns and (span.end_ns is None or span.end_ns > self.start_ns)


@dataclass(frozen=True, slots=True)
class ChartBar:
    """A span in its place."""

    span: Span
    x: float
    width: float
    y: int
    height: int


@dataclass(frozen=True, slots=True)
class ChartRow:
    """A host: its label stands at `y`, its rail below that."""

    host: ChartHost
    y: int
    height: int
    background: tuple[ChartBar, ...]
    bars: tuple[ChartBar, ...]

    @property
    def rail_y(self) -> int:
        return self.y + _LABEL


@dataclass(frozen=True, slots=True)
class ChartArrow:
    """A move, from one row to another."""

    x: float
    from_y: int
    to_y: int
    words: str


@dataclass(frozen=True, slots=True)
class ChartTick:
    x: float
    word: str


@dataclass(frozen=True, slots=True)
class GanttChart:
    """The whole picture; `height` in pixels, the axis on top of it."""

    rows: tuple[ChartRow, ...]
    arrows: tuple[ChartArrow, ...]
    ticks: tuple[ChartTick, ...]
    now_x: float
    height: int
    words: str


def window_of(now_ns: int, length_ns: int) -> ChartWindow:
    start_ns = now_ns - round(length_ns * PAST_SHARE)
    return ChartWindow(start_ns, start_ns + length_ns, now_ns)


def gantt_chart(
    hosts: Sequence[ChartHost], spans: Iterable[Span], moves: Iterable[ChartMove], window: ChartWindow
) -> GanttChart:
    """Every span of these hosts in its place; what is outside of the window is left out."""
    by_host: dict[HostId, list[Span]] = {each.host: [] for each in hosts}
    for span in spans:
        if span.host in by_host and window.touches(span):
            by_host[span.host].append(span)
    rows, y = [], _AXIS
    for host in hosts:
        row = _row(host, by_host[host.host], y, window)
        rows.append(row)
        y = row.rail_y + row.height + _ROW_GAP
    return GanttChart(
        tuple(rows),
        tuple(_arrows(rows, moves, window)),
        _ticks(window),
        window.x(window.now_ns),
        y,
        _words(rows),
    )


def free_spans(host: HostId, taken: Iterable[Span], window: ChartWindow, cleaning_ns: int = 0) -> list[Span]:
    """The gaps between what holds a host, from now on; the cleaning time on both sides is not free."""
    blocked = sorted(
        (
            each.start_ns - cleaning_ns,
            window.end_ns if each.end_ns is None else each.end_ns + cleaning_ns,
        )
        for each in taken
        if window.touches(each)
    )
    found, at_ns = [], max(window.now_ns, window.start_ns)
    for start_ns, end_ns in (*blocked, (window.end_ns, window.end_ns)):
        if start_ns > at_ns:
            until = "" if start_ns >= window.end_ns else f" to {_minute(start_ns)}"
            words = f"free from {_minute(at_ns)}{until}"
            found.append(Span(host, BarKind.FREE, at_ns, min(start_ns, window.end_ns), "free", words))
        at_ns = max(at_ns, end_ns)
    return found


def _row(host: ChartHost, spans: Sequence[Span], y: int, window: ChartWindow) -> ChartRow:
    lanes: list[int] = []
    placed: list[tuple[int, Span]] = []
    order = sorted(spans, key=lambda each: (each.start_ns, each.end_ns or window.end_ns, each.label))
    for span in order:
        if span.kind in BACKGROUND:
            continue
        end_ns = window.end_ns if span.end_ns is None else span.end_ns
        lane = next((number for number, until in enumerate(lanes) if until <= span.start_ns), len(lanes))
        lanes[lane : lane + 1] = [end_ns]
        placed.append((lane, span))
    count = max(1, len(lanes))
    height = count * _LANE + (count - 1) * _LANE_GAP
    top = y + _LABEL

    def bar(span: Span, y: int, height: int) -> ChartBar:
        left = window.x(span.start_ns)
        right = window.x(window.end_ns if span.end_ns is None else span.end_ns)
        wide = max(_NARROWEST, round(right - left, 2))
        return ChartBar(span, min(left, 100 - wide), wide, y, height)

    return ChartRow(
        host,
        y,
        height,
        tuple(bar(each, top, height) for each in order if each.kind in BACKGROUND),
        tuple(bar(span, top + lane * (_LANE + _LANE_GAP), _LANE) for lane, span in placed),
    )


def _arrows(
    rows: Sequence[ChartRow], moves: Iterable[ChartMove], window: ChartWindow
) -> Iterable[ChartArrow]:
    places = {row.host.host: row for row in rows}
    for move in moves:
        old, new = places.get(move.old), places.get(move.new)
        if old is None or new is None or not window.start_ns <= move.at_ns <= window.end_ns:
            continue
        down = new.y > old.y
        from_y = old.rail_y + (old.height if down else 0)
        to_y = new.rail_y + (0 if down else new.height)
        yield ChartArrow(window.x(move.at_ns), from_y, to_y, move.words)


def _ticks(window: ChartWindow) -> tuple[ChartTick, ...]:
    length_ns = window.end_ns - window.start_ns
    step_ns = next((each for each in _STEPS_NS if length_ns / each <= TICKS_MAX), _STEPS_NS[-1])
    first = -(-window.start_ns // step_ns) * step_ns
    return tuple(
        ChartTick(window.x(at_ns), _tick(at_ns, step_ns)) for at_ns in range(first, window.end_ns, step_ns)
    )


def _tick(at_ns: int, step_ns: int) -> str:
    at = _utc(at_ns)
    if step_ns >= DAY_NS or at_ns % DAY_NS == 0:
        return f"{at.day} {at:%b}"
    return f"{at:%H:%M}"


def _words(rows: Sequence[ChartRow]) -> str:
    kinds = [each.span.kind for row in rows for each in (*row.bars, *row.background)]
    hosts = sum(row.host.host != NO_HOST for row in rows)
    leases = sum(kind in (BarKind.ACTIVE, BarKind.PENDING) for kind in kinds)
    free = kinds.count(BarKind.FREE)
    missing = kinds.count(BarKind.MISSING)
    said = f"{_count(hosts, 'host')}, {_count(leases, 'reserved slot')}, {_count(free, 'free slot')}"
    return said + (f", {missing} without a host" if missing else "")


def _count(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _utc(at_ns: int) -> datetime:
    return datetime.fromtimestamp(at_ns // 10**9, UTC)


def _minute(at_ns: int) -> str:
    return f"{_utc(at_ns):%Y-%m-%d %H:%M}"


def minutes(start_ns: int, end_ns: int) -> str:
    """A window in words, in UTC."""
    start, end = _utc(start_ns), _utc(end_ns)
    same_day = start.date() == end.date()
    return f"{_minute(start_ns)} to {f'{end:%H:%M}' if same_day else _minute(end_ns)}"


def merged(spans: Iterable[Span]) -> list[Span]:
    """Slots of one lease on one host as one bar, with their number."""
    found: dict[tuple[object, ...], Span] = {}
    counts: dict[tuple[object, ...], int] = {}
    for span in spans:
        key = (span.host, span.kind, span.start_ns, span.end_ns, span.label, span.words)
        counts[key] = counts.get(key, 0) + 1
        found.setdefault(key, span)
    return [
        span if counts[key] == 1 else replace(span, label=f"{span.label} ×{counts[key]}")
        for key, span in found.items()
    ]
