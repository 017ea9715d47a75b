"""What nodes are told: what of theirs is committed, what they must say again, which guests are their own.

Called after the commit only: before it nothing of an entry is true. A message that is lost is asked for again
by its node. Invariant: a node is told of guests only while nobody else can lead for long enough that the
message has arrived, and only when everybody who may run a guest was heard.
"""

from __future__ import annotations

from collections.abc import Callable

from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import Acknowledged, AssignmentGiven, ResyncRequested, Subjects, encode
from homeostat.faults.entry import Entry
from homeostat.faults.parts import Parts
from homeostat.fleet.model import Topology

ASSIGNING_S = 1.0
"""What must be left of the term for guests to be started: a message that is sent has arrived by then."""


class Answers:
    """Who is owed an assignment, and how many were given. `knows_guests` is asked before each."""

    def __init__(self, parts: Parts, knows_guests: Callable[[], bool]) -> None:
        self._parts, self._knows_guests = parts, knows_guests
        self._owed: set[HostId] = set()
        self._given = 0

    async def send(self, entry: Entry, topology: Topology) -> None:
        """Everything that follows for the nodes from an entry that is committed."""
        epoch = self._parts.epoch
        for host, (boot, seq) in entry.acknowledge.items():
            await self._send(Subjects(host).acknowledged, Acknowledged(boot, seq, epoch))
        for host, reason in entry.resync.items():
            await self._send(Subjects(host).resync, ResyncRequested(epoch, reason))
        self._owed |= entry.assign
        if self._owed and self._parts.term_left_s() > ASSIGNING_S and self._knows_guests():
            owed, self._owed = self._owed, set()
            for host in sorted(owed):
                await self._give(host, topology)

    async def begin(self, topology: Topology, reason: str) -> None:
        """The tables were read again: nothing is owed, since they ask again, and everybody is asked."""
        self._owed.clear()
        for host in topology.nodes:
            await self._send(Subjects(host).resync, ResyncRequested(self._parts.epoch, reason))

    async def _give(self, host: HostId, topology: Topology) -> None:
        """Tell a node which guests are its own. It asks again with its next heartbeat if this is lost."""
        self._given += 1
        incarnation, mine = topology.nodes[host].incarnation, topology.assignment(host)
        given = AssignmentGiven(self._parts.epoch, self._given, incarnation, mine)
        await self._send(Subjects(host).assigned, given)

    async def _send(self, subject: str, message: object) -> None:
        # What cannot be sent now is asked for again by its node.
        await self._parts.bus.publish(subject, encode(message))
