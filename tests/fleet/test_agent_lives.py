"""What heartbeats say of their node's clock, and of what was seen there when."""

from __future__ import annotations

from homeostat.contracts.nouns import HostId, ResourceState
from homeostat.contracts.wire import Heartbeat
from homeostat.ingest.watches import AgentLife, GuestMoments
from set_clock import SECOND, node_mono, server_mono

UP, DOWN, STARTING = ResourceState.UP, ResourceState.DOWN, ResourceState.STARTING


def beat(sent_s: float, seen_s: float, incarnation: str = "i1", looked: bool = True) -> Heartbeat:
    seen_ns = node_mono(seen_s)
    sent = {"sent_mono_ns": node_mono(sent_s), "looked_mono_ns": seen_ns, "seen_mono_ns": seen_ns}
    return Heartbeat(HostId("n1"), "b1", incarnation, 0, "", looked=looked, **sent)


def test_a_heartbeat_that_was_late_says_no_more_than_when_it_was_sent() -> None:
    """A server that was frozen reads old messages now."""
    life = AgentLife.heard(None, beat(10, 9.5), server_mono(10.001))
    late = AgentLife.heard(life, beat(11, 10.5), server_mono(19))
    assert late.last_ns == server_mono(19)
    assert late.seen_ns is not None and abs(late.seen_ns - server_mono(10.501)) <= SECOND / 1000


def test_clocks_that_run_apart_are_followed() -> None:
    life = AgentLife.heard(None, beat(10, 10), server_mono(10))
    for second in range(11, 1000):
        life = AgentLife.heard(life, beat(second, second), server_mono(second * 1.00005))
    assert life.seen_ns is not None and abs(life.seen_ns - server_mono(999 * 1.00005)) <= SECOND / 1000


def test_another_process_has_a_clock_of_its_own_and_nothing_was_seen_by_it() -> None:
    life = AgentLife.heard(None, beat(10, 9.5), server_mono(10))
    fresh = Heartbeat(HostId("n1"), "b1", "i2", 0, "", looked=False, sent_mono_ns=5 * SECOND)
    next_life = AgentLife.heard(life, fresh, server_mono(12))
    assert (next_life.before_ns, next_life.seen_ns) == (server_mono(10), None)
    assert next_life.looked_ns == server_mono(9.5), "what the runner before it looked at"


def test_a_node_of_an_earlier_version_says_nothing_of_that() -> None:
    life = AgentLife.heard(None, Heartbeat(HostId("n1"), "b1", "i1", 0, ""), server_mono(1))
    assert (life.looked_ns, life.seen_ns, life.offset_ns, life.says_looked) == (None, None, None, False)


def test_a_guest_was_last_right_before_the_first_of_its_failures() -> None:
    moments = (
        GuestMoments().after(DOWN, UP, (20, 10)).after(DOWN, DOWN, (30, 25)).after(STARTING, DOWN, (40, 35))
    )
    assert moments.good_ns == 10
    assert moments.after(UP, STARTING, (50, 45)) == GuestMoments(None, 45, 50)
    assert GuestMoments().after(DOWN, UP, (20, None)).good_ns is None
