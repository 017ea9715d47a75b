"""What the server holds of hosts, node processes and resources. Frozen rows, changed by replacement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import ResourceLevel, digest
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
    `fenced` the receipt that nothing runs there since; `held` why no harm may be done to it, empty otherwise.
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


@dataclass(frozen=True, slots=True)
class Resource:
    """The last committed level of a resource. `since_ns` is the node's wall clock, `seq` its observation."""

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
        )

    def to_level(self, state: ResourceState, reason: str, at_ns: int) -> ResourceLevel:
        """The same resource at another level, as if its node had reported it."""
        return ResourceLevel(self.id, self.kind, self.owner, self.agent, state, reason, at_ns, self.seq)


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
    """Hosts and what runs on them, in memory; the tables are its snapshot. Rows change by `adopt` only."""

    nodes: dict[HostId, Node] = field(default_factory=dict)
    resources: dict[ResourceId, Resource] = field(default_factory=dict)
    actions: dict[str, Action] = field(default_factory=dict)
    _on_host: dict[HostId, dict[ResourceId, None]] = field(default_factory=dict)
    _digests: dict[HostId, str] = field(default_factory=dict)

    def on_host(self, host: HostId) -> Iterator[Resource]:
        """Every resource of one host."""
        return (self.resources[resource] for resource in self._on_host.get(host, ()))

    def is_down(self, host: HostId) -> bool:
        """Whether the host is known to be dead: what runs there is in error, whatever its row says."""
        node = self.nodes.get(host)
        return node is not None and node.down_ns is not None

    def digest(self, host: HostId) -> str:
        """What the node's own digest should be. Asked at every heartbeat, so kept until a row changes."""
        kept = self._digests.get(host)
        if kept is None:
            kept = digest({resource.id: resource.state for resource in self.on_host(host)})
            self._digests[host] = kept
        return kept

    def adopt(
        self, nodes: Iterable[Node] = (), resources: Iterable[Resource] = (), actions: Iterable[Action] = ()
    ) -> None:
        """Take over rows that were decided. Only open actions are kept."""
        for node in nodes:
            self.nodes[node.host] = node
        for resource in resources:
            before = self.resources.get(resource.id)
            if before is not None and before.host != resource.host:
                del self._on_host[before.host][resource.id]
                self._digests.pop(before.host, None)
            self.resources[resource.id] = resource
            self._on_host.setdefault(resource.host, {})[resource.id] = None
            self._digests.pop(resource.host, None)
        for action in actions:
            if action.outcome is None:
                self.actions[action.id] = action
            else:
                self.actions.pop(action.id, None)
