"""Which notices travel together to one endpoint, and for how long the first of them waits. No I/O, no clock.

Without `group_by` everything travels alone and at once. With it, the first notice of a group waits for
`group_wait_ms`, and whatever of the same group is there then goes with it, as much as the bound of a body
lets through. Invariants: what was tried together is tried together again, in the same order, until it ends
or the consumer refuses it as it is; then half as many go together, down to one, for which no other pays; of
one fault only one notice is in a group; every notice keeps its own key, so that groups that are made
differently after a restart double nothing.

Only our own format has a body for several; other formats of the same subscription travel alone, at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import assert_never

from homeostat.notices.board import Board, Due
from homeostat.notices.group_rendering import size_of
from homeostat.notices.model import Endpoint, FaultPicture, Format, GroupBy, Subscription, parts_of

COUNT_HEADER = "Homeostat-Notices"
"""How many notices are in the body; a notice that travels alone has `Idempotency-Key` instead."""

TOGETHER_MAX = 500
"""Notices in one POST: a failure sends all of them again."""

LOOK_MAX = 1_500
"""Waiting notices that are looked at for one POST: a long queue of many groups must not stop everything."""

Gathered = tuple[tuple[Due, ...], tuple[bytes, ...]]


def is_grouped(subscription: Subscription, endpoint: Endpoint) -> bool:
    """Whether notices for this endpoint travel together."""
    return subscription.group_by is not GroupBy.NONE and endpoint.format is Format.JSON


def wait_ns(subscription: Subscription, endpoint: Endpoint) -> int:
    """How long a new notice waits for others."""
    return subscription.group_wait_ms * 1_000_000 if is_grouped(subscription, endpoint) else 0


def group_of(by: GroupBy, fault: FaultPicture) -> str:
    """What the faults of a group have in common. One that is on no host is a group of its own with `host`."""
    match by:
        case GroupBy.NONE:
            return fault.id
        case GroupBy.KIND:
            return fault.kind.value
        case GroupBy.HOST:
            return fault.host or fault.about
        case GroupBy.OWNER:
            return fault.owner
        case _:
            assert_never(by)


class Parcels:
    """What was tried together. Used by one delivery."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._together: dict[str, tuple[str, ...]] = {}
        self._most: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._together)

    def gather(
        self, board: Board, lead: Due, by: GroupBy, body_of: Callable[[Due], bytes | None]
    ) -> Gathered | None:
        """What goes out with `lead`, which was just taken, and the body of each. None: nobody may be told.

        `body_of` is None for what has nothing to say any more; that stays where it is.
        """
        first = body_of(lead)
        if first is None or lead.picture is None:
            return None
        known = self._together.get(lead.key)
        place = {key: index for index, key in enumerate(known or ())}
        most = len(place) or self._most.get(lead.notice.destination, TOGETHER_MAX)
        group, bodies, total = group_of(by, lead.picture), {lead.key: first}, len(first)

        def wanted(due: Due) -> bool:
            nonlocal total
            if due.picture is None:
                return False
            if place:
                belongs = due.key in place
            else:
                belongs = due.key not in self._together and group_of(by, due.picture) == group
            body = body_of(due) if belongs else None
            if body is None or size_of(len(bodies) + 1, total + len(body)) > self._limit_bytes:
                return False
            bodies[due.key], total = body, total + len(body)
            return True

        dues = (lead, *board.take_along(lead, wanted, most - 1, None if place else LOOK_MAX))
        if place:
            # The board knows the order of time only, and the same body is wanted.
            order = sorted(dues, key=lambda each: place[each.key])
            return (lead, *(each for each in dues if each is not lead)), tuple(
                bodies[each.key] for each in order
            )
        return dues, tuple(bodies[each.key] for each in dues)

    def tried(self, dues: Sequence[Due], *, refused: bool) -> None:
        """These were sent in one POST; unless they end, they go together again, or in halves if `refused`."""
        keys, name = tuple(each.key for each in dues), dues[0].notice.destination
        if refused and len(keys) > 1:
            self._most[name] = min(self._most.get(name, TOGETHER_MAX), len(keys) // 2)
            for key in keys:
                self._together.pop(key, None)
            return
        if refused and self._together.get(keys[0]) is None:
            self._most.pop(name, None)  # it is this one that is not wanted, and not that there are many
        for key in keys:
            if self._together.get(key) is None or set(self._together[key]) != set(keys):
                self._together[key] = keys

    def release(self, subscription: str) -> None:
        """It was changed or removed: its consumer may take more now."""
        for name in [each for each in self._most if parts_of(each)[0] == subscription]:
            del self._most[name]

    def ended(self, key: str) -> None:
        """This one was told or given up: the others of its parcel go on without it."""
        self._together.pop(key, None)
