"""One run: a world is made from a seed, goes through its misfortune, is left in peace, and is judged."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import structlog

from homeostat.contracts.events.notices import SubscriptionCreated
from homeostat.contracts.nouns import INFRASTRUCTURE, HostId, Owner, ResourceId
from homeostat.faults.settings import FaultsSettings
from homeostat.fleet.settings import FleetSettings
from homeostat.kernel.journal import Draft, Submission
from homeostat.notices import store as notice_store
from homeostat.notices.model import Endpoint, Subscription
from homeostat.notices.settings import NoticesSettings
from homeostat.sim import story as facts
from homeostat.sim.chaos import Kind, Plan, mishap, plan
from homeostat.sim.checkers import CHECKERS, Evidence, Violation, read_record
from homeostat.sim.consumers import Consumer, Mood
from homeostat.sim.control import Server, Settings, Site
from homeostat.sim.disk import Disk, Fate, Mishap, SimAppender
from homeostat.sim.host import Host, NodeLimits
from homeostat.sim.machine import Machine, Service
from homeostat.sim.network import Network, Weather
from homeostat.sim.parts import SimParts
from homeostat.sim.story import Story
from homeostat.sim.virtual import SimClock, VirtualLoop

HOSTS = tuple(HostId(f"n{number}") for number in (1, 2, 3))
PROJECTS = (Owner("shop"), Owner("bank"))
CALM_MOST_S = 60.0
_HOUR_NS = 3_600_000_000_000
_BAD_MOODS = (Mood.GONE, Mood.BUSY, Mood.MUTE, Mood.CONFUSED)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run ended. `settled_s` is None when the world did not come to rest."""

    seed: int
    plan: Plan
    story: Story
    violations: tuple[Violation, ...]
    settled_s: float | None
    commits: int

    @property
    def green(self) -> bool:
        """Nothing is wrong."""
        return not self.violations


def run_seed(seed: int, disk: Disk, parts: SimParts | None = None) -> Verdict:
    """One run, from an empty database to its verdict."""
    disk.clear()
    loop = VirtualLoop(Random(f"{seed}/threads"))
    try:
        with _quiet():
            world = World(seed, loop, disk, parts or SimParts())
            return loop.run_until_complete(world.live())
    finally:
        loop.close()


