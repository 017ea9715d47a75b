"""Which outages of resources are told with their host, as `host_down`, and not one by one."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from homeostat.contracts.events.faults import FaultCleared, FaultRaised
from homeostat.contracts.events.resources import ResourceDown
from homeostat.contracts.nouns import FaultKind, HostId, ResourceId
from homeostat.sim import story
from homeostat.sim.checkers.evidence import Evidence, committed_at
from homeostat.sim.virtual import EPOCH_NS


@dataclass(slots=True)
class ToldWithHost:
    """`off` are moments at which a host went off, `down` from when until when its host_down was not cleared.

    `learned` are outages by their source's wall clock, and when they were written down. Seconds of the story.
    """

    off: dict[HostId, list[float]] = field(default_factory=lambda: defaultdict(list))
    down: dict[HostId, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    learned: dict[ResourceId, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, evidence: Evidence) -> ToldWithHost:
        """Read it from a story and its journal."""
        found = cls()
        if evidence.story is None:
            return found
        for at_s, dead in evidence.story.of(story.HostDied):
            found.off[dead.host].append(at_s)
        committed = committed_at(evidence)
        cleared_s = {
            event.fault: committed[envelope.seq][0] for envelope, event in evidence.record.of(FaultCleared)
        }
        for envelope, raised in evidence.record.of(FaultRaised):
            if raised.kind == FaultKind.HOST_DOWN:
                span = committed[envelope.seq][0], cleared_s.get(raised.fault, float("inf"))
                found.down[HostId(raised.about.partition("/")[2])].append(span)
        for envelope, wrong in evidence.record.of(ResourceDown):
            found.learned[wrong.resource].append((wrong.seen_ns, committed[envelope.seq][0]))
        return found

    def explains(self, death: story.Died, outage: tuple[float, float, float], skew_ns: int) -> bool:
        """Whether an outage (it began, was right again, the next one began) was told with the host.

        It is when the host was off or down meanwhile, or when the news of it came in while the host was down.
        """
        began_s, right_s, next_s = outage
        down = self.down[death.host]
        if any(began_s <= at_s <= right_s for at_s in self.off[death.host]):
            return True
        if any(since_s <= right_s and began_s <= until_s for since_s, until_s in down):
            return True
        return any(
            began_s <= (seen_ns - EPOCH_NS - skew_ns) / 1e9 + 0.001 < next_s
            and any(since_s <= known_s <= until_s for since_s, until_s in down)
            for seen_ns, known_s in self.learned[death.resource]
        )
