"""No harm but through the gate, and no receipt for a host that was never off.

The journal tells what was known when an act was intended: the host was down, nobody held it, the hosts could
be judged, the room was armed. Storms and the rate are counted within one server's term: the clocks of two
servers do not agree. What settings allow is known only in a story.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from homeostat.contracts.events.fleet import (
    EvidenceBack,
    EvidenceLost,
    HostBack,
    HostDown,
    HostFenced,
    HostHeld,
    HostJoined,
    RoomArmed,
    TermTaken,
)
from homeostat.contracts.events.resources import ActionFinished, ActionIntended, GuestMoved
from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import Outcome
from homeostat.fleet.settings import GateSettings
from homeostat.kernel.journal import Envelope
from homeostat.sim import story
from homeostat.sim.checkers.evidence import Evidence, Violation, committed_at

NAME = "no harm but through the gate"
FENCE = "fence"
_ROOM = "faults"
_ROOM_OF_GUESTS = "resources"


@dataclass(slots=True)
class _Known:
    """What the journal has said so far. `seen_ns` is of deaths in this term."""

    hosts: set[HostId] = field(default_factory=set)
    down_ns: dict[HostId, int] = field(default_factory=dict)
    seen_ns: dict[HostId, int] = field(default_factory=dict)
    fenced_ns: dict[HostId, int] = field(default_factory=dict)
    held: set[HostId] = field(default_factory=set)
    harm_ns: list[int] = field(default_factory=list)
    blind: bool = False
    armed: dict[str, bool] = field(default_factory=dict)

    def take(self, envelope: Envelope) -> None:
        match envelope.event:
            case HostJoined(host=host):
                self.hosts.add(host)
            case HostDown(host=host, seen_ns=seen_ns):
                self.down_ns[host] = self.seen_ns[host] = seen_ns
            case HostBack(host=host):
                self.down_ns.pop(host, None)
                self.seen_ns.pop(host, None)
                self.fenced_ns.pop(host, None)
            case HostFenced(host=host):
                self.fenced_ns[host] = envelope.at_ns
            case HostHeld(host=host, held=held):
                (self.held.add if held else self.held.discard)(host)
            case EvidenceLost():
                self.blind = True
            case EvidenceBack():
                self.blind = False
            case RoomArmed(room=room, armed=armed):
                self.armed[room] = armed
            case TermTaken():
                self.harm_ns, self.seen_ns = [], {}
            case _:
                pass

    def objections(self, host: HostId, at_ns: int, gate: GateSettings | None) -> Iterator[str]:
        """Why this host may not be fenced now."""
        if host not in self.down_ns:
            yield "it was not down"
        if host in self.fenced_ns:
            yield "it was fenced already"
        yield from self._both(_ROOM, host, gate)
        if gate is None:
            return
        if sum(at_ns - each <= gate.harm_window_s * 1e9 for each in self.harm_ns) >= gate.harm_max:
            yield f"{gate.harm_max} acts had been done lately"

    def objections_to_a_move(self, host: HostId, gate: GateSettings | None) -> Iterator[str]:
        """Why the guests of this host may not start elsewhere now. Whether it is fenced is I5."""
        yield from self._both(_ROOM_OF_GUESTS, host, gate)

    def _both(self, room: str, host: HostId, gate: GateSettings | None) -> Iterator[str]:
        if host in self.held:
            yield "a person held it"
        if self.blind:
            yield "the hosts could not be judged"
        armed = self.armed.get(room)
        if armed is None and gate is not None:
            armed = room in gate.armed
        if armed is False:
            yield "the room was not armed"
        if gate is None:
            return
        died_ns = self.seen_ns.get(host)
        if died_ns is not None:
            window_ns = gate.storm_window_s * 1e9
            near_ns = sorted(each for each in self.seen_ns.values() if abs(died_ns - each) <= window_ns)
            limit = gate.storm_percent * len(self.hosts)
            began_ns = next(
                (each for dead, each in enumerate(near_ns, 1) if dead > 1 and dead * 100 >= limit), None
            )
            # What had its receipt when the storm began goes on: its death was no part of it.
            if began_ns is not None and self.fenced_ns.get(host, began_ns) >= began_ns:
                yield f"{len(near_ns)} of {len(self.hosts)} hosts had died at once"


def check(evidence: Evidence) -> Iterator[Violation]:
    """Every intent to fence, every receipt of a driver, and every move of a guest."""
    gate = None if evidence.fleet is None else evidence.fleet.gate
    known = _Known()
    succeeded: set[int] = set()
    intents: dict[int, str] = {}
    for envelope in evidence.record.events:
        match envelope.event:
            case ActionIntended(verb="fence", action=action):
                host = HostId(envelope.subject.partition("/")[2])
                for why in known.objections(host, envelope.at_ns, gate):
                    yield Violation(NAME, envelope.subject, f"event {envelope.seq} intends {action}: {why}")
                known.harm_ns.append(envelope.at_ns)
                intents[envelope.seq] = action
            case GuestMoved(from_host=host):
                for why in known.objections_to_a_move(host, gate):
                    said = f"event {envelope.seq} starts it elsewhere: {why}"
                    yield Violation(NAME, envelope.subject, said)
            case ActionFinished(outcome=Outcome.OK.value) if envelope.cause in intents:
                succeeded.add(envelope.seq)
            case HostFenced(host=host):
                if host not in known.down_ns:
                    yield Violation(NAME, envelope.subject, f"event {envelope.seq} fences what was not down")
                if evidence.story is not None and envelope.cause not in succeeded:
                    said = f"event {envelope.seq} is a receipt, and no attempt had succeeded"
                    yield Violation(NAME, envelope.subject, said)
            case _:
                pass
        known.take(envelope)
    if evidence.story is not None:
        yield from _receipts(evidence, evidence.story)


def _receipts(evidence: Evidence, told: story.Story) -> Iterator[Violation]:
    """A receipt means that since the death the host was off at least once."""
    committed = committed_at(evidence)
    off: dict[HostId, list[tuple[float, float]]] = {}
    for line in told.lines:
        match line.fact:
            case story.HostDied(host=host):
                off.setdefault(host, []).append((line.at_s, float("inf")))
            case story.HostBooted(host=host):
                off[host][-1] = (off[host][-1][0], line.at_s)
            case _:
                pass
    accused_s: dict[HostId, float] = {}
    for envelope in evidence.record.events:
        match envelope.event:
            case HostDown(host=host):
                accused_s[host] = committed[envelope.seq][0]
            case HostFenced(host=host):
                since_s, until_s = accused_s.get(host, 0.0), committed[envelope.seq][0]
                if not any(began <= until_s and ended >= since_s for began, ended in off.get(host, ())):
                    said = f"a receipt is written at {until_s:.3f} s and it was on since {since_s:.3f} s"
                    yield Violation(NAME, envelope.subject, said)
            case _:
                pass
