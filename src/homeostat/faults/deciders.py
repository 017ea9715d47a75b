"""The decisions of `faults` about what nodes say and what time brings, as the write path asks for them. Pure.

Numbers, gaps, new stores and resyncs of nodes are judged here; what one level or one heartbeat means for a
fault is in `inspection`, `hosts`, `guest_recovery`, `node_store` and `node_claims`. Each step sees what the
step before left in the state.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict, replace
from functools import partial

from homeostat.contracts import wire
from homeostat.contracts.events.fleet import HostFactsChanged, ObservationsLost
from homeostat.contracts.faults import Fault, FlapLimits
from homeostat.contracts.nouns import (
    FaultKind,
    HostId,
    ResourceState,
    node_subject,
    resource_subject,
)
from homeostat.faults import hosts
from homeostat.faults.inspection import on_drift, on_tick, on_transition
from homeostat.faults.lifecycle import clear_fault
from homeostat.faults.model import as_taken_over, prepare_affected
from homeostat.faults.node_claims import NodeClaims
from homeostat.faults.node_store import on_store, remember_full_stores, store_changed
from homeostat.faults.runner_silence import concerns_runner, on_runner
from homeostat.faults.settings import FaultsSettings
from homeostat.faults.store import fault_changed, fault_raised, load_open, load_raised
from homeostat.fleet.model import AgentState, Resource
from homeostat.fleet.settings import NodeOwners
from homeostat.fleet.store import load_topology
from homeostat.fleet.suspicion import Death
from homeostat.ingest.entry import Decide, Decision, IngestState, Moment
from homeostat.ingest.watches import AgentLife
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.journal import NewEvent, RowChange

UNWATCHED = frozenset({ResourceState.STOPPED, ResourceState.UNKNOWN})
REMOVED_REASON = "it is no longer configured on its node"


class FaultDeciders:
    """`ingest.entry.Deciders`, with the settings of `faults`."""

    def __init__(self, settings: FaultsSettings, owners: NodeOwners | None = None) -> None:
        """`owners`: the projects that nodes may name; absent: any."""
        self._settings, self._claims = settings, NodeClaims(owners or NodeOwners())
        self.clear_after_s = settings.clear_after_s

    async def load(self, readers: Readers, clock: Clock) -> IngestState:
        """Everything that is open, held from now on for as long as if it had just come right."""
        settings = self._settings
        limits = FlapLimits(settings.flap_max, settings.flap_window_s)
        since_ns = clock.wall_ns() - round(limits.window_s * 1e9)
        topology = await readers.read(load_topology)
        faults = await readers.read(load_open)
        raised = await readers.read(partial(load_raised, since_ns=since_ns))
        wall_ns, now_ns = clock.wall_ns(), clock.mono_ns()
        ours = (as_taken_over(fault, wall_ns, now_ns) for fault in faults)
        held = [fault.held_until(now_ns + round(_hold_s(fault, settings) * 1e9)) for fault in ours]
        remember_full_stores(topology, held)
        return IngestState(topology, {fault.about: fault for fault in held}, raised, limits)

    def rows(self, decision: Decision) -> Iterable[RowChange]:
        return [*map(fault_raised, decision.raised), *map(fault_changed, decision.changed)]

    def observations(
        self, state: IngestState, message: wire.Observations, received_ns: int
    ) -> Iterator[Decide]:
        """Take in what a node saw, once and in its order; ask again where something is missing."""
        host = message.host
        if host not in state.topology.nodes:
            yield _resync(host, "the node is not known yet")
            return
        if (yield from self._catch_up(state, message)):
            yield _resync(host, "observations were lost")
        node = state.topology.nodes[host]
        fresh = [each for each in message.transitions if each.level.seq > node.acked_seq]
        if fresh and fresh[0].level.seq != node.acked_seq + 1:
            yield _resync(host, f"observation {node.acked_seq + 1} is missing")
            return
        for transition in fresh:
            foreign = self._foreign(state, message, transition.level)
            if foreign is not None:
                yield foreign
                continue
            moment_ns = received_ns - max(0, message.sent_mono_ns - transition.mono_ns)
            attempt = _Attempt(partial(_transition, host, message.boot, (transition, moment_ns)))
            yield attempt
            if not attempt.is_decided:
                yield from self._lose(message, transition.level)
        acked = fresh[-1].level.seq if fresh else node.acked_seq
        if message.transitions:
            yield partial(_acknowledged, host, message.boot, acked)
        yield from self._claims.settle(state, host, told_all=False)

    def snapshot(self, state: IngestState, message: wire.Snapshot) -> Iterator[Decide]:
        """Compare everything that a node knows with our rows; what transitions will tell is left to them."""
        host = message.host
        if host not in state.topology.nodes:
            return
        yield from self._catch_up(state, message)
        node, rows = state.topology.nodes[host], state.topology.resources
        whole = state.pictures.add(message)
        yield from self._claims.hear_offers(state, message, whole)
        for level in message.levels:
            foreign = self._foreign(state, message, level)
            if foreign is not None:
                yield foreign
                continue
            row = rows.get(level.resource)
            # A message that was overtaken tells of the past: what came after it is in the row already.
            # Numbers of two hosts say nothing about each other: an old database has the row of an old host.
            ours = row is not None and row.host == host
            drifted = not ours or row is None or (row.seq, row.state) != (level.seq, level.state)
            overtaken = ours and row is not None and row.seq > level.seq
            if level.seq <= node.acked_seq and drifted and not overtaken:
                yield partial(_drift, host, message.boot, level)
        yield from self._claims.settle(state, host, told_all=whole is not None)
        if whole is None:
            return
        offered = [rows.get(resource) for resource in state.topology.offers[host]]
        if offered and all(row is not None and row.generation for row in offered):
            yield _assign(host)  # else the heartbeats ask, when what is new has found its place
        if message.seq != node.acked_seq:
            return
        gone = [row for row in state.topology.on_host(host) if row.id not in whole.resources]
        for row in gone:
            # A guest that can move is where it is assigned, reported or not.
            if not row.generation and row.state is not ResourceState.STOPPED:
                yield partial(_removed, host, message.boot, row)
                yield from self._abandon(node_subject(host), resource_subject(row.id), REMOVED_REASON)

    def heartbeat(self, state: IngestState, beat: wire.Heartbeat) -> Iterator[Decide]:
        """Notice a new node, a new incarnation, or a node that knows something else than we do."""
        host, topology = beat.host, state.topology
        if topology.is_down(host):
            yield lambda state, now: hosts.on_host_back(state, beat, self._of_host(now))
        else:
            settling = hosts.host_fault(state, host) is not None
            yield lambda state, now: hosts.on_heartbeat(state, beat, self._of_host(now) if settling else now)
        node = topology.nodes[host]
        yield from _of_its_store(state, beat)
        if not beat.offers and host not in topology.offered:
            topology.hear_offers(host, ())
        if beat.boot != node.boot:
            yield _resync(host, "its observation store is new")
        elif beat.first > node.acked_seq + 1:
            yield _resync(host, f"observation {node.acked_seq + 1} is gone for good")
        elif beat.offers != topology.offered.get(host, ""):
            yield _resync(host, "what it could run is not known")
        elif beat.offers and beat.assigned != topology.assigned_digest(host):
            yield _assign(host)
        elif beat.seq == node.acked_seq and beat.digest != topology.digest(host):
            yield _resync(host, "its digest differs")
        elif beat.seq == node.acked_seq:
            if not beat.offers:
                state.pictures.whole[host] = beat.seq  # it knows what we know, and of no guest that moves
            yield from self._claims.agree(state, host)

    def goodbye(self, message: wire.Goodbye) -> Iterable[Decide]:
        return (lambda state, now: hosts.on_goodbye(state, message, now),)

    def facts(self, message: wire.HostFactsReport) -> Iterable[Decide]:
        return (partial(_facts, message),)

    def silence(self, host: HostId, silent_s: float) -> Iterable[Decide]:
        return (lambda state, now: hosts.on_silence(state, host, silent_s, now),)

    def claims(self, state: IngestState) -> Iterable[Decide]:
        """Decide about claims that waited for the word of a host that is silent by now."""
        return self._claims.decide_waiting(state)

    def death(self, host: HostId, death: Death) -> Iterable[Decide]:
        return (lambda state, now: hosts.on_host_down(state, host, death, self._of_host(now)),)

    def witness(self, host: HostId, lost: str) -> Iterable[Decide]:
        return (lambda state, now: hosts.on_witness(state, host, lost, now),)

    def evidence(self, unknown: str) -> Iterable[Decide]:
        return (lambda state, now: hosts.on_evidence(state, unknown, now),)

    def guest_check(self) -> Iterable[Decide]:
        """Find guests that their living hosts do not run."""
        return (lambda state, now: hosts.on_guest_check(state, self._settings.start_deadline_s, now),)

    def tick(self) -> Iterable[Decide]:
        """Clear what has been right for long enough."""
        return (
            lambda state, now: on_tick(
                state, now.mono_ns, now.wall_ns, now.base, self._settings.recovered_wait_s
            ),
        )

    def prepare(self, state: IngestState) -> None:
        """Write down who would suffer from the death of one great host."""
        prepare_affected(state.topology)

    def _of_host(self, now: Moment) -> Moment:
        return replace(now, clear_after_s=self._settings.host_clear_after_s)

    def _foreign(
        self, state: IngestState, message: wire.Observations | wire.Snapshot, level: wire.ResourceStatus
    ) -> Decide | None:
        """The refusal, when another node watches this resource: a node speaks of its own only.

        One that nobody watches any more, or whose node is gone, belongs to the node that has it now.
        """
        host, row = message.host, state.topology.resources.get(level.resource)
        if (refused := self._claims.refuse(state, message, level)) is not None:
            return refused
        may_move = level.generation or (row is not None and row.generation)
        if may_move or row is None or row.host == host or row.state in UNWATCHED:
            return None
        owner = state.topology.nodes.get(row.host)
        if owner is None or owner.agent is not AgentState.PRESENT:
            return None
        return _refused(f"{host} reports {level.resource}, which is on {row.host}; rename one of the two")

    def _catch_up(
        self, state: IngestState, message: wire.Observations | wire.Snapshot
    ) -> Generator[Decide, None, bool]:
        """Adopt a new store, and go on where a node begins that cannot send what we miss; whether it cannot.

        It dropped that, or an earlier database of ours has it.
        """
        host, subject = message.host, node_subject(message.host)
        if message.boot != state.topology.nodes[host].boot:
            yield partial(_new_store, host, message.boot)
            yield from self._abandon(subject, "", "the node's observation store is new")
        count = message.first - state.topology.nodes[host].acked_seq - 1
        if count <= 0:
            return False
        yield partial(_lost, host, message.boot, count)
        yield from self._abandon(subject, "", "observations were lost")
        return True

    def _lose(self, message: wire.Observations, level: wire.ResourceStatus) -> Iterator[Decide]:
        """Write off an observation whose decision raised: its node forgets it, so its state must come anew.

        An act may have begun or ended with it, and nobody will say so again.
        """
        reason = f"nothing could be decided about observation {level.seq}"
        yield partial(_written_off, message.host, message.boot)
        yield from self._abandon(node_subject(message.host), resource_subject(level.resource), reason)
        yield _resync(message.host, reason)

    def _abandon(self, owner_of_act: str, about: str, reason: str) -> Iterable[Decide]:
        """Close acts whose end nobody will ever report: all of one owner, or those about one subject."""
        return (partial(_abandoned, owner_of_act, about, reason),)


class _Attempt:
    """A step that knows afterwards whether it was decided."""

    __slots__ = ("_decide", "is_decided")

    def __init__(self, decide: Decide) -> None:
        self._decide, self.is_decided = decide, False

    def __call__(self, state: IngestState, now: Moment) -> Decision:
        decision = self._decide(state, now)
        self.is_decided = True
        return decision


def _hold_s(fault: Fault, settings: FaultsSettings) -> float:
    """How long it must stay right. A host's node must have had the time to say how its guests are."""
    if fault.kind is FaultKind.HOST_DOWN:
        return settings.host_clear_after_s
    return settings.flap_window_s if fault.flaps else settings.clear_after_s


