"""What another room has written at the end of an entry of the fault path, and learns there.

For what must have a place among the faults: every fault of the entry stands before it, every later one behind
it, and `adopt` is called between the commit and the next entry.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from homeostat.kernel.journal import Change, Draft, Seq


@dataclass(frozen=True, slots=True)
class Addition:
    """`changes` are made for the place of the first of `events` in their submission."""

    events: tuple[Draft, ...]
    changes: Callable[[int], tuple[Change, ...]]
    adopt: Callable[[Sequence[Seq]], None]


Add = Callable[[Addition], Awaitable[Seq]]
"""Commits it; the number of its last event. RetryLater when that cannot be done now."""
