"""The simulated cluster of one run: its hosts, servers, consumers and network, made, started, asked and
ended.

Failures are not injected here: `sim.schedule` draws them and `sim.nemesis` carries them out.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from homeostat.components import checkers, settings_sections
from homeostat.contracts.component import Violation
from homeostat.contracts.events.notices import SubscriptionCreated
from homeostat.contracts.nouns import INFRASTRUCTURE, HostId, Owner, ResourceId
from homeostat.fleet.settings import FleetSettings
from homeostat.kernel.journal import NewEvent, Submission
from homeostat.notices import store as notice_store
from homeostat.notices.model import Endpoint, Subscription
from homeostat.notices.settings import NoticesSettings
from homeostat.sim import history as facts
from homeostat.sim.checkers import FRAME_CHECKERS, CheckerEvidence, read_database
from homeostat.sim.database import CommitFailure, CommitHooks, SimAppender, SimDatabase
from homeostat.sim.drivers import ConsumerBehaviour, SimConsumer, SwitchBehaviour
from homeostat.sim.environment import NetworkConditions, SimClock, SimNetwork, VirtualLoop
from homeostat.sim.guests import guest_processes, guest_settings, running_on
from homeostat.sim.history import RunHistory
from homeostat.sim.host import SimHost
from homeostat.sim.machine import SimMachine, SimProcess
from homeostat.sim.nemesis import FailureKind, FailureSchedule, draw_commit_failure
from homeostat.sim.server import ServerSurroundings, SimServer
from homeostat.sim.under_test import ClassesUnderTest

HOSTS = tuple(HostId(f"n{number}") for number in (1, 2, 3))
PROJECTS = (Owner("shop"), Owner("bank"))
_HOUR_NS = 3_600_000_000_000


@dataclass(frozen=True, slots=True)
class ClusterSize:
    """How large a world is. `fleet` is None where hosts are neither probed nor fenced. Every host may run any
    of `guests`; there it is said where each belongs."""

    hosts: tuple[HostId, ...] = HOSTS
    services: tuple[str, ...] = ("web", "mail")
    fleet: FleetSettings | None = None
    guests: dict[ResourceId, str] = field(default_factory=dict)


@dataclass(slots=True)
class SimCluster:
    """Everything there is in one run."""

    seed: int
    loop: VirtualLoop
    disk: SimDatabase
    parts: ClassesUnderTest
    story: RunHistory = field(default_factory=RunHistory)
    hosts: list[SimHost] = field(default_factory=list)
    servers: list[SimServer] = field(default_factory=list)
    consumers: dict[str, SimConsumer] = field(default_factory=dict)
    peaceful: bool = False
    scale: ClusterSize = field(default_factory=ClusterSize)

    def violations(self) -> tuple[Violation, ...]:
        evidence = CheckerEvidence(
            read_database(self.disk.readers.engine), self.story, fleet=self.scale.fleet
        )
        return tuple(
            itertools.chain.from_iterable(check(evidence) for check in (*FRAME_CHECKERS, *checkers()))
        )

    async def begin(self, made: FailureSchedule) -> None:
        self._build(made)
        await self._subscribe()
        self.start_server()
        for host in self.hosts:
            host.start()

    def _build(self, made: FailureSchedule) -> None:
        chance = self.chance("build")
        small = FailureKind.SMALL_BOUNDS in made.kinds
        self.network = SimNetwork(self.loop, self.chance("network"))
        self.network.weather = made.weather
        notices = NoticesSettings(
            longest_wait_s=3.0,
            refused_first_wait_s=1.0,
            refused_longest_wait_s=3.0,
            waiting_per_subscription=2 if small else 1000,
            workers=2 if small else 32,
        )
        self.site = ServerSurroundings(
            self.disk,
            self.network,
            self.parts,
            {
                **{name: model() for name, model in settings_sections().items()},
                "fleet": self.scale.fleet or FleetSettings(sweep_s=0.25),
                "notices": notices,
            },
            self.consumers,
            self.chance("server"),
            self.record,
            self._mishap_of(made),
            seed=self.seed,
            witnesses=self.story.witnesses,
        )
        movable = guest_settings(self.scale.guests, PROJECTS)
        self.story.guests = tuple(self.scale.guests)
        for number, name in enumerate(self.scale.hosts):
            clock = SimClock(self.loop, chance.randrange(_HOUR_NS), chance.randrange(_HOUR_NS))
            names = [ResourceId(f"{kind}-{name}") for kind in self.scale.services]
            machine = SimMachine(
                name,
                clock,
                self.chance(name),
                partial(self.record, name),
                {each: SimProcess(each, PROJECTS[(number + k) % 2]) for k, each in enumerate(names)},
            )
            machine.guests = guest_processes(machine, movable)
            if FailureKind.CLUMSY_AGENTS in made.kinds:
                machine.clumsiness = 0.3
            path = self.disk.folder / f"{name}.db"
            for old in self.disk.folder.glob(f"{name}.*"):
                old.unlink()
            kept = 4 if small else 10_000
            self.hosts.append(SimHost(machine, self.network, self.parts, path, kept, movable))
        if self.scale.fleet is not None:
            self.site.probed = {host.machine.host: host for host in self.hosts}

    async def _subscribe(self) -> None:
        """Four consumers: one hears all, two one project each, one only severe faults of a project."""
        wanted = (
            ("everything", INFRASTRUCTURE),
            ("shop", PROJECTS[0]),
            ("bank", PROJECTS[1]),
            ("shop-too", PROJECTS[0]),
        )
        rows = [
            Subscription(name, owner, (Endpoint(1, f"http://10.0.0.{number}/hear"),), "not-a-secret", "k1", 1)
            for number, (name, owner) in enumerate(wanted, 1)
        ]
        self.consumers.update({row.endpoints[0].url: SimConsumer(row.name) for row in rows})
        appender = SimAppender(self.disk, None, CommitHooks(self.chance("setup")))
        drafts = tuple(
            NewEvent(
                SubscriptionCreated(row.name, row.owner, row.endpoints[0].url),
                f"subscription/{row.name}",
                self.wall_ns(),
                "sim",
                row.name,
            )
            for row in rows
        )
        changes = tuple(notice_store.insert_subscription(row) for row in rows)
        await appender.append(Submission("sim", drafts, changes))
        appender.die()

    def start_server(self) -> None:
        """One more; whoever led is deposed."""
        number = len(self.servers) + 1
        chance = self.chance(f"server {number}")
        clock = SimClock(self.loop, chance.randrange(_HOUR_NS), chance.randrange(_HOUR_NS))
        self.servers.append(SimServer(f"server{number}", self.site, clock))

    def each_server(self, act: Callable[[SimServer], object]) -> None:
        for server in self.servers:
            if server.alive:
                act(server)

    def _mishap_of(self, made: FailureSchedule) -> Callable[[], CommitFailure]:
        chance = self.chance("commits")
        return lambda: CommitFailure.NONE if self.peaceful else draw_commit_failure(chance, made.kinds)

    def make_peace(self) -> None:
        self.record("world", facts.Remark("from here on nothing bad happens"))
        self.peaceful = True
        self.network.weather = NetworkConditions()
        for host in self.hosts:
            host.machine.clumsiness = 0.0
            self.network.mend(host.machine.host)
            host.hidden = 0
        self.site.switching = SwitchBehaviour.WORKS
        for server in self.servers:
            self.network.mend(server.name)
        for consumer in self.consumers.values():
            consumer.mood = ConsumerBehaviour.FINE

    def restless(self) -> str:
        """What is still wrong or waits; empty when the world is at rest."""
        number, machines = self.disk.number, [host.machine for host in self.hosts]
        asked = (
            ("a service is down", sum(not s.alive for h in self.hosts for s in h.machine.services.values())),
            ("a guest runs nowhere", sum(not running_on(machines, each) for each in self.scale.guests)),
            ("a row is not up", number("SELECT count(*) FROM resource WHERE state != 'up'")),
            ("a node is down", sum(host.process is None for host in self.hosts)),
            ("not one server leads", abs(sum(server.alive for server in self.servers) - 1)),
            ("a fault is open", number("SELECT count(*) FROM fault WHERE state != 'cleared'")),
            ("a notice is pending", number("SELECT count(*) FROM outbox WHERE state = 'pending'")),
            ("an act is open", number("SELECT count(*) FROM action WHERE outcome IS NULL")),
            ("a host is off", sum(not host.on for host in self.hosts)),
            ("a host is down", number("SELECT count(*) FROM node WHERE down_ns IS NOT NULL")),
            ("a host is held", number("SELECT count(*) FROM node WHERE held != ''")),
            ("a node is absent", number("SELECT count(*) FROM node WHERE agent != 'present'")),
            ("a node is unknown", len(self.hosts) - number("SELECT count(*) FROM node")),
            ("an observation waits", sum(bool(h.process and h.process.store.pending(1)) for h in self.hosts)),
        )
        return ", ".join(what for what, count in asked if count)

    async def bury(self) -> None:
        """End every task; nothing that happens now is part of the run."""
        lines = len(self.story.lines)
        self.each_server(lambda server: server.kill("the run is over"))
        for host in self.hosts:
            host.kill("the run is over")
        ours = asyncio.current_task()
        while others := [task for task in asyncio.all_tasks() if task is not ours]:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
        del self.story.lines[lines:]

    def soon(self, what: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do it beside everything else."""
        task = asyncio.create_task(what)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        return task

    _kept: set[asyncio.Task[None]] = field(default_factory=set)
    network: SimNetwork = field(init=False)
    site: ServerSurroundings = field(init=False)

    def chance(self, of: str) -> Random:
        """The dice for one purpose: those of others do not change it."""
        return Random(f"{self.seed}/{of}")

    def record(self, actor: str, fact: facts.HistoryFact) -> None:
        self.story.lines.append(facts.HistoryLine(self.loop.time(), actor, fact))

    def wall_ns(self) -> int:
        return SimClock(self.loop).wall_ns()