def _resync(host: HostId, reason: str) -> Decide:
    return lambda _, now: Decision(now.base, resync={host: reason})


def _assign(host: HostId) -> Decide:
    return lambda _, now: Decision(now.base, assign={host})


def _refused(what: str) -> Decide:
    return lambda _, now: Decision(now.base, refused=[what])


def _transition(
    host: HostId, boot: str, seen: tuple[wire.ResourceTransition, int], state: IngestState, now: Moment
) -> Decision:
    return on_transition(state, host, boot, seen, (now.base, now.clear_after_s))


def _drift(host: HostId, boot: str, level: wire.ResourceStatus, state: IngestState, now: Moment) -> Decision:
    return on_drift(state, host, boot, level, (now.base, now.clear_after_s))


def _removed(host: HostId, boot: str, row: Resource, state: IngestState, now: Moment) -> Decision:
    level = row.to_level(ResourceState.STOPPED, REMOVED_REASON, now.wall_ns)
    decision = on_drift(state, host, boot, level, (now.base, now.clear_after_s))
    fault = decision.fault_about(resource_subject(row.id), state)
    if fault is not None:  # nobody will ever say that it is right
        clear_fault(decision, fault, REMOVED_REASON, now.wall_ns)
    return decision


def _of_its_store(state: IngestState, beat: wire.Heartbeat) -> Iterator[Decide]:
    """Whether a node can write what it sees, and whether it has told all of that."""
    topology, node = state.topology, state.topology.nodes[beat.host]
    told = (node.boot, node.acked_seq, topology.digest(beat.host))
    in_step = (beat.boot, beat.seq, beat.digest) == told
    topology.hear_store(beat.host, beat.store, untold=not in_step)
    if in_step and beat.looked is not False:
        yield partial(_reported, beat.host, state.lives.get(beat.host))
    if concerns_runner(state, beat):
        yield lambda state, now: on_runner(state, beat, now)
    if store_changed(state, beat):
        yield lambda state, now: on_store(state, beat, now)
    if beat.asks and beat.boot == node.boot:
        yield partial(_acknowledged, beat.host, node.boot, node.acked_seq)


