"""I4: no guest runs on two hosts. From the journal: it comes up only where it is assigned at that moment.

A process that comes up without its node saying so is not in any journal; the end-to-end tests count those.
"""

from __future__ import annotations

from collections.abc import Iterator

from homeostat.contracts.events.resources import GuestAssigned, GuestMoved, ResourceUp
from homeostat.contracts.nouns import HostId, ResourceId
from homeostat.sim.checkers.evidence import Evidence, Violation

NAME = "I4 no guest runs on two hosts"


def check(evidence: Evidence) -> Iterator[Violation]:
    """Assignments follow each other without a gap, and a guest is up nowhere else."""
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
