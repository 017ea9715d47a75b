"""Marks a dead host down and its guests in error at the cloud, and undoes both when the host is back.

Intent, act, outcome: each is in the journal before the next begins; an act has a deadline. It starts when
the commit of a death is known, together with the notices and never before them; no notice waits for a slow
cloud. For an act that a dead server left open the cloud is read: what it shows says how the act ended. The
gate is asked before anything is marked. Undoing a mark disrupts nothing, so the gate is not asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import assert_never

import structlog

from homeostat.contracts.nouns import HostId, Mark, ResourceState
from homeostat.contracts.wire import Outcome
from homeostat.faults.hosts import host_fault
from homeostat.faults.settings import FaultsSettings
from homeostat.fleet.gate import GateRefusal, GateRequest
from homeostat.ingest.entry import Decision, IngestState, Moment
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel.clock import Clock
from homeostat.kernel.errors import RetryLater
from homeostat.kernel.journal import EventIndex, Seq
from homeostat.ports import ActUnknown, Cloud, CloudView, MarkResult, NewId, act_outcome
from homeostat.recovery import acts
from homeostat.recovery.after_death import RefusalRecords

log = structlog.get_logger("marking")

LOOK_S = 0.25
"""How often is looked whether something is due; a death wakes the loop at once."""
DISRUPTIVE = frozenset({Mark.MARK_DOWN, Mark.SET_ERROR})


@dataclass(frozen=True, slots=True)
class CloudMarkerDependencies:
    """What the loop works with. `gate` is asked with the host and the act; `count` is told the kind and the
    name of each act that it let through."""

    path: IngestLoop
    cloud: Cloud
    gate: Callable[[HostId, str], GateRefusal | None]
    settings: FaultsSettings
    epoch: int
    clock: Clock
    new_id: NewId
    count: Callable[[str, str], None] = lambda _act, _name: None


@dataclass(frozen=True, slots=True)
class _Story:
    """The death that the acts of a host are about: its trace, and the event that it began with."""

    trace: str
    cause: Seq | EventIndex | None


class CloudMarker:
    """The loop: one act a host at a time, hosts in parallel."""

    def __init__(self, parts: CloudMarkerDependencies) -> None:
        self._parts = parts
        self._stories: dict[HostId, _Story] = {}
        self._refusals = RefusalRecords(parts.path)
        self._not_before_ns: dict[HostId, int] = {}
        self._running: set[HostId] = set()
        self._acting: set[str] = set()

    @property
    def cloud(self) -> str:
        return self._parts.cloud.name

    async def run(self) -> None:
        """Look for ever."""
        woken = self._parts.path.host_events
        async with asyncio.TaskGroup() as group:
            while True:
                woken.clear()
                await self._close_what_was_left()
                for host in self._due():
                    self._running.add(host)
                    group.create_task(self._about(host), name=f"marking {host}")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await woken.wait()

    def _due(self) -> list[HostId]:
        world, now_ns = self._parts.path.world, self._parts.clock.mono_ns()
        return [
            host
            for host in world.topology.nodes
            if host not in self._running
            and now_ns >= self._not_before_ns.get(host, 0)
            and acts.due(world, host) is not None
        ]

    async def _about(self, host: HostId) -> None:
        """All that is due of one host, one after the other."""
        try:
            while (mark := acts.due(self._parts.path.world, host)) is not None:
                refusal = self._refusal(host, mark)
                if refusal is not None:
                    asked = GateRequest(acts.COMPONENT, mark.value, host, self._parts.epoch)
                    await self._refusals.write(asked, refusal)
                    return
                if not await self._tell(host, mark):
                    self._wait(host, self._parts.settings.mark_retry_s)
                    return
        except RetryLater as error:
            log.warning("not written down; tried again", host=host, error=str(error))
            self._wait(host, 1.0)
        finally:
            self._running.discard(host)

    def _refusal(self, host: HostId, mark: Mark) -> GateRefusal | None:
        return self._parts.gate(host, mark.value) if mark in DISRUPTIVE else None

    def _wait(self, host: HostId, wait_s: float) -> None:
        self._not_before_ns[host] = self._parts.clock.mono_ns() + round(wait_s * 1e9)

    async def _tell(self, host: HostId, mark: Mark) -> bool:
        """One act; whether the cloud shows it, or it was left out because it is not due any more."""
        action, deadline_s = (
            f"{mark.value}-{host}-{self._parts.new_id()}",
            self._parts.settings.mark_deadline_s,
        )
        story: _Story | None = None

        def intend(state: IngestState, now: Moment) -> Decision:
            """What the gate said first, and what was due, may be over when the entry is made."""
            nonlocal story
            story = None  # an entry that the store refuses is decided again: the last time counts
            if acts.due(state, host) is not mark or self._refusal(host, mark) is not None:
                return Decision(now.base)
            # Not read before: while the entry of a death is being committed, its events have no numbers.
            story = self._story(host)
            act = acts.MarkAct(host, mark, action, deadline_s, story.trace)
            if mark in DISRUPTIVE:
                self._parts.count(mark.value, action)
            return acts.on_mark_intended(act, story.cause, now)

        self._acting.add(action)
        try:
            await self._parts.path.record(intend)
            if story is None:
                return True  # look again
            self._stories[host] = story
            began_ns = self._parts.clock.mono_ns()
            outcome, said = act_outcome(await self._done(host, mark))
            took_ms = (self._parts.clock.mono_ns() - began_ns) / 1e6
            await self._parts.path.insist(partial(_mark_ended, action, (outcome, took_ms, said)))
            return outcome is Outcome.OK
        finally:
            self._acting.discard(action)

    async def _done(self, host: HostId, mark: Mark) -> MarkResult:
        cloud, deadline_s = self._parts.cloud, self._parts.settings.mark_deadline_s
        try:
            async with asyncio.timeout(deadline_s):
                match mark:
                    case Mark.MARK_DOWN:
                        return await cloud.mark_down(host)
                    case Mark.SET_ERROR:
                        return await cloud.set_error(host)
                    case Mark.MARK_UP:
                        return await cloud.mark_up(host)
                    case Mark.CLEAR_ERROR:
                        return await cloud.clear_error(host, self._seen(host))
                    case _:
                        assert_never(mark)
        except TimeoutError:
            return ActUnknown(f"the cloud did not answer within {deadline_s:g} s")

    def _seen(self, host: HostId) -> list[str]:
        rows = self._parts.path.world.topology.on_host(host)
        return [row.id for row in rows if row.state is ResourceState.UP]

    async def _close_what_was_left(self) -> None:
        """Acts that nobody here does: another server began them, or nobody knew that they were written.

        What the cloud shows says how they ended.
        """
        for action in list(self._parts.path.world.topology.actions.values()):
            is_left = action.owner_of_act in acts.MARKING_OWNERS and action.id not in self._acting
            if is_left and not isinstance(action.intended_seq, EventIndex):  # else it is not committed yet
                host = HostId(action.about.partition("/")[2])
                view = await self._look(host)
                outcome, said = _left(view, Mark(action.verb))
                ended = (outcome, 0.0, f"{said}; nobody saw how it ended")
                await self._parts.path.insist(partial(_mark_ended, action.id, ended))
                self._stories[host] = _Story(action.trace, action.intended_seq)

    async def _look(self, host: HostId) -> CloudView | ActUnknown:
        try:
            async with asyncio.timeout(self._parts.settings.mark_deadline_s):
                return await self._parts.cloud.look(host)
        except TimeoutError:
            return ActUnknown("the cloud did not answer")

    def _story(self, host: HostId) -> _Story:
        """Acts that take something back belong to the death that they take back, also when it is over."""
        world = self._parts.path.world
        fault, known = host_fault(world, host), self._stories.get(host)
        is_number = known is not None and not isinstance(known.cause, EventIndex)  # not of an earlier entry
        if known is not None and is_number and (fault is None or fault.trace == known.trace):
            return known
        return _Story(acts.trace_of(world, host), None if fault is None else fault.raised_seq)


def _mark_ended(action: str, ended: tuple[Outcome, float, str], state: IngestState, now: Moment) -> Decision:
    return acts.on_mark_ended(state, action, ended, now)


def _left(view: CloudView | ActUnknown, mark: Mark) -> tuple[Outcome, str]:
    """How an act ended that nobody saw the end of. Errors of some guests do not say how it went for all."""
    if isinstance(view, ActUnknown):
        return Outcome.UNKNOWN, view.reason
    if mark is Mark.MARK_DOWN and view.down:
        return Outcome.OK, "the cloud shows it as down"
    if mark is Mark.MARK_UP and not view.down:
        return Outcome.OK, "the cloud does not show it as down"
    if mark is Mark.CLEAR_ERROR and not view.in_error:
        return Outcome.OK, "the cloud shows nothing there in error"
    return Outcome.UNKNOWN, "what the cloud shows does not say how it ended"
