"""One entry into the journal: its decisions, the state behind them, and who is asked for them.

A decision (events and row changes) is made by a pure function of a component (`Decide`) and adopted whole or
not at all. It numbers its events from `base`, its place in the entry being made, so that rows and later
decisions of the same entry can point at them before they have sequence numbers. The path knows no component:
`Deciders` is what it asks when a node says something or time passes, and `NoticeWriter` whom it asks for the
notices of an entry.
An entry runs decisions in order, adopts each into the state and collects events, row changes, and the replies
and notices that follow its commit. Nothing of it is true before: a failed commit throws the entry and the
state away. A decision that raises leaves no trace in the entry. No I/O.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from homeostat.contracts import wire
from homeostat.contracts.events.resources import ActionFinished, ActionIntended
from homeostat.contracts.faults import NEVER_FLAPPING, Fault, FaultState, FlapLimits, add_raised_time
from homeostat.contracts.nouns import FaultId, HostId, Owner, ResourceId
from homeostat.contracts.wire import Goodbye, Heartbeat, Intent, Observations, Outcome, Snapshot
from homeostat.fleet.model import Action, Node, NodeClaim, Resource, SnapshotAssembly, Topology
from homeostat.fleet.settings import FleetSettings
from homeostat.fleet.store import action_finished, action_intended, node_change, resource_change
from homeostat.fleet.suspicion import Death, Probed
from homeostat.ingest.watches import AgentLife, GuestMoments, GuestWatch
from homeostat.kernel.bus import Messages
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.journal import Addition, EventIndex, JournalAppender, NewEvent, Receipt, RowChange, Seq


@dataclass(frozen=True, slots=True)
class PendingNotice:
    """Somebody may have to be told of this transition of this fault; `cause` is its event.

    `at_ns` is the server's wall clock at the decision: how long telling took is counted from here. `follows`
    are faults whose place it takes: whoever was told of those is told of it. `project` and `part`: only of
    what belongs to this project, for the so many-th time; empty and 0: of everything, once.
    """

    fault: Fault
    transition: str
    cause: EventIndex
    at_ns: int = 0
    follows: tuple[FaultId, ...] = ()
    project: Owner | None = None
    part: int = 0


EventPlace = tuple[str, int, str, str, Seq | EventIndex | None]
"""Of an event: its subject, wall time, origin, trace and cause."""


@dataclass(slots=True)
class Decision:
    """Events, the rows that they change, pending notices, and what the nodes are answered after the commit.

    `changes` are rows of which nothing is held here. `acknowledge` is the store and the last observation that
    is taken, `facts_acknowledged` incarnation and number of a report of facts, `resync` why a node is asked
    for all that it knows, `assign` who gets its list of guests. `refused` is for the log. `enrolments` are
    changes of subscriptions with the places of their events; only whoever writes the notices reads them.
    `removed_hosts` are those whose rows `changes` removes.
    """

    base: int = 0
    events: list[NewEvent] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    resources: list[Resource] = field(default_factory=list)
    intended: list[Action] = field(default_factory=list)
    finished: list[Action] = field(default_factory=list)
    raised: list[Fault] = field(default_factory=list)
    changed: list[Fault] = field(default_factory=list)
    tellings: list[PendingNotice] = field(default_factory=list)
    changes: list[RowChange] = field(default_factory=list)
    acknowledge: dict[HostId, tuple[str, int]] = field(default_factory=dict)
    resync: dict[HostId, str] = field(default_factory=dict)
    assign: set[HostId] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    enrolments: list[tuple[object, EventIndex]] = field(default_factory=list)
    removed_hosts: list[HostId] = field(default_factory=list)
    facts_acknowledged: dict[HostId, tuple[str, int]] = field(default_factory=dict)

    def add(self, draft: NewEvent) -> EventIndex:
        """Take an event in; what it will be called until it has a sequence number."""
        self.events.append(draft)
        return EventIndex(self.base + len(self.events) - 1)

    def intend(self, intent: Intent, place: EventPlace) -> None:
        """Write down an act that is about to be done; its origin is who does it."""
        about, at_ns, by, trace, _ = place
        event = ActionIntended(
            intent.action, intent.verb, by, intent.deadline_s, intent.reason, intent.uncommitted
        )
        seq = self.add(NewEvent(event, *place))
        self.intended.append(
            Action(intent.action, intent.verb, about, by, intent.deadline_s, seq, at_ns, trace)
        )

    def finish(
        self, action: Action, outcome: Outcome, took_ms: float, reason: str, place: tuple[int, str, str]
    ) -> EventIndex:
        """Close an act. `place`: the wall time, who says so, and the trace. 0 ms: nobody knows how long."""
        event = ActionFinished(action.id, outcome.value, took_ms, reason)
        self.finished.append(replace(action, outcome=outcome.value, took_ms=took_ms or None))
        key = f"finished/{action.id}"
        return self.add(NewEvent(event, action.about, *place, action.intended_seq, key=key))

    def fault_about(self, about: str, world: IngestState) -> Fault | None:
        """The fault of a subject that is not cleared, as this decision leaves it."""
        if not self.changed and not self.raised:  # almost always
            return world.faults.get(about)
        touched: set[FaultId] = set()
        for fault in (*reversed(self.changed), *reversed(self.raised)):
            if fault.about == about and fault.id not in touched:
                touched.add(fault.id)
                if fault.state is not FaultState.CLEARED:
                    return fault
        # One that was cleared here may have been followed by a new one, so all are looked at.
        return None if touched else world.faults.get(about)


@dataclass(slots=True)
class IngestState:
    """The rows in memory: hosts, resources, open acts, and faults that are not cleared, by subject.

    `raised_ns` is when the last faults of each subject were raised, `pictures` are answers to resyncs of
    which not all parts have come. `starting` is since when guests that can move are being started, under
    which generation, on the server's monotonic clock. `claims` are what nodes say and what is not taken,
    `claim_told_ns` when that was last written down of each, on the same clock. `reported` are hosts whose
    nodes have looked at everything that they have and said it, since they were last found dead or returned;
    `seen_ns` is when each of those had last seen its guests that the rows have as up, `guests` what is known
    of single ones. `lives` is when each node process was heard, `failed_ns` when an outside probe of each
    host failed last, on the server's monotonic clock.
    """

    topology: Topology = field(default_factory=Topology)
    faults: dict[str, Fault] = field(default_factory=dict)
    raised_ns: dict[str, tuple[int, ...]] = field(default_factory=dict)
    flap_limits: FlapLimits = NEVER_FLAPPING
    pictures: SnapshotAssembly = field(default_factory=SnapshotAssembly)
    starting: dict[ResourceId, tuple[int, int]] = field(default_factory=dict)
    claims: dict[HostId, dict[ResourceId, NodeClaim]] = field(default_factory=dict)
    claim_told_ns: dict[HostId, int] = field(default_factory=dict)
    reported: dict[HostId, int] = field(default_factory=dict)
    lives: Mapping[HostId, AgentLife] = field(default_factory=dict)
    failed_ns: dict[HostId, int] = field(default_factory=dict)
    seen_ns: dict[HostId, int] = field(default_factory=dict)
    guests: dict[ResourceId, GuestMoments] = field(default_factory=dict)
    guest_changes: int = 0
    watched_guests: dict[FaultId, GuestWatch] = field(default_factory=dict)

    def adopt(self, decision: Decision) -> tuple[set[HostId], set[ResourceId]]:
        """Take a decision over. Returns which nodes and resources were not known before."""
        # Not a difference of two sets: Python makes that by going through all rows that there are.
        nodes, resources = self.topology.nodes, self.topology.resources
        new_nodes = {node.host for node in decision.nodes if node.host not in nodes}
        new_resources = {row.id for row in decision.resources if row.id not in resources}
        self.topology.adopt(decision.nodes, decision.resources, (*decision.intended, *decision.finished))
        for host in decision.removed_hosts:
            self.topology.forget(host)
            kept: tuple[dict[HostId, Any], ...] = (self.pictures.whole, self.claims, self.claim_told_ns)
            for rows in (*kept, self.reported, self.failed_ns, self.seen_ns):
                rows.pop(host, None)
        if decision.changed or decision.raised or any(row.generation for row in decision.resources):
            self.guest_changes += 1
        for fault in decision.raised:
            self.raised_ns[fault.about] = add_raised_time(
                self.raised_ns.get(fault.about, ()), fault.raised_ns
            )
        for fault in (*decision.raised, *decision.changed):
            if fault.state is not FaultState.CLEARED:
                self.faults[fault.about] = fault
            elif (known := self.faults.get(fault.about)) is not None and known.id == fault.id:
                del self.faults[fault.about]
                self.watched_guests.pop(fault.id, None)
        return new_nodes, new_resources

    def settle(self, seqs: Sequence[Seq]) -> None:
        """After the commit: every EventIndex becomes the sequence number it stood for."""
        for about, fault in self.faults.items():
            if type(fault.raised_seq) is EventIndex or type(fault.up_seq) is EventIndex:
                up_seq = None if fault.up_seq is None else _settled(fault.up_seq, seqs)
                self.faults[about] = fault.settled(_settled(fault.raised_seq, seqs), up_seq)
        nodes = self.topology.nodes
        for host, node in nodes.items():
            if isinstance(node.fenced_seq, EventIndex):
                nodes[host] = replace(node, fenced_seq=_settled(node.fenced_seq, seqs))
        actions = self.topology.actions
        for key, action in actions.items():
            if isinstance(action.intended_seq, EventIndex):
                actions[key] = replace(action, intended_seq=_settled(action.intended_seq, seqs))


def _settled(seq: Seq | EventIndex, seqs: Sequence[Seq]) -> Seq:
    return seqs[seq.index] if isinstance(seq, EventIndex) else seq


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, on the server's two clocks; `clear_after_s` is the setting, `base` the place in the entry."""

    wall_ns: int
    mono_ns: int
    clear_after_s: float
    base: int


