"""A chain becomes a picture."""

from __future__ import annotations

from dataclasses import asdict, replace

from hypothesis import given
from hypothesis import strategies as st

from homeostat.components import journal_view
from homeostat.contracts.events.faults import FaultCleared, FaultRaised
from homeostat.contracts.events.notices import NoticeDelivered, NoticeGivenUp, NoticeQueued
from homeostat.contracts.events.resources import ActionFinished, ActionIntended, ResourceDown, ResourceUp
from homeostat.contracts.nouns import FaultId, FaultKind, HostId, Owner, ResourceId, ResourceKind, Severity
from homeostat.faults.api import explain_events
from homeostat.faults.checkpoints import Numbering
from homeostat.faults.pages import TimelineLane, lanes, timeline_picture
from homeostat.faults.timeline import timeline
from homeostat.kernel.journal import Envelope, Seq

F, R, H, BLUE = FaultId("f-1"), ResourceId("web"), HostId("n1"), Owner("blue")
START_NS = 1_700_000_000_000_000_000


def event(seq: int, at_ms: float, what: object, cause: int | None = None) -> Envelope:
    at_ns = START_NS + round(at_ms * 1e6)
    name = type(what).__name__
    return Envelope(
        Seq(seq), name, 1, "x/y", None if cause is None else Seq(cause), "t", at_ns, "node/n1", {}, what
    )


def whole_chain() -> list[Envelope]:
    return [
        event(1, 0, ResourceDown(R, H, ResourceKind.SERVICE, BLUE, "down", "died", START_NS)),
        event(
            2, 0, FaultRaised(F, FaultKind.RESOURCE_DOWN, Severity.MAJOR, "resource/web", BLUE, "died", 0), 1
        ),
        event(3, 0, ActionIntended("a-1", "restart", "node/n1", 50.0, "died"), 1),
        event(4, 2, NoticeQueued("s:f-1:raised", "s", F, "raised"), 2),
        event(5, 9, NoticeDelivered("s:f-1:raised", "s", 1), 4),
        event(6, 300, ActionFinished("a-1", "ok", 298.0, "restarted"), 3),
        event(7, 300, ResourceUp(R, H, ResourceKind.SERVICE, BLUE, "restarted", START_NS), 6),
        event(8, 300, FaultCleared(F, "resource/web", "right again", 0, 300.0), 7),
        event(9, 800, NoticeQueued("s:f-1:cleared", "s", F, "cleared"), 8),
        event(10, 805, NoticeGivenUp("s:f-1:cleared", "s", 3, "gone"), 9),
    ]


def test_every_checkpoint_has_its_lane_and_an_end_is_joined_to_its_beginning() -> None:
    found = {lane.label: (lane.start_ms, lane.end_ms) for lane in lanes(whole_chain())}
    assert found == {
        "node/n1 sees web down": (0, 0),
        "the fault is open": (0, 300),
        "node/n1: restart": (0, 300),
        "notice to s: raised": (2, 9),
        "node/n1 sees web up": (300, 300),
        "over": (300, 300),
        "watched until it counts as over": (300, 800),
        "notice to s given up: cleared": (800, 805),
    }


def test_what_is_not_over_goes_on_to_the_edge() -> None:
    drawn = timeline_picture(lanes(whole_chain()[:3]), now_ms=1_500)
    fault = next(bar for bar in drawn.bars if bar.kind == "fault")
    assert fault.x + fault.width == 100
    assert fault.time == "at 0 ms, goes on"


def test_an_unknown_event_is_shown_by_its_name() -> None:
    assert [lane.label for lane in lanes([event(1, 0, None)])] == ["NoneType by node/n1"]


def test_no_event_is_no_picture() -> None:
    assert timeline_picture(lanes([]), now_ms=0).bars == ()


@given(
    st.lists(
        st.tuples(st.floats(0, 1e10), st.none() | st.floats(0, 1e10)).map(
            lambda span: TimelineLane("x", "act", span[0], None if span[1] is None else max(span))  # type: ignore[type-var]
        ),
        max_size=20,
    ),
    st.floats(0, 1e10),
)
def test_every_bar_and_mark_is_inside_the_picture(found: list[TimelineLane], now_ms: float) -> None:
    drawn = timeline_picture(found, now_ms)
    assert len(drawn.bars) == len(found)
    for bar in drawn.bars:
        assert bar.x >= 0
        assert bar.width > 0
        assert bar.x + bar.width <= 100.01
    places = [x for x, _ in drawn.marks]
    assert places == sorted(places)
    assert all(0 <= x <= 100 for x in places)


def test_endpoints_of_one_subscription_are_told_apart() -> None:
    raised = whole_chain()[:3]
    queued = [
        event(10 + at, 2, NoticeQueued(f"{whom}:f-1:raised", "s", F, "raised"), 2)
        for at, whom in enumerate(("s", "s/2"))
    ]
    ended = [
        event(20 + at, 9, NoticeDelivered(f"{whom}:f-1:raised", "s", 1), 10 + at)
        for at, whom in enumerate(("s", "s/2"))
    ]
    chain = [*raised, *queued, *ended]
    assert {"notice to s: raised", "notice to s/2: raised"} <= {lane.label for lane in lanes(chain)}
    assert [row.what for row in explain_events(chain, journal_view().sentence)][-2:] == [
        "Notice to s delivered (first try)",
        "Notice to s/2 delivered (first try)",
    ]
    said = [replace(each, payload=asdict(each.event)) for each in chain]  # type: ignore[call-overload]
    view = timeline(said, F, Numbering.BLUEPRINT, "s/2")
    assert view is not None and view.consumer == "s/2"
    assert [each.subscription for each in view.told] == ["s", "s/2"]
