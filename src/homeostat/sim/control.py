"""A simulated server: the real fault path, herald, delivery and term, on a simulated store and network."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random

from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import Acknowledged, decode
from homeostat.faults.aftermath import AftermathParts
from homeostat.faults.herald import NO_TAGS, recall
from homeostat.faults.loop import FaultPath
from homeostat.faults.parts import Parts
from homeostat.faults.settings import FaultsSettings
from homeostat.fleet.arming import Arming
from homeostat.fleet.settings import FleetSettings
from homeostat.kernel.errors import GiveUp, RetryLater
from homeostat.kernel.journal import Receipt, Submission
from homeostat.kernel.loops import Task, run_tasks
from homeostat.kernel.term import acquire
from homeostat.leadership import Leadership
from homeostat.monitors.probes import OutsideProbes, Target
from homeostat.notices.parts import DeliveryParts
from homeostat.notices.settings import NoticesSettings
from homeostat.notices.subscriptions import Subscriptions
from homeostat.placing import placing_of
from homeostat.sim import story
from homeostat.sim.consumers import Consumer, SimTransport
from homeostat.sim.disk import Disk, Fate, Mishap
from homeostat.sim.host import Host
from homeostat.sim.network import Network
from homeostat.sim.outside import PowerSwitch, SimProbe, Switching
from homeostat.sim.parts import SimParts
from homeostat.sim.virtual import SimClock

TERM_S = 6.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of the rooms in a run."""

    faults: FaultsSettings
    fleet: FleetSettings
    notices: NoticesSettings


@dataclass(slots=True)
class Site:
    """What all servers of a run share. `choose` says what befalls a commit.

    `committed` is the highest observation in the database, by host and store. `probed` are the hosts that
    are looked at from outside and fenced; empty: none is ever host_down. `epoch` is that of the term now.
    """

    disk: Disk
    network: Network
    parts: SimParts
    settings: Settings
    consumers: dict[str, Consumer]
    chance: Random
    tell: Callable[[str, story.Fact], None]
    choose: Callable[[], Mishap]
    committed: dict[tuple[str, str], int] = field(default_factory=dict)
    seed: int = 0
    epoch: int = 0
    probed: dict[str, Host] = field(default_factory=dict)
    switching: Switching = Switching.WORKS
    witnesses: story.Witnesses = field(default_factory=story.Witnesses)

    def now_s(self) -> float:
        """Seconds of the run."""
        return self.network.loop.time()


