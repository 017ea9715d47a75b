"""One entry into the journal: what a batch of messages from nodes amounts to. No I/O.

Reading messages in order, it keeps the world, the events, the row changes, and what to say to whom once the
entry is committed. Nothing of it is true before that: a failed commit throws the entry and the world away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from homeostat.contracts.events.fleet import ObservationsLost
from homeostat.contracts.events.resources import ActionFinished
from homeostat.contracts.nouns import HostId, Mark, ResourceState, node_subject, resource_subject
from homeostat.contracts.wire import Goodbye, Heartbeat, Levels, Observations, Outcome, ResourceLevel
from homeostat.faults.decision import Decision, Telling, World
from homeostat.faults.forgotten import on_look
from homeostat.faults.generations import speaks_for
from homeostat.faults.guests import on_placement
from homeostat.faults.hosts import (
    on_acts_stopped,
    on_evidence,
    on_fence_ended,
    on_fence_intended,
    on_fenced,
    on_hold,
    on_host_back,
    on_host_down,
    on_injected,
    on_refusal,
)
from homeostat.faults.inspection import on_drift, on_tick, on_transition
from homeostat.faults.marks import MarkAct, on_mark_ended, on_mark_intended, on_marked
from homeostat.faults.presence import Moment, on_goodbye, on_heartbeat, on_silence
from homeostat.faults.store import fault_changed, fault_raised
from homeostat.fleet.additions import Addition
from homeostat.fleet.assignment import Placement
from homeostat.fleet.fencing import Attempt, Ended
from homeostat.fleet.gate import Asked, Refusal
from homeostat.fleet.model import AgentState, Node
from homeostat.fleet.store import action_finished, action_intended, node_change, resource_change
from homeostat.fleet.suspicion import Death
from homeostat.kernel.journal import Change, Draft, Local, Seq
from homeostat.notices.enrolment import Enrolment

UNWATCHED = frozenset({ResourceState.STOPPED, ResourceState.UNKNOWN})
REMOVED = "it is no longer configured on its node"


@dataclass(slots=True)
class Entry:
    """`acknowledge`, `resync` and `assign` are for the nodes after the commit, `refused` is for the log."""

    world: World
    wall_ns: int
    mono_ns: int
    clear_after_s: float
    host_clear_after_s: float = 3.0
    events: list[Draft] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    tellings: list[Telling] = field(default_factory=list)
    acknowledge: dict[HostId, tuple[str, int]] = field(default_factory=dict)
    resync: dict[HostId, str] = field(default_factory=dict)
    assign: set[HostId] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    enrolments: list[tuple[Enrolment, Local]] = field(default_factory=list)
    additions: list[tuple[Addition, int]] = field(default_factory=list)

    def observations(self, message: Observations, received_ns: int) -> None:
        """Take in what a node saw, once and in its order; ask again where something is missing."""
        node = self.world.topology.nodes.get(message.host)
        if node is None:
            self.resync[message.host] = "the node is not known yet"
            return
        if self._catch_up(message):
            self.resync[message.host] = "observations were lost"
        node = self.world.topology.nodes[message.host]
        fresh = [each for each in message.transitions if each.level.seq > node.acked_seq]
        if fresh and fresh[0].level.seq != node.acked_seq + 1:
            self.resync[message.host] = f"observation {node.acked_seq + 1} is missing"
            return
        for transition in fresh:
            if self._is_foreign(message.host, transition.level):
                continue
            moment_ns = received_ns - max(0, message.sent_mono_ns - transition.mono_ns)
            self._take(
                on_transition(self.world, message.host, message.boot, (transition, moment_ns), self._place())
            )
        acked = fresh[-1].level.seq if fresh else node.acked_seq
        if fresh:
            self._take(Decision(nodes=[replace(node, acked_seq=acked)]))
        if message.transitions:
            self.acknowledge[message.host] = (message.boot, acked)

    def levels(self, message: Levels) -> None:
        """Compare everything that a node knows with our rows; what transitions will tell is left to them."""
        if message.host not in self.world.topology.nodes:
            return
        self._catch_up(message)
        node = self.world.topology.nodes[message.host]
        rows = self.world.topology.resources
        whole = self.world.pictures.add(message)
        if whole is not None:
            self.world.topology.hear_offers(message.host, whole.offers)
        elif message.offers:
            self.world.topology.hear_some(message.host, message.offers)
        for level in message.levels:
            if self._is_foreign(message.host, level):
                continue
            row = rows.get(level.resource)
            # A message that was overtaken tells of the past: what came after it is in the row already.
            # Numbers of two hosts say nothing about each other: an old database has the row of an old host.
            ours = row is not None and row.host == message.host
            drifted = not ours or row is None or (row.seq, row.state) != (level.seq, level.state)
            overtaken = ours and row is not None and row.seq > level.seq
            if level.seq <= node.acked_seq and drifted and not overtaken:
                self._take(on_drift(self.world, message.host, message.boot, level, self._place()))
        if whole is None:
            return
        offered = [rows.get(offer.resource) for offer in whole.offers]
        if offered and all(row is not None and row.generation for row in offered):
            self.assign.add(message.host)  # else the heartbeats ask, when what is new has found its place
        if message.seq != node.acked_seq:
            return
        gone = [row for row in self.world.topology.on_host(message.host) if row.id not in whole.resources]
        for row in gone:
            # A guest that can move is where it is assigned, reported or not.
            if not row.generation and row.state is not ResourceState.STOPPED:
                level = row.to_level(ResourceState.STOPPED, REMOVED, self.wall_ns)
                self._take(on_drift(self.world, message.host, message.boot, level, self._place()))
                self._abandon(node_subject(message.host), resource_subject(row.id), REMOVED)

    def heartbeat(self, beat: Heartbeat) -> None:
        """Notice a new node, a new incarnation, or a node that knows something else than we do."""
        if self.world.topology.is_down(beat.host):
            self._take(on_host_back(self.world, beat, self._host_moment()))
        else:
            self._take(on_heartbeat(self.world, beat, self._moment()))
        node = self.world.topology.nodes[beat.host]
        if not beat.offers and beat.host not in self.world.topology.offered:
            self.world.topology.hear_offers(beat.host, ())
        if beat.boot != node.boot:
            self.resync[beat.host] = "its observation store is new"
        elif beat.first > node.acked_seq + 1:
            self.resync[beat.host] = f"observation {node.acked_seq + 1} is gone for good"
        elif beat.offers != self.world.topology.offered.get(beat.host, ""):
            self.resync[beat.host] = "what it could run is not known"
        elif beat.offers and beat.assigned != self.world.topology.assigned_digest(beat.host):
            self.assign.add(beat.host)
        elif beat.seq == node.acked_seq and beat.digest != self.world.topology.digest(beat.host):
            self.resync[beat.host] = "its digest differs"
        elif beat.seq == node.acked_seq and not beat.offers:
            self.world.pictures.whole[beat.host] = (
                beat.seq
            )  # it knows what we know, and of no guest that moves

    def goodbye(self, message: Goodbye) -> None:
        """A node process stops because it was asked to."""
        self._take(on_goodbye(self.world, message, self._moment()))

    def silence(self, host: HostId, silent_s: float) -> None:
        """A node that should speak does not."""
        self._take(on_silence(self.world, host, silent_s, self._moment()))

    def host_down(self, host: HostId, death: Death) -> None:
        """Agent and outside probes agree that a host is dead."""
        self._take(on_host_down(self.world, host, death, self._host_moment()))

    def evidence(self, unknown: str) -> None:
        """Why nothing has been known of the hosts for a while, or empty."""
        self._take(on_evidence(self.world, unknown, self._moment()))

    def acts_stopped(self, reason: str) -> None:
        """Why a storm of deaths stops acts until a person has looked, or empty."""
        self._take(on_acts_stopped(self.world, reason, self._moment()))

    def refusal(self, asked: Asked, refusal: Refusal, cause: Seq | None) -> None:
        """The gate refused an act."""
        self._take(on_refusal(self.world, asked, refusal, cause, self._moment()))

    def fence_intended(self, attempt: Attempt, cause: Seq | None) -> None:
        """A dead host is about to be fenced."""
        self._take(on_fence_intended(self.world, attempt, cause, self._moment()))

    def fence_ended(self, host: HostId, ended: Ended) -> None:
        """An attempt to fence ended."""
        self._take(on_fence_ended(self.world, host, ended, self._moment()))

    def mark_intended(self, act: MarkAct, cause: Seq | None) -> None:
        """A cloud is about to be told of a host."""
        self._take(on_mark_intended(act, cause, self._moment()))

    def mark_ended(self, action: str, ended: tuple[Outcome, float, str]) -> None:
        """How that ended, after how many milliseconds, and what was said."""
        self._take(on_mark_ended(self.world, action, ended, self._moment()))

    def marked(self, host: HostId, mark: Mark, cloud: str) -> None:
        """A cloud shows it so."""
        self._take(on_marked(self.world, host, (mark, cloud), self._moment()))

    def fenced(self, host: HostId, driver: str, receipt: str) -> None:
        """A person says that nothing runs on a dead host."""
        self._take(on_fenced(self.world, host, (driver, receipt), self._moment()))

    def injected(self, host: HostId, what: str, injected_ns: int, by: str) -> None:
        """Somebody broke a host on purpose."""
        self._take(on_injected(host, (what, injected_ns, by), self._moment()))

    def hold(self, host: HostId, reason: str, by: str) -> None:
        """No harm to this host, or (empty reason) again."""
        self._take(on_hold(self.world, host, (reason, by), self._moment()))

    def add(self, addition: Addition) -> None:
        """What another room has to say, behind all faults: called when nothing else will be decided."""
        first = len(self.events)
        self.additions.append((addition, first))
        self.events += addition.events
        self.changes += addition.changes(first)

    def enrol(self, enrolment: Enrolment) -> None:
        """A subscription is made, changed or removed."""
        self.enrolments.append((enrolment, Local(len(self.events))))
        self.events.append(enrolment.draft)
        self.changes.append(enrolment.change)

    def placed(self, placement: Placement) -> None:
        """Guests are assigned to hosts, or cannot be."""
        decision = on_placement(self.world, placement, self._moment())
        self._take(decision)
        self.assign |= {row.host for row in decision.resources}

    def look_after(self, start_deadline_s: float) -> None:
        """Find guests that their living hosts do not run."""
        self._take(on_look(self.world, start_deadline_s, self._moment()))

    def tick(self) -> None:
        """Clear what has been right for long enough."""
        self._take(on_tick(self.world, self.mono_ns, self.wall_ns, len(self.events)))

    def expected(self) -> Iterable[Node]:
        """Nodes whose silence means something: they never said goodbye."""
        nodes = self.world.topology.nodes.values()
        return [node for node in nodes if node.agent is not AgentState.STOPPED]

    def _take(self, decision: Decision) -> None:
        new_nodes, new_resources = self.world.adopt(decision)
        self.events += decision.events
        self.tellings += [
            Telling(each.fault, each.transition, each.cause, self.wall_ns) for each in decision.tellings
        ]
        self.changes += [node_change(node, is_new=node.host in new_nodes) for node in decision.nodes]
        self.changes += [resource_change(row, is_new=row.id in new_resources) for row in decision.resources]
        self.changes += [action_intended(action) for action in decision.intended]
        self.changes += [action_finished(action) for action in decision.finished]
        self.changes += [fault_raised(fault) for fault in decision.raised]
        self.changes += [fault_changed(fault) for fault in decision.changed]

    def _adopt_boot(self, host: HostId, boot: str) -> None:
        node = self.world.topology.nodes[host]
        rows = [replace(row, seq=0) for row in self.world.topology.on_host(host)]
        self._take(Decision(nodes=[replace(node, boot=boot, acked_seq=0)], resources=rows))
        self._abandon(node_subject(host), "", "the node's observation store is new")

    def _is_foreign(self, host: HostId, level: ResourceLevel) -> bool:
        """Whether another node watches this resource: a node speaks of its own only.

        One that nobody watches any more, or whose node is gone, belongs to the node that has it now.
        """
        row = self.world.topology.resources.get(level.resource)
        speaks = speaks_for(self.world.topology, host, level)
        if speaks is False:
            where = "on no host" if row is None else f"on {row.host} under generation {row.generation}"
            self.refused.append(
                f"{host} speaks of {level.resource} under generation {level.generation}; it is {where}"
            )
        if speaks is not None:
            return not speaks
        if row is None or row.host == host or row.state in UNWATCHED:
            return False
        owner = self.world.topology.nodes.get(row.host)
        if owner is None or owner.agent is not AgentState.PRESENT:
            return False
        self.refused.append(
            f"{host} speaks of {level.resource}, which is on {row.host}; rename one of the two"
        )
        return True

    def _catch_up(self, message: Observations | Levels) -> bool:
        """Adopt a new store, and go on where a node begins that cannot send what we miss; whether it cannot.

        It dropped that, or an earlier database of ours has it.
        """
        if message.boot != self.world.topology.nodes[message.host].boot:
            self._adopt_boot(message.host, message.boot)
        node = self.world.topology.nodes[message.host]
        count = message.first - node.acked_seq - 1
        if count <= 0:
            return False
        subject = node_subject(message.host)
        trace = f"{message.host}/{message.boot}/lost"
        event = ObservationsLost(message.host, count)
        self.events.append(Draft(event, subject, self.wall_ns, subject, trace))
        self._take(Decision(nodes=[replace(node, acked_seq=message.first - 1)]))
        self._abandon(subject, "", "observations were lost")
        return True

    def _abandon(self, owner_of_act: str, about: str, reason: str) -> None:
        """Close acts whose end nobody will ever report: all of one owner, or those about one subject."""
        decision = Decision(len(self.events))
        for action in self.world.topology.actions.values():
            if action.owner_of_act == owner_of_act and about in ("", action.about):
                event = ActionFinished(action.id, Outcome.UNKNOWN.value, 0.0, reason)
                place = (action.about, self.wall_ns, "faults", action.trace, action.intended_seq)
                decision.add(Draft(event, *place))
                decision.finished.append(replace(action, outcome=Outcome.UNKNOWN.value))
        self._take(decision)

    def _moment(self) -> Moment:
        return Moment(self.wall_ns, self.mono_ns, self.clear_after_s, len(self.events))

    def _host_moment(self) -> Moment:
        return Moment(self.wall_ns, self.mono_ns, self.host_clear_after_s, len(self.events))

    def _place(self) -> tuple[int, float]:
        return len(self.events), self.clear_after_s
