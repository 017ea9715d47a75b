"""Invariants of actions and commits: intent first (I1), closed once (I10), current epoch, and the gate.

I1: no act without a committed intent; a restart on its own host is intended on its node's disk, and where
that disk takes nothing, not even in its reserve, in its memory: those acts are counted and named. I10: every
open intent is closed after recovery, once. No write under an old epoch. Acknowledged means committed: what a
node may forget is in the database.

The gate: no disruptive action but through it, and no receipt for a host that was never off. The journal
says what was known when an act was intended: the host was down, nobody held it, the hosts could be judged,
the component was armed. Storms and the rate are counted within one server's term: the clocks of two servers
do not agree. What settings allow is known only with a history.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from homeostat.contracts.component import Violation
from homeostat.contracts.events import fleet
from homeostat.contracts.events.resources import ActionFinished, ActionIntended, GuestMoved
from homeostat.contracts.nouns import HostId, Mark, node_subject
from homeostat.contracts.wire import Outcome
from homeostat.fleet.settings import GateSettings
from homeostat.kernel.journal import Envelope
from homeostat.sim import history as story
from homeostat.sim.checkers.evidence import (
    RECOVERY,
    ArmedComponents,
    CheckerEvidence,
    DatabaseContents,
    committed_at,
)

INTENT_FIRST = "I1 no act without a committed intent"


def check_intent_first(evidence: CheckerEvidence) -> Iterator[Violation]:
    """In the journal an end needs an intent before it; in a story an act needs one on a disk before it."""
    intended = {each.intended_seq: each.id for each in evidence.record.actions}
    begun = {envelope.seq for envelope, _ in evidence.record.of(ActionIntended)}
    for envelope, finished in evidence.record.of(ActionFinished):
        if envelope.cause not in begun:
            yield Violation(
                INTENT_FIRST, envelope.subject, f"event {envelope.seq} ends {finished.action}, not intended"
            )
    for seq, action in intended.items():
        if seq not in begun:
            yield Violation(INTENT_FIRST, action, f"its row names event {seq}, which is no intent")
    if evidence.story is None:
        return
    recorded = set()
    fences: dict[int, str] = {
        envelope.seq: envelope.subject
        for envelope, event in evidence.record.of(ActionIntended)
        if event.verb == "fence"
    }
    ready: Counter[str] = Counter()
    for line in evidence.story.lines:
        match line.fact:
            case story.IntentRecorded(action=action):
                recorded.add(action)
            case story.SubmissionCommitted(seqs=seqs):
                ready.update(fences[seq] for seq in seqs if seq in fences)
            case story.FenceBegan(host=host):
                ready[node_subject(host)] -= 1
                if ready[node_subject(host)] < 0:
                    said = f"it is fenced at {line.at_s:.3f} s and no intent is committed"
                    yield Violation(INTENT_FIRST, node_subject(host), said)
            case story.ActBegan(action=action, verb=verb, resource=resource) if action not in recorded:
                said = f"{verb} began at {line.at_s:.3f} s and no intent {action!r} was on any disk"
                yield Violation(INTENT_FIRST, resource, said)


def uncommitted_acts(record: DatabaseContents) -> Iterator[tuple[Envelope, ActionIntended]]:
    """The acts whose intent was only in the memory of a node, as its disk was full. Told, no violation."""
    return ((envelope, event) for envelope, event in record.of(ActionIntended) if event.uncommitted)


INTENTS_CLOSED = "I10 every open intent is closed after recovery"


def check_intents_closed(evidence: CheckerEvidence) -> Iterator[Violation]:
    """The rows say what is open, the events say how often each was closed."""
    ended = Counter(event.action for _, event in evidence.record.of(ActionFinished))
    for action in evidence.record.actions:
        count = ended[action.id]
        if action.outcome is None and evidence.overdue(action.intended_ns, action.deadline_s):
            yield Violation(INTENTS_CLOSED, action.id, f"the {action.verb} of {action.about} is still open")
        elif action.outcome is not None and count != 1:
            yield Violation(
                INTENTS_CLOSED, action.id, f"its row is closed and {count} events say how it ended"
            )


CURRENT_EPOCH = "no write under an old epoch"


def check_current_epoch(evidence: CheckerEvidence) -> Iterator[Violation]:
    """Epochs only grow in the journal; every commit of a run was of the term's own epoch."""
    highest = 0
    for envelope, taken in evidence.record.of(fleet.TermTaken):
        if taken.epoch <= highest:
            yield Violation(
                CURRENT_EPOCH, envelope.subject, f"event {envelope.seq} comes after epoch {highest}"
            )
        highest = max(highest, taken.epoch)
    if evidence.story is None:
        return
    for at_s, wrote in evidence.story.of(story.SubmissionCommitted):
        if wrote.epoch != wrote.term:
            said = f"at {at_s:.3f} s epoch {wrote.epoch} wrote while the term was {wrote.term}"
            yield Violation(CURRENT_EPOCH, f"term/{wrote.epoch}", said)


