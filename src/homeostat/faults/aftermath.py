"""What is done about a host that is down: the gate is asked, then it is fenced, and the receipt written down.

Intent, act, outcome: each is in the journal before the next begins. The gate is asked again in the entry that
holds the intent: what was true when it was asked first may be over. An attempt that a dead server left open
ends as unknown, and the host is fenced again, which harms nobody. What the gate refuses is written once a
host and reason. Acts of an earlier server count for the rate limit as its own do. Telling people is not here:
that happened with the fault, before anything else.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import assert_never

import structlog

from homeostat.contracts.nouns import GATE_SUBJECT, HostId
from homeostat.contracts.wire import Outcome
from homeostat.faults.entry import Entry
from homeostat.faults.hosts import FENCING, host_fault
from homeostat.faults.loop import FaultPath
from homeostat.fleet.arming import Arming
from homeostat.fleet.fencing import Attempt, Ended
from homeostat.fleet.gate import Asked, Refusal, Situation, Why, decide, stopped_by_storm
from homeostat.fleet.settings import FleetSettings
from homeostat.fleet.store import load_intended
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import RetryLater
from homeostat.kernel.journal import Seq
from homeostat.ports import Fence, Fenced, FenceUnknown, Fencing, NotFenced

log = structlog.get_logger("aftermath")

ROOM = "faults"
ACT = "fence"
LOOK_S = 0.1
ELSEWHERE = ("resources", "start_elsewhere")
NAMED = 10
"""How many hosts one sentence names."""


@dataclass(frozen=True, slots=True)
class AftermathParts:
    """What the loop works with. `fence` is None when only a person gives receipts.

    `new_id` makes a name that no act ever had.
    """

    path: FaultPath
    arming: Arming
    fence: Fence | None
    fleet: FleetSettings
    epoch: int
    clock: Clock
    new_id: Callable[[], str] = lambda: uuid.uuid4().hex[:12]


class Aftermath:
    """The loop: one attempt a host at a time, hosts in parallel."""

    def __init__(self, parts: AftermathParts) -> None:
        self._parts = parts
        self._harm_s: deque[float] = deque(maxlen=1000)
        self._refused: dict[HostId, tuple[int, Why]] = {}
        self._not_before_s: dict[HostId, float] = {}
        self._last: dict[HostId, Seq] = {}
        self._running: set[HostId] = set()
        self._acting: set[str] = set()

    async def remember(self, readers: Readers) -> None:
        """Count what was done lately before this server began, or a restart lifts the rate limit.

        Only the wall clock outlives a server: one that is wrong by a second shifts the window by a second,
        and what seems to be done in the future counts as done now. Raises RetryLater.
        """
        wall_ns, now_s = self._parts.clock.wall_ns(), self._now_s()
        since_ns = wall_ns - round(self._parts.fleet.gate.harm_window_s * 1e9)
        done_ns = await readers.read(partial(load_intended, owner_of_act=FENCING, since_ns=since_ns))
        self._harm_s.extend(now_s - max(0, wall_ns - each) / 1e9 for each in done_ns)

    @property
    def driver(self) -> str:
        """Who fences; empty when only a person does."""
        return "" if self._parts.fence is None else self._parts.fence.name

    def verdict(self, host: HostId, act: str = ACT) -> Refusal | None:
        """What the gate would say now; None: the act may be done."""
        return self.ask(Asked(ROOM, act, host, self._parts.epoch))

    def ask(self, asked: Asked) -> Refusal | None:
        """What the gate says to an act of any room. Starting elsewhere is not counted as harm once more: the
        fencing before it was, or a person gave the receipt."""
        return decide(asked, self._situation(), self._parts.fleet.gate)

    async def run(self) -> None:
        """Look for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._close_what_was_left()
                await self._tell_of_storm()
                for host in self.due():
                    self._running.add(host)
                    group.create_task(self._about(host), name=f"aftermath {host}")
                await asyncio.sleep(LOOK_S)

    async def _tell_of_storm(self) -> None:
        """People are told once that the storm breaker stops acts, and when that is over."""
        path = self._parts.path
        if path.watch.doubt:
            return  # then that is what stops everything, and is told
        reason, fault = self._stopped(), path.world.faults.get(GATE_SUBJECT)
        if bool(reason) == (fault is not None and fault.up_ns is None):
            return
        try:
            await path.record(lambda entry: entry.acts_stopped(reason))
        except RetryLater as error:
            log.warning("not written down; tried again", error=str(error))

    def _stopped(self) -> str:
        """What only a storm stops, and how a person ends it; empty when it stops nothing."""
        topology, situation = self._parts.path.world.topology, self._situation()
        stopped: dict[HostId, str] = {}
        for node in topology.nodes.values():
            if node.down_ns is None or node.vouched:
                continue
            if not node.fenced:
                room, act = ROOM, ACT
            elif any(row.generation for row in topology.on_host(node.host)):
                room, act = ELSEWHERE
            else:
                continue
            asked = Asked(room, act, node.host, self._parts.epoch)
            if refusal := stopped_by_storm(asked, situation, self._parts.fleet.gate):
                stopped[node.host] = refusal.sentence
        if not stopped:
            return ""
        hosts = sorted(stopped)
        named = ", ".join(hosts[:NAMED]) + (f" and {len(hosts) - NAMED} more" if len(hosts) > NAMED else "")
        then = "when nothing runs on one, say so: homeostat host fenced HOST --receipt TEXT"
        return f"{stopped[hosts[0]]}; nothing is done about {named}; {then}"

    def due(self) -> list[HostId]:
        """Hosts that are down, without a receipt, and that nobody acts on just now."""
        if self._parts.fence is None:
            return []
        now_s, topology = self._now_s(), self._parts.path.world.topology
        # While the fault lasts the host may die again: what is written then must not have a cause that an
        # earlier event of the same kind had, or it is taken for a re-run of that.
        world = self._parts.path.world
        for host in [host for host in self._last if host_fault(world, host) is None]:
            del self._last[host]
        return [
            node.host
            for node in topology.nodes.values()
            if node.down_ns is not None
            and not node.fenced
            and node.host not in self._running
            and now_s >= self._not_before_s.get(node.host, 0.0)
        ]

    async def _about(self, host: HostId) -> None:
        try:
            if self._parts.fence is None:
                return
            refusal = self.verdict(host)
            if refusal is not None:
                await self._write_refusal(host, refusal)
            else:
                await self._fence(host, self._parts.fence)
        except RetryLater as error:
            log.warning("not written down; tried again", host=host, error=str(error))
            self._not_before_s[host] = self._now_s() + 1.0
        finally:
            self._running.discard(host)

    async def _write_refusal(self, host: HostId, refusal: Refusal) -> None:
        down_ns = self._parts.path.world.topology.nodes[host].down_ns or 0
        if self._refused.get(host) == (down_ns, refusal.why):
            return
        asked = Asked(ROOM, ACT, host, self._parts.epoch)
        cause = self._cause(host)
        seq = await self._parts.path.record(lambda entry: entry.refusal(asked, refusal, cause))
        self._refused[host] = (down_ns, refusal.why)
        self._last[host] = seq

    async def _fence(self, host: HostId, fence: Fence) -> None:
        settings, path = self._parts.fleet.fencing, self._parts.path
        reason = "its host is down; nothing of it may start elsewhere before"
        attempt = Attempt(host, f"fence-{host}-{self._parts.new_id()}", settings.deadline_s, reason)
        cause = self._cause(host)
        died_ns: int | None = None

        def intend(entry: Entry) -> None:
            nonlocal died_ns
            node = entry.world.topology.nodes[host]
            if node.down_ns is not None and not node.fenced and self.verdict(host) is None:
                died_ns = node.down_ns
                self._harm_s.append(self._now_s())
                entry.fence_intended(attempt, cause)

        self._acting.add(attempt.action)
        try:
            seq = await path.record(intend)
            if died_ns is None:
                return
            self._last[host] = seq
            began_ns = self._parts.clock.mono_ns()
            ended = _ended(attempt.action, fence, await fence.fence(host), began_ns, self._parts.clock)
            ended = replace(ended, died_ns=died_ns)
            if ended.outcome is not Outcome.OK:
                self._not_before_s[host] = self._now_s() + settings.retry_s
            self._last[host] = await self._insist(lambda entry: entry.fence_ended(host, ended))
        finally:
            self._acting.discard(attempt.action)

    async def _close_what_was_left(self) -> None:
        """Acts that nobody here does: another server began them, or nobody knew that they were written."""
        for action in list(self._parts.path.world.topology.actions.values()):
            if action.owner_of_act == FENCING and action.id not in self._acting:
                host = HostId(action.about.partition("/")[2])
                said = "nobody saw how it ended"
                ended = Ended(action.id, "", Outcome.UNKNOWN, 0.0, said)
                self._last[host] = await self._insist(
                    lambda entry, host=host, ended=ended: entry.fence_ended(host, ended)  # type: ignore[misc]
                )

    async def _insist(self, change: Callable[[Entry], None]) -> Seq:
        """Outcomes are written down however long it takes."""
        while True:
            try:
                return await self._parts.path.record(change)
            except RetryLater as error:
                log.warning("an outcome waits to be written down", error=str(error))
                await asyncio.sleep(1.0)

    def _cause(self, host: HostId) -> Seq | None:
        """The last event of this story; none when another server told its beginning."""
        if host in self._last:
            return self._last[host]
        fault = host_fault(self._parts.path.world, host)
        if fault is None or fault.raised_ns < self._parts.path.began_ns:
            return None
        return fault.raised_seq if isinstance(fault.raised_seq, int) else None

    def _situation(self) -> Situation:
        path, parts = self._parts.path, self._parts
        nodes = path.world.topology.nodes.values()
        # Hosts that die together are accused one after the other, by the phase of their heartbeats: whoever
        # does not answer counts, or the first few are fenced before the storm is seen.
        died_ns = {
            **path.watch.suspected,
            **{node.host: node.down_ns for node in nodes if node.down_ns is not None},
        }
        return Situation(
            now_s=self._now_s(),
            epoch=parts.epoch,
            hosts=len(nodes),
            unknown=path.watch.doubt,
            held={node.host: node.held for node in nodes if node.held},
            deaths_s={host: at_ns / 1e9 for host, at_ns in died_ns.items()},
            harm_s=tuple(self._harm_s),
            armed=parts.arming.rooms,
            fenced_s={node.host: node.fenced_ns / 1e9 for node in nodes if node.fenced_ns is not None},
            vouched=frozenset(node.host for node in nodes if node.vouched),
        )

    def _now_s(self) -> float:
        return self._parts.clock.mono_ns() / 1e9


def _ended(action: str, fence: Fence, said: Fencing, began_ns: int, clock: Clock) -> Ended:
    took_ms = (clock.mono_ns() - began_ns) / 1e6
    match said:
        case Fenced():
            return Ended(action, fence.name, Outcome.OK, took_ms, said.receipt)
        case NotFenced():
            return Ended(action, fence.name, Outcome.FAILED, took_ms, said.reason)
        case FenceUnknown():
            return Ended(action, fence.name, Outcome.UNKNOWN, took_ms, said.reason)
        case _:
            assert_never(said)
