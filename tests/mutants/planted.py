"""Planted bugs: for each invariant one small class that breaks it, in place of the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

from homeostat.contracts.nouns import FaultId
from homeostat.contracts.wire import Observations, Transition
from homeostat.faults.decision import Telling
from homeostat.faults.entry import Entry
from homeostat.faults.herald import Announcement, Herald
from homeostat.faults.loop import FaultPath, Request
from homeostat.fleet.node_observations import ObservationStore
from homeostat.notices import store as notice_store
from homeostat.notices.board import Board, Due
from homeostat.notices.delivery import Delivery
from homeostat.resources.model import Tell
from homeostat.sim.disk import Disk, Fate, SimAppender
from homeostat.sim.machine import SimRunner
from homeostat.sim.parts import SimParts


class ActsBeforeItIsWritten(SimRunner):
    """I1: the runner reports its intent and does not wait until it is on disk."""

    async def report(self, step: Tell) -> None:
        self._reporting = asyncio.ensure_future(super().report(step))


class ForgetsWhoWasNotToldYet(Herald):
    """I2: two faults in one entry, and only the first is announced."""

    def announce(self, tellings: Sequence[Telling], first_index: int) -> Announcement:
        return super().announce(tellings[:1], first_index)


class TellsAgainUnderAnotherKey(Herald):
    """I3: after a start, the first fault that is announced gets keys of its own, whoever heard it before."""

    async def remember(self, faults: Iterable[FaultId]) -> None:
        await super().remember(faults)
        self._heard = {}

    def announce(self, tellings: Sequence[Telling], first_index: int) -> Announcement:
        again = [
            replace(telling, transition="raised")
            for telling in tellings
            if telling.transition == "cleared" and telling.fault.id not in self._heard
        ]
        told = super().announce([*tellings, *again], first_index)
        if not again:
            return told
        notices = tuple(replace(each, key=f"{each.key}:again") for each in told.notices)
        drafts = tuple(
            replace(draft, event=replace(draft.event, key=note.key), subject=f"notice/{note.key}")  # type: ignore[type-var]
            for draft, note in zip(told.drafts, notices, strict=True)
        )
        return Announcement(drafts, (notice_store.insert_notices(notices),), notices, told.pictures)


class _LeavesActsOpen(Entry):
    def _abandon(self, owner_of_act: str, about: str, reason: str) -> None:
        """Not done."""


class LeavesActsOpen(FaultPath):
    """I10: acts of a node that lost its memory are not closed."""

    ENTRY = _LeavesActsOpen


class _Overtaking(Board):
    def failed(self, due: Due, next_ns: int) -> None:
        """The failed one goes to the end of its lane."""
        super().failed(due, next_ns)
        self._endpoints[due.notice.subscription].lanes[due.notice.fault].line.rotate(-1)


class LetsClearedOvertake(Delivery):
    """Raised before cleared: a notice that failed lets the next of its fault go first."""

    def _begin(self) -> None:
        super()._begin()
        self._board = _Overtaking(self._board._limits)


class _TakesAnything(Entry):
    def observations(self, message: Observations, received_ns: int) -> None:
        """Observations that come after a gap are taken as if there were none."""
        node = self.world.topology.nodes.get(message.host)
        first = message.transitions[0].level.seq if message.transitions else 0
        if node is not None and message.boot == node.boot and first > node.acked_seq + 1:
            self.world.topology.nodes[message.host] = replace(node, acked_seq=first - 1)
        super().observations(message, received_ns)


class SendsOnce(ObservationStore):
    """Deaths: what was sent once is not sent again."""

    _sent = 0

    def pending(self, limit: int, after: int = 0) -> tuple[Transition, ...]:
        found = super().pending(limit, max(after, self._sent))
        if found and limit > 1:
            self._sent = found[-1].level.seq
        return found


class TakesAnything(FaultPath):
    """Deaths: a gap in the observations is not noticed."""

    ENTRY = _TakesAnything


class WritesWhenDeposed(SimAppender):
    """Epochs: the term is not read in the transaction."""

    def __init__(self, disk: Disk, epoch: int | None, fate: Fate) -> None:
        super().__init__(disk, None, fate)


class AcknowledgesFirst(FaultPath):
    """Acknowledged means committed: the node is answered before the commit."""

    async def _commit(self, entry: Entry, waiting: Sequence[tuple[Request, int]]) -> bool:
        await self._answer(entry)
        return await super()._commit(entry, waiting)


PLANTED: dict[str, tuple[SimParts, str]] = {
    "I1": (SimParts(runner=ActsBeforeItIsWritten), "I1 no act without a committed intent"),
    "I2": (SimParts(herald=ForgetsWhoWasNotToldYet), "I2 every fault ends in a notice or a stated reason"),
    "I3": (
        SimParts(herald=TellsAgainUnderAnotherKey),
        "I3 at most one notice a consumer, fault and transition",
    ),
    "I10": (SimParts(path=LeavesActsOpen), "I10 every open intent is closed after recovery"),
    "order": (SimParts(delivery=LetsClearedOvertake), "raised before cleared"),
    "deaths": (SimParts(path=TakesAnything), "every death has exactly one fault"),
    "silence": (SimParts(store=SendsOnce), "every death has exactly one fault"),
    "epoch": (SimParts(appender=WritesWhenDeposed), "no write under an old epoch"),
    "acknowledged": (SimParts(path=AcknowledgesFirst), "acknowledged means committed"),
}
"""By invariant: the parts of a run with the bug in it, and the checker that must find it."""