Decide = Callable[[IngestState, Moment], Decision]
"""A pure function of a component, all but its state and the moment already given."""


class Deciders(Protocol):
    """The decisions about what nodes say and what time brings, as steps.

    Each is adopted before the next is asked for, and sees what that left; one that raises is refused alone.
    """

    @property
    def clear_after_s(self) -> float:
        """How long a thing must be right before its fault is over, unless a decision says otherwise."""

    async def load(self, readers: Readers, clock: Clock) -> IngestState:
        """The state as the tables have it. RetryLater."""

    def rows(self, decision: Decision) -> Iterable[RowChange]:
        """The rows of the faults of a decision."""

    def heartbeat(self, state: IngestState, beat: Heartbeat) -> Iterable[Decide]:
        """A node is there."""

    def observations(self, state: IngestState, message: Observations, received_ns: int) -> Iterable[Decide]:
        """What a node saw since, received at a time of our monotonic clock."""

    def snapshot(self, state: IngestState, message: Snapshot) -> Iterable[Decide]:
        """All that a node knows."""

    def goodbye(self, message: Goodbye) -> Iterable[Decide]:
        """A node process stops because it was asked to."""

    def facts(self, message: wire.HostFactsReport) -> Iterable[Decide]:
        """What a machine has."""

    def silence(self, host: HostId, silent_s: float) -> Iterable[Decide]:
        """A node that should speak does not."""

    def claims(self, state: IngestState) -> Iterable[Decide]:
        """Nodes claimed what another host, which has not spoken, was to be asked about first."""

    def death(self, host: HostId, death: Death) -> Iterable[Decide]:
        """The node's silence and outside probes agree that a host is dead."""

    def witness(self, host: HostId, lost: str) -> Iterable[Decide]:
        """Why outside probes do not reach a host whose node speaks, or empty: they do again."""

    def evidence(self, unknown: str) -> Iterable[Decide]:
        """Why nothing has been known of the hosts for a while, or empty."""

    def guest_check(self) -> Iterable[Decide]:
        """From time to time, while everybody who may run a guest is known."""

    def tick(self) -> Iterable[Decide]:
        """The end of every entry."""

    def prepare(self, state: IngestState) -> None:
        """Nobody waits at this moment: work that would keep somebody waiting later."""


