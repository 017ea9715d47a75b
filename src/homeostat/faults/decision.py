"""What a decision says, and the world it was made from. Plain records; nothing here waits or writes.

A decision numbers its events from `base`, its place in the entry being made, so that rows and later decisions
of the same entry can point at them before they have sequence numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from homeostat.contracts.nouns import FaultId, HostId, ResourceId
from homeostat.faults.flapping import NEVER, FlapLimits, remembered
from homeostat.faults.model import Fault, FaultState
from homeostat.fleet.model import Action, Node, Resource, Topology
from homeostat.fleet.pictures import Pictures
from homeostat.kernel.journal import Draft, Local, Seq


@dataclass(frozen=True, slots=True)
class Telling:
    """Somebody may have to be told of this transition of this fault; `cause` is its event.

    `at_ns` is the server's wall clock at the decision: how long telling took is counted from here.
    """

    fault: Fault
    transition: str
    cause: Local
    at_ns: int = 0


@dataclass(slots=True)
class Decision:
    """Events, and the rows that they change."""

    base: int = 0
    events: list[Draft] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    resources: list[Resource] = field(default_factory=list)
    intended: list[Action] = field(default_factory=list)
    finished: list[Action] = field(default_factory=list)
    raised: list[Fault] = field(default_factory=list)
    changed: list[Fault] = field(default_factory=list)
    tellings: list[Telling] = field(default_factory=list)

    def add(self, draft: Draft) -> Local:
        """Take an event in; what it will be called until it has a sequence number."""
        self.events.append(draft)
        return Local(self.base + len(self.events) - 1)

    def fault_about(self, about: str, world: World) -> Fault | None:
        """The fault of a subject that is not cleared, as this decision leaves it."""
        touched: set[FaultId] = set()
        for fault in (*reversed(self.changed), *reversed(self.raised)):
            if fault.about == about and fault.id not in touched:
                touched.add(fault.id)
                if fault.state is not FaultState.CLEARED:
                    return fault
        # One that was cleared here may have been followed by a new one, so all are looked at.
        return None if touched else world.faults.get(about)


@dataclass(slots=True)
class World:
    """The rows in memory: hosts, resources, open acts, and faults that are not cleared, by subject.

    `raised_ns` is when the last faults of each subject were raised, `pictures` are answers to resyncs of
    which not all parts have come. `starting` is since when guests that can move are being started, under
    which generation, on the server's monotonic clock.
    """

    topology: Topology = field(default_factory=Topology)
    faults: dict[str, Fault] = field(default_factory=dict)
    raised_ns: dict[str, tuple[int, ...]] = field(default_factory=dict)
    flap_limits: FlapLimits = NEVER
    pictures: Pictures = field(default_factory=Pictures)
    starting: dict[ResourceId, tuple[int, int]] = field(default_factory=dict)

    def adopt(self, decision: Decision) -> tuple[set[HostId], set[ResourceId]]:
        """Take a decision over. Returns which nodes and resources were not known before."""
        # Not a difference of two sets: Python makes that by going through all rows that there are.
        nodes, resources = self.topology.nodes, self.topology.resources
        new_nodes = {node.host for node in decision.nodes if node.host not in nodes}
        new_resources = {row.id for row in decision.resources if row.id not in resources}
        self.topology.adopt(decision.nodes, decision.resources, (*decision.intended, *decision.finished))
        for fault in decision.raised:
            self.raised_ns[fault.about] = remembered(self.raised_ns.get(fault.about, ()), fault.raised_ns)
        for fault in (*decision.raised, *decision.changed):
            if fault.state is not FaultState.CLEARED:
                self.faults[fault.about] = fault
            elif (known := self.faults.get(fault.about)) is not None and known.id == fault.id:
                del self.faults[fault.about]
        return new_nodes, new_resources

    def settle(self, seqs: Sequence[Seq]) -> None:
        """After the commit: every Local becomes the sequence number it stood for."""
        for about, fault in self.faults.items():
            if isinstance(fault.raised_seq, Local) or isinstance(fault.up_seq, Local):
                self.faults[about] = replace(
                    fault,
                    raised_seq=_settled(fault.raised_seq, seqs),
                    up_seq=None if fault.up_seq is None else _settled(fault.up_seq, seqs),
                )
        nodes = self.topology.nodes
        for host, node in nodes.items():
            if isinstance(node.fenced_seq, Local):
                nodes[host] = replace(node, fenced_seq=_settled(node.fenced_seq, seqs))
        actions = self.topology.actions
        for key, action in actions.items():
            if isinstance(action.intended_seq, Local):
                actions[key] = replace(action, intended_seq=_settled(action.intended_seq, seqs))


def _settled(seq: Seq | Local, seqs: Sequence[Seq]) -> Seq:
    return seqs[seq.index] if isinstance(seq, Local) else seq
