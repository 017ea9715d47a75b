"""What is not a fault of its own, because a worse one says it already. Pure.

A host that is down explains whatever its node says of what runs there, from the moment of its death until it
is back and settled; and it ends the smaller faults that were open there. Nothing else explains anything:
a guest that runs on another host by now has faults of its own. While nothing can be judged
(`evidence_lost`), the sweep concludes nothing, so there is nothing to inhibit. The faults that inhibit are
rows, read before anything is decided: a start does not forget them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import Enum

from homeostat.contracts.nouns import FaultKind, HostId, ResourceId, node_subject, resource_subject
from homeostat.faults.model import Fault


class Inhibition(Enum):
    """Why something wrong is not raised; the value is the sentence for `explain`."""

    HOST_DOWN = "its host is down: told with the host"
    HOST_SETTLING = "its host is only just back: told with the host until it has settled"


SUPERSEDED = "its whole host is down: told as host_down"
"""Why a smaller fault of a dead host is cleared."""


def inhibition(kind: FaultKind, origin_fault: Fault | None) -> Inhibition | None:
    """Why a fault of this kind is not raised; `origin_fault` is that of the host whose node speaks of it."""
    if kind is not FaultKind.RESOURCE_DOWN or origin_fault is None:
        return None
    if origin_fault.kind is not FaultKind.HOST_DOWN:
        return None
    return Inhibition.HOST_DOWN if origin_fault.up_ns is None else Inhibition.HOST_SETTLING


def superseded(
    host: HostId, resources: Collection[ResourceId], faults: Mapping[str, Fault]
) -> Iterator[Fault]:
    """The faults that end when this host is found dead: its agent's, and those of what runs there."""
    if len(resources) <= len(faults):
        there: Iterable[str] = map(resource_subject, resources)
    else:
        named = (about.partition("/") for about in faults)
        there = [
            resource_subject(ResourceId(name))
            for noun, _, name in named
            if noun == "resource" and name in resources
        ]
    for about in (node_subject(host), *there):
        fault = faults.get(about)
        if fault is not None and fault.kind in (FaultKind.AGENT_LOST, FaultKind.RESOURCE_DOWN):
            yield fault
