"""The pages of faults: the list, and one fault with its timeline as a picture and its chain in sentences.

The picture is lanes on a time axis, made by pure functions, and the checkpoints as a table with bars. The
axis is logarithmic: what follows a fault within milliseconds and what ends it after seconds are seen side by
side. Positions are percent of the width, so that the same picture fits a phone and a wall.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import JSONResponse, Response

from homeostat.contracts.events import faults, fleet, notices, resources
from homeostat.contracts.faults import FaultState
from homeostat.faults import api
from homeostat.faults.api import CurrentFaultsApi, explain_events
from homeostat.faults.checkpoints import Checkpoint, CheckpointKind, Timeline
from homeostat.faults.panels import WINDOW_S, chart_columns, faults_of_last_hour
from homeostat.kernel.access import Caller
from homeostat.kernel.errors import NotFound
from homeostat.kernel.journal import Envelope
from homeostat.web.page_route import CurrentConsole, CurrentVisitor, PageRoute, show_page

_MARKS_MS = (0, 1, 10, 100, 1_000, 10_000, 60_000, 600_000, 3_600_000, 36_000_000, 864_000_000)
_WORDS = ("0", "1 ms", "10 ms", "100 ms", "1 s", "10 s", "1 min", "10 min", "1 h", "10 h", "10 d")
_NARROWEST = 0.6


@dataclass(frozen=True, slots=True)
class TimelineLane:
    """One line of the picture. `end_ms` is None for what is not over; a moment ends when it begins."""

    label: str
    kind: str
    start_ms: float
    end_ms: float | None


@dataclass(frozen=True, slots=True)
class TimelineBar:
    """A lane in its place: `x` and `width` in percent of the picture's, `time` is written beside it."""

    label: str
    kind: str
    x: float
    width: float
    time: str


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A checkpoint as a line of a table. `width` is that of its bar, in percent; None: no bar.

    `took` is since the checkpoint before it on the way, `at` since the first; empty when it is not known.
    """

    id: str
    label: str
    band: str
    kind: str
    width: float | None
    took: str
    at: str
    what: str


@dataclass(frozen=True, slots=True)
class TimelinePicture:
    """Bars from top to bottom, and marks of the axis as (percent, word)."""

    bars: tuple[TimelineBar, ...]
    marks: tuple[tuple[float, str], ...]


def lanes(chain: Sequence[Envelope]) -> list[TimelineLane]:
    """What happened, as it began; an end is joined to its beginning by cause or by fault."""
    if not chain:
        return []
    zero_ns = min(each.at_ns for each in chain)
    ends = {each.cause: each for each in chain if isinstance(each.event, _ENDS)}
    acts = {each.seq for each in chain if isinstance(each.event, resources.ActionIntended)}
    cleared = next((each for each in chain if isinstance(each.event, faults.FaultCleared)), None)

    def after_ms(each: Envelope | None) -> float | None:
        return None if each is None else max(0.0, (each.at_ns - zero_ns) / 1e6)

    found: list[TimelineLane] = []
    for each in chain:
        start_ms = after_ms(each) or 0.0
        match each.event:
            case faults.FaultRaised():
                found.append(TimelineLane("the fault is open", "fault", start_ms, after_ms(cleared)))
            case resources.ActionIntended():
                found.append(TimelineLane(_act(each), "act", start_ms, after_ms(ends.get(each.seq))))
            case fleet.HostMarked() if each.cause in acts:
                continue  # the act's own lane ends with it
            case notices.NoticeQueued(key=key, transition=transition):
                name = key.partition(":")[0]
                end = ends.get(each.seq)
                given_up = end is not None and isinstance(end.event, notices.NoticeGivenUp)
                words = (
                    f"notice to {name} given up: {transition}"
                    if given_up
                    else f"notice to {name}: {transition}"
                )
                found.append(TimelineLane(words, "lost" if given_up else "told", start_ms, after_ms(end)))
            case faults.FaultCleared():
                found.append(TimelineLane("over", "good", start_ms, start_ms))
                told_ms = [after_ms(other) or 0.0 for other in chain if other.cause == each.seq]
                if told_ms and min(told_ms) > start_ms:
                    found.append(
                        TimelineLane("watched until it counts as over", "held", start_ms, min(told_ms))
                    )
            case event if isinstance(event, _ENDS):
                continue
            case _:
                found.append(TimelineLane(*_moment(each), start_ms, start_ms))
    return sorted(found, key=lambda lane: (lane.start_ms, lane.kind != "seen", lane.kind != "fault"))


_ENDS = (resources.ActionFinished, notices.NoticeDelivered, notices.NoticeGivenUp)


_ACTS = {
    "mark_down": "cloud: {} is down",
    "set_error": "cloud: guests of {} in error",
    "mark_up": "cloud: {} is back",
    "clear_error": "cloud: guests of {} as seen",
    "fence": "{} is fenced",
}


def _act(each: Envelope) -> str:
    """What is done, in words where we have some."""
    assert isinstance(each.event, resources.ActionIntended)
    words, name = _ACTS.get(each.event.verb), each.subject.partition("/")[2]
    return f"{each.event.owner_of_act}: {each.event.verb}" if words is None else words.format(name)


def _moment(each: Envelope) -> tuple[str, str]:
    match each.event:
        case fleet.HostDown(host=host):
            return f"{host} is declared down", "seen"
        case fleet.HostBack(host=host):
            return f"{host} is back", "good"
        case fleet.HostFenced(host=host):
            return f"nothing runs on {host} any more", "good"
        case fleet.HostMarked(host=host, mark=mark):
            return _ACTS[mark.value].format(host), "act"
        case (
            resources.GuestMoved(resource=resource, host=host)
            | resources.GuestFound(resource=resource, host=host)
        ):
            return f"{resource} belongs to {host} now", "act"
        case resources.GuestStranded(resource=resource):
            return f"{resource} is not started on any host for now", "lost"
        case fleet.ActRefused(act=act):
            return f"not done: {act.replace('_', ' ')}", "lost"
        case resources.ResourceDown(resource=resource, state=state):
            return f"{each.origin} sees {resource} {state}", "seen"
        case resources.ResourceUp(resource=resource):
            return f"{each.origin} sees {resource} up", "good"
        case fleet.AgentLost(host=host):
            return f"node/{host} is silent", "seen"
        case fleet.AgentReturned(host=host):
            return f"node/{host} reports again", "good"
        case _:
            return f"{each.kind} by {each.origin}", "seen"


def timeline_picture(found: Sequence[TimelineLane], now_ms: float) -> TimelinePicture:
    """Lanes in their places. `now_ms` is how far the axis goes when something is not over."""
    ends = [lane.start_ms if lane.end_ms is None else lane.end_ms for lane in found]
    running = any(lane.end_ms is None for lane in found)
    longest_ms = max([1.0, *ends, *([now_ms] if running else [])])

    def x(ms: float) -> float:
        return 100 * math.log1p(ms) / math.log1p(longest_ms)

    def bar(lane: TimelineLane) -> TimelineBar:
        left, right = x(lane.start_ms), x(longest_ms if lane.end_ms is None else lane.end_ms)
        wide = max(_NARROWEST, right - left)
        return TimelineBar(
            lane.label, lane.kind, round(min(left, 100 - wide), 2), round(wide, 2), _time(lane)
        )

    return TimelinePicture(tuple(bar(lane) for lane in found), tuple(_marks(x, longest_ms)))


def checkpoint_rows(view: Timeline) -> list[CheckpointRow]:
    """The checkpoints in their order, each with the time that it took. Bars are logarithmic.

    An act beside the way is counted from what was found before it, and nobody waited for it.
    """
    bands = {step.label: step.band for step in CheckpointKind}
    took: dict[str, float] = {span.end: span.ms for span in view.spans}
    before: float | None = None
    for point in view.checkpoints:
        if point.beside and point.ms is not None and before is not None:
            took[point.id] = point.ms - before
        if point.ms is not None:
            before = point.ms
    longest_ms = max([1.0, *took.values()])
    return [
        _checkpoint_row(point, bands[point.name], took.get(point.id), longest_ms)
        for point in view.checkpoints
    ]


def _checkpoint_row(point: Checkpoint, band: str, took_ms: float | None, longest_ms: float) -> CheckpointRow:
    kind = "missing" if point.ms is None else "beside" if point.beside else "on"
    width = (
        None if took_ms is None else 100 * math.log1p(10 * max(0.0, took_ms)) / math.log1p(10 * longest_ms)
    )
    return CheckpointRow(
        id=point.id,
        label=point.name,
        band=band,
        kind=kind,
        width=width,
        took="" if took_ms is None else _ms(took_ms) if took_ms >= 0.05 or took_ms < 0 else "< 0.1 ms",
        at="" if point.ms is None else _ms(point.ms),
        what=point.what,
    )


def _marks(x: object, longest_ms: float) -> Iterator[tuple[float, str]]:
    assert callable(x)
    for ms, word in zip(_MARKS_MS, _WORDS, strict=True):
        if ms <= longest_ms:
            yield round(x(ms), 2), word


def _time(lane: TimelineLane) -> str:
    start = f"at {_ms(lane.start_ms)}"
    if lane.end_ms is None:
        return f"{start}, goes on"
    took_ms = lane.end_ms - lane.start_ms
    return start if took_ms == 0 else f"{start}, for {_ms(took_ms)}"


def _ms(ms: float) -> str:
    if ms < 100:
        return "0 ms" if ms == 0 else f"{ms:.1f} ms"
    if ms < 1_000:
        return f"{ms:.0f} ms"
    return f"{ms / 1_000:.2f} s" if ms < 120_000 else f"{ms / 60_000:.0f} min"


router = APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)


AFFECTED_ROWS = 60


@router.get("/faults")
async def fault_list(
    request: Request, visitor: CurrentVisitor, parts: CurrentFaultsApi, state: FaultState | None = None
) -> Response:
    """The newest faults first."""
    rows = (await api.list_faults(visitor.caller, parts, state, 100)).items
    return show_page(
        request, "faults.html", visitor, "faults", faults=rows, state=state, states=list(FaultState)
    )


@router.get("/faults/{fault}")
async def one_fault(
    request: Request,
    fault: Annotated[str, Path(max_length=200)],
    visitor: CurrentVisitor,
    console: CurrentConsole,
    parts: CurrentFaultsApi,
) -> Response:
    """One fault: its chain as a picture and in sentences."""
    row = await api.show_fault(fault, visitor.caller, parts)
    chain = await api.chain_of(fault, visitor.caller, parts)
    view = await _timeline(fault, visitor.caller, parts)
    now_ms = (console.clock.wall_ns() - min(each.at_ns for each in chain)) / 1e6
    return show_page(
        request,
        "fault.html",
        visitor,
        "faults",
        fault=row,
        chain=explain_events(chain, parts.view.sentence),
        picture=timeline_picture(lanes(chain), now_ms),
        view=view,
        way=[] if view is None else checkpoint_rows(view),
        most=AFFECTED_ROWS,
    )


async def _timeline(fault: str, caller: Caller, parts: api.FaultsApi) -> Timeline | None:
    """None when the journal has none any more."""
    try:
        return await api.show_timeline(fault, caller, parts)
    except NotFound:
        return None


@router.get("/figures")
async def last_hour_chart(visitor: CurrentVisitor, console: CurrentConsole) -> Response:
    """The numbers of the chart on the front page."""
    now_ns = console.clock.wall_ns()
    points = await console.readers.read(partial(faults_of_last_hour, caller=visitor.caller, now_ns=now_ns))
    shown = chart_columns(points)
    return JSONResponse({**shown, "from": now_ns / 1e9 - WINDOW_S, "to": now_ns / 1e9})