@contextmanager
def _quiet() -> Iterator[None]:
    """The code under test logs nothing: a run that goes wrong is told by its story."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


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

    async def live(self) -> Verdict:
        """From the first start to the verdict."""
        chance = self._chance("plan")
        made = plan(chance, len(HOSTS), len(HOSTS) * 2, 4)
        self._build(made)
        await self._subscribe()
        self._start_server()
        for host in self.hosts:
            host.start()
        await self._suffer(made)
        self._make_peace()
        settled_s = await self._settle()
        await self._bury()
        record = read_record(self.disk.readers.engine)
        evidence = Evidence(record, self.story)
        violations = tuple(itertools.chain.from_iterable(check(evidence) for check in CHECKERS))
        commits = sum(1 for _ in self.story.of(facts.Wrote))
        return Verdict(self.seed, made, self.story, violations, settled_s, commits)

    # ---- making it ----

    def _build(self, made: Plan) -> None:
        chance = self._chance("build")
        small = Kind.SMALL_BOUNDS in made.kinds
        self.network = Network(self.loop, self._chance("network"))
        self.network.weather = made.weather
        notices = NoticesSettings(
            longest_wait_s=3.0,
            refused_first_wait_s=1.0,
            refused_longest_wait_s=3.0,
            waiting_per_subscription=2 if small else 1000,
            workers=2 if small else 32,
        )
        fleet = FleetSettings(sweep_s=0.25)
        self.site = Site(
            self.disk,
            self.network,
            self.parts,
            Settings(FaultsSettings(), fleet, notices),
            self.consumers,
            self._chance("server"),
            self._tell,
            self._mishap_of(made),
        )
        for number, name in enumerate(HOSTS):
            clock = SimClock(self.loop, chance.randrange(_HOUR_NS), chance.randrange(_HOUR_NS))
            names = [ResourceId(f"{kind}-{name}") for kind in ("web", "mail")]
            machine = Machine(
                name,
                clock,
                self._chance(name),
                self._teller(name),
                {each: Service(each, PROJECTS[(number + k) % 2]) for k, each in enumerate(names)},
            )
            if Kind.CLUMSY_AGENTS in made.kinds:
                machine.clumsiness = 0.3
            path = self.disk.folder / f"{name}.db"
            for old in self.disk.folder.glob(f"{name}.*"):
                old.unlink()
            limits = NodeLimits(4 if small else 10_000)
            self.hosts.append(Host(machine, self.network, self.parts, path, limits))

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
        appender = SimAppender(self.disk, None, Fate(self._chance("setup")))
        drafts = tuple(
            Draft(
                SubscriptionCreated(row.name, row.owner, row.endpoints[0].url),
                f"subscription/{row.name}",
                self._wall_ns(),
                "sim",
                row.name,
            )
            for row in rows
        )
        changes = tuple(notice_store.insert_subscription(row) for row in rows)
        await appender.append(Submission("sim", drafts, changes))
        appender.die()

    def _start_server(self) -> None:
        number = len(self.servers) + 1
        chance = self._chance(f"server {number}")
        clock = SimClock(self.loop, chance.randrange(_HOUR_NS), chance.randrange(_HOUR_NS))
        self.servers.append(Server(f"server{number}", self.site, clock))

    # ---- misfortune ----

    async def _suffer(self, made: Plan) -> None:
        again = [self._soon(self._watch_over_servers()), self._soon(self._watch_over_nodes())]
        for at_s, what, whom in made.steps:
            await asyncio.sleep(max(0.0, at_s - self.loop.time()))
            self._happen(what, whom)
        await asyncio.sleep(max(0.0, made.duration_s - self.loop.time()))
        self._again = again

    def _happen(self, what: str, whom: int) -> None:
        match what:
            case "kill server":
                self._each_server(lambda server: server.kill("kill -9"))
            case "second server":
                self._start_server()
            case "cut server":
                self._each_server(lambda server: self._soon(self._cut(server.name)))
            case "cut all":
                for name in [*HOSTS, *(server.name for server in self.servers if server.alive)]:
                    self._soon(self._cut(name))
            case "bad consumer":
                self._soon(self._sulk(list(self.consumers.values())[whom]))
            case _:
                self._happen_to(self.hosts[whom % len(self.hosts)], what, whom // len(self.hosts))

    def _happen_to(self, host: Host, what: str, number: int) -> None:
        match what:
            case "kill service":
                host.machine.kill(list(host.machine.services)[number])
            case "kill node":
                host.kill("kill -9")
            case "stop node":
                self._soon(host.stop())
            case "lose store":
                host.kill("its disk broke")
                host.forget()
            case "old store":
                host.kill("its disk is exchanged")
                if host.copied:
                    host.put_back()
                else:
                    host.copy()
            case "cut node":
                self._soon(self._cut(host.machine.host))
            case _:
                raise AssertionError(what)

    def _each_server(self, act: Callable[[Server], object]) -> None:
        for server in self.servers:
            if server.alive:
                act(server)

    async def _cut(self, name: str) -> None:
        self._tell(name, facts.Said("its link is cut"))
        self.network.cut(name)
        await asyncio.sleep(self._chance(f"cut {name}").uniform(0.2, 6.0))
        self._tell(name, facts.Said("its link is mended"))
        self.network.mend(name)

    async def _sulk(self, consumer: Consumer) -> None:
        chance = self._chance(f"mood {consumer.subscription} {self.loop.time()}")
        consumer.mood = chance.choice(_BAD_MOODS)
        self._tell(f"@{consumer.subscription}", facts.Said(f"answers {consumer.mood.value} from now on"))
        await asyncio.sleep(chance.uniform(0.5, 6.0))
        consumer.mood = Mood.FINE

    async def _watch_over_servers(self) -> None:
        """What a supervisor does: a server that ended is started again."""
        chance = self._chance("supervisor of servers")
        while True:
            await asyncio.sleep(chance.uniform(0.1, 1.5))
            if not any(server.alive for server in self.servers):
                self._start_server()

    async def _watch_over_nodes(self) -> None:
        chance = self._chance("supervisor of nodes")
        while True:
            await asyncio.sleep(chance.uniform(0.1, 2.0))
            for host in self.hosts:
                if host.process is None and (self.peaceful or chance.random() < 0.5):
                    host.start()

    def _mishap_of(self, made: Plan) -> Callable[[], Mishap]:
        chance = self._chance("commits")
        return lambda: Mishap.NONE if self.peaceful else mishap(chance, made.kinds)

    # ---- peace ----

    def _make_peace(self) -> None:
        self._tell("world", facts.Said("from here on nothing bad happens"))
        self.story.calm_s = self.loop.time()
        self.peaceful = True
        self.network.weather = Weather()
        for host in self.hosts:
            host.machine.clumsiness = 0.0
            self.network.mend(host.machine.host)
        for server in self.servers:
            self.network.mend(server.name)
        for consumer in self.consumers.values():
            consumer.mood = Mood.FINE

    async def _settle(self) -> float | None:
        """Wait until nothing is wrong and nothing waits."""
        until_s = self.loop.time() + CALM_MOST_S
        while self.loop.time() < until_s:
            await asyncio.sleep(1.0)
            if not self._restless():
                return self.loop.time()
        self._tell("world", facts.Said(f"does not come to rest: {self._restless()}"))
        return None

    def _restless(self) -> str:
        number = self.disk.number
        asked = (
            ("a service is down", sum(not s.alive for h in self.hosts for s in h.machine.services.values())),
            ("a node is down", sum(host.process is None for host in self.hosts)),
            ("not one server leads", abs(sum(server.alive for server in self.servers) - 1)),
            ("a fault is open", number("SELECT count(*) FROM fault WHERE state != 'cleared'")),
            ("a notice is pending", number("SELECT count(*) FROM outbox WHERE state = 'pending'")),
            ("an act is open", number("SELECT count(*) FROM action WHERE outcome IS NULL")),
            ("a node is absent", number("SELECT count(*) FROM node WHERE agent != 'present'")),
            ("a node is unknown", len(self.hosts) - number("SELECT count(*) FROM node")),
            ("an observation waits", sum(bool(h.process and h.process.store.pending(1)) for h in self.hosts)),
        )
        return ", ".join(what for what, count in asked if count)

    async def _bury(self) -> None:
        """End every task; nothing that happens now is part of the run."""
        lines = len(self.story.lines)
        for task in self._again:
            task.cancel()
        self._each_server(lambda server: server.kill("the run is over"))
        for host in self.hosts:
            host.kill("the run is over")
        ours = asyncio.current_task()
        while others := [task for task in asyncio.all_tasks() if task is not ours]:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
        del self.story.lines[lines:]

    # ---- small things ----

    def _soon(self, what: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(what)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        return task

    _kept: set[asyncio.Task[None]] = field(default_factory=set)
    _again: list[asyncio.Task[None]] = field(default_factory=list)
    network: Network = field(init=False)
    site: Site = field(init=False)

    def _chance(self, of: str) -> Random:
        return Random(f"{self.seed}/{of}")

    def _teller(self, actor: str) -> Callable[[facts.Fact], None]:
        return lambda fact: self._tell(actor, fact)

    def _tell(self, actor: str, fact: facts.Fact) -> None:
        self.story.lines.append(facts.Line(self.loop.time(), actor, fact))

    def _wall_ns(self) -> int:
        return SimClock(self.loop).wall_ns()