@dataclass(frozen=True, slots=True)
class EntryNews:
    """What people may have to be notified of with an entry.

    `faults` are those that are open behind it; drafts will stand from `first_index` on.
    """

    tellings: Sequence[PendingNotice]
    enrolments: Sequence[tuple[object, EventIndex]]
    faults: Collection[Fault]
    wall_ns: int
    first_index: int


@dataclass(frozen=True, slots=True)
class EntryNotices:
    """What an entry must write so that people are notified; `committed` is called after its commit."""

    drafts: tuple[NewEvent, ...]
    changes: tuple[RowChange, ...]
    committed: Callable[[Receipt], None]


class NoticeWriter(Protocol):
    """Whoever queues the notices of an entry within it."""

    async def remember(self, faults: Iterable[FaultId], /) -> None:
        """Read again who was notified of these open faults. RetryLater."""

    def prepare(self, news: EntryNews, /) -> EntryNotices:
        """The notices of one entry."""


def _nothing(_: Sequence[PendingNotice]) -> None:
    """Nobody else is interested."""


@dataclass(frozen=True, slots=True)
class IngestDependencies:
    """What the write path works with. `own_lag_s` is how late this process's loop has been.

    `probed` is what outside probes say now; a result older than `probe_stale_s` is none. `term_left_s` is how
    long nobody else can lead. `on_committed` gets the pending notices of each entry, after its commit.
    """

    appender: JournalAppender
    readers: Readers
    bus: Messages
    clock: Clock
    herald: NoticeWriter
    deciders: Deciders
    fleet: FleetSettings
    epoch: int
    own_lag_s: Callable[[], float]
    probed: Callable[[], Mapping[HostId, Probed]] = dict
    probe_stale_s: float = 1.0
    on_committed: Callable[[Sequence[PendingNotice]], None] = _nothing
    term_left_s: Callable[[], float] = lambda: math.inf


