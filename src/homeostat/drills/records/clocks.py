"""The tool's moments of what happened on a host; two clocks are never taken for one. Pure.

Of an exchange, `asked` and `answered` are ours, `there` is the host's: its clock was ahead of ours by
something between `there - answered` and `there - asked`. Of several exchanges, the widest holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question for the time."""

    asked_ns: int
    there_ns: int
    answered_ns: int


def bracket(
    exchanges: Sequence[Exchange], called: tuple[int, int], there: tuple[int, int]
) -> tuple[int, int]:
    """Not before and not after, by our clock: what happened on the host between two of its moments.

    `called`: when we began to ask for it and when it was said to be done, which bounds it in any case.
    """
    ahead_least = min(each.there_ns - each.answered_ns for each in exchanges)
    ahead_most = max(each.there_ns - each.asked_ns for each in exchanges)
    before_ns = max(called[0], there[0] - ahead_most)
    after_ns = min(called[1], there[1] - ahead_least)
    # Stamps that contradict the call are not believed.
    return (before_ns, after_ns) if before_ns <= after_ns else called