class Server:
    """One life of a server process."""

    def __init__(self, name: str, site: Site, clock: SimClock) -> None:
        self.name, self._site, self._clock = name, site, clock
        self.alive = True
        self.epoch = 0
        self.path: FaultPath | None = None
        self.arming: Arming | None = None
        self._bus = site.network.attach(name, self._on_publish, self._on_arrival)
        self._transport = SimTransport(site.consumers, site.disk, site.chance, site.tell)
        self._fate = Fate(site.chance, site.choose, self.kill, self._wrote)
        self._main = asyncio.create_task(self._run())

    def kill(self, why: str) -> None:
        """As SIGKILL does: nothing that it still does reaches anybody."""
        if self.alive:
            self._tell(story.Said(f"ends: {why}"))
            self.alive = False
            self._site.network.detach(self._bus)
            self._transport.die()
            if self.epoch:
                self._appender.die()
            self._main.cancel()

    async def _run(self) -> None:
        site, clock = self._site, self._clock
        await asyncio.sleep(site.chance.uniform(0.01, 0.3))
        # The file lock shows that the predecessor is dead, or its term has run out: it is ours.
        epoch = acquire(site.disk.engine, self.name, TERM_S, predecessor_is_dead=True)
        assert epoch is not None
        self.epoch = site.epoch = epoch
        self._tell(story.TermTook(epoch))
        self._appender = site.parts.appender(site.disk, epoch, self._fate)
        leader = Leadership(site.disk.engine, self.name, epoch, TERM_S, clock)
        try:
            await leader.announce(self._appender)
            await self._lead(leader)
        except (RetryLater, GiveUp) as error:
            self.kill(f"{type(error).__name__}: {error}")

    async def _lead(self, leader: Leadership) -> None:
        """What `server.serve` does, without the API."""
        site, clock, readers = self._site, self._clock, self._site.disk.readers
        subscriptions = Subscriptions(readers)
        await subscriptions.reload()
        made = DeliveryParts(
            self._appender,
            readers,
            subscriptions,
            self._transport,
            partial(recall, readers, NO_TAGS),
            clock,
            site.chance.random,
        )
        delivery = site.parts.delivery(made, site.settings.notices)
        outside = self._outside()
        path = site.parts.path(
            Parts(
                appender=self._appender,
                readers=readers,
                bus=self._bus,
                clock=clock,
                herald=site.parts.herald(subscriptions, delivery, readers),
                faults=site.settings.faults,
                fleet=site.settings.fleet,
                epoch=leader.epoch,
                own_lag_s=lambda: 0.0,
                probed=lambda: outside.latest,
                probe_stale_s=outside.stale_s,
                term_left_s=self._term_left_s,
            )
        )
        self.path = path
        await path.listen()
        await run_tasks(
            [
                Task("term", leader.keep, forever=True),
                Task("fault path", path.run, forever=True),
                *(await self._for_hosts(path, outside) if site.probed else ()),
                Task("delivery", delivery.run, forever=True),
            ],
            stopping=asyncio.Event(),
            on_crash=self._crashed,
        )

    def _outside(self) -> OutsideProbes:
        site = self._site
        chance = Random(f"{site.seed}/{self.name}/probes")
        targets = []
        for host in site.probed.values():
            key = self.name, host.machine.host
            probe = SimProbe(host, chance, partial(self._probed, key), self.name)
            targets.append(Target(host.machine.host, probe))
        return OutsideProbes(targets, site.settings.fleet, self._clock, chance.random)

    async def _for_hosts(self, path: FaultPath, outside: OutsideProbes) -> Sequence[Task]:
        """What there is only where hosts are probed: after a death something is done."""
        site, fleet = self._site, self._site.settings.fleet
        await path.load()
        arming = Arming(self._appender, site.disk.readers, self._clock, fleet.gate.armed)
        await arming.reload()
        self.arming = arming
        numbers = itertools.count(1)
        switch = PowerSwitch(
            site.probed,
            fleet.fencing.deadline_s,
            lambda: site.switching,
            Random(f"{site.seed}/{self.name}/switch"),
            self._tell,
        )
        aftermath = site.parts.aftermath(
            AftermathParts(
                path,
                arming,
                switch,
                fleet,
                self.epoch,
                self._clock,
                lambda: f"{self.name}-{next(numbers):04d}",
            )
        )
        await aftermath.remember(site.disk.readers)
        placing = placing_of(path, aftermath, self.epoch, self._clock, site.parts.placing)
        return (
            Task("outside probes", outside.run, forever=True),
            Task("aftermath", aftermath.run, forever=True),
            Task("placing", placing.run, forever=True),
        )

    def _term_left_s(self) -> float:
        """A term that another server could take is over for whoever had it, whether it knows or not."""
        return TERM_S if self._site.epoch == self.epoch else 0.0

    def _probed(self, key: tuple[str, HostId], answered: bool) -> None:
        self._site.witnesses.probed[key].append((self._site.now_s(), answered))

    def _on_arrival(self, subject: str) -> None:
        kind, host, _ = subject.split(".")
        if kind == "node":
            self._site.witnesses.heard[self.name, HostId(host)].append(self._site.now_s())

    async def _crashed(self, name: str, error: BaseException) -> None:
        if self.alive:
            self._tell(story.Crashed(name, f"{type(error).__name__}: {error}"))

    def _on_publish(self, subject: str, body: bytes) -> None:
        if subject.endswith(".acknowledged"):
            said, host = decode(Acknowledged, body), HostId(subject.split(".")[1])
            committed = self._site.committed.get((host, said.boot), 0)
            self._tell(story.AckSent(host, said.boot, said.seq, committed))

    def _wrote(self, submission: Submission, receipt: Receipt) -> None:
        term = self._site.disk.number("SELECT epoch FROM term WHERE id = 1")
        for host, boot, seq in self._site.disk.ask("SELECT host, boot, acked_seq FROM node"):
            assert isinstance(seq, int)
            key = (str(host), str(boot))
            self._site.committed[key] = max(seq, self._site.committed.get(key, 0))
        self._tell(story.Wrote(self.epoch, term, submission.loop, receipt.seqs))

    def _tell(self, fact: story.Fact) -> None:
        if self.alive:
            self._site.tell(self.name, fact)
