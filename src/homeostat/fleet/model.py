"""What the server holds of hosts, node processes and resources. Frozen rows, changed by replacement."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import Offer, ResourceLevel, assigned_digest, digest, offers_digest
from homeostat.kernel.journal import Local, Seq


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
    fenced_seq: Seq | Local | None = None
    marked_ns: int | None = None
    error_ns: int | None = None
    fenced_ns: int | None = None
    vouched: bool = False


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
    def from_level(cls, host: HostId, level: ResourceLevel) -> Resource:
        """The row that a node's report makes."""
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

    def to_level(self, state: ResourceState, reason: str, at_ns: int) -> ResourceLevel:
        """The same resource at another level, as if its node had reported it."""
        return ResourceLevel(
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
class Action:
    """An intended act. `outcome` is None while it is open, `intended_seq` Local until it is committed."""

    id: str
    verb: str
    about: str
    owner_of_act: str
    deadline_s: float
    intended_seq: Seq | Local
    intended_ns: int
    trace: str
    outcome: str | None = None
    took_ms: float | None = None


@dataclass(slots=True)
class Topology:
    """Hosts and what runs on them, in memory; the tables are its snapshot. Rows change by `adopt` only.

    `offers` is in no table: what each node that was heard since could run, by host; `offered` its digest, and
    `offerings` how often any of it was told. `unheard` are hosts that are not known to be down and of which
    nothing is heard: what was last seen there may be over.
    """

    nodes: dict[HostId, Node] = field(default_factory=dict)
    resources: dict[ResourceId, Resource] = field(default_factory=dict)
    actions: dict[str, Action] = field(default_factory=dict)
    offers: dict[HostId, dict[ResourceId, Offer]] = field(default_factory=dict)
    offered: dict[HostId, str] = field(default_factory=dict)
    offerings: int = 0
    unheard: frozenset[HostId] = frozenset()
    _on_host: dict[HostId, dict[ResourceId, None]] = field(default_factory=dict)
    _digests: dict[HostId, str] = field(default_factory=dict)
    _assigned: dict[HostId, str] = field(default_factory=dict)
    _running: dict[HostId, str] = field(default_factory=dict)

    def on_host(self, host: HostId) -> Iterator[Resource]:
        """Every resource of one host."""
        return (self.resources[resource] for resource in self._on_host.get(host, ()))

    def ids_on(self, host: HostId) -> Collection[ResourceId]:
        """The names of the same."""
        return self._on_host.get(host, {}).keys()

    def running(self, host: HostId, write: Callable[[Iterable[Resource]], str]) -> str:
        """What is not stopped on the host, as `write` makes a text of kind, owner and id of each.

        Kept, since it changes much more rarely than states do; always to be asked with the same `write`.
        """
        kept = self._running.get(host)
        if kept is None:
            rows = (row for row in self.on_host(host) if row.state is not ResourceState.STOPPED)
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
            kept = self._digests[host] = digest({row.id: row.state for row in reported})
        return kept

    def assignment(self, host: HostId) -> dict[ResourceId, int]:
        """The guests that the host is to run, with their generations."""
        return {row.id: row.generation for row in self.on_host(host) if row.generation}

    def assigned_digest(self, host: HostId) -> str:
        """What the node's own digest of its assignment should be. Kept as well."""
        kept = self._assigned.get(host)
        if kept is None:
            kept = self._assigned[host] = assigned_digest(self.assignment(host))
        return kept

    def is_given_back(self, row: Resource) -> bool:
        """Whether a guest stopped on its living host, which says that it is not to run it any more."""
        if not row.generation or row.state is not ResourceState.STOPPED or self.is_down(row.host):
            return False
        return row.host in self.offered and row.id not in self.offers.get(row.host, ())

    def hear_offers(self, host: HostId, offers: Sequence[Offer]) -> None:
        """A node says what it could run: all of it."""
        self.offers[host] = {offer.resource: offer for offer in offers}
        self.offered[host] = offers_digest(offers)
        self.offerings += 1

    def hear_some(self, host: HostId, offers: Sequence[Offer]) -> None:
        """A part of what it could run; `offered` is not changed before all of it is known."""
        self.offers.setdefault(host, {}).update({offer.resource: offer for offer in offers})
        self.offerings += 1

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
                self._digests.pop(before.host, None)
                self._assigned.pop(before.host, None)
                self._running.pop(before.host, None)
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
    return row.host, row.kind, row.owner, row.state is ResourceState.STOPPED
