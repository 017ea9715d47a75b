"""Tells the cloud that a host is down and what ran there is in error, and takes that back.

Intent, act, outcome: each is in the journal before the next begins; an act has a deadline. It starts when
the commit of a death is known, together with the notices and never before them; nobody is told later because
a cloud is slow. An act that a dead server left open is looked at: what the cloud shows says how it ended.
The gate is asked before anything is marked. To take it back does no harm, so nobody has to be asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

import structlog

from homeostat.contracts.nouns import HostId, Mark, ResourceState
from homeostat.contracts.wire import Outcome
from homeostat.faults.entry import Entry
from homeostat.faults.hosts import host_fault
from homeostat.faults.loop import FaultPath
from homeostat.faults.marks import MARKING, MarkAct, due, trace_of
from homeostat.faults.settings import FaultsSettings
from homeostat.fleet.gate import Asked, Refusal, Why
from homeostat.kernel.clock import Clock
from homeostat.kernel.errors import RetryLater
from homeostat.kernel.journal import Seq
from homeostat.ports import Cloud, CloudView, Marked, Marking, MarkUnknown, NotMarked

log = structlog.get_logger("marking")

ROOM = "faults"
LOOK_S = 0.25
"""How often is looked whether something is due; a death wakes the loop at once."""
HARMFUL = frozenset({Mark.MARK_DOWN, Mark.SET_ERROR})


@dataclass(frozen=True, slots=True)
class MarkerParts:
    """What the loop works with. `gate` is asked with the host and the act."""

    path: FaultPath
    cloud: Cloud
    gate: Callable[[HostId, str], Refusal | None]
    settings: FaultsSettings
    epoch: int
    clock: Clock


@dataclass(frozen=True, slots=True)
class _Story:
    """The death that the acts of a host are about: its trace, and the last event of ours in it."""

    trace: str
    last: Seq | None


class Marker:
    """The loop: one act a host at a time, hosts in parallel."""

    def __init__(self, parts: MarkerParts) -> None:
        self._parts = parts
        self._stories: dict[HostId, _Story] = {}
        self._refused: dict[HostId, tuple[int, Why]] = {}
        self._not_before_ns: dict[HostId, int] = {}
        self._running: set[HostId] = set()

    @property
    def cloud(self) -> str:
        """The name of the driver."""
        return self._parts.cloud.name

    async def run(self) -> None:
        """Look for ever."""
        await self._close_what_was_left()
        woken = self._parts.path.host_events
        async with asyncio.TaskGroup() as group:
            while True:
                woken.clear()
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
            and due(world, host) is not None
        ]

    async def _about(self, host: HostId) -> None:
        """All that is due of one host, one after the other."""
        try:
            while (mark := due(self._parts.path.world, host)) is not None:
                refusal = self._refusal(host, mark)
                if refusal is not None:
                    await self._write_refusal(host, mark, refusal)
                    return
                if not await self._tell(host, mark):
                    self._wait(host, self._parts.settings.mark_retry_s)
                    return
        except RetryLater as error:
            log.warning("not written down; tried again", host=host, error=str(error))
            self._wait(host, 1.0)
        finally:
            self._running.discard(host)

    def _refusal(self, host: HostId, mark: Mark) -> Refusal | None:
        return self._parts.gate(host, mark.value) if mark in HARMFUL else None

    def _wait(self, host: HostId, wait_s: float) -> None:
        self._not_before_ns[host] = self._parts.clock.mono_ns() + round(wait_s * 1e9)

    async def _write_refusal(self, host: HostId, mark: Mark, refusal: Refusal) -> None:
        """Once a death and reason."""
        down_ns = self._parts.path.world.topology.nodes[host].down_ns or 0
        if self._refused.get(host) == (down_ns, refusal.why):
            return
        asked = Asked(ROOM, mark.value, host, self._parts.epoch)
        story = self._story(host)
        seq = await self._parts.path.record(lambda entry: entry.refusal(asked, refusal, story.last))
        # The next refusal, of another reason, is caused by this one: the same cause would make it a re-run.
        self._stories[host] = _Story(story.trace, seq)
        self._refused[host] = (down_ns, refusal.why)

    async def _tell(self, host: HostId, mark: Mark) -> bool:
        """One act; whether the cloud shows it, or it was left out because it is not due any more."""
        deadline_s, story = self._parts.settings.mark_deadline_s, self._story(host)
        act = MarkAct(host, mark, f"{mark.value}-{host}-{uuid.uuid4().hex[:12]}", deadline_s, story.trace)
        intended = False

        def intend(entry: Entry) -> None:
            """What the gate said first, and what was due, may be over when the entry is made."""
            nonlocal intended
            if due(entry.world, host) is mark and self._refusal(host, mark) is None:
                intended = True
                entry.mark_intended(act, story.last)

        seq = await self._parts.path.record(intend)
        if not intended:
            return True  # look again
        self._stories[host] = _Story(story.trace, seq)
        began_ns = self._parts.clock.mono_ns()
        outcome, said = _ended(await self._done(host, mark))
        took_ms = (self._parts.clock.mono_ns() - began_ns) / 1e6
        ended = (outcome, took_ms, said)
        seq = await self._insist(lambda entry: entry.mark_ended(act.action, ended))
        self._stories[host] = _Story(story.trace, seq)
        return outcome is Outcome.OK

    async def _done(self, host: HostId, mark: Mark) -> Marking:
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
            return MarkUnknown(f"the cloud did not answer within {deadline_s:g} s")

    def _seen(self, host: HostId) -> list[str]:
        rows = self._parts.path.world.topology.on_host(host)
        return [row.id for row in rows if row.state is ResourceState.UP]

    async def _close_what_was_left(self) -> None:
        """Acts that another server began: what the cloud shows says how they ended."""
        for action in list(self._parts.path.world.topology.actions.values()):
            if action.owner_of_act == MARKING:
                host = HostId(action.about.partition("/")[2])
                view = await self._look(host)
                outcome, said = _left(view, Mark(action.verb))
                ended = (outcome, 0.0, f"{said}; the server ended before the act did")
                seq = await self._insist(
                    lambda entry, action=action, ended=ended: entry.mark_ended(action.id, ended)  # type: ignore[misc]
                )
                self._stories[host] = _Story(action.trace, seq)

    async def _look(self, host: HostId) -> CloudView | MarkUnknown:
        try:
            async with asyncio.timeout(self._parts.settings.mark_deadline_s):
                return await self._parts.cloud.look(host)
        except TimeoutError:
            return MarkUnknown("the cloud did not answer")

    async def _insist(self, change: Callable[[Entry], None]) -> Seq:
        """Outcomes are written down however long it takes."""
        while True:
            try:
                return await self._parts.path.record(change)
            except RetryLater as error:
                log.warning("an outcome waits to be written down", error=str(error))
                await asyncio.sleep(1.0)

    def _story(self, host: HostId) -> _Story:
        """Acts that take something back belong to the death that they take back, also when it is over."""
        world = self._parts.path.world
        fault, known = host_fault(world, host), self._stories.get(host)
        if known is not None and (fault is None or fault.trace == known.trace):
            return known
        last = None
        # Of a fault that another server told, this one does not know which events there are already.
        if fault is not None and fault.raised_ns >= self._parts.path.began_ns:
            last = fault.raised_seq if isinstance(fault.raised_seq, int) else None
        return _Story(trace_of(world, host), last)


def _ended(said: Marking) -> tuple[Outcome, str]:
    match said:
        case Marked():
            return Outcome.OK, said.said
        case NotMarked():
            return Outcome.FAILED, said.reason
        case MarkUnknown():
            return Outcome.UNKNOWN, said.reason
        case _:
            assert_never(said)


def _left(view: CloudView | MarkUnknown, mark: Mark) -> tuple[Outcome, str]:
    """How an act ended that nobody saw the end of. Errors of some guests do not say how it went for all."""
    if isinstance(view, MarkUnknown):
        return Outcome.UNKNOWN, view.reason
    if mark is Mark.MARK_DOWN and view.down:
        return Outcome.OK, "the cloud shows it as down"
    if mark is Mark.MARK_UP and not view.down:
        return Outcome.OK, "the cloud does not show it as down"
    if mark is Mark.CLEAR_ERROR and not view.in_error:
        return Outcome.OK, "the cloud shows nothing there in error"
    return Outcome.UNKNOWN, "what the cloud shows does not say how it ended"
