"""The inbox of the write path, in which messages and requests have one order; the sweep over silent nodes.

Nothing is committed here. Invariants of the inbox: a message counts only for the host on whose subject it
came; what waits is bounded in bytes, a batch in work and bytes; what does not fit is sent again by its node;
a heartbeat takes no place, since only the last one of each node counts. Times are taken when a message comes
in, on our monotonic clock. A request carries a change of the entry; whoever waits for it gets one answer,
after the commit or with the reason why there was none.

The sweep gathers evidence about silent nodes and dead hosts, has it judged by `fleet.suspicion` and writes
the judgement; what a silence or a death means is decided by the components. Invariants: while nothing may be
concluded nobody is accused, and a doubt that lasts is itself written down; what comes in while we are not
connected, or late ourselves, is no evidence against anybody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import structlog

from homeostat.contracts.nouns import FaultKind, HostId
from homeostat.contracts.roles import LOOKED_EVERY_S
from homeostat.contracts.wire import Goodbye, Heartbeat, HostFactsReport, Observations, Snapshot, decode
from homeostat.fleet.model import AgentState, Node, Topology
from homeostat.fleet.suspicion import (
    HostEvidence,
    LoneWitness,
    ServerLink,
    SuspicionLimits,
    SuspicionOutcome,
    judge,
)
from homeostat.ingest.entry import Entry, IngestDependencies
from homeostat.ingest.watches import AgentLife
from homeostat.kernel.bus import Messages
from homeostat.kernel.clock import Clock
from homeostat.kernel.errors import BadInput, StoreUnavailable
from homeostat.kernel.journal import Seq


@dataclass(frozen=True, slots=True)
class EntryRequest:
    """Something that another loop wants in the journal, and who waits for it. `last`: behind all faults."""

    change: Callable[[Entry], None]
    done: asyncio.Future[Seq]
    last: bool = False

    def change_in(self, entry: Entry) -> int:
        """How many events there are with those of the request; 0 when it has none."""
        before = len(entry.events)
        self.change(entry)
        return len(entry.events) if len(entry.events) > before else 0

    def refuse(self, error: BaseException) -> None:
        """Tell who waits that it was not committed."""
        if not self.done.done():
            self.done.set_exception(StoreUnavailable(f"not committed: {error}"))

    def fail(self, error: Exception) -> None:
        """Tell who waits what its decision raised."""
        if self.done.done():
            return
        if isinstance(error, StopIteration):  # a future takes none: it would seem to be the end of who waits
            cause, error = error, RuntimeError(f"a decision raised {error!r}")
            error.__cause__ = cause
        self.done.set_exception(error)


log = structlog.get_logger("faults")

WORK_MAX = 256
"""Transitions, statuses, candidates and requests of one batch. Each costs about 0.1 ms on the event loop: 128
messages, each full of them, once were 1.2 s in one piece."""
BATCH_BYTES_MAX = 4 * 1024 * 1024
INBOX_BYTES_MAX = 64 * 1024 * 1024
"""Of messages as they came in. Decoded they take several times as much memory."""

Message = Observations | Snapshot | Goodbye | HostFactsReport
M = TypeVar("M", bound=Heartbeat | Observations | Snapshot | Goodbye | HostFactsReport)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """`size` in bytes as it came in, of a piece its part of them; a request counts as nothing."""

    item: Message | EntryRequest
    received_ns: int
    size: int

    @property
    def work(self) -> int:
        match self.item:
            case Observations():
                return max(1, len(self.item.transitions))
            case Snapshot():
                return max(1, len(self.item.levels) + len(self.item.offers))
            case _:
                return 1


def _pieces(waiting: _Waiting) -> list[_Waiting]:
    """A message of a node in pieces of one batch each, in order. A snapshot is whole or nothing."""
    item = waiting.item
    if not isinstance(item, Observations) or waiting.work <= WORK_MAX:
        return [waiting]
    transitions, step = item.transitions, WORK_MAX
    size = waiting.size * step // len(transitions)
    return [
        _Waiting(replace(item, transitions=transitions[start : start + step]), waiting.received_ns, size)
        for start in range(0, len(transitions), step)
    ]


class Inbox:
    """`at_ns` is when each node was last heard, `lives` when its process was, `since_ns` since when we hear
    all."""

    def __init__(self, bus: Messages, clock: Clock, inbox_max: int) -> None:
        self._bus, self._clock = bus, clock
        self._beats: dict[HostId, Heartbeat] = {}
        self.lives: dict[HostId, AgentLife] = {}
        self.at_ns: dict[HostId, int] = {}
        self.inbox: asyncio.Queue[_Waiting] = asyncio.Queue(inbox_max)
        self._bytes = 0
        self._next: deque[_Waiting] = deque()  # taken out of the inbox, for the next batch
        self.since_ns = clock.mono_ns()
        self.refused = 0

    @property
    def connected(self) -> bool:
        """Whether anything that nodes say can reach us now."""
        return self._bus.connected

    async def listen(self) -> None:
        """Subscribe to everything that nodes publish."""
        bus = self._bus
        await bus.subscribe("node.*.heartbeat", self._on_heartbeat)
        await bus.subscribe("node.*.observations", partial(self._on_message, Observations))
        await bus.subscribe("node.*.levels", partial(self._on_message, Snapshot))
        await bus.subscribe("node.*.goodbye", partial(self._on_message, Goodbye))
        await bus.subscribe("node.*.facts", partial(self._on_message, HostFactsReport))
        self.since_ns = self._clock.mono_ns()

    async def put(self, request: EntryRequest) -> None:
        """Take a request in, behind what is there already; waits while the inbox is full."""
        await self.inbox.put(_Waiting(request, self._clock.mono_ns(), 0))

    async def next_batch(self, within_s: float) -> list[tuple[Message | EntryRequest, int]]:
        """What has come in, in its order, up to `WORK_MAX` and `BATCH_BYTES_MAX`; empty: nothing did in time.

        Observations that are more work come in pieces, a larger snapshot alone.
        """
        batch: list[tuple[Message | EntryRequest, int]] = []
        if not self._next:
            try:
                async with asyncio.timeout(within_s):
                    self._taken(await self.inbox.get())
            except TimeoutError:
                return batch
        work = size = 0
        while self._next or not self.inbox.empty():
            if not self._next:
                self._taken(self.inbox.get_nowait())
            work, size = work + self._next[0].work, size + self._next[0].size
            if batch and (work > WORK_MAX or size > BATCH_BYTES_MAX):
                break
            first = self._next.popleft()
            batch.append((first.item, first.received_ns))
        return batch

    def _taken(self, waiting: _Waiting) -> None:
        self._bytes -= waiting.size
        self._next.extend(_pieces(waiting))

    def take_beats(self) -> Collection[Heartbeat]:
        """The last heartbeat of each node that sent one since this was asked last."""
        beats, self._beats = self._beats, {}
        return beats.values()

    def _on_heartbeat(self, subject: str, body: bytes) -> None:
        beat = self._checked(Heartbeat, subject, body)
        if beat is not None:
            self._beats[beat.host] = beat
            known, at_ns = self.lives.get(beat.host), self.at_ns[beat.host]
            self.lives[beat.host] = AgentLife.heard(known, beat, at_ns)

    def _on_message(self, kind: type[Message], subject: str, body: bytes) -> None:
        message = self._checked(kind, subject, body)
        if message is None:
            return
        if self.inbox.full() or self._bytes + len(body) > INBOX_BYTES_MAX:
            # The node sends it again until it is acknowledged.
            log.warning("inbox full; a message waits at its node", subject=subject, bytes=self._bytes)
            return
        self._bytes += len(body)
        self.inbox.put_nowait(_Waiting(message, self._clock.mono_ns(), len(body)))

    def _checked(self, kind: type[M], subject: str, body: bytes) -> M | None:
        """A message of a node that was heard with it; None for what is refused."""
        try:
            message = decode(kind, body)
            if message.host != subject.split(".")[1]:
                raise BadInput(f"{kind.__name__}.host", message.host, f"it came in on {subject}")
        except BadInput as error:
            self.refused += 1
            log.warning("message refused", subject=subject, error=str(error), refused=self.refused)
            return None
        self.at_ns[message.host] = self._clock.mono_ns()
        return message


class LivenessSweep:
    """`doubt` is why nothing may be concluded now, or empty; `doubts`, `suspected` and `alone` as in
    `SuspicionOutcome`."""

    def __init__(self, parts: IngestDependencies, hearing: Inbox) -> None:
        self._parts, self._hearing = parts, hearing
        self.doubt = "no node has been heard yet"
        self.doubts: Mapping[HostId, str] = {}
        self.suspected: Mapping[HostId, int] = {}
        self.alone: Mapping[HostId, LoneWitness] = {}
        self._to_be_probed = frozenset(HostId(each.host) for each in parts.fleet.hosts)
        self._spoke: dict[HostId, tuple[int, int]] = {}
        """Since when each agent speaks without a break, and when it was heard last."""
        self._began_ns = parts.clock.mono_ns()
        self._doubted_ns = 0
        self._doubt_began_ns: int | None = None

    def sweep(self, entry: Entry) -> None:
        """Judge everybody who should be there, and write down what is new."""
        fleet, hearing = self._parts.fleet, self._hearing
        if not hearing.connected:
            hearing.since_ns = entry.mono_ns
        probed, lost = self._parts.probed(), self._lost_witnesses(entry)
        entry.world.lives = hearing.lives
        for host, each in probed.items():
            if each.failures:
                entry.world.failed_ns[host] = each.at_mono_ns
        evidence = {
            node.host: HostEvidence(
                hearing.at_ns.get(node.host, 0),
                probed.get(node.host),
                agent_lost=node.agent is AgentState.LOST,
                down=node.down_ns is not None,
                stopped=node.agent is AgentState.STOPPED,
                to_be_probed=node.host in self._to_be_probed,
                spoke_since_ns=self._spoke_since(node.host),
                probes_lost=node.host in lost,
            )
            for node in entry.world.topology.nodes.values()
        }
        judgement = judge(
            evidence,
            ServerLink(hearing.connected, hearing.since_ns, self._doubted_ns),
            entry.mono_ns,
            SuspicionLimits(
                fleet.lost_after_s,
                fleet.host_silent_after_s,
                fleet.probe_failures,
                self._parts.probe_stale_s,
                fleet.lone_witness_s,
            ),
            self._parts.own_lag_s(),
        )
        self._adopt(entry, judgement)
        if not judgement.unknown:
            self._tell_of_witnesses(entry, judgement, lost)

    def _spoke_since(self, host: HostId) -> int:
        """When this agent began to speak as it last did; a break is longer than its silence may be."""
        heard_ns = self._hearing.at_ns.get(host, 0)
        since_ns, before_ns = self._spoke.get(host, (heard_ns, heard_ns))
        if heard_ns - before_ns > self._parts.fleet.host_silent_after_s * 1e9:
            since_ns = heard_ns
        self._spoke[host] = since_ns, heard_ns
        return since_ns

    def _lost_witnesses(self, entry: Entry) -> frozenset[HostId]:
        """Hosts of which it is known that outside probes do not reach them."""
        faults = entry.world.faults.values()
        lost = (each.host for each in faults if each.kind is FaultKind.WITNESS_LOST and each.up_ns is None)
        return frozenset(map(HostId, lost))

    def _tell_of_witnesses(self, entry: Entry, judgement: SuspicionOutcome, known: frozenset[HostId]) -> None:
        """Write down whose probes are lost while the agent speaks, and whose are back."""
        deciders = self._parts.deciders
        for host in judgement.unprobed.keys() - known:
            steps = deciders.witness(host, judgement.unprobed[host])
            entry.take_each(steps, f"the probes of {host}")
        for host in known:
            probed = self._parts.probed().get(host)
            is_back = host not in self._to_be_probed if probed is None else probed.answers > 0
            if is_back and host not in judgement.unprobed:
                entry.take_each(deciders.witness(host, ""), f"the probes of {host}")

    @property
    def alone_in_words(self) -> Mapping[HostId, str]:
        """Of each host with one witness left: which, and how long it must be silent to be a dead host's."""
        patience = f", down after {self._parts.fleet.lone_witness_s:g} s"
        return {host: f"{left.value}{patience}" for host, left in self.alone.items()}

    def watched(self, topology: Topology) -> frozenset[HostId]:
        """Hosts that live and whose death would be seen: probed from outside, and not stopped in order."""
        probed = self._parts.probed()
        return frozenset(
            node.host
            for node in topology.nodes.values()
            if node.down_ns is None and node.agent is not AgentState.STOPPED and node.host in probed
        )

    def answers(self, host: HostId) -> bool:
        """Whether an outside probe of this host was answered a moment ago."""
        probed = self._parts.probed().get(host)
        if probed is None or not probed.answers:
            return False
        old_s = (self._parts.clock.mono_ns() - probed.at_mono_ns) / 1e9
        return old_s <= self._parts.probe_stale_s + self._parts.own_lag_s()

    def unseen(self, topology: Topology) -> list[HostId]:
        """Hosts that may be dead and are not known to be: neither their node nor an outside probe answers."""
        return sorted(
            node.host
            for node in topology.nodes.values()
            if node.down_ns is None
            and (node.agent is not AgentState.PRESENT or node.host in topology.unheard)
            and not self.answers(node.host)
        )

    def note_unheard(self, entry: Entry) -> None:
        """Let the topology know of which living nodes nothing is heard, accused or not.

        One that this server has never heard is among them: its rows are what another server was told. So is
        one whose node process was stopped, from its goodbye on: nobody watches what runs there.
        """
        silent_ns = entry.mono_ns - round((self._parts.fleet.lost_after_s + self._parts.own_lag_s()) * 1e9)
        topology = entry.world.topology
        living = [node for node in topology.nodes.values() if node.down_ns is None]
        stopped = {node.host for node in living if node.agent is AgentState.STOPPED}
        heard_ns = self._hearing.at_ns
        topology.unheard = frozenset(
            node.host
            for node in living
            if node.host in stopped or node.host not in heard_ns or heard_ns[node.host] < silent_ns
        )
        expected = {node.host for node in expected_nodes(topology) if node.down_ns is None}
        topology.expected, topology.heard = len(expected), len(expected - topology.unheard)
        unlooked_ns = silent_ns - round(LOOKED_EVERY_S * 1e9)
        topology.unlooked_at = frozenset(
            node.host
            for node in living
            if (life := self._hearing.lives.get(node.host)) is None  # other messages do not say
            or (life.says_looked and (life.looked_ns is None or life.looked_ns < unlooked_ns))
        )

    def _adopt(self, entry: Entry, judgement: SuspicionOutcome) -> None:
        """Write down who is newly lost or dead, and a doubt that lasts."""
        deciders = self._parts.deciders
        self.doubt, self.doubts = judgement.unknown, judgement.doubts
        self.suspected, self.alone = judgement.suspected, judgement.alone
        if judgement.unknown:
            self._doubted_ns = entry.mono_ns
            began_ns = self._doubt_began_ns = self._doubt_began_ns or entry.mono_ns
            if entry.mono_ns - began_ns > self._parts.fleet.lost_after_s * 1e9:
                entry.take_each(deciders.evidence(judgement.unknown), "the evidence")
            return
        self._doubt_began_ns = None
        entry.take_each(deciders.evidence(""), "the evidence")
        for host, death in judgement.dead.items():
            entry.take_each(deciders.death(host, death), f"the death of {host}")
        for host, silent_s in judgement.silent.items():
            entry.take_each(deciders.silence(host, silent_s), f"the silence of {host}")
        if entry.world.claims:
            entry.take_each(deciders.claims(entry.world), "the claims of nodes")


def expected_nodes(topology: Topology) -> list[Node]:
    """Nodes whose silence is a fault of their agent: they did not say goodbye."""
    return [node for node in topology.nodes.values() if node.agent is not AgentState.STOPPED]
