"""Everything there is in one run: made, started, asked, and ended. What happens to it is not said here."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any

from homeostat.contracts.events.notices import SubscriptionCreated
from homeostat.contracts.nouns import INFRASTRUCTURE, HostId, Owner, ResourceId
from homeostat.faults.settings import FaultsSettings
from homeostat.fleet.settings import FleetSettings
from homeostat.kernel.journal import Draft, Submission
from homeostat.notices import store as notice_store
from homeostat.notices.model import Endpoint, Subscription
from homeostat.notices.settings import NoticesSettings
from homeostat.sim import story as facts
from homeostat.sim.chaos import Kind, Plan, mishap
from homeostat.sim.checkers import CHECKERS, Evidence, Violation, read_record
from homeostat.sim.consumers import Consumer, Mood
from homeostat.sim.control import Server, Settings, Site
from homeostat.sim.disk import Disk, Fate, Mishap, SimAppender
from homeostat.sim.guests import processes_of, running_on, settings_of
from homeostat.sim.host import Host, NodeLimits
from homeostat.sim.machine import Machine, Service
from homeostat.sim.network import Network, Weather
from homeostat.sim.outside import Switching
from homeostat.sim.parts import SimParts
from homeostat.sim.story import Story
from homeostat.sim.virtual import SimClock, VirtualLoop

HOSTS = tuple(HostId(f"n{number}") for number in (1, 2, 3))
PROJECTS = (Owner("shop"), Owner("bank"))
_HOUR_NS = 3_600_000_000_000


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a world is. `fleet` is None where hosts are neither probed nor fenced. Every host may run any
    of `guests`; there it is said where each belongs."""

    hosts: tuple[HostId, ...] = HOSTS
    services: tuple[str, ...] = ("web", "mail")
    fleet: FleetSettings | None = None
    guests: dict[ResourceId, str] = field(default_factory=dict)


@dataclass(slots=True)
class World:
    """Everything there is in one run."""

    seed: int
    loop: VirtualLoop
    disk: Disk
    parts: SimParts
    story: Story = field(default_factory=Story)
    hosts: list[Host] = field(default_factory=list)
    servers: list[Server] = field(default_factory=list)
    consumers: dict[str, Consumer] = field(default_factory=dict)
    peaceful: bool = False
    scale: Scale = field(default_factory=Scale)

    def violations(self) -> tuple[Violation, ...]:
        """What all checkers say now."""
        evidence = Evidence(read_record(self.disk.readers.engine), self.story, fleet=self.scale.fleet)
        return tuple(itertools.chain.from_iterable(check(evidence) for check in CHECKERS))

    # ---- making it ----

    async def begin(self, made: Plan) -> None:
        """Make everything and start it."""
        self._build(made)
        await self._subscribe()
        self.start_server()
        for host in self.hosts:
            host.start()

    def _build(self, made: Plan) -> None:
        chance = self.chance("build")
        small = Kind.SMALL_BOUNDS in made.kinds
        self.network = Network(self.loop, self.chance("network"))
        self.network.weather = made.weather
        notices = NoticesSettings(
            longest_wait_s=3.0,
            refused_first_wait_s=1.0,
            refused_longest_wait_s=3.0,
            waiting_per_subscription=2 if small else 1000,
            workers=2 if small else 32,
        )
        self.site = Site(
            self.disk,
            self.network,
            self.parts,
            Settings(FaultsSettings(), self.scale.fleet or FleetSettings(sweep_s=0.25), notices),
            self.consumers,
            self.chance("server"),
            self.tell,
            self._mishap_of(made),
            seed=self.seed,
            witnesses=self.story.witnesses,
        )
        movable = settings_of(self.scale.guests, PROJECTS)
        self.story.guests = tuple(self.scale.guests)
        for number, name in enumerate(self.scale.hosts):
            clock = SimClock(self.loop, chance.randrange(_HOUR_NS), chance.randrange(_HOUR_NS))
            names = [ResourceId(f"{kind}-{name}") for kind in self.scale.services]
            machine = Machine(
                name,
                clock,
                self.chance(name),
                self.teller(name),
                {each: Service(each, PROJECTS[(number + k) % 2]) for k, each in enumerate(names)},
            )
            machine.guests = processes_of(machine, movable)
            if Kind.CLUMSY_AGENTS in made.kinds:
                machine.clumsiness = 0.3
            path = self.disk.folder / f"{name}.db"
            for old in self.disk.folder.glob(f"{name}.*"):
                old.unlink()
            limits = NodeLimits(4 if small else 10_000)
            self.hosts.append(Host(machine, self.network, self.parts, path, limits, movable))
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
        self.consumers.update({row.endpoints[0].url: Consumer(row.name) for row in rows})
        appender = SimAppender(self.disk, None, Fate(self.chance("setup")))
        drafts = tuple(
            Draft(
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
        self.servers.append(Server(f"server{number}", self.site, clock))

    def each_server(self, act: Callable[[Server], object]) -> None:
        """Do it to every server that lives."""
        for server in self.servers:
            if server.alive:
                act(server)

    def _mishap_of(self, made: Plan) -> Callable[[], Mishap]:
        chance = self.chance("commits")
        return lambda: Mishap.NONE if self.peaceful else mishap(chance, made.kinds)

    # ---- peace ----

    def make_peace(self) -> None:
        """From here on nothing bad happens."""
        self.tell("world", facts.Said("from here on nothing bad happens"))
        self.story.calm_s = self.loop.time()
        self.peaceful = True
        self.network.weather = Weather()
        for host in self.hosts:
            host.machine.clumsiness = 0.0
            self.network.mend(host.machine.host)
            host.hidden = 0
        self.site.switching = Switching.WORKS
        for server in self.servers:
            self.network.mend(server.name)
        for consumer in self.consumers.values():
            consumer.mood = Mood.FINE

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

    # ---- small things ----

    def soon(self, what: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do it beside everything else."""
        task = asyncio.create_task(what)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        return task

    _kept: set[asyncio.Task[None]] = field(default_factory=set)
    network: Network = field(init=False)
    site: Site = field(init=False)

    def chance(self, of: str) -> Random:
        """The dice for one purpose: those of others do not change it."""
        return Random(f"{self.seed}/{of}")

    def teller(self, actor: str) -> Callable[[facts.Fact], None]:
        return lambda fact: self.tell(actor, fact)

    def tell(self, actor: str, fact: facts.Fact) -> None:
        """Add a line to the story."""
        self.story.lines.append(facts.Line(self.loop.time(), actor, fact))

    def wall_ns(self) -> int:
        return SimClock(self.loop).wall_ns()