ACKNOWLEDGED_IS_COMMITTED = "acknowledged means committed"


def check_acknowledged_is_committed(evidence: CheckerEvidence) -> Iterator[Violation]:
    """Nothing without a story: acknowledgements are not journaled."""
    if evidence.story is None:
        return
    for at_s, sent in evidence.story.of(story.AckSent):
        if sent.seq > sent.committed:
            said = f"at {at_s:.3f} s {sent.seq} was acknowledged and {sent.committed} was committed"
            yield Violation(ACKNOWLEDGED_IS_COMMITTED, node_subject(sent.host), said)


THROUGH_THE_GATE = "no disruptive action but through the gate"
FENCE = "fence"


@dataclass(slots=True)
class _KnownToGate:
    """What the journal has said so far. `seen_ns` is of deaths in this term."""

    hosts: set[HostId] = field(default_factory=set)
    down_ns: dict[HostId, int] = field(default_factory=dict)
    seen_ns: dict[HostId, int] = field(default_factory=dict)
    fenced_ns: dict[HostId, int] = field(default_factory=dict)
    held: set[HostId] = field(default_factory=set)
    acts_ns: list[int] = field(default_factory=list)
    blind: bool = False
    armed: ArmedComponents = field(default_factory=ArmedComponents)

    def take(self, envelope: Envelope) -> None:
        match envelope.event:
            case fleet.HostJoined(host=host):
                self.hosts.add(host)
            case fleet.HostDown(host=host, seen_ns=seen_ns):
                self.down_ns[host] = self.seen_ns[host] = seen_ns
            case fleet.HostRemoved(host=host):
                self.hosts.discard(host)
                self.held.discard(host)
                for known in (self.down_ns, self.seen_ns, self.fenced_ns):
                    known.pop(host, None)
            case fleet.HostBack(host=host):
                self.down_ns.pop(host, None)
                self.seen_ns.pop(host, None)
                self.fenced_ns.pop(host, None)
            case fleet.HostFenced(host=host):
                self.fenced_ns[host] = envelope.at_ns
            case fleet.HostHeld(host=host, held=held):
                (self.held.add if held else self.held.discard)(host)
            case fleet.EvidenceLost():
                self.blind = True
            case fleet.EvidenceBack():
                self.blind = False
            case fleet.ComponentArmed(component=name, armed=armed):
                self.armed.take(name, armed)
            case fleet.TermTaken():
                self.acts_ns, self.seen_ns = [], {}

    def objections(self, host: HostId, at_ns: int, gate: GateSettings | None) -> Iterator[str]:
        """Why this host may not be fenced now."""
        if host not in self.down_ns:
            yield "it was not down"
        if host in self.fenced_ns:
            yield "it was fenced already"
        yield from self._stopped_by(host, gate)
        if gate is None:
            return
        if sum(at_ns - each <= gate.harm_window_s * 1e9 for each in self.acts_ns) >= gate.harm_max:
            yield f"{gate.harm_max} acts had been done lately"

    def objections_to_marks_and_moves(self, envelope: Envelope, gate: GateSettings | None) -> Iterator[str]:
        """Why this event may not mark a host at the cloud or start its guests elsewhere.

        Only fences are counted for the rate. Whether a host that guests leave is fenced is I5.
        """
        match envelope.event:
            case ActionIntended(verb=Mark.MARK_DOWN.value | Mark.SET_ERROR.value, action=action):
                host = HostId(envelope.subject.partition("/")[2])
                if host not in self.down_ns:
                    yield f"intends {action}: it was not down"
                for why in self._stopped_by(host, gate):
                    yield f"intends {action}: {why}"
            case GuestMoved(from_host=host):
                for why in self._stopped_by(host, gate):
                    yield f"starts it elsewhere: {why}"

    def _stopped_by(self, host: HostId, gate: GateSettings | None) -> Iterator[str]:
        if host in self.held:
            yield "a person held it"
        if self.blind:
            yield "the hosts could not be judged"
        if self.armed.is_armed(RECOVERY, None if gate is None else gate.armed) is False:
            yield "the component was not armed"
        if gate is None:
            return
        died_ns = self.seen_ns.get(host)
        if died_ns is not None:
            window_ns = gate.storm_window_s * 1e9
            near = {each for each, at_ns in self.seen_ns.items() if abs(died_ns - at_ns) <= window_ns}
            near_ns = sorted(self.seen_ns[each] for each in near)
            lived = self.hosts - (self.down_ns.keys() - near)
            limit = gate.storm_percent * len(lived)
            began_ns = next(
                (each for dead, each in enumerate(near_ns, 1) if dead > 1 and dead * 100 >= limit), None
            )
            # What had its receipt when the storm began goes on: its death was no part of it.
            if began_ns is not None and self.fenced_ns.get(host, began_ns) >= began_ns:
                yield f"{len(near_ns)} of {len(lived)} hosts had died at once"


