"""What the gate said when a move was decided does not count when it is written."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind
from homeostat.contracts.wire import Offer
from homeostat.fleet.assignment import Assignment, Placement
from homeostat.fleet.gate import Asked, Refusal, Why
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.journal import Seq
from homeostat.placing import placing_of

N1, N2 = HostId("n1"), HostId("n2")


def offer(name: str) -> Offer:
    return Offer(ResourceId(name), ResourceKind.GUEST, Owner("blue"), "ocf:homeostat:process")


MOVE = Assignment(offer("db"), N2, 2, N1)
FIRST = Assignment(offer("cache"), N2, 1)


class Path:
    """A fault path in whose next entry the world is another one."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile = meanwhile
        self.placed: list[Placement] = []
        self.watch = SimpleNamespace(doubts={})
        self.world = SimpleNamespace(topology=SimpleNamespace(is_down=lambda host: host == N1))

    async def record(self, change: Callable[[Any], None]) -> Seq:
        self._meanwhile()
        change(SimpleNamespace(placed=self.placed.append))
        return Seq(1)


@pytest.mark.parametrize("held", [False, True])
async def test_a_host_that_is_held_meanwhile_keeps_its_guests(held: bool) -> None:
    refusals: list[Refusal] = []

    def ask(asked: Asked) -> Refusal | None:
        assert asked == Asked("resources", "start_elsewhere", N1, 7)
        return refusals[0] if refusals else None

    path = Path(lambda: refusals.append(Refusal(Why.HELD, "new disks")) if held else None)
    aftermath: Any = SimpleNamespace(ask=ask)
    placing = placing_of(path, aftermath, 7, SystemClock())  # type: ignore[arg-type]
    assert placing.verdict(N1) is None
    await placing.assign(Placement((MOVE, FIRST)))
    assert path.placed == [Placement((FIRST,) if held else (MOVE, FIRST))]
