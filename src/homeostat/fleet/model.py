"""The hosts, node processes, resources and acts that the server holds in memory; their set points. Pure.

Frozen rows, changed by replacement; the tables are their snapshot. Set points: every node process that should
report does, and no host is down.

Assembles the snapshot of a node's resources from the messages that carry its parts. No I/O.

A part may be lost, come twice, or come late. Invariants: parts of two snapshots are never put together; a
snapshot with a missing part says nothing about what is gone, and is completed by the same part of a
repetition, since a node cuts the same snapshot in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from homeostat.contracts import wire
from homeostat.contracts.nouns import (
    HostFacts,
    HostId,
    Owner,
    ResourceId,
    ResourceKind,
    ResourceState,
)
from homeostat.kernel.journal import EventIndex, Seq


class AgentState(StrEnum):
    """What is known of a node process. Says nothing about its host: a dead agent is not a dead host."""

    PRESENT = "present"
    LOST = "lost"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Node:
    """A host with our process. `acked_seq` is the last observation of store `boot` that is committed.

    `down_ns` is the first failed evidence of its death (the server's wall clock), None while it lives;
    `fenced` the receipt that nothing runs there since, `fenced_seq` its event, `fenced_ns` when it was
    written (the server's wall clock), `vouched` whether a person gave it; `held` why no harm may be done to
    it, empty otherwise.
    `marked_ns` is since when its cloud shows it as down, `error_ns` since when what runs there is shown in
    error (both the server's wall clock, None when it is not so): one row a host, whatever runs there.
    `cpus` to `architecture` are its `facts`, None before its node has said them.
    """

    host: HostId
    boot: str
    incarnation: str
    acked_seq: int
    agent: AgentState
    joined_ns: int
    down_ns: int | None = None
    fenced: str = ""
    held: str = ""
    fenced_seq: Seq | EventIndex | None = None
    marked_ns: int | None = None
    error_ns: int | None = None
    fenced_ns: int | None = None
    vouched: bool = False
    cpus: int | None = None
    memory_mb: int | None = None
    disk_gb: int | None = None
    architecture: str | None = None

    @property
    def facts(self) -> HostFacts | None:
        if self.cpus is None or self.memory_mb is None or self.disk_gb is None or self.architecture is None:
            return None
        return HostFacts(self.cpus, self.memory_mb, self.disk_gb, self.architecture)


@dataclass(frozen=True, slots=True)
class Resource:
    """The last committed level of a resource. `since_ns` is the node's wall clock, `seq` its observation.

    The row is the assignment of a guest that can move: `host` is to run it, under `generation` (0: it is
    fixed to its host). `seq` is 0 while that host has not reported it under this generation.
    """

    id: ResourceId
    host: HostId
    kind: ResourceKind
    owner: Owner
    agent: str
    state: ResourceState
    reason: str
    since_ns: int
    seq: int
    pid: int | None = None
    generation: int = 0

    @classmethod
    def from_level(cls, host: HostId, level: wire.ResourceStatus) -> Resource:
        return cls(
            id=level.resource,
            host=host,
            kind=level.kind,
            owner=level.owner,
            agent=level.agent,
            state=level.state,
            reason=level.reason,
            since_ns=level.at_ns,
            seq=level.seq,
            pid=level.pid,
            generation=level.generation,
        )

    def to_level(self, state: ResourceState, reason: str, at_ns: int) -> wire.ResourceStatus:
        """The same resource at another level, as if its node had reported it."""
        return wire.ResourceStatus(
            self.id,
            self.kind,
            self.owner,
            self.agent,
            state,
            reason,
            at_ns,
            self.seq,
            generation=self.generation,
        )


@dataclass(frozen=True, slots=True)
class NodeClaim:
    """What a node said of a resource and was not taken: `generation` 0 when it is about the owner alone.

    `level` is None for a guest that it offers to run. `waits`: another host is to be heard first; `is_false`:
    it was refused for good. `store` is the observation store that says so; `is_told`: it is in the journal.
    """

    resource: ResourceId
    generation: int
    level: wire.ResourceStatus | None
    store: str
    why: str
    waits: bool = False
    is_false: bool = False
    is_told: bool = False


@dataclass(frozen=True, slots=True)
class Action:
    """An intended act. `outcome` is None while it is open; `intended_seq` an EventIndex until the commit."""

    id: str
    verb: str
    about: str
    owner_of_act: str
    deadline_s: float
    intended_seq: Seq | EventIndex
    intended_ns: int
    trace: str
    outcome: str | None = None
    took_ms: float | None = None


@dataclass(slots=True)
class Topology:
    """Hosts and what runs on them, in memory; the tables are its snapshot. Rows change by `adopt` only.

    `offers` is in no table: what each node that was heard since could run, by host; `offered` its digest, and
    `offerings` how often any of it was told. `unheard` are hosts that are not known to be down and of which
    nothing is heard: what was last seen there may be over; of the `expected` nodes, that did not stop in
    order, some are `heard`. `full` says of nodes that cannot write their store why; `untold` are those of
    them that know something else than the rows. `unlooked` says of nodes whose runner does not look under
    which incarnation and since when; `blind`: for so long that it is a fault; `unlooked_at`: too long.
    """

    nodes: dict[HostId, Node] = field(default_factory=dict)
    resources: dict[ResourceId, Resource] = field(default_factory=dict)
    actions: dict[str, Action] = field(default_factory=dict)
    offers: dict[HostId, dict[ResourceId, wire.Candidate]] = field(default_factory=dict)
    offered: dict[HostId, str] = field(default_factory=dict)
    offerings: int = 0
    unheard: frozenset[HostId] = frozenset()
    expected: int = 0
    heard: int = 0
    full: dict[HostId, str] = field(default_factory=dict)
    untold: set[HostId] = field(default_factory=set)
    unlooked: dict[HostId, tuple[str, int]] = field(default_factory=dict)
    blind: set[HostId] = field(default_factory=set)
    unlooked_at: frozenset[HostId] = frozenset()
    _on_host: dict[HostId, dict[ResourceId, None]] = field(default_factory=dict)
    _digests: dict[HostId, str] = field(default_factory=dict)
    _assigned: dict[HostId, str] = field(default_factory=dict)
    _running: dict[HostId, str] = field(default_factory=dict)

    def on_host(self, host: HostId) -> Iterator[Resource]:
        return (self.resources[resource] for resource in self._on_host.get(host, ()))

    def ids_on(self, host: HostId) -> Collection[ResourceId]:
        return self._on_host.get(host, {}).keys()

    def running(self, host: HostId, write: Callable[[Iterable[Resource]], str]) -> str:
        """What is to run on the host, as `write` makes a text of kind, owner and id of each.

        Kept, since it changes much more rarely than states do; always to be asked with the same `write`.
        """
        kept = self._running.get(host)
        if kept is None:
            rows = (row for row in self.on_host(host) if _is_to_run(row))
            kept = self._running[host] = write(rows)
        return kept

    def unwritten(self, least: int) -> HostId | None:
        """A host with at least so many resources whose text of `running` is not kept."""
        return next(
            (host for host, ids in self._on_host.items() if len(ids) >= least and host not in self._running),
            None,
        )

    def is_down(self, host: HostId) -> bool:
        """Whether the host is known to be dead: what runs there is in error, whatever its row says."""
        node = self.nodes.get(host)
        return node is not None and node.down_ns is not None

    def in_error(self, host: HostId) -> bool:
        """Whether what runs on the host is shown in error: its cloud was told so."""
        node = self.nodes.get(host)
        return node is not None and node.error_ns is not None

    def digest(self, host: HostId) -> str:
        """What the node's own digest should be. Asked at every heartbeat, so kept until a row changes."""
        kept = self._digests.get(host)
        if kept is None:
            # A guest that was assigned and not yet reported is in no digest of its node.
            reported = (row for row in self.on_host(host) if row.seq or not row.generation)
            kept = self._digests[host] = wire.digest({row.id: row.state for row in reported})
        return kept

    def assignment(self, host: HostId) -> dict[ResourceId, int]:
        return {row.id: row.generation for row in self.on_host(host) if row.generation}

    def assigned_digest(self, host: HostId) -> str:
        """What the node's own digest of its assignment should be. Kept as well."""
        kept = self._assigned.get(host)
        if kept is None:
            kept = self._assigned[host] = wire.assigned_digest(self.assignment(host))
        return kept

    def is_given_back(self, row: Resource) -> bool:
        """Whether a guest stopped on its living host, which says that it is not to run it any more."""
        if not row.generation or row.state is not ResourceState.STOPPED or self.is_down(row.host):
            return False
        return row.host in self.offered and row.id not in self.offers.get(row.host, ())

    def hear_store(self, host: HostId, trouble: str, *, untold: bool) -> None:
        """A node says whether it can write its store, and so whether the rows can be trusted."""
        if trouble:
            self.full[host] = trouble
        else:
            self.full.pop(host, None)
        (self.untold.add if trouble and untold else self.untold.discard)(host)

    def hear_offers(
        self,
        host: HostId,
        offers: Sequence[wire.Candidate],
        allowed: Callable[[wire.Candidate], bool] = lambda _: True,
    ) -> None:
        """A node says what it could run: all of it. What is not `allowed` is heard and not taken."""
        self.offers[host] = {offer.resource: offer for offer in offers if allowed(offer)}
        self.offered[host] = wire.candidates_digest(offers)
        self.offerings += 1

    def hear_some(self, host: HostId, offers: Sequence[wire.Candidate]) -> None:
        """A part of what it could run; `offered` is not changed before all of it is known."""
        self.offers.setdefault(host, {}).update({offer.resource: offer for offer in offers})
        self.offerings += 1

    def forget(self, host: HostId) -> None:
        """A host is gone for good, and everything that is on it."""
        for resource in self._on_host.pop(host, {}):
            del self.resources[resource]
        rows: list[dict[HostId, Any]] = [self.nodes, self.offers, self.offered, self.full, self.unlooked]
        for each in (*rows, self._digests, self._assigned, self._running):
            each.pop(host, None)
        self.untold, self.blind = self.untold - {host}, self.blind - {host}
        self.unheard, self.unlooked_at = self.unheard - {host}, self.unlooked_at - {host}

    def adopt(
        self, nodes: Iterable[Node] = (), resources: Iterable[Resource] = (), actions: Iterable[Action] = ()
    ) -> None:
        """Take over rows that were decided. Only open actions are kept."""
        for node in nodes:
            self.nodes[node.host] = node
        for resource in resources:
            before = self.resources.get(resource.id)
            if before is None or _runs_as(before) != _runs_as(resource):
                self._running.pop(resource.host, None)
            if before is not None and before.host != resource.host:
                del self._on_host[before.host][resource.id]
                for kept in (self._digests, self._assigned, self._running):
                    kept.pop(before.host, None)
            self.resources[resource.id] = resource
            self._on_host.setdefault(resource.host, {})[resource.id] = None
            self._digests.pop(resource.host, None)
            self._assigned.pop(resource.host, None)
        for action in actions:
            if action.outcome is None:
                self.actions[action.id] = action
            else:
                self.actions.pop(action.id, None)


def _runs_as(row: Resource) -> tuple[HostId, ResourceKind, Owner, bool]:
    """What `Topology.running` depends on."""
    return row.host, row.kind, row.owner, _is_to_run(row)


def _is_to_run(row: Resource) -> bool:
    """It is not stopped; or it stopped with its node process, and is assigned there all the same."""
    return row.state is not ResourceState.STOPPED or bool(row.generation)


@dataclass(slots=True)
class _PartialSnapshot:
    of: tuple[str, str, int, int]
    parts: dict[int, frozenset[ResourceId]] = field(default_factory=dict)
    offers: dict[ResourceId, wire.Candidate] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CompleteSnapshot:
    """A picture that no part is missing of: what the node has, and what it could run."""

    resources: frozenset[ResourceId]
    offers: tuple[wire.Candidate, ...]


@dataclass(slots=True)
class SnapshotAssembly:
    """One unfinished picture a host at most: the latest one.

    `whole` is the number of the last observation in the last whole picture of each host.
    """

    whole: dict[HostId, int] = field(default_factory=dict)
    _unfinished: dict[HostId, _PartialSnapshot] = field(default_factory=dict)

    def awaited(self, topology: Topology, configured: Collection[HostId]) -> list[HostId]:
        """Hosts that should live and have not told everything that they know since the tables were read.

        What they may still say of guests can be newer than the rows, if the database is an old one.
        """
        nodes = topology.nodes
        living = {node.host for node in nodes.values() if node.agent is AgentState.PRESENT}
        return sorted(
            host
            for host in living.union(configured)
            if not topology.is_down(host)
            and (host not in nodes or nodes[host].acked_seq < self.whole.get(host, nodes[host].acked_seq + 1))
        )

    def add(self, message: wire.Snapshot) -> CompleteSnapshot | None:
        """Everything that the node has, when this was the last part that was missing; None until then."""
        reported = frozenset(level.resource for level in message.levels)
        of = (message.boot, message.incarnation, message.seq, message.parts)
        picture = self._unfinished.get(message.host)
        if picture is None or picture.of != of:
            picture = self._unfinished[message.host] = _PartialSnapshot(of)
        picture.parts[message.part] = reported
        picture.offers |= {offer.resource: offer for offer in message.offers}
        if len(picture.parts) < message.parts:
            return None
        del self._unfinished[message.host]
        self.whole[message.host] = message.seq
        return CompleteSnapshot(frozenset().union(*picture.parts.values()), tuple(picture.offers.values()))