def _reported(host: HostId, life: AgentLife | None, state: IngestState, now: Moment) -> Decision:
    """Its node has looked at everything, and knows what we know."""
    state.reported[host] = now.mono_ns if life is None else life.last_ns
    if life is not None and life.seen_ns is not None:
        state.seen_ns[host] = life.seen_ns
    return Decision(now.base)


def _acknowledged(host: HostId, boot: str, acked: int, state: IngestState, now: Moment) -> Decision:
    """The row says so even when one of them was refused: what is behind it must not wait for ever."""
    node, decision = state.topology.nodes[host], Decision(now.base, acknowledge={host: (boot, acked)})
    if node.acked_seq != acked:
        decision.nodes.append(replace(node, acked_seq=acked))
    return decision


def _facts(message: wire.HostFactsReport, state: IngestState, now: Moment) -> Decision:
    """What is said before the first heartbeat of an incarnation was taken is not; it is said again."""
    host, node, decision = message.host, state.topology.nodes.get(message.host), Decision(now.base)
    if node is None or node.incarnation != message.incarnation:
        return decision
    decision.facts_acknowledged[host] = (message.incarnation, message.number)
    if node.facts != message.facts:
        subject, has = node_subject(host), asdict(message.facts)
        trace = f"{host}/{message.incarnation}/facts/{message.number}"
        decision.add(NewEvent(HostFactsChanged(host, **has), subject, now.wall_ns, subject, trace))
        decision.nodes.append(replace(node, **has))
    return decision


