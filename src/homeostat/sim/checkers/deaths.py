"""Every death has exactly one raised fault, and every raised fault has a death. By the injector's own log.

Deaths so close that the resource was not right for long in between may be one fault or several: then at least
one, and no more than there were reasons. A host that lost its memory cannot tell what was in it, and what
happens on a host while it is down, or thought to be, is told with the host.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

from homeostat.contracts.events.faults import FaultCleared, FaultRaised
from homeostat.contracts.nouns import FaultKind, ResourceId, resource_subject
from homeostat.sim import story
from homeostat.sim.checkers.evidence import Evidence, Violation, committed_at
from homeostat.sim.virtual import EPOCH_NS

NAME = "every death has exactly one fault"
_APART_S = 2.0
"""Right for this long means: a new outage. Longer than `clear_after_s` and the delays of a run."""
_CLOCK_S = 0.001
_FORGETS_S = 10.0
"""A memory that was lost this long before a death may still have been needed to notice it."""


def check(evidence: Evidence) -> Iterator[Violation]:
    """Nothing without a story."""
    told = evidence.story
    if told is None:
        return
    first_ready: dict[ResourceId, float] = {}
    ready: dict[ResourceId, list[float]] = defaultdict(list)
    for at_s, up in told.of(story.Ready):
        first_ready.setdefault(up.resource, at_s)
        ready[up.resource].append(at_s)
    died: dict[ResourceId, list[float]] = defaultdict(list)
    host_of: dict[ResourceId, str] = {}
    skew_ns: dict[ResourceId, int] = {}
    for at_s, death in told.of(story.Died):
        died[death.resource].append(at_s)
        host_of[death.resource] = death.host
        skew_ns[death.resource] = death.wall_ns - EPOCH_NS - round(at_s * 1e9)
    reasons = {resource: list(times) for resource, times in died.items()}
    for at_s, faltered in told.of(story.Faltered):
        reasons.setdefault(faltered.resource, []).append(at_s)
    lost: dict[str, list[float]] = defaultdict(list)
    for at_s, gone in told.of(story.MemoryLost):
        lost[gone.host].append(at_s)
    down = _down(evidence, told)
    for resource, times in died.items():
        raised = sorted(
            (event.seen_ns - EPOCH_NS - skew_ns[resource]) / 1e9
            for _, event in evidence.record.of(FaultRaised)
            if event.about == resource_subject(resource)
        )
        forgot_s = max(lost[host_of[resource]], default=-_FORGETS_S)
        for outage in _outages(sorted(reasons[resource]), ready[resource]):
            began_s, until_s, count = outage
            if began_s < first_ready.get(resource, 0.0) or began_s < forgot_s + _FORGETS_S:
                continue
            if not any(began_s <= each <= until_s for each in times):
                continue
            right_s = _right_since(max(each for each in reasons[resource] if each < until_s), ready[resource])
            if any(began_s <= end and since <= right_s for since, end in down[host_of[resource]]):
                continue
            found = sum(began_s <= each + _CLOCK_S < until_s for each in raised)
            if not 1 <= found <= count:
                said = f"from {began_s:.3f} s on it went wrong {count} times, and {found} faults were raised"
                yield Violation(NAME, resource_subject(resource), said)
        if not lost[host_of[resource]]:
            yield from _unexplained(resource, raised, sorted(reasons[resource]))


def _down(evidence: Evidence, told: story.Story) -> dict[str, list[tuple[float, float]]]:
    """From when until when each host was off, or its host_down was not cleared yet. Seconds of the story."""
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for at_s, off in told.of(story.HostDied):
        spans[off.host].append((at_s, at_s))
    committed = committed_at(evidence)
    cleared_s = {
        event.fault: committed[envelope.seq][0] for envelope, event in evidence.record.of(FaultCleared)
    }
    for envelope, event in evidence.record.of(FaultRaised):
        if event.kind == FaultKind.HOST_DOWN:
            until_s = cleared_s.get(event.fault, float("inf"))
            spans[event.about.partition("/")[2]].append((committed[envelope.seq][0], until_s))
    return spans


def _outages(reasons: list[float], ready: list[float]) -> Iterator[tuple[float, float, int]]:
    """Beginning, beginning of the next, and how many reasons there were: outages that cannot be mixed up."""
    groups: list[list[float]] = []
    for at_s in reasons:
        if groups and at_s < _right_since(groups[-1][-1], ready) + _APART_S:
            groups[-1].append(at_s)
        else:
            groups.append([at_s])
    for group, following in zip(groups, [*groups[1:], [float("inf")]], strict=True):
        yield group[0], following[0], len(group)


def _right_since(wrong_s: float, ready: list[float]) -> float:
    """When it was up again after it went wrong then."""
    place = bisect_left(ready, wrong_s)
    return ready[place] if place < len(ready) else float("inf")


def _unexplained(resource: ResourceId, raised: list[float], reasons: list[float]) -> Iterator[Violation]:
    """Faults that nothing happened for since the fault before."""
    before_s = float("-inf")
    for at_s in raised:
        if not any(before_s < each <= at_s + _CLOCK_S for each in reasons):
            said = f"a fault was raised for {at_s:.3f} s and nothing had happened since {before_s:.3f} s"
            yield Violation(NAME, resource_subject(resource), said)
        before_s = at_s
