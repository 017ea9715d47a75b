"""Pictures of hosts that come in parts: which resources a node spoke of, once it has spoken of all. No I/O.

A part may be lost, come twice, or come late. Invariants: parts of two pictures are never put together; a
picture that a part is missing of says nothing about what is gone, and is completed by the same part of a
repetition, since a node cuts the same picture in the same way.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from homeostat.contracts.nouns import HostId, ResourceId
from homeostat.contracts.wire import Levels, Offer
from homeostat.fleet.model import AgentState, Topology


@dataclass(slots=True)
class _Picture:
    of: tuple[str, str, int, int]
    parts: dict[int, frozenset[ResourceId]] = field(default_factory=dict)
    offers: dict[ResourceId, Offer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Whole:
    """A picture that no part is missing of: what the node has, and what it could run."""

    resources: frozenset[ResourceId]
    offers: tuple[Offer, ...]


@dataclass(slots=True)
class Pictures:
    """One unfinished picture a host at most: the latest one.

    `whole` is the number of the last observation in the last whole picture of each host.
    """

    whole: dict[HostId, int] = field(default_factory=dict)
    _unfinished: dict[HostId, _Picture] = field(default_factory=dict)

    def awaited(self, topology: Topology, configured: Collection[HostId]) -> list[HostId]:
        """Hosts that should live and have not told everything that they know since the tables were read.

        What they may still say of guests can be newer than the rows, if the database is an old one.
        """
        nodes = topology.nodes
        living = {node.host for node in nodes.values() if node.agent is AgentState.PRESENT}
        return sorted(
            host
            for host in living.union(configured)
            if not topology.is_down(host)
            and (host not in nodes or nodes[host].acked_seq < self.whole.get(host, nodes[host].acked_seq + 1))
        )

    def add(self, message: Levels) -> Whole | None:
        """Everything that the node has, when this was the last part that was missing; None until then."""
        reported = frozenset(level.resource for level in message.levels)
        of = (message.boot, message.incarnation, message.seq, message.parts)
        picture = self._unfinished.get(message.host)
        if picture is None or picture.of != of:
            picture = self._unfinished[message.host] = _Picture(of)
        picture.parts[message.part] = reported
        picture.offers |= {offer.resource: offer for offer in message.offers}
        if len(picture.parts) < message.parts:
            return None
        del self._unfinished[message.host]
        self.whole[message.host] = message.seq
        return Whole(frozenset().union(*picture.parts.values()), tuple(picture.offers.values()))