def _new_store(host: HostId, boot: str, state: IngestState, now: Moment) -> Decision:
    rows = [replace(row, seq=0) for row in state.topology.on_host(host)]
    return Decision(
        now.base, nodes=[replace(state.topology.nodes[host], boot=boot, acked_seq=0)], resources=rows
    )


def _lost(host: HostId, boot: str, count: int, state: IngestState, now: Moment) -> Decision:
    node = state.topology.nodes[host]
    event = _loss(host, boot, count, now)
    return Decision(now.base, [event], [replace(node, acked_seq=node.acked_seq + count)])


def _written_off(host: HostId, boot: str, _: IngestState, now: Moment) -> Decision:
    """Its number is acknowledged with the others of its message."""
    return Decision(now.base, [_loss(host, boot, 1, now)])


def _loss(host: HostId, boot: str, count: int, now: Moment) -> NewEvent:
    subject = node_subject(host)
    return NewEvent(ObservationsLost(host, count), subject, now.wall_ns, subject, f"{host}/{boot}/lost")


def _abandoned(owner_of_act: str, about: str, reason: str, state: IngestState, now: Moment) -> Decision:
    decision = Decision(now.base)
    for action in state.topology.actions.values():
        if action.owner_of_act == owner_of_act and about in ("", action.about):
            place = (now.wall_ns, "faults", action.trace)
            decision.finish(action, wire.Outcome.UNKNOWN, 0.0, reason, place)
    return decision
