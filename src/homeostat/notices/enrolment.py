"""A change of a subscription, on its way into the journal. It goes through the fault path's own entries.

Only there it has a place among the faults: what is open when it is written is told with it, what is raised
afterwards is matched against it, and nothing falls between the two or is told by both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from homeostat.kernel.journal import Change, Draft, Seq
from homeostat.notices.model import FaultPicture, Subscription


@dataclass(slots=True)
class Enrolment:
    """`subscription` is what it becomes, None: it is removed. The last two are known when it is committed.

    `current`: the open faults that it may hear of, oldest first; `seq`: the last event of the transaction.
    A stream that begins behind `seq` tells what happened after `current`.
    """

    name: str
    subscription: Subscription | None
    draft: Draft
    change: Change
    current: tuple[FaultPicture, ...] = ()
    seq: Seq | None = None


Enrol = Callable[[Enrolment], Awaitable[None]]
"""Commits it and fills in what is known then. RetryLater when that cannot be done now."""
