"""When a fault begins, goes on and ends."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.faults import Fault, FaultState
from homeostat.contracts.nouns import FaultKind, Owner, ResourceState, Severity
from homeostat.faults.model import FaultEffect, effect_of, fault_id, is_over
from homeostat.kernel.journal import Seq

SECOND = 1_000_000_000
CLEAR_AFTER_S = 0.5


def a_fault(state: FaultState, up_mono_ns: int | None = None) -> Fault:
    return Fault(
        id=fault_id("resource/web", "n1/b/1"),
        kind=FaultKind.RESOURCE_DOWN,
        severity=Severity.MAJOR,
        about="resource/web",
        owner=Owner("blue"),
        reason="killed",
        state=state,
        raised_seq=Seq(1),
        trace="n1/b/1",
        raised_ns=0,
        raised_mono_ns=0,
        up_mono_ns=up_mono_ns,
    )


OPEN = a_fault(FaultState.OPEN)
OF_AGENT = replace(OPEN, kind=FaultKind.AGENT_LOST)
CLEARING = a_fault(FaultState.CLEARING, up_mono_ns=10 * SECOND)


@pytest.mark.parametrize(
    ("fault", "state", "mono_ns", "expected"),
    [
        (None, ResourceState.DOWN, 5, FaultEffect.RAISE),
        (None, ResourceState.FAILED, 5, FaultEffect.RAISE),
        (None, ResourceState.UP, 5, FaultEffect.NOTHING),
        (None, ResourceState.STARTING, 5, FaultEffect.NOTHING),
        (None, ResourceState.UNKNOWN, 5, FaultEffect.NOTHING),
        (None, ResourceState.STOPPED, 5, FaultEffect.NOTHING),
        (OPEN, ResourceState.DOWN, 5, FaultEffect.KEEP),
        (OPEN, ResourceState.FAILED, 5, FaultEffect.KEEP),
        (OPEN, ResourceState.UP, 5, FaultEffect.HOLD),
        (OPEN, ResourceState.STARTING, 5, FaultEffect.KEEP),
        (OPEN, ResourceState.UNKNOWN, 5, FaultEffect.KEEP),
        (OPEN, ResourceState.STOPPED, 5, FaultEffect.KEEP),
        (OF_AGENT, ResourceState.STOPPED, 5, FaultEffect.WITHDRAW),
        (CLEARING, ResourceState.UP, 11 * SECOND, FaultEffect.KEEP),
        (CLEARING, ResourceState.DOWN, 10 * SECOND + 1, FaultEffect.REOPEN),
        (CLEARING, ResourceState.DOWN, 10 * SECOND + SECOND // 2, FaultEffect.CLEAR_AND_RAISE),
        (CLEARING, ResourceState.DOWN, 1 * SECOND, FaultEffect.CLEAR_AND_RAISE),
        (CLEARING, ResourceState.DOWN, None, FaultEffect.REOPEN),
        (CLEARING, ResourceState.STOPPED, 10 * SECOND + 1, FaultEffect.REOPEN),
        (CLEARING, ResourceState.STOPPED, None, FaultEffect.REOPEN),
        (CLEARING, ResourceState.STOPPED, 11 * SECOND, FaultEffect.CLEAR),
    ],
)
def test_each_level_has_one_meaning(
    fault: Fault | None, state: ResourceState, mono_ns: int | None, expected: FaultEffect
) -> None:
    assert effect_of(fault, state, mono_ns, CLEAR_AFTER_S) is expected


@given(st.sampled_from(ResourceState), st.integers(min_value=0), st.floats(min_value=0, max_value=60))
def test_unknown_and_starting_never_raise_and_only_wrong_levels_do(
    state: ResourceState, mono_ns: int, clear_after_s: float
) -> None:
    raised = effect_of(None, state, mono_ns, clear_after_s) is FaultEffect.RAISE
    assert raised == (state in {ResourceState.DOWN, ResourceState.FAILED})


@pytest.mark.parametrize(
    ("state", "hold_until_ns", "now_ns", "over"),
    [
        (FaultState.CLEARING, 100, 100, True),
        (FaultState.CLEARING, 100, 99, False),
        (FaultState.CLEARING, None, 100, False),
        (FaultState.OPEN, 100, 100, False),
    ],
)
def test_a_fault_is_over_when_it_held_long_enough(
    state: FaultState, hold_until_ns: int | None, now_ns: int, over: bool
) -> None:
    assert is_over(replace(a_fault(state), hold_until_ns=hold_until_ns), now_ns) is over


def test_a_takeover_makes_a_clearing_fault_wait_again_and_leaves_an_open_one() -> None:
    assert CLEARING.held_until(77).hold_until_ns == 77
    assert OPEN.held_until(77).hold_until_ns is None


def test_the_same_evidence_makes_the_same_fault() -> None:
    assert fault_id("resource/web", "n1/b/1") == fault_id("resource/web", "n1/b/1")
    assert fault_id("resource/web", "n1/b/1") != fault_id("resource/web", "n1/b/2")
