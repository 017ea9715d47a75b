"""I4: no guest runs on two hosts. From the journal: it comes up only where it is assigned at that moment.

With a story the processes themselves are counted, whatever anybody says of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from homeostat.contracts.events.resources import GuestAssigned, GuestMoved, ResourceUp
from homeostat.contracts.nouns import HostId, ResourceId, resource_subject
from homeostat.sim import story
from homeostat.sim.checkers.evidence import Evidence, Violation

NAME = "I4 no guest runs on two hosts"


def check(evidence: Evidence) -> Iterator[Violation]:
    """Assignments follow each other without a gap, and a guest is up nowhere else."""
    if evidence.story is not None:
        yield from _processes(evidence.story)
    at: dict[ResourceId, tuple[HostId, int]] = {}
    for envelope in evidence.record.events:
        match envelope.event:
            case GuestAssigned(resource=resource, host=host, generation=generation):
                if resource in at:
                    said = f"event {envelope.seq} assigns it anew while it is on {at[resource][0]}"
                    yield Violation(NAME, envelope.subject, said)
                at[resource] = (host, generation)
            case GuestMoved(resource=resource, from_host=before, host=host, generation=generation):
                if at.get(resource, (before, generation - 1)) != (before, generation - 1):
                    was_on, was = at[resource]
                    said = f"event {envelope.seq} moves it from {before} to generation {generation}; "
                    said += f"it was on {was_on}, generation {was}"
                    yield Violation(NAME, envelope.subject, said)
                at[resource] = (host, generation)
            case ResourceUp(resource=resource, host=host) if resource in at and at[resource][0] != host:
                said = f"event {envelope.seq}: it is up on {host} and belongs to {at[resource][0]}"
                yield Violation(NAME, envelope.subject, said)
            case _:
                pass


def _processes(told: story.Story) -> Iterator[Violation]:
    on: dict[ResourceId, list[HostId]] = {}
    for line in told.lines:
        match line.fact:
            case story.GuestRuns(guest=guest, host=host):
                others = on.setdefault(guest, [])
                if others:
                    said = f"at {line.at_s:.3f} s it begins to run on {host} and still runs on {others[0]}"
                    yield Violation(NAME, resource_subject(guest), said)
                others.append(host)
            case story.GuestEnded(guest=guest, host=host):
                on[guest].remove(host)
            case _:
                pass
