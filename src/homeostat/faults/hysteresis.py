"""When a fault begins, when it is the same one still, and when it is over. Pure.

It begins at once: waiting would cost the very time that the product promises. It is over when the thing has
been right for `clear_after_s` without a break, measured between two stamps of one clock, the source's.
"""

from __future__ import annotations

from enum import Enum

from homeostat.contracts.nouns import ResourceState
from homeostat.faults.model import Fault, FaultState


class Step(Enum):
    """What one new level does to the fault of its subject; the value is the sentence for `explain`."""

    NOTHING = "nothing is wrong and nothing was"
    RAISE = "it is wrong and no fault is open"
    KEEP = "the open fault already says so"
    HOLD = "it is right again; the fault clears when it stays right"
    REOPEN = "it went wrong again before the fault could clear: the same fault goes on"
    CLEAR = "it stayed right long enough"
    CLEAR_AND_RAISE = "it had stayed right long enough when it went wrong again: a new fault"
    WITHDRAW = "it was stopped on purpose"


def step(fault: Fault | None, state: ResourceState, mono_ns: int | None, clear_after_s: float) -> Step:
    """What the level `state` means, stamped `mono_ns` on the source's monotonic clock.

    Without a stamp (the level came from a resync) nothing is known of the time between, so that the same
    fault goes on.
    """
    match state:
        case ResourceState.DOWN | ResourceState.FAILED:
            return _wrong(fault, mono_ns, clear_after_s)
        case ResourceState.UP:
            if fault is None:
                return Step.NOTHING
            return Step.HOLD if fault.state is FaultState.OPEN else Step.KEEP
        case ResourceState.STOPPED:
            return Step.NOTHING if fault is None else Step.WITHDRAW
        case ResourceState.STARTING | ResourceState.UNKNOWN:
            return Step.NOTHING if fault is None else Step.KEEP


def _wrong(fault: Fault | None, mono_ns: int | None, clear_after_s: float) -> Step:
    if fault is None:
        return Step.RAISE
    if fault.state is FaultState.OPEN:
        return Step.KEEP
    if mono_ns is None or fault.up_mono_ns is None:
        return Step.REOPEN
    right_for_s = (mono_ns - fault.up_mono_ns) / 1e9
    # A negative span means that the machine was booted in between: its clock began anew.
    if right_for_s < 0 or right_for_s >= clear_after_s:
        return Step.CLEAR_AND_RAISE
    return Step.REOPEN


def is_over(fault: Fault, now_ns: int) -> bool:
    """Whether a clearing fault has been right long enough on the server's own monotonic clock."""
    return (
        fault.state is FaultState.CLEARING
        and fault.hold_until_ns is not None
        and now_ns >= fault.hold_until_ns
    )
