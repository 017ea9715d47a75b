"""An entry that is played step by step: what happens is said, the decisions of `faults` are the real ones."""

from __future__ import annotations

from collections.abc import Iterable

from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import Goodbye, Heartbeat, HostFactsReport, Observations, Snapshot
from homeostat.faults.deciders import FaultDeciders
from homeostat.faults.settings import FaultsSettings
from homeostat.fleet.fencing import FenceAttempt, FenceOutcome
from homeostat.fleet.model import AgentState
from homeostat.fleet.placements import Placement
from homeostat.fleet.settings import NodeOwners
from homeostat.fleet.suspicion import Death
from homeostat.ingest.entry import Decide, Entry, IngestState
from homeostat.ingest.watches import AgentLife
from homeostat.recovery.acts import on_fence_ended, on_fence_intended, on_fenced
from homeostat.recovery.placement import on_placement


class PlayedEntry(Entry):
    """An entry at a time of its clocks. What a decision raises is raised."""

    __slots__ = ()

    def __init__(
        self,
        world: IngestState,
        wall_ns: int,
        mono_ns: int,
        settings: FaultsSettings | None = None,
        owners: NodeOwners | None = None,
    ) -> None:
        super().__init__(world, FaultDeciders(settings or FaultsSettings(), owners), wall_ns, mono_ns)

    def take_each(self, steps: Iterable[Decide], what: str = "") -> None:
        for decide in steps:
            self.take(decide)

    def heartbeat(self, beat: Heartbeat) -> None:
        self.take_each(self.deciders.heartbeat(self.world, beat))

    def observations(self, message: Observations, received_ns: int) -> None:
        self.take_each(self.deciders.observations(self.world, message, received_ns))

    def levels(self, message: Snapshot) -> None:
        self.take_each(self.deciders.snapshot(self.world, message))

    def goodbye(self, message: Goodbye) -> None:
        self.take_each(self.deciders.goodbye(message))

    def facts(self, message: HostFactsReport) -> None:
        self.take_each(self.deciders.facts(message))

    def silence(self, host: HostId, silent_s: float) -> None:
        self.take_each(self.deciders.silence(host, silent_s))
        self.take_each(self.deciders.claims(self.world))

    def host_down(self, host: HostId, death: Death) -> None:
        self.take_each(self.deciders.death(host, death))
        self.take_each(self.deciders.claims(self.world))

    def evidence(self, unknown: str) -> None:
        self.take_each(self.deciders.evidence(unknown))

    def look_after(self) -> None:
        self.take_each(self.deciders.guest_check())

    def tick(self) -> None:
        """Time passes, and every node that is present is heard at this moment."""
        nodes, before = self.world.topology.nodes, self.world.lives
        heard = {
            host: AgentLife(node.incarnation, self.mono_ns)
            for host, node in nodes.items()
            if node.agent is AgentState.PRESENT
        }
        self.world.lives = {**before, **heard}
        self.tick_unheard()
        self.world.lives = before

    def tick_unheard(self) -> None:
        """Time passes, and that is all."""
        self.take_each(self.deciders.tick())

    def placed(self, placement: Placement) -> None:
        self.take(lambda state, now: on_placement(state, placement, now))

    def fence_intended(self, attempt: FenceAttempt) -> None:
        self.take(lambda state, now: on_fence_intended(state, attempt, now))

    def fence_ended(self, host: HostId, ended: FenceOutcome) -> None:
        self.take(lambda state, now: on_fence_ended(state, host, ended, now))

    def fenced(self, host: HostId, driver: str, receipt: str) -> None:
        self.take(lambda state, now: on_fenced(state, host, (driver, receipt), now))
