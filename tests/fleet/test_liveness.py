"""Who is silent, and when silence means nothing."""

from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.nouns import HostId
from homeostat.fleet.suspicion import ServerLink, assess

SECOND = 1_000_000_000
UP = ServerLink(connected=True, since_ns=0)


def heard(*seconds: float) -> dict[HostId, int]:
    return {HostId(f"n{i}"): round(each * SECOND) for i, each in enumerate(seconds, 1)}


def test_one_silent_node_of_three_is_named_with_its_silence() -> None:
    found = assess(heard(10, 6, 10), UP, 10 * SECOND, lost_after_s=3)
    assert dict(found.silent) == {HostId("n2"): 4.0}
    assert found.doubt == ""


def test_more_than_half_at_once_accuses_nobody() -> None:
    found = assess(heard(5, 5, 10), UP, 10 * SECOND, lost_after_s=3)
    assert not found.silent
    assert "2 of 3" in found.doubt


def test_nodes_that_fall_silent_one_after_the_other_are_counted_from_half_the_patience_on() -> None:
    """By the phase of its heartbeats one crosses the limit while the next one is only halfway there."""
    found = assess(heard(6, 8, 10), UP, 10 * SECOND, lost_after_s=3)
    assert not found.silent
    assert "2 of 3" in found.doubt
    assert assess(heard(6, 8.6, 10), UP, 10 * SECOND, lost_after_s=3).silent


def test_a_broken_link_of_our_own_accuses_nobody() -> None:
    found = assess(heard(0, 0, 0), ServerLink(connected=False, since_ns=0), 99 * SECOND, lost_after_s=3)
    assert not found.silent
    assert "own link" in found.doubt


def test_silence_is_counted_from_when_we_began_to_listen() -> None:
    found = assess(heard(0), ServerLink(connected=True, since_ns=8 * SECOND), 10 * SECOND, lost_after_s=3)
    assert not found.silent


def test_a_late_listener_is_more_patient() -> None:
    assert assess(heard(6), UP, 10 * SECOND, lost_after_s=3).silent
    assert not assess(heard(6), UP, 10 * SECOND, lost_after_s=3, own_lag_s=1.5).silent


@given(st.lists(st.floats(min_value=0, max_value=100), max_size=40), st.booleans())
def test_never_is_more_than_half_of_three_or_more_accused(seconds: list[float], connected: bool) -> None:
    nodes = heard(*seconds)
    found = assess(nodes, ServerLink(connected, 0), 100 * SECOND, lost_after_s=3)
    assert len(nodes) < 3 or len(found.silent) * 2 <= len(nodes)
    assert connected or not found.silent
