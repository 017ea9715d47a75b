"""Assigns guests to hosts: for the first time, and again when their host is dead and fenced.

Level-triggered: what is to be done follows from the rows each time, so that a new leader goes on where the
last one ended. What leases reserve is read before anything is placed. The gate is asked before guests of a
dead host are assigned elsewhere, and again when the assignment is written: its first answer may be old by
then. Deciding is in `placement`, the rows are written by the write path (`record`), nodes learn of it from
the rows. Nothing moves back by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from homeostat.contracts.events.resources import GuestMoved
from homeostat.contracts.nouns import HostId, ResourceId
from homeostat.fleet.gate import START_ELSEWHERE, GateRefusal, GateRequest
from homeostat.fleet.model import Topology
from homeostat.fleet.placements import Placement
from homeostat.ingest.entry import Decision, IngestState, Moment
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel.clock import Clock
from homeostat.kernel.errors import RetryLater
from homeostat.kernel.journal import Seq
from homeostat.recovery.acts import COMPONENT, on_refusal
from homeostat.recovery.after_death import FencingLoop
from homeostat.recovery.host_reservations import NoReservations, Reservations, ReservedHosts
from homeostat.recovery.placement import (
    MOVES_MAX,
    CandidateHosts,
    given_up_guests,
    on_placement,
    place_elsewhere,
    place_first,
    place_given_up,
    stays,
    unassigned_guests,
)

log = structlog.get_logger("placing")

LOOK_S = 0.1
KNOWN_S = 1.0
"""How old what is known of reservations may be while nothing waits for a place: what-if shows it."""
RETRY_S = 1.0
PATIENCE_S = 3.0
"""How long the other hosts have to say what they could run. Too small: after a change of the leader guests
are spread unevenly. Too large: one node that does not answer delays the guests of another host."""
HOME_WAIT_S = 30.0
"""How long a guest that belongs nowhere waits for its home. Too small: when a whole site starts, the first
host gets everything. Too large: a guest whose home never comes waits that long, once."""


@dataclass(frozen=True, slots=True)
class PlacementDependencies:
    """What the loop works with. `ask` is the gate, `record` and `refuse` write into the journal.

    `knows_guests` says whether all who may run guests have said so since this server leads, or had the time;
    `strangers` are configured hosts that never spoke to this database: what runs there nobody knows.
    `reservations` are the hosts that leases keep for their projects.
    """

    topology: Callable[[], Topology]
    doubts: Callable[[], Collection[HostId]]
    ask: Callable[[GateRequest], GateRefusal | None]
    record: Callable[[Placement], Awaitable[Seq]]
    refuse: Callable[[GateRequest, GateRefusal], Awaitable[Seq]]
    epoch: int
    clock: Clock
    knows_guests: Callable[[], bool] = lambda: True
    strangers: Callable[[], Sequence[HostId]] = tuple
    reservations: Reservations = field(default_factory=NoReservations)


class PlacementLoop:
    """The loop: one entry at a time, of one host each, with as much of it as others can wait for."""

    def __init__(self, parts: PlacementDependencies) -> None:
        self._parts = parts
        self._heard: tuple[Topology | None, int] = (None, 0)
        self._since_s: dict[ResourceId, float] = {}
        self._since_asked_s: dict[HostId, float] = {}
        self._stranded: dict[ResourceId, tuple[int, str]] = {}
        self._refused: dict[HostId, tuple[int, str]] = {}
        self._futile: dict[HostId, tuple[int, tuple[HostId, ...], int, ReservedHosts]] = {}
        self._waiting: dict[HostId, dict[ResourceId, str]] = {}
        self._known_s: float | None = None
        self._told_of: tuple[HostId, ...] = ()

    def foretell(self, host: HostId) -> Placement:
        return place_elsewhere(self.hosts(), host)

    def stranded(self) -> Mapping[ResourceId, str]:
        """Guests of dead hosts that can be started nowhere now, and why."""
        return {resource: why for waiting in self._waiting.values() for resource, why in waiting.items()}

    def verdict(self, host: HostId) -> GateRefusal | None:
        """What the gate would say now; None: they may start elsewhere."""
        return self._parts.ask(GateRequest(COMPONENT, START_ELSEWHERE, host, self._parts.epoch))

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self._know_reservations(KNOWN_S)
                await self._assign_first()
                due = self.due()
                for host in due:
                    await self._empty(host)
                self._waiting = {host: self._waiting[host] for host in due if host in self._waiting}
                await asyncio.sleep(LOOK_S)
            except RetryLater as error:
                log.warning("not written down; tried again", error=str(error))
                await asyncio.sleep(RETRY_S)

    async def assign(self, placement: Placement) -> Seq:
        """Write down who gets what; what may not be given away any more is left out. Raises RetryLater."""
        return await self._parts.record(placement)

    async def _know_reservations(self, old_s: float = 0.0) -> None:
        """Read what was reserved since, unless what is known is no older than this. RetryLater."""
        now_s = self._parts.clock.mono_ns() / 1e9
        if self._known_s is None or now_s - self._known_s >= old_s:
            await self._parts.reservations.catch_up()
            self._known_s = now_s

    async def _assign_first(self) -> None:
        topology, now_s = self._parts.topology(), self._parts.clock.mono_ns() / 1e9
        if not self._parts.knows_guests() or self._waits_for_strangers(topology):
            return
        if topology is self._heard[0] and topology.offerings == self._heard[1] and not self._since_s:
            return  # nothing was offered since all of it found its place
        self._heard = (topology, topology.offerings)
        waiting = [*unassigned_guests(topology), *(row.id for row in given_up_guests(topology))]
        self._since_s = {each: self._since_s.get(each, now_s) for each in waiting}
        if not waiting:
            return
        await self._know_reservations()
        impatient = {each for each, since_s in self._since_s.items() if now_s - since_s >= HOME_WAIT_S}
        hosts = self.hosts()
        assigned = (*place_first(hosts, impatient).assigned, *place_given_up(hosts).assigned)
        if assigned:
            await self.assign(Placement(assigned))

    def _waits_for_strangers(self, topology: Topology) -> bool:
        """A guest that no row knows may run on a host that no row knows: it is not started a second time."""
        strangers = tuple(self._parts.strangers())
        if strangers and strangers != self._told_of and unassigned_guests(topology):
            self._told_of = strangers
            log.warning(
                "guests wait for hosts that never spoke: switch them on, or take them out of fleet.hosts",
                hosts=strangers,
            )
        return bool(strangers)

    def due(self) -> list[HostId]:
        """Hosts that nothing runs on, with a receipt, and that guests are still assigned to."""
        topology = self._parts.topology()
        return [
            node.host
            for node in topology.nodes.values()
            if node.down_ns is not None
            and node.fenced
            and any(row.generation for row in topology.on_host(node.host))
        ]

    async def _empty(self, host: HostId) -> None:
        node = self._parts.topology().nodes.get(host)
        if node is None:
            return  # it was forgotten while another one was emptied
        down_ns, now_s = node.down_ns or 0, self._parts.clock.mono_ns() / 1e9
        asked = GateRequest(COMPONENT, START_ELSEWHERE, host, self._parts.epoch)
        refusal = self._parts.ask(asked)
        if refusal is not None:
            if self._refused.get(host) != (down_ns, refusal.why.name):
                await self._parts.refuse(asked, refusal)
                self._refused[host] = (down_ns, refusal.why.name)
            return
        await self._know_reservations()
        hosts, early = self.hosts(), now_s - self._since_asked_s.setdefault(host, now_s) < PATIENCE_S
        if not self._parts.knows_guests():
            return
        if early and hosts.unheard():
            return  # a new leader: the first host that speaks must not get everything
        looked_at = (hosts.topology.offerings, tuple(hosts.loads()), down_ns, hosts.reserved)
        if self._futile.get(host) == looked_at:
            return  # nothing that could help has changed
        found = place_elsewhere(hosts, host, MOVES_MAX)
        news = {each.resource: (down_ns, each.reason) for each in found.stranded}
        untold = tuple(
            each
            for each in found.stranded
            if not early and self._stranded.get(each.resource) != news[each.resource]
        )
        if not early:
            self._waiting[host] = {each.resource: each.detail for each in found.stranded}
        if not found.stranded:
            self._since_asked_s.pop(host, None)
        if found.assigned or untold:
            await self.assign(Placement(found.assigned, untold))
            self._stranded.update({each.resource: news[each.resource] for each in untold})
        if found.stranded and not found.assigned and not early:
            self._futile[host] = looked_at
        else:
            self._futile.pop(host, None)

    def hosts(self) -> CandidateHosts:
        """Who could run something now."""
        reserved = self._parts.reservations.active(self._parts.clock.wall_ns())
        return CandidateHosts(self._parts.topology(), self._parts.doubts(), reserved)


def create_placement_loop(
    path: IngestLoop,
    aftermath: FencingLoop,
    epoch: int,
    clock: Clock,
    make: Callable[[PlacementDependencies], PlacementLoop] = PlacementLoop,
) -> PlacementLoop:
    """The placement loop on a write path, which owns the rows and writes them down.

    What the gate said when it was decided may be old when it is written: it is asked again at that moment. So
    is whether the host is reserved.
    """

    async def record(placement: Placement) -> Seq:
        counted: set[str] = set()

        def decide(state: IngestState, now: Moment) -> Decision:
            while counted:  # an entry that the store refuses is decided again
                aftermath.recent.discard(START_ELSEWHERE, counted.pop())
            down = state.topology.is_down  # what a living host gave back takes nothing from anybody
            hosts = {each.from_host for each in placement.assigned if each.from_host and down(each.from_host)}
            refused = {host for host in hosts if placing.verdict(host) is not None}
            hosts_now = placing.hosts()
            kept = tuple(
                each
                for each in placement.assigned
                if each.from_host not in refused
                and (stays(state.topology, each) or hosts_now.takes(each.to, each.offer.owner))
            )
            decision = on_placement(state, replace(placement, assigned=kept), now)
            moved = (each for each in decision.events if isinstance(each.event, GuestMoved))
            counted.update(f"{each.trace}/{each.at_ns}" for each in moved if each.cause is not None)
            for start in counted:
                aftermath.count(START_ELSEWHERE, start)
            return decision

        return await path.record(decide)

    async def refuse(asked: GateRequest, refusal: GateRefusal) -> Seq:
        return await path.record(lambda state, now: on_refusal(state, asked, refusal, now))

    parts = PlacementDependencies(
        topology=lambda: path.world.topology,
        doubts=lambda: path.watch.doubts.keys(),
        ask=aftermath.ask,
        record=record,
        refuse=refuse,
        epoch=epoch,
        clock=clock,
        knows_guests=lambda: path.knows_guests,
        strangers=lambda: path.strangers,
    )
    placing = make(parts)
    return placing
