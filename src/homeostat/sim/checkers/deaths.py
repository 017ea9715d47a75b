"""Every death has exactly one raised fault, and every raised fault has a death. By the injector's own log.

Deaths so close that the resource was not right for long in between may be one fault or several: then at least
one, and no more than there were reasons. A host that lost its memory cannot tell what was in it, and what
happens on a host while it is down, or thought to be, is told with the host.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from homeostat.contracts.events.faults import FaultRaised
from homeostat.contracts.nouns import HostId, ResourceId, resource_subject
from homeostat.sim import story
from homeostat.sim.checkers.evidence import Evidence, Violation
from homeostat.sim.checkers.told_with_host import ToldWithHost
from homeostat.sim.virtual import EPOCH_NS

NAME = "every death has exactly one fault"
_APART_S = 2.0
"""Right for this long means: a new outage. Longer than `clear_after_s` and the delays of a run."""
_CLOCK_S = 0.001
_FORGETS_S = 10.0
"""A memory that was lost this long before a death may still have been needed to notice it."""


@dataclass(slots=True)
class _Lives:
    """What happened to the resources of a story, in seconds of it."""

    ready: dict[ResourceId, list[float]] = field(default_factory=lambda: defaultdict(list))
    died: dict[ResourceId, list[float]] = field(default_factory=lambda: defaultdict(list))
    reasons: dict[ResourceId, list[float]] = field(default_factory=lambda: defaultdict(list))
    last: dict[ResourceId, story.Died] = field(default_factory=dict)
    skew_ns: dict[ResourceId, int] = field(default_factory=dict)
    lost_s: dict[HostId, float] = field(default_factory=dict)

    @classmethod
    def of(cls, told: story.Story) -> _Lives:
        lives = cls()
        for line in told.lines:
            match line.fact:
                case story.Ready(resource=resource):
                    lives.ready[resource].append(line.at_s)
                case story.Died(resource=resource) as death:
                    lives.died[resource].append(line.at_s)
                    lives.reasons[resource].append(line.at_s)
                    lives.last[resource] = death
                    lives.skew_ns[resource] = death.wall_ns - EPOCH_NS - round(line.at_s * 1e9)
                case story.Faltered(resource=resource):
                    lives.reasons[resource].append(line.at_s)
                case story.MemoryLost(host=host):
                    lives.lost_s[host] = line.at_s
                case _:
                    pass
        return lives


def check(evidence: Evidence) -> Iterator[Violation]:
    """Nothing without a story."""
    if evidence.story is None:
        return
    lives, with_host = _Lives.of(evidence.story), ToldWithHost.of(evidence)
    for resource, death in lives.last.items():
        raised = sorted(
            (event.seen_ns - EPOCH_NS - lives.skew_ns[resource]) / 1e9
            for _, event in evidence.record.of(FaultRaised)
            if event.about == resource_subject(resource)
        )
        reasons, ready = lives.reasons[resource], lives.ready[resource]
        forgot_s = lives.lost_s.get(death.host, -_FORGETS_S)
        for began_s, until_s, count in _outages(reasons, ready):
            if began_s < min(ready, default=0.0) or began_s < forgot_s + _FORGETS_S:
                continue
            if not any(began_s <= each <= until_s for each in lives.died[resource]):
                continue
            right_s = _right_since(max(each for each in reasons if each < until_s), ready)
            if with_host.explains(death, (began_s, right_s, until_s), lives.skew_ns[resource]):
                continue
            found = sum(began_s <= each + _CLOCK_S < until_s for each in raised)
            if not 1 <= found <= count:
                said = f"from {began_s:.3f} s on it went wrong {count} times, and {found} faults were raised"
                yield Violation(NAME, resource_subject(resource), said)
        if death.host not in lives.lost_s:
            yield from _unexplained(resource, raised, reasons)


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
