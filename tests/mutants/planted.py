"""Planted bugs: for each invariant one small class that breaks it, in place of the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from planted_guests import (
    BelievesClaims,
    BelievesThePlacing,
    IsDisarmedOnceFenced,
    KeepsWhatItHad,
    LeavesThemThere,
    MovesWithoutAReceipt,
    NeverAsks,
    StartsUnconfirmed,
    TakesOldWords,
)
from planted_leases import BooksWithoutLooking

from homeostat.contracts.nouns import FaultId, HostId, Mark
from homeostat.contracts.wire import Heartbeat, Observations, Outcome, ResourceTransition
from homeostat.faults.deciders import FaultDeciders
from homeostat.faults.notice_bridge import Announcement, NoticeBridge
from homeostat.fleet.fencing import FENCE, FenceAttempt, FenceOutcome
from homeostat.fleet.gate import GateRefusal, Situation
from homeostat.fleet.model import AgentState
from homeostat.fleet.suspicion import Death, SuspicionOutcome
from homeostat.ingest.entry import Decide, Entry, IngestState, PendingNotice
from homeostat.ingest.inbox import EntryRequest, LivenessSweep, expected_nodes
from homeostat.ingest.loop import IngestLoop
from homeostat.node.observations import ObservationStore
from homeostat.notices import store as notice_store
from homeostat.notices.delivery import Delivery
from homeostat.notices.send_queue import DueNotice, SendQueue
from homeostat.ports import ActUnknown, Fence, Fenced, FenceResult
from homeostat.recovery.acts import on_fence_ended, on_fence_intended
from homeostat.recovery.after_death import FencingLoop
from homeostat.recovery.cloud_marks import CloudMarker
from homeostat.resources.model import SendReport
from homeostat.sim.database import CommitHooks, SimAppender, SimDatabase
from homeostat.sim.machine import SimRunner
from homeostat.sim.run import REST
from homeostat.sim.under_test import ClassesUnderTest


class ActsBeforeItIsWritten(SimRunner):
    """I1: the runner reports its intent and does not wait until it is on disk."""

    async def report(self, step: SendReport) -> None:
        self._reporting = asyncio.ensure_future(super().report(step))


class ForgetsWhoWasNotToldYet(NoticeBridge):
    """I2: two faults in one entry, and only the first is announced."""

    def announce(self, tellings: Sequence[PendingNotice], first_index: int) -> Announcement:
        return super().announce(tellings[:1], first_index)


class TellsAgainUnderAnotherKey(NoticeBridge):
    """I3: after a start, the first fault that is announced gets keys of its own, whoever heard it before."""

    async def remember(self, faults: Iterable[FaultId]) -> None:
        await super().remember(faults)
        self._heard = {}

    def announce(self, tellings: Sequence[PendingNotice], first_index: int) -> Announcement:
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


class LeavesActsOpen(FaultDeciders):
    """I10: acts of a node that lost its memory are not closed."""

    def _abandon(self, owner_of_act: str, about: str, reason: str) -> Iterable[Decide]:
        return ()


class _Overtaking(SendQueue):
    def failed(self, due: DueNotice, next_ns: int) -> None:
        """The failed one goes to the end of its lane."""
        super().failed(due, next_ns)
        self._endpoints[due.notice.subscription].lanes[due.notice.fault].line.rotate(-1)


class LetsClearedOvertake(Delivery):
    """Raised before cleared: a notice that failed lets the next of its fault go first."""

    BOARD = _Overtaking


class SendsOnce(ObservationStore):
    """Deaths: what was sent once is not sent again."""

    _sent = 0

    def pending(self, limit: int, after: int = 0) -> tuple[ResourceTransition, ...]:
        found = super().pending(limit, max(after, self._sent))
        if found and limit > 1:
            self._sent = found[-1].level.seq
        return found


class TakesAnything(FaultDeciders):
    """Deaths: a gap in the observations is not noticed."""

    def observations(self, state: IngestState, message: Observations, received_ns: int) -> Iterator[Decide]:
        node = state.topology.nodes.get(message.host)
        first = message.transitions[0].level.seq if message.transitions else 0
        if node is not None and message.boot == node.boot and first > node.acked_seq + 1:
            state.topology.nodes[message.host] = replace(node, acked_seq=first - 1)
        yield from super().observations(state, message, received_ns)


class WritesWhenDeposed(SimAppender):
    """Epochs: the term is not read in the transaction."""

    def __init__(self, disk: SimDatabase, epoch: int | None, fate: CommitHooks) -> None:
        super().__init__(disk, None, fate)


class AcknowledgesFirst(IngestLoop):
    """Acknowledged means committed: the node is answered before the commit."""

    async def _commit(self, entry: Entry, waiting: Sequence[tuple[EntryRequest, int]]) -> bool:
        await self._answers.send(entry, self.world.topology)
        return await super()._commit(entry, waiting)


class _SureOfItself(LivenessSweep):
    def _adopt(self, entry: Entry, judgement: SuspicionOutcome) -> None:
        if judgement.unknown and self._hearing.connected:
            dead = {}
            for node in expected_nodes(entry.world.topology):
                probed = self._parts.probed().get(node.host)
                silent_ns = entry.mono_ns - self._hearing.at_ns.get(node.host, entry.mono_ns)
                if probed is not None and probed.failures >= 3 and silent_ns > 1.5e9:
                    dead[node.host] = Death(
                        "it seems so", probed.first_failed_ns, probed.first_failed_mono_ns
                    )
            judgement = SuspicionOutcome(dead=dead)
        super()._adopt(entry, judgement)


class _NeverDoubts(IngestLoop):
    """Accused: when most hosts vanish at once, whoever seems dead is accused all the same."""

    WATCH = _SureOfItself


class _Hearsay(LivenessSweep):
    def _adopt(self, entry: Entry, judgement: SuspicionOutcome) -> None:
        at = (entry.wall_ns, entry.mono_ns)
        dead = {host: Death("its agent is silent", *at) for host in judgement.silent}
        super()._adopt(entry, replace(judgement, dead={**judgement.dead, **dead}))


class _BelievesOneWitness(IngestLoop):
    """Accused: a silent agent is enough."""

    WATCH = _Hearsay


class _AccusesAgain(IngestLoop):
    """Accused: whoever starts forgets which hosts are known to be down."""

    async def _reload(self, reason: str) -> None:
        await super()._reload(reason)
        nodes = self.world.topology.nodes
        for host, node in list(nodes.items()):
            nodes[host] = replace(node, down_ns=None, agent=AgentState.PRESENT)


class _Lenient(LivenessSweep):
    def _adopt(self, entry: Entry, judgement: SuspicionOutcome) -> None:
        super()._adopt(entry, replace(judgement, dead={}))


class _AccusesNobody(IngestLoop):
    """Trials: no host is ever down."""

    WATCH = _Lenient


class _TakesAGoodbyeForAnAlibi(LivenessSweep):
    def _adopt(self, entry: Entry, judgement: SuspicionOutcome) -> None:
        expected = {node.host for node in expected_nodes(entry.world.topology)}
        dead = {host: death for host, death in judgement.dead.items() if host in expected}
        super()._adopt(entry, replace(judgement, dead=dead))


class _LeavesStoppedHosts(IngestLoop):
    """Trials: a host whose node process said goodbye is never down, as until 0.2."""

    WATCH = _TakesAGoodbyeForAnAlibi


class _Blind(FencingLoop):
    """Gate: one thing is not looked at."""

    UNSEEN: ClassVar[dict[str, Any]] = {}

    def _situation(self) -> Situation:
        return replace(super()._situation(), **self.UNSEEN)


class _IgnoresHolds(_Blind):
    UNSEEN: ClassVar[dict[str, Any]] = {"held": {}}


class _IgnoresStorms(_Blind):
    UNSEEN: ClassVar[dict[str, Any]] = {"deaths_s": {}}


class _IgnoresTheRate(_Blind):
    UNSEEN: ClassVar[dict[str, Any]] = {"done_s": {}}


class _IgnoresArming(_Blind):
    UNSEEN: ClassVar[dict[str, Any]] = {"armed": {"recovery": True}}


class _IgnoresDoubt(_Blind):
    UNSEEN: ClassVar[dict[str, Any]] = {"unknown": ""}


class _FencesFirst(FencingLoop):
    """I1: the switch is told before the intent is committed."""

    async def _fence(self, host: HostId, fence: Fence) -> None:
        await super()._fence(host, _Hasty(await fence.fence(host)))


class _Hasty:
    name = "switch"

    def __init__(self, said: FenceResult) -> None:
        self._said = said

    async def fence(self, _host: str) -> FenceResult:
        return self._said


class _AsksOnce(FencingLoop):
    """Gate: the entry of the intent is not asked; the death it is for may never have been committed."""

    async def _fence(self, host: HostId, fence: Fence) -> None:
        attempt = FenceAttempt(host, f"fence-{host}-{self._parts.new_id()}", 1.0, "its host is down")
        self.count(FENCE, attempt.action)
        self._acting.add(attempt.action)
        try:
            await self._parts.path.record(lambda state, now: on_fence_intended(state, attempt, now))
            said = await fence.fence(host)
            outcome = Outcome.OK if isinstance(said, Fenced) else Outcome.FAILED
            ended = FenceOutcome(attempt.action, fence.name, outcome, 1.0, "said")
            self._not_before_s[host] = self._now_s() + 1.0
            await self._parts.path.insist(lambda state, now: on_fence_ended(state, host, ended, now))
        finally:
            self._acting.discard(attempt.action)


class _TakesSilenceForAReceipt(FencingLoop):
    """Gate: a switch that does not say what it did is believed to have done it."""

    async def _fence(self, host: HostId, fence: Fence) -> None:
        said = _Believing(fence)
        await super()._fence(host, said)


class _Believing:
    name = "switch"

    def __init__(self, fence: Fence) -> None:
        self._fence = fence

    async def fence(self, host: str) -> FenceResult:
        said = await self._fence.fence(host)
        return Fenced("surely") if isinstance(said, ActUnknown) else said


class _LeavesFencesOpen(FencingLoop):
    """I10: an attempt that another server began, or that nobody knew to be written, stays open."""

    async def _close_what_was_left(self) -> None:
        """Not done."""


class _MarksUnasked(CloudMarker):
    """Gate: a dead host is marked at the cloud without asking it."""

    def _refusal(self, _host: HostId, _mark: Mark) -> GateRefusal | None:
        return None


class _BelievesOldRows(FaultDeciders):
    """All-clear: a heartbeat after the return is taken for a look at everything."""

    def heartbeat(self, state: IngestState, beat: Heartbeat) -> Iterator[Decide]:
        yield from super().heartbeat(state, beat)
        state.reported[beat.host] = 2**62


class _TellsOfAnEnd(NoticeBridge):
    """Told in order: the end of a fault is told as recovery, whatever took its place."""

    def announce(self, tellings: Sequence[PendingNotice], first_index: int) -> Announcement:
        told = [
            replace(each, transition="cleared") if each.transition == "superseded" else each
            for each in tellings
        ]
        return super().announce(told, first_index)


ACCUSED = "a host is accused by two witnesses, once a death"
GATED = "no disruptive action but through the gate"
NOTICED = "a dead host is noticed and fenced"

LOST = "no guest is lost"
TWICE = "and still runs on"

I4 = "I4 no guest runs on two hosts"
I5 = "I5 no evacuation before the fencing receipt"
I1 = "I1 no act without a committed intent"
I8 = "I8 reservations of one host never overlap"
I10 = "I10 every open intent is closed after recovery"
DEATHS = "every death has exactly one fault"
ALL_CLEAR = "a host is cleared when what ran there is right or has a fault of its own"
TOLD_IN_ORDER = "what supersedes a fault is told before that is told as over"


@dataclass(frozen=True, slots=True)
class Planted:
    """The parts of a run with a bug in it, the checker that must find it, and words that it must say.

    `seed` is where it was found when this was written: it is tried first, since the search takes long.
    """

    parts: ClassesUnderTest
    checker: str
    words: str = ""
    seed: int = 0


PLANTED: dict[str, Planted] = {
    "I8": Planted(ClassesUnderTest(BooksWithoutLooking), I8, "both have it", 5),
    "I1": Planted(ClassesUnderTest(ActsBeforeItIsWritten), I1),
    "I2": Planted(
        ClassesUnderTest(ForgetsWhoWasNotToldYet),
        "I2 every fault ends in a notice or a stated reason",
    ),
    "I3": Planted(
        ClassesUnderTest(TellsAgainUnderAnotherKey),
        "I3 at most one notice a consumer, fault and transition",
        seed=4,
    ),
    "I10": Planted(ClassesUnderTest(LeavesActsOpen), I10, seed=3),
    "rest": Planted(ClassesUnderTest(_LeavesFencesOpen), REST, "an act is open", 43),
    "order": Planted(ClassesUnderTest(LetsClearedOvertake), "raised before cleared", seed=27),
    "all-clear": Planted(ClassesUnderTest(_BelievesOldRows), ALL_CLEAR, "is not up since"),
    "superseded": Planted(ClassesUnderTest(_TellsOfAnEnd), TOLD_IN_ORDER, "took its place", 8),
    "deaths": Planted(ClassesUnderTest(TakesAnything), DEATHS, seed=8),
    "silence": Planted(ClassesUnderTest(SendsOnce), DEATHS),
    "epoch": Planted(ClassesUnderTest(WritesWhenDeposed), "no write under an old epoch", seed=8),
    "acknowledged": Planted(ClassesUnderTest(AcknowledgesFirst), "acknowledged means committed"),
    "doubt": Planted(ClassesUnderTest(_NeverDoubts), ACCUSED, "did not answer", 3),
    "two witnesses": Planted(ClassesUnderTest(_BelievesOneWitness), ACCUSED, "probes were answered", 11),
    "accused once": Planted(ClassesUnderTest(_AccusesAgain), ACCUSED, "it was known to be", 103),
    "noticed": Planted(ClassesUnderTest(_AccusesNobody), NOTICED),
    "hold": Planted(ClassesUnderTest(_IgnoresHolds), GATED, "a person held it", 103),
    "storm": Planted(ClassesUnderTest(_IgnoresStorms), GATED, "had died at once", 344),
    "rate": Planted(ClassesUnderTest(_IgnoresTheRate), GATED, "had been done lately", 120),
    "arming": Planted(ClassesUnderTest(_IgnoresArming), GATED, "the component was not armed", 12),
    "no harm in doubt": Planted(ClassesUnderTest(_IgnoresDoubt), GATED, "could not be judged", 932),
    "asked in the entry": Planted(ClassesUnderTest(_AsksOnce), GATED, "it was not down", 7),
    "receipt": Planted(ClassesUnderTest(_TakesSilenceForAReceipt), GATED, "it was on since", 76),
    "marked unasked": Planted(ClassesUnderTest(_MarksUnasked), GATED, "intends mark_down", 12),
    "no receipt": Planted(
        ClassesUnderTest(MovesWithoutAReceipt, BelievesThePlacing), I5, "which is not fenced", 3
    ),
    "not off": Planted(
        ClassesUnderTest(MovesWithoutAReceipt, BelievesThePlacing),
        I5,
        "has not been off since",
        180,
    ),
    "two places": Planted(ClassesUnderTest(MovesWithoutAReceipt, BelievesThePlacing), I4, TWICE, 180),
    "believed off": Planted(ClassesUnderTest(_TakesSilenceForAReceipt), GATED, "a receipt is written", 76),
    "alibi": Planted(ClassesUnderTest(_LeavesStoppedHosts), NOTICED, "0 events say that it is down", 3),
    "claims": Planted(ClassesUnderTest(BelievesClaims), I4, seed=36),
    "old words": Planted(ClassesUnderTest(TakesOldWords), I4, seed=3),
    "unconfirmed": Planted(ClassesUnderTest(StartsUnconfirmed), I4, TWICE, 16),
    "kept": Planted(ClassesUnderTest(KeepsWhatItHad), I4, TWICE, 3),
    "moved unasked": Planted(
        ClassesUnderTest(NeverAsks, IsDisarmedOnceFenced), GATED, "starts it elsewhere", 8
    ),
    "lost guests": Planted(ClassesUnderTest(LeavesThemThere), LOST, "not started elsewhere", 7),
    "I1 fencing": Planted(ClassesUnderTest(_FencesFirst), I1, "no intent is committed"),
    "I10 fencing": Planted(ClassesUnderTest(_LeavesFencesOpen), I10, "the fence of", 43),
}
"""By invariant."""