def check_through_the_gate(evidence: CheckerEvidence) -> Iterator[Violation]:
    """Every intent to fence or to mark, every receipt of a driver, and every move of a guest."""
    gate = None if evidence.fleet is None else evidence.fleet.gate
    known = _KnownToGate()
    succeeded: set[int] = set()
    intents: dict[int, str] = {}
    for envelope in evidence.record.events:
        for said in known.objections_to_marks_and_moves(envelope, gate):
            yield Violation(THROUGH_THE_GATE, envelope.subject, f"event {envelope.seq} {said}")
        match envelope.event:
            case ActionIntended(verb="fence", action=action):
                host = HostId(envelope.subject.partition("/")[2])
                for why in known.objections(host, envelope.at_ns, gate):
                    yield Violation(
                        THROUGH_THE_GATE, envelope.subject, f"event {envelope.seq} intends {action}: {why}"
                    )
                known.acts_ns.append(envelope.at_ns)
                intents[envelope.seq] = action
            case ActionFinished(outcome=Outcome.OK.value) if envelope.cause in intents:
                succeeded.add(envelope.seq)
            case fleet.HostFenced(host=host):
                if host not in known.down_ns:
                    yield Violation(
                        THROUGH_THE_GATE, envelope.subject, f"event {envelope.seq} fences what was not down"
                    )
                if evidence.story is not None and envelope.cause not in succeeded:
                    said = f"event {envelope.seq} is a receipt, and no attempt had succeeded"
                    yield Violation(THROUGH_THE_GATE, envelope.subject, said)
        known.take(envelope)
    if evidence.story is not None:
        yield from _receipts(evidence, evidence.story)


def _receipts(evidence: CheckerEvidence, record: story.RunHistory) -> Iterator[Violation]:
    """A receipt means that since the death the host was off at least once."""
    committed = committed_at(evidence)
    off: dict[HostId, list[tuple[float, float]]] = {}
    for line in record.lines:
        match line.fact:
            case story.HostDied(host=host):
                off.setdefault(host, []).append((line.at_s, float("inf")))
            case story.HostBooted(host=host):
                off[host][-1] = (off[host][-1][0], line.at_s)
    accused_s: dict[HostId, float] = {}
    for envelope in evidence.record.events:
        match envelope.event:
            case fleet.HostDown(host=host):
                accused_s[host] = committed[envelope.seq][0]
            case fleet.HostFenced(host=host):
                since_s, until_s = accused_s.get(host, 0.0), committed[envelope.seq][0]
                if not any(began <= until_s and ended >= since_s for began, ended in off.get(host, ())):
                    said = f"a receipt is written at {until_s:.3f} s and it was on since {since_s:.3f} s"
                    yield Violation(THROUGH_THE_GATE, envelope.subject, said)
