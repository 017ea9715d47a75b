"""Invariants of dead hosts and of guests: two witnesses, once a death; I4 on one host; I5 after the
receipt.

The witnesses' words are the simulated cluster's own log: what came in from the host's agent, and how the
probes ended. A host is never reported down together with most others. In the journal alone: once until it is
back, and never more than half of those that lived. A host that dies while nothing else is wrong is reported
down, and fenced unless the component only observes.

I4, from the journal: a guest comes up only where it is assigned at that moment; with a history the processes
themselves are counted, whatever anybody says of them. I5: no guest is started elsewhere before the receipt
that nothing runs on its host any more; with a history, before its host was really off. In the end each guest
runs; those of a host that dies in peace start elsewhere, if they may.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Set

from homeostat.contracts.component import Violation
from homeostat.contracts.events import fleet as fleet_events
from homeostat.contracts.events.faults import FaultCleared, FaultRaised
from homeostat.contracts.events.resources import GuestAssigned, GuestFound, GuestMoved, ResourceUp
from homeostat.contracts.nouns import FaultId, FaultKind, HostId, ResourceId, node_subject, resource_subject
from homeostat.fleet.settings import FleetSettings
from homeostat.kernel.journal import Seq
from homeostat.sim import history as story
from homeostat.sim.checkers.evidence import RECOVERY, ArmedComponents, CheckerEvidence, committed_at

TWO_WITNESSES = "a host is accused by two witnesses, once a death"
_DECIDED_S = 0.02
"""A commit comes at most this long after what was decided."""


def check_two_witnesses(evidence: CheckerEvidence) -> Iterator[Violation]:
    """The journal in its order; in a story the witnesses of each accusation."""
    committed = committed_at(evidence)
    living: set[HostId] = set()
    at_once: Counter[int] = Counter()
    lived: dict[int, int] = defaultdict(int)
    unprobed: dict[FaultId, tuple[HostId, int]] = {}
    """Hosts that outside probes were known not to reach, and until when; 0 while that goes on."""
    for envelope in evidence.record.events:
        match envelope.event:
            case FaultRaised(kind=FaultKind.WITNESS_LOST, fault=fault, about=about):
                unprobed[fault] = HostId(about.partition("/")[2]), 0
            case FaultCleared(fault=fault) if fault in unprobed:
                unprobed[fault] = unprobed[fault][0], envelope.at_ns
            case fleet_events.HostJoined(host=host) | fleet_events.HostBack(host=host):
                living.add(host)
            case fleet_events.HostRemoved(host=host):
                living.discard(host)
            case fleet_events.HostDown(host=host):
                if host not in living:
                    said = f"event {envelope.seq} says that it is down, and it was known to be"
                    yield Violation(TWO_WITNESSES, node_subject(host), said)
                if envelope.seq in committed and evidence.fleet is not None:
                    when = committed[envelope.seq]
                    lost = {each for each, until_ns in unprobed.values() if until_ns in (0, envelope.at_ns)}
                    yield from _witnesses(evidence, evidence.fleet, (host, when), (living, lost))
                at_once[envelope.at_ns] += 1
                lived[envelope.at_ns] = max(lived[envelope.at_ns], len(living))
                living.discard(host)
    for at_ns, count in at_once.items():
        if count * 2 > lived[at_ns]:
            said = f"{count} of {lived[at_ns]} hosts were accused in one moment"
            yield Violation(TWO_WITNESSES, "fleet", said)


def _witnesses(
    evidence: CheckerEvidence,
    fleet: FleetSettings,
    accused: tuple[HostId, tuple[float, str]],
    known: tuple[Set[HostId], Set[HostId]],
) -> Iterator[Violation]:
    """`known`: the hosts that lived, and those that outside probes were known not to reach."""
    assert evidence.story is not None
    host, (at_s, server) = accused
    living, unprobed = known
    witnesses = evidence.story.witnesses
    patience_s = fleet.lone_witness_s if host in unprobed else fleet.host_silent_after_s
    decided_s, since_s = at_s - _DECIDED_S, at_s - patience_s
    heard = witnesses.heard.get((server, host), [])
    if (place := bisect_right(heard, since_s)) < bisect_left(heard, decided_s):
        said = f"{server} accuses it at {at_s:.3f} s and heard its agent at {heard[place]:.3f} s"
        yield Violation(TWO_WITNESSES, node_subject(host), said)
    if not _fails(witnesses, server, host, decided_s, fleet.probe_failures):
        said = f"{server} accuses it at {at_s:.3f} s and its probes were answered, or there were none"
        yield Violation(TWO_WITNESSES, node_subject(host), said)
    unseen = [each for each in living - unprobed if _fails(witnesses, server, each, decided_s, 1)]
    if len(unseen) * 2 > len(living) and len(unseen) > 1:
        said = f"accused at {at_s:.3f} s, when {len(unseen)} of {len(living)} hosts did not answer"
        yield Violation(TWO_WITNESSES, node_subject(host), said)


def _fails(witnesses: story.Witnesses, server: str, host: HostId, at_s: float, times: int) -> bool:
    """Whether that many probes in a row had failed by then; one that ends in the next moment may count."""
    ended = witnesses.probed.get((server, host), [])
    known = [answered for ended_s, answered in ended if ended_s <= at_s]
    late = [answered for ended_s, answered in ended if at_s < ended_s <= at_s + _DECIDED_S]
    last = (known if times == 1 else [*known, *(each for each in late if not each)])[-times:]
    return len(last) == times and not any(last) and not (times == 1 and any(late))


DEAD_HOST_FENCED = "a dead host is noticed and fenced"


def check_dead_host_fenced(evidence: CheckerEvidence) -> Iterator[Violation]:
    """Nothing without a story."""
    if evidence.story is None or evidence.fleet is None:
        return
    committed = committed_at(evidence)
    people = ArmedComponents()
    for _, event in evidence.record.of(fleet_events.ComponentArmed):
        people.take(event.component, event.armed)
    armed = bool(people.is_armed(RECOVERY, evidence.fleet.gate.armed))
    for at_s, trial in evidence.story.of(story.DeathTrial):
        happened = Counter(
            envelope.kind
            for envelope in evidence.record.events
            if envelope.subject == node_subject(trial.host)
            and at_s <= committed[envelope.seq][0] <= trial.until_s
        )
        died, count, fenced = f"it died at {at_s:.3f} s", happened["HostDown"], happened["HostFenced"]
        if count != 1:
            said = f"{died} and {count} events say that it is down"
            yield Violation(DEAD_HOST_FENCED, node_subject(trial.host), said)
        elif fenced != armed:
            said = (
                f"{died}, the component {'may act' if armed else 'may only observe'}: fenced {fenced} times"
            )
            yield Violation(DEAD_HOST_FENCED, node_subject(trial.host), said)


ON_ONE_HOST = "I4 no guest runs on two hosts"


def check_on_one_host(evidence: CheckerEvidence) -> Iterator[Violation]:
    """Assignments follow each other without a gap, and a guest is up nowhere else."""
    if evidence.story is not None:
        yield from _processes(evidence.story)
    at: dict[ResourceId, tuple[HostId, int]] = {}
    for envelope in evidence.record.events:
        match envelope.event:
            case GuestAssigned(resource=resource, host=host, generation=generation):
                if resource in at:
                    said = f"event {envelope.seq} assigns it anew while it is on {at[resource][0]}"
                    yield Violation(ON_ONE_HOST, envelope.subject, said)
                at[resource] = (host, generation)
            case GuestMoved(resource=resource, from_host=before, host=host, generation=generation):
                if at.get(resource, (before, generation - 1)) != (before, generation - 1):
                    was_on, was = at[resource]
                    said = f"event {envelope.seq} moves it from {before} to generation {generation}; "
                    said += f"it was on {was_on}, generation {was}"
                    yield Violation(ON_ONE_HOST, envelope.subject, said)
                at[resource] = (host, generation)
            case GuestFound(resource=resource, host=host, generation=generation):
                at[resource] = (host, generation)  # the rows were older than the world
            case ResourceUp(resource=resource, host=host) if resource in at and at[resource][0] != host:
                said = f"event {envelope.seq}: it is up on {host} and belongs to {at[resource][0]}"
                yield Violation(ON_ONE_HOST, envelope.subject, said)


def _processes(record: story.RunHistory) -> Iterator[Violation]:
    on: dict[ResourceId, list[HostId]] = {}
    for line in record.lines:
        match line.fact:
            case story.GuestRuns(guest=guest, host=host):
                others = on.setdefault(guest, [])
                if others:
                    said = f"at {line.at_s:.3f} s it begins to run on {host} and still runs on {others[0]}"
                    yield Violation(ON_ONE_HOST, resource_subject(guest), said)
                others.append(host)
            case story.GuestEnded(guest=guest, host=host):
                on[guest].remove(host)


FENCED_BEFORE_MOVED = "I5 no evacuation before the fencing receipt"


def check_fenced_before_moved(evidence: CheckerEvidence) -> Iterator[Violation]:
    """The host is fenced at that moment, its receipt is the cause, and a receipt moves a guest once."""
    if evidence.story is not None:
        yield from _starts(evidence.story)
    receipts: dict[HostId, Seq] = {}
    used: set[tuple[str, Seq]] = set()
    for envelope in evidence.record.events:
        match envelope.event:
            case fleet_events.HostFenced(host=host):
                receipts[host] = envelope.seq
            case fleet_events.HostDown(host=host) | fleet_events.HostBack(host=host):
                receipts.pop(host, None)
            case GuestMoved(resource=resource, from_host=host):
                receipt = receipts.get(host)
                if receipt is None:
                    said = f"event {envelope.seq} moves it from {host}, which is not fenced"
                    yield Violation(FENCED_BEFORE_MOVED, envelope.subject, said)
                elif envelope.cause != receipt:
                    said = (
                        f"event {envelope.seq} moves it because of {envelope.cause}, not of receipt {receipt}"
                    )
                    yield Violation(FENCED_BEFORE_MOVED, envelope.subject, said)
                elif (resource, receipt) in used:
                    said = f"event {envelope.seq} moves it a second time after receipt {receipt}"
                    yield Violation(FENCED_BEFORE_MOVED, envelope.subject, said)
                if receipt is not None:
                    used.add((resource, receipt))


def _starts(record: story.RunHistory) -> Iterator[Violation]:
    """Between what a host did for a guest last and its start elsewhere, that host was off."""
    last: dict[ResourceId, HostId] = {}
    for line in record.lines:
        match line.fact:
            case story.HostDied(host=host):
                last = {guest: where for guest, where in last.items() if where != host}
            case story.ActBegan(resource=guest, host=host, verb="start") if guest in record.guests:
                before = last.get(guest, host)
                if before != host:
                    said = f"its start on {host} begins at {line.at_s:.3f} s; {before} has not been off since"
                    yield Violation(FENCED_BEFORE_MOVED, resource_subject(guest), said)
                last[guest] = host
            case story.GuestRuns(guest=guest, host=host):
                last[guest] = host


NO_GUEST_LOST = "no guest is lost"


def check_no_guest_lost(evidence: CheckerEvidence) -> Iterator[Violation]:
    """Nothing without a story."""
    record = evidence.story
    if record is None or evidence.fleet is None or not record.guests:
        return
    runs = _runs(record)
    for guest in record.guests:
        if not any(until_s == float("inf") for _, _, until_s in runs[guest]):
            yield Violation(NO_GUEST_LOST, resource_subject(guest), "in the end it runs nowhere")
    gate = evidence.fleet.gate
    people = ArmedComponents()
    for _, event in evidence.record.of(fleet_events.ComponentArmed):
        people.take(event.component, event.armed)
    armed = people.is_armed(RECOVERY, gate.armed)
    for at_s, trial in record.of(story.DeathTrial):
        for guest in record.guests:
            here = any(host == trial.host and until_s == at_s for host, _, until_s in runs[guest])
            started = [host for host, since_s, _ in runs[guest] if at_s < since_s <= trial.until_s]
            if not here:
                continue
            said = f"its host died at {at_s:.3f} s"
            if armed and not started and gate.harm_max > 1:
                said += " and it was not started elsewhere"
                yield Violation(NO_GUEST_LOST, resource_subject(guest), said)
            elif not armed and started:
                said += f", and it was started on {started[0]} by nobody"
                yield Violation(NO_GUEST_LOST, resource_subject(guest), said)


def _runs(record: story.RunHistory) -> dict[ResourceId, list[tuple[HostId, float, float]]]:
    """Where each guest ran, from when until when."""
    runs: dict[ResourceId, list[tuple[HostId, float, float]]] = defaultdict(list)
    began: dict[tuple[ResourceId, HostId], float] = {}
    for line in record.lines:
        match line.fact:
            case story.GuestRuns(guest=guest, host=host):
                began[guest, host] = line.at_s
            case story.GuestEnded(guest=guest, host=host):
                runs[guest].append((host, began.pop((guest, host)), line.at_s))
    for (guest, host), since_s in began.items():
        runs[guest].append((host, since_s, float("inf")))
    return runs
