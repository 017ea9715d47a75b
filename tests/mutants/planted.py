"""Planted bugs: for each invariant one small class that breaks it, in place of the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from planted_guests import (
    BelievesThePlacing,
    KeepsWhatItHad,
    LeavesThemThere,
    MovesWithoutAReceipt,
    NeverAsks,
    StartsUnconfirmed,
    TakesOldWords,
)

from homeostat.contracts.nouns import FaultId, HostId
from homeostat.contracts.wire import Observations, Outcome, Transition
from homeostat.faults.aftermath import Aftermath
from homeostat.faults.decision import Telling
from homeostat.faults.entry import Entry
from homeostat.faults.herald import Announcement, Herald
from homeostat.faults.loop import FaultPath
from homeostat.faults.requests import Request
from homeostat.faults.watch import Watch
from homeostat.fleet.fencing import Attempt, Ended
from homeostat.fleet.gate import Situation
from homeostat.fleet.model import AgentState
from homeostat.fleet.node_observations import ObservationStore
from homeostat.fleet.suspicion import Death, Judgement
from homeostat.notices import store as notice_store
from homeostat.notices.board import Board, Due
from homeostat.notices.delivery import Delivery
from homeostat.ports import Fence, Fenced, FenceUnknown, Fencing
from homeostat.resources.model import Tell
from homeostat.sim.disk import Disk, Fate, SimAppender
from homeostat.sim.machine import SimRunner
from homeostat.sim.parts import SimParts
from homeostat.sim.run import REST


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

    BOARD = _Overtaking


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
        await self._answers.send(entry, self.world.topology)
        return await super()._commit(entry, waiting)


class _SureOfItself(Watch):
    def _adopt(self, entry: Entry, judgement: Judgement) -> None:
        if judgement.unknown and self._hearing.connected:
            dead = {}
            for node in list(entry.expected()):
                probed = self._parts.probed().get(node.host)
                silent_ns = entry.mono_ns - self._hearing.at_ns.get(node.host, entry.mono_ns)
                if probed is not None and probed.failures >= 3 and silent_ns > 1.5e9:
                    dead[node.host] = Death(
                        "it seems so", probed.first_failed_ns, probed.first_failed_mono_ns
                    )
            judgement = Judgement(dead=dead)
        super()._adopt(entry, judgement)


class _NeverDoubts(FaultPath):
    """Accused: when most hosts vanish at once, whoever seems dead is accused all the same."""

    WATCH = _SureOfItself


class _Hearsay(Watch):
    def _adopt(self, entry: Entry, judgement: Judgement) -> None:
        at = (entry.wall_ns, entry.mono_ns)
        dead = {host: Death("its agent is silent", *at) for host in judgement.silent}
        super()._adopt(entry, replace(judgement, dead={**judgement.dead, **dead}))


class _BelievesOneWitness(FaultPath):
    """Accused: a silent agent is enough."""

    WATCH = _Hearsay


class _AccusesAgain(FaultPath):
    """Accused: whoever starts forgets which hosts are known to be down."""

    async def _reload(self, reason: str) -> None:
        await super()._reload(reason)
        nodes = self.world.topology.nodes
        for host, node in list(nodes.items()):
            nodes[host] = replace(node, down_ns=None, agent=AgentState.PRESENT)


class _Lenient(Watch):
    def _adopt(self, entry: Entry, judgement: Judgement) -> None:
        super()._adopt(entry, replace(judgement, dead={}))


class _AccusesNobody(FaultPath):
    """Trials: no host is ever down."""

    WATCH = _Lenient


class _Blind(Aftermath):
    """Gate: one thing is not looked at."""

    UNSEEN: ClassVar[dict[str, Any]] = {}

    def _situation(self) -> Situation:
        return replace(super()._situation(), **self.UNSEEN)


class _IgnoresHolds(_Blind):
    UNSEEN: ClassVar[dict[str, Any]] = {"held": {}}


class _IgnoresStorms(_Blind):
    UNSEEN: ClassVar[dict[str, Any]] = {"deaths_s": {}}


class _IgnoresTheRate(_Blind):
    UNSEEN: ClassVar[dict[str, Any]] = {"harm_s": ()}


class _IgnoresArming(_Blind):
    UNSEEN: ClassVar[dict[str, Any]] = {"armed": {"faults": True}}


class _IgnoresDoubt(_Blind):
    UNSEEN: ClassVar[dict[str, Any]] = {"unknown": ""}


class _FencesFirst(Aftermath):
    """I1: the switch is told before the intent is committed."""

    async def _fence(self, host: HostId, fence: Fence) -> None:
        await super()._fence(host, _Hasty(await fence.fence(host)))


class _Hasty:
    name = "switch"

    def __init__(self, said: Fencing) -> None:
        self._said = said

    async def fence(self, _host: str) -> Fencing:
        return self._said


class _AsksOnce(Aftermath):
    """Gate: the entry of the intent is not asked; the death it is for may never have been committed."""

    async def _fence(self, host: HostId, fence: Fence) -> None:
        attempt = Attempt(host, f"fence-{host}-{self._parts.new_id()}", 1.0, "its host is down")
        self._harm_s.append(self._now_s())
        self._acting.add(attempt.action)
        try:
            await self._parts.path.record(lambda entry: entry.fence_intended(attempt, None))
            said = await fence.fence(host)
            outcome = Outcome.OK if isinstance(said, Fenced) else Outcome.FAILED
            ended = Ended(attempt.action, fence.name, outcome, 1.0, "said")
            self._not_before_s[host] = self._now_s() + 1.0
            await self._insist(lambda entry: entry.fence_ended(host, ended))
        finally:
            self._acting.discard(attempt.action)


class _TakesSilenceForAReceipt(Aftermath):
    """Gate: a switch that does not say what it did is believed to have done it."""

    async def _fence(self, host: HostId, fence: Fence) -> None:
        said = _Believing(fence)
        await super()._fence(host, said)


class _Believing:
    name = "switch"

    def __init__(self, fence: Fence) -> None:
        self._fence = fence

    async def fence(self, host: str) -> Fencing:
        said = await self._fence.fence(host)
        return Fenced("surely") if isinstance(said, FenceUnknown) else said


class _LeavesFencesOpen(Aftermath):
    """I10: an attempt that another server began, or that nobody knew to be written, stays open."""

    async def _close_what_was_left(self) -> None:
        """Not done."""


ACCUSED = "a host is accused by two witnesses, once a death"
GATED = "no harm but through the gate"
NOTICED = "a dead host is noticed and fenced"

LOST = "no guest is lost"
TWICE = "and still runs on"

I4 = "I4 no guest runs on two hosts"
I5 = "I5 no evacuation before the fencing receipt"
I1 = "I1 no act without a committed intent"
I10 = "I10 every open intent is closed after recovery"
DEATHS = "every death has exactly one fault"


@dataclass(frozen=True, slots=True)
class Planted:
    """The parts of a run with a bug in it, the checker that must find it, and words that it must say.

    `seed` is where it was found when this was written: it is tried first, since the search takes long.
    """

    parts: SimParts
    checker: str
    words: str = ""
    seed: int = 0


PLANTED: dict[str, Planted] = {
    "I1": Planted(SimParts(runner=ActsBeforeItIsWritten), I1),
    "I2": Planted(
        SimParts(herald=ForgetsWhoWasNotToldYet), "I2 every fault ends in a notice or a stated reason"
    ),
    "I3": Planted(
        SimParts(herald=TellsAgainUnderAnotherKey),
        "I3 at most one notice a consumer, fault and transition",
        seed=4,
    ),
    "I10": Planted(SimParts(path=LeavesActsOpen), I10, seed=3),
    "rest": Planted(SimParts(aftermath=_LeavesFencesOpen), REST, "an act is open", 43),
    "order": Planted(SimParts(delivery=LetsClearedOvertake), "raised before cleared", seed=9),
    "deaths": Planted(SimParts(path=TakesAnything), DEATHS, seed=18),
    "silence": Planted(SimParts(store=SendsOnce), DEATHS),
    "epoch": Planted(SimParts(appender=WritesWhenDeposed), "no write under an old epoch", seed=6),
    "acknowledged": Planted(SimParts(path=AcknowledgesFirst), "acknowledged means committed"),
    "doubt": Planted(SimParts(path=_NeverDoubts), ACCUSED, "did not answer", 3),
    "two witnesses": Planted(SimParts(path=_BelievesOneWitness), ACCUSED, "probes were answered", 11),
    "accused once": Planted(SimParts(path=_AccusesAgain), ACCUSED, "it was known to be", 103),
    "noticed": Planted(SimParts(path=_AccusesNobody), NOTICED),
    "hold": Planted(SimParts(aftermath=_IgnoresHolds), GATED, "a person held it", 103),
    "storm": Planted(SimParts(aftermath=_IgnoresStorms), GATED, "had died at once", 11),
    "rate": Planted(SimParts(aftermath=_IgnoresTheRate), GATED, "had been done lately", 120),
    "arming": Planted(SimParts(aftermath=_IgnoresArming), GATED, "the room was not armed", 12),
    "no harm in doubt": Planted(SimParts(aftermath=_IgnoresDoubt), GATED, "could not be judged", 932),
    "asked in the entry": Planted(SimParts(aftermath=_AsksOnce), GATED, "it was not down", 152),
    "receipt": Planted(SimParts(aftermath=_TakesSilenceForAReceipt), GATED, "it was on since", 76),
    "no receipt": Planted(
        SimParts(placing=MovesWithoutAReceipt, path=BelievesThePlacing), I5, "which is not fenced", 7
    ),
    "not off": Planted(
        SimParts(placing=MovesWithoutAReceipt, path=BelievesThePlacing), I5, "has not been off since", 180
    ),
    "two places": Planted(SimParts(placing=MovesWithoutAReceipt, path=BelievesThePlacing), I4, TWICE, 180),
    "believed off": Planted(SimParts(aftermath=_TakesSilenceForAReceipt), GATED, "a receipt is written", 584),
    "old words": Planted(SimParts(path=TakesOldWords), I4, seed=3),
    "unconfirmed": Planted(SimParts(guest=StartsUnconfirmed), I4, TWICE, 16),
    "kept": Planted(SimParts(guest=KeepsWhatItHad), I4, TWICE, 3),
    "moved unasked": Planted(SimParts(placing=NeverAsks), GATED, "starts it elsewhere", 8),
    "lost guests": Planted(SimParts(placing=LeavesThemThere), LOST, "not started elsewhere", 7),
    "I1 fencing": Planted(SimParts(aftermath=_FencesFirst), I1, "no intent is committed"),
    "I10 fencing": Planted(SimParts(aftermath=_LeavesFencesOpen), I10, "the fence of", 43),
}
"""By invariant."""