@dataclass(slots=True)
class Entry:
    """`acknowledge`, `resync` and `assign` are for the nodes after the commit, `refused` is for the log.

    `failed` are the decisions that raised: what they were about, and the error.
    """

    world: IngestState
    deciders: Deciders
    wall_ns: int
    mono_ns: int
    events: list[NewEvent] = field(default_factory=list)
    changes: list[RowChange] = field(default_factory=list)
    tellings: list[PendingNotice] = field(default_factory=list)
    acknowledge: dict[HostId, tuple[str, int]] = field(default_factory=dict)
    facts_acknowledged: dict[HostId, tuple[str, int]] = field(default_factory=dict)
    resync: dict[HostId, str] = field(default_factory=dict)
    assign: set[HostId] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    failed: list[tuple[str, Exception]] = field(default_factory=list)
    enrolments: list[tuple[object, EventIndex]] = field(default_factory=list)
    additions: list[tuple[Addition, int]] = field(default_factory=list)

    def take(self, decide: Decide) -> None:
        """Decide, and adopt the decision. Raises what the decision raises; then nothing is adopted."""
        now = Moment(self.wall_ns, self.mono_ns, self.deciders.clear_after_s, len(self.events))
        self._adopt(decide(self.world, now))

    def take_each(self, steps: Iterable[Decide], what: str) -> None:
        """Take one step after the other. One that raises is refused alone; `what` names it in the log."""
        following = iter(steps)
        while True:
            try:
                for decide in following:
                    self.take(decide)
                return
            except Exception as error:
                self.failed.append((what, error))
                if len(self.failed) >= FAILED_MAX:
                    return

    def add(self, addition: Addition) -> None:
        """What has its place behind all faults: called when nothing else will be decided."""
        first = len(self.events)
        changes = addition.changes(first)
        self.additions.append((addition, first))
        self.events += addition.events
        self.changes += changes

    def _adopt(self, decision: Decision) -> None:
        of_faults = self.deciders.rows(decision) if decision.raised or decision.changed else ()
        new_nodes, new_resources = self.world.adopt(decision)
        self.events += decision.events
        self.tellings += [replace(each, at_ns=self.wall_ns) for each in decision.tellings]
        self.changes += [node_change(node, is_new=node.host in new_nodes) for node in decision.nodes]
        self.changes += [resource_change(row, is_new=row.id in new_resources) for row in decision.resources]
        self.changes += [action_intended(action) for action in decision.intended]
        self.changes += [action_finished(action) for action in decision.finished]
        self.changes += (*of_faults, *decision.changes)
        self.acknowledge |= decision.acknowledge
        self.facts_acknowledged |= decision.facts_acknowledged
        self.resync |= decision.resync
        self.assign |= decision.assign
        self.refused += decision.refused
        self.enrolments += decision.enrolments


FAILED_MAX = 1000
"""Refused decisions of one entry; steps that never end must not keep the path for ever."""
