"""A host that dies while nothing else is wrong is told, and fenced unless the room only observes."""

from __future__ import annotations

from collections.abc import Iterator

from homeostat.contracts.events.fleet import HostDown, HostFenced, RoomArmed
from homeostat.contracts.nouns import HostId, node_subject
from homeostat.sim import story
from homeostat.sim.checkers.evidence import Evidence, Violation, committed_at

NAME = "a dead host is noticed and fenced"


def check(evidence: Evidence) -> Iterator[Violation]:
    """Nothing without a story."""
    if evidence.story is None or evidence.fleet is None:
        return
    committed = committed_at(evidence)
    armed = "faults" in evidence.fleet.gate.armed
    for _, event in evidence.record.of(RoomArmed):
        armed = event.armed if event.room == "faults" else armed
    for at_s, trial in evidence.story.of(story.Trial):

        def between(kind: type[HostDown] | type[HostFenced], host: HostId, span: tuple[float, float]) -> int:
            return sum(
                event.host == host and span[0] <= committed[envelope.seq][0] <= span[1]
                for envelope, event in evidence.record.of(kind)
            )

        span = (at_s, trial.until_s)
        about = node_subject(trial.host)
        if (told := between(HostDown, trial.host, span)) != 1:
            yield Violation(NAME, about, f"it died at {at_s:.3f} s and {told} events say that it is down")
        elif (fenced := between(HostFenced, trial.host, span)) != armed:
            said = "may act" if armed else "may only observe"
            yield Violation(NAME, about, f"it died at {at_s:.3f} s, the room {said}: fenced {fenced} times")
