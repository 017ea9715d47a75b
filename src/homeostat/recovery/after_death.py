"""Fences a host that is down: asks the gate, fences, and writes the receipt into the journal.

Intent, act, outcome: each is in the journal before the next begins. The gate is asked again in the entry that
holds the intent: what was true when it was asked first may be over. An attempt that a dead server left open
ends as unknown, and the host is fenced again, which has no further effect. What the gate refuses is written
once a host and reason. Acts of an earlier server count for the rates as its own do. Notices are not sent
here: they went out with the fault, before anything else.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

import structlog

from homeostat.contracts.nouns import GATE_SUBJECT, HostId
from homeostat.contracts.wire import Outcome
from homeostat.fleet import gate
from homeostat.fleet.fencing import FENCE, FenceAttempt, FenceOutcome
from homeostat.fleet.settings import FleetSettings
from homeostat.fleet.store import load_intended, load_started_elsewhere
from homeostat.ingest.entry import Decision, IngestState, Moment
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import RetryLater
from homeostat.ports import Fence, NewId, act_outcome
from homeostat.recovery import acts

log = structlog.get_logger("aftermath")

LOOK_S = 0.1
HOSTS_NAMED_MAX = 10
"""How many hosts one sentence names."""


@dataclass(frozen=True, slots=True)
class FencingDependencies:
    """What the loop works with. `fence` is None when only a person gives receipts."""

    path: IngestLoop
    arming: gate.Arming
    fence: Fence | None
    fleet: FleetSettings
    epoch: int
    clock: Clock
    new_id: NewId


class RefusalRecords:
    """Writes down what the gate refuses, once a host, death and reason."""

    def __init__(self, path: IngestLoop) -> None:
        self._path = path
        self._written: dict[HostId, tuple[int, gate.GateReason]] = {}

    async def write(self, asked: gate.GateRequest, refusal: gate.GateRefusal) -> None:
        """RetryLater: it was not written, and is when it is refused again."""
        node = self._path.world.topology.nodes.get(asked.host)
        if node is None:
            return  # it was forgotten a moment ago
        down_ns = node.down_ns or 0
        if self._written.get(asked.host) != (down_ns, refusal.why):
            await self._path.record(lambda state, now: acts.on_refusal(state, asked, refusal, now))
            self._written[asked.host] = (down_ns, refusal.why)


class FencingLoop:
    """The loop: one attempt a host at a time, hosts in parallel."""

    def __init__(self, parts: FencingDependencies) -> None:
        self._parts = parts
        self.recent = gate.RecentActs()
        self._refusals = RefusalRecords(parts.path)
        self._not_before_s: dict[HostId, float] = {}
        self._running: set[HostId] = set()
        self._acting: set[str] = set()

    async def remember(self, readers: Readers) -> None:
        """Count what was done lately before this server began, or a restart lifts the rate limit.

        Only the wall clock outlives a server: one that is wrong by a second shifts the window by a second,
        and what seems to be done in the future counts as done now. Raises RetryLater.
        """
        limits, wall_ns, now_s = self._parts.fleet.gate, self._parts.clock.wall_ns(), self._now_s()
        window_s = max(limits.harm_window_s, limits.mark_window_s, limits.start_window_s)
        since_ns = wall_ns - round(window_s * 1e9)
        owners = {acts.FENCING, *acts.MARKING_OWNERS}
        begun = await readers.read(partial(load_intended, owners_of_act=owners, since_ns=since_ns))
        moved = await readers.read(partial(load_started_elsewhere, since_ns=since_ns))
        starts = [(gate.START_ELSEWHERE, f"{trace}/{at_ns}", at_ns) for trace, at_ns in moved]
        for act, name, at_ns in (*begun, *starts):
            self.recent.count(act, name, now_s - max(0, wall_ns - at_ns) / 1e9)

    @property
    def driver(self) -> str:
        """Who fences; empty when only a person does."""
        return "" if self._parts.fence is None else self._parts.fence.name

    def verdict(self, host: HostId, act: str = FENCE) -> gate.GateRefusal | None:
        """What the gate would say now; None: the act may be done."""
        return self.ask(gate.GateRequest(acts.COMPONENT, act, host, self._parts.epoch))

    def count(self, act: str, name: str) -> None:
        """An act of this kind is let through now, for its rate; `name` is unique for ever."""
        self.recent.count(act, name, self._now_s())

    def ask(self, asked: gate.GateRequest) -> gate.GateRefusal | None:
        """What the gate says to an act of any kind now."""
        return gate.decide(asked, self._situation(), self._parts.fleet.gate)

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
            await path.record(lambda state, now: acts.on_acts_stopped(state, reason, now))
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
                act = FENCE
            elif any(row.generation for row in topology.on_host(node.host)):
                act = gate.START_ELSEWHERE
            else:
                continue
            asked = gate.GateRequest(acts.COMPONENT, act, node.host, self._parts.epoch)
            if refusal := gate.storm_refusal(asked, situation, self._parts.fleet.gate):
                stopped[node.host] = refusal.sentence
        if not stopped:
            return ""
        hosts = sorted(stopped)
        named = ", ".join(hosts[:HOSTS_NAMED_MAX]) + (
            f" and {len(hosts) - HOSTS_NAMED_MAX} more" if len(hosts) > HOSTS_NAMED_MAX else ""
        )
        then = "confirm each one that is off: homeostat host fenced HOST --receipt TEXT"
        return f"{stopped[hosts[0]]}; {named} are not fenced or recovered; {then}"

    def due(self) -> list[HostId]:
        """Hosts that are down, without a receipt, and that nobody acts on just now."""
        if self._parts.fence is None:
            return []
        now_s, topology = self._now_s(), self._parts.path.world.topology
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
                asked = gate.GateRequest(acts.COMPONENT, FENCE, host, self._parts.epoch)
                await self._refusals.write(asked, refusal)
            else:
                await self._fence(host, self._parts.fence)
        except RetryLater as error:
            log.warning("not written down; tried again", host=host, error=str(error))
            self._not_before_s[host] = self._now_s() + 1.0
        finally:
            self._running.discard(host)

    async def _fence(self, host: HostId, fence: Fence) -> None:
        settings, path = self._parts.fleet.fencing, self._parts.path
        reason = "its host is down; nothing of it may start elsewhere before"
        attempt = FenceAttempt(host, f"fence-{host}-{self._parts.new_id()}", settings.deadline_s, reason)
        died_ns: int | None = None

        def intend(state: IngestState, now: Moment) -> Decision:
            # An entry that the store refuses is decided again, request by request: only the last time counts.
            nonlocal died_ns
            self.recent.discard(FENCE, attempt.action)
            died_ns = None
            node = state.topology.nodes.get(host)
            if node is None or node.down_ns is None or node.fenced or self.verdict(host) is not None:
                return Decision(now.base)
            died_ns = node.down_ns
            self.count(FENCE, attempt.action)
            return acts.on_fence_intended(state, attempt, now)

        self._acting.add(attempt.action)
        try:
            await path.record(intend)
            if died_ns is None:
                return
            began_ns = self._parts.clock.mono_ns()
            outcome, said = act_outcome(await fence.fence(host))
            took_ms = (self._parts.clock.mono_ns() - began_ns) / 1e6
            ended = FenceOutcome(attempt.action, fence.name, outcome, took_ms, said, died_ns)
            if ended.outcome is not Outcome.OK:
                self._not_before_s[host] = self._now_s() + settings.retry_s
            await path.insist(partial(_fence_ended, host, ended))
        finally:
            self._acting.discard(attempt.action)

    async def _close_what_was_left(self) -> None:
        """Acts that nobody here does: another server began them, or nobody knew that they were written."""
        for action in list(self._parts.path.world.topology.actions.values()):
            if action.owner_of_act == acts.FENCING and action.id not in self._acting:
                host = HostId(action.about.partition("/")[2])
                said = "nobody saw how it ended"
                ended = FenceOutcome(action.id, "", Outcome.UNKNOWN, 0.0, said)
                await self._parts.path.insist(partial(_fence_ended, host, ended))

    def _situation(self) -> gate.Situation:
        path, parts = self._parts.path, self._parts
        nodes = path.world.topology.nodes.values()
        # Hosts that die together are accused one after the other, by the phase of their heartbeats: whoever
        # does not answer counts, or the first few are fenced before the storm is seen.
        died_ns = {
            **path.watch.suspected,
            **{node.host: node.down_ns for node in nodes if node.down_ns is not None},
        }
        return gate.Situation(
            now_s=self._now_s(),
            epoch=parts.epoch,
            living=path.watch.watched(path.world.topology),
            unknown=path.watch.doubt,
            held={node.host: node.held for node in nodes if node.held},
            deaths_s={host: at_ns / 1e9 for host, at_ns in died_ns.items()},
            done_s=self.recent.by_kind(),
            armed=parts.arming.components,
            fenced_s={node.host: node.fenced_ns / 1e9 for node in nodes if node.fenced_ns is not None},
            vouched=frozenset(node.host for node in nodes if node.vouched),
        )

    def _now_s(self) -> float:
        return self._parts.clock.mono_ns() / 1e9


def _fence_ended(host: HostId, ended: FenceOutcome, state: IngestState, now: Moment) -> Decision:
    return acts.on_fence_ended(state, host, ended, now)
