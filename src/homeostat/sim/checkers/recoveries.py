"""Invariants of ends: nothing is told as right that is not, and each consumer hears of a thing in the order
in which it happened.

A host is cleared only when what ended with it is up again, or has a fault of its own, or runs elsewhere. What
is superseded is told as that, and only to who heard of the fault that took its place. Both are compared with
the history of a run; without one nothing is said.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from homeostat.contracts.component import Violation
from homeostat.contracts.events.faults import FaultCleared, FaultRaised
from homeostat.contracts.nouns import FaultId, FaultKind, HostId, ResourceId, fault_subject, resource_subject
from homeostat.notices.model import NoticeTransition
from homeostat.sim import history as story
from homeostat.sim.checkers.evidence import CheckerEvidence, committed_at

ALL_CLEAR = "a host is cleared when what ran there is right or has a fault of its own"


@dataclass(slots=True)
class _EndsOfServices:
    """Which services ended with their host, and when each was up again, in seconds of the story."""

    ended: dict[HostId, list[tuple[float, ResourceId]]] = field(default_factory=lambda: defaultdict(list))
    ready: dict[ResourceId, list[float]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, record: story.RunHistory) -> _EndsOfServices:
        """Guests are left out: they may run elsewhere by then."""
        found = cls()
        guests = {guest.guest for _, guest in record.of(story.GuestRuns)}
        died = {(at_s, dead.host) for at_s, dead in record.of(story.HostDied)}
        for at_s, lost in record.of(story.ResourceDisturbed):
            if lost.resource not in guests and (at_s, lost.host) in died:
                found.ended[lost.host].append((at_s, lost.resource))
        for at_s, up in record.of(story.ResourceReady):
            found.ready[up.resource].append(at_s)
        return found

    def was_up(self, resource: ResourceId, since_s: float, until_s: float) -> bool:
        """Whether its node saw it up in between."""
        known = self.ready[resource]
        return bisect_right(known, until_s) > bisect_right(known, since_s)


def check_all_clear(evidence: CheckerEvidence) -> Iterator[Violation]:
    """Of services: they stay with their host. Nothing without a story."""
    if evidence.story is None:
        return
    committed, ends = committed_at(evidence), _EndsOfServices.of(evidence.story)
    over_s = {event.fault: committed[envelope.seq][0] for envelope, event in evidence.record.of(FaultCleared)}
    faults: dict[str, list[tuple[float, FaultId]]] = defaultdict(list)
    for envelope, raised in evidence.record.of(FaultRaised):
        faults[raised.about].append((committed[envelope.seq][0], raised.fault))
    for envelope, raised in evidence.record.of(FaultRaised):
        if raised.kind != FaultKind.HOST_DOWN or raised.fault not in over_s:
            continue
        since_s, until_s = committed[envelope.seq][0] - _DETECTED_S, over_s[raised.fault]
        for at_s, resource in ends.ended[HostId(raised.about.partition("/")[2])]:
            if not since_s <= at_s <= until_s - _ON_ITS_WAY_S or ends.was_up(resource, at_s, until_s):
                continue
            own = faults[resource_subject(resource)]
            if not any(began_s <= until_s <= over_s.get(fault, until_s) for began_s, fault in own):
                said = f"cleared at {until_s:.3f} s, and {resource} is not up since {at_s:.3f} s"
                yield Violation(ALL_CLEAR, fault_subject(raised.fault), said)


_ON_ITS_WAY_S = 1.5
"""Words from before a death may arrive so long after it."""
_DETECTED_S = 15.0
"""A death that was longer ago than this has another fault, or none."""

TOLD_IN_ORDER = "what supersedes a fault is told before that is told as over"


def check_told_in_order(evidence: CheckerEvidence) -> Iterator[Violation]:
    """No consumer hears of a superseded fault as cleared, or as over before it heard what took its place."""
    if evidence.story is None:
        return
    by = {event.fault: event.superseded_by for _, event in evidence.record.of(FaultCleared)}
    heard: set[tuple[str, str]] = set()
    for at_s, each in evidence.story.of(story.NoticeReceived):
        if each.transition == NoticeTransition.RAISED:
            heard.add((each.subscription, each.fault))
            continue
        superseding = by.get(FaultId(each.fault), "")
        if each.transition == NoticeTransition.CLEARED and superseding:
            said = f"{each.subscription} hears at {at_s:.3f} s that it cleared; {superseding} took its place"
            yield Violation(TOLD_IN_ORDER, fault_subject(FaultId(each.fault)), said)
        elif each.transition == NoticeTransition.SUPERSEDED and (each.subscription, superseding) not in heard:
            said = f"{each.subscription} hears at {at_s:.3f} s that it is over, and not yet of {superseding}"
            yield Violation(TOLD_IN_ORDER, fault_subject(FaultId(each.fault)), said)
