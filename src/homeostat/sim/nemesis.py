"""The failures of a run: drawn from its seed as a schedule, and injected by the nemesis (Jepsen's word).

A run that mixes everything hides as much as it shows, so each seed chooses which kinds of failure it has. The
nemesis also plays the people and supervisors who repair: whatever ended is started again, as on a real site.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from enum import Enum
from random import Random
from typing import TYPE_CHECKING, Any

from homeostat.contracts.nouns import HostId, ResourceId
from homeostat.fleet.api import HostRecords
from homeostat.fleet.gate import Arming
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel.errors import GiveUp, RetryLater
from homeostat.sim import history as facts
from homeostat.sim import host_failures
from homeostat.sim.database import CommitFailure
from homeostat.sim.drivers import ConsumerBehaviour, SimConsumer, SwitchBehaviour
from homeostat.sim.environment import NetworkConditions

if TYPE_CHECKING:
    from homeostat.sim.cluster import SimCluster
    from homeostat.sim.host import SimHost
    from homeostat.sim.server import SimServer


class FailureKind(Enum):
    """Kinds of misfortune."""

    SERVER_KILLED = "servers are killed"
    COMMIT_CRASH = "servers are killed at their commits"
    STORE_TROUBLE = "the database does not answer, or its answers are lost"
    TWO_LEADERS = "a second server leads while the first goes on"
    NODE_KILLED = "node processes are killed"
    NODE_STOPPED = "node processes are stopped in an orderly way"
    STORE_LOST = "observation stores are lost or put back from copies"
    BAD_NETWORK = "messages are lost, late, repeated and reordered"
    PARTITIONS = "links are cut"
    BAD_CONSUMERS = "consumers do not answer"
    CLUMSY_AGENTS = "starts fail"
    SMALL_BOUNDS = "lists and queues are short"
    HOSTS_DIE = "whole hosts die"
    HOSTS_UNSEEN = "hosts cannot be reached from outside, or by nobody"
    STORMS = "all hosts die or vanish at once"
    BAD_SWITCHES = "power switches fail"
    PEOPLE = "operators hold hosts, arm and disarm"


HOST_FAILURES = (
    FailureKind.HOSTS_DIE,
    FailureKind.HOSTS_UNSEEN,
    FailureKind.STORMS,
    FailureKind.BAD_SWITCHES,
    FailureKind.PEOPLE,
)


@dataclass(frozen=True, slots=True)
class FailureSchedule:
    """The misfortune of one seed. Steps are (seconds, what, whom) in order of time.

    `armed`: hosts are fenced and guests started elsewhere from the first start on.
    """

    kinds: frozenset[FailureKind]
    duration_s: float
    steps: tuple[tuple[float, str, int], ...]
    weather: NetworkConditions
    armed: bool = False

    def with_steps(self, more: tuple[tuple[float, str, int], ...]) -> FailureSchedule:
        """The same with these steps, in the order of time."""
        return replace(self, steps=tuple(sorted([*self.steps, *more])))

    def __str__(self) -> str:
        return "; ".join(sorted(kind.value for kind in self.kinds)) or "services die, nothing else"


_STEPS = {
    FailureKind.SERVER_KILLED: (("kill server", 3),),
    FailureKind.TWO_LEADERS: (("second server", 2),),
    FailureKind.NODE_KILLED: (("kill node", 4),),
    FailureKind.NODE_STOPPED: (("stop node", 2),),
    FailureKind.STORE_LOST: (("lose store", 1), ("old store", 1)),
    FailureKind.PARTITIONS: (("cut node", 3), ("cut server", 1), ("cut all", 1)),
    FailureKind.BAD_CONSUMERS: (("bad consumer", 5),),
    FailureKind.HOSTS_DIE: (("kill host", 3),),
    FailureKind.HOSTS_UNSEEN: (("hide host", 2), ("isolate host", 2)),
    FailureKind.STORMS: (("hide all", 1), ("kill all", 1)),
    FailureKind.BAD_SWITCHES: (("bad switch", 3), ("blind death", 1)),
    FailureKind.PEOPLE: (("hold host", 3), ("arm", 1), ("disarm", 1)),
}


def _drawn(
    chance: Random, span: tuple[float, float], what: str, candidates: int, count: int
) -> list[tuple[float, str, int]]:
    return [(chance.uniform(*span), what, chance.randrange(candidates)) for _ in range(count)]


def draw_schedule(chance: Random, hosts: int, services: int, consumers: int) -> FailureSchedule:
    kinds = frozenset(kind for kind in FailureKind if kind not in HOST_FAILURES and chance.random() < 0.4)
    duration_s = chance.uniform(6.0, 16.0)
    steps = _drawn(chance, (2.0, duration_s), "kill service", services, chance.randint(2, 8))
    whom = {"bad consumer": consumers}
    for kind in sorted(kinds, key=lambda each: each.name):
        for what, most in _STEPS.get(kind, ()):
            count = chance.randint(1, most)
            steps += _drawn(chance, (0.5, duration_s), what, whom.get(what, hosts), count)
    weather = NetworkConditions()
    if FailureKind.BAD_NETWORK in kinds:
        weather = NetworkConditions(
            chance.choice((0.05, 0.2, 0.4)), chance.choice((0.0, 0.2)), chance.uniform(0.05, 1.5)
        )
    return FailureSchedule(kinds, duration_s, tuple(sorted(steps)), weather)


def add_host_failures(chance: Random, made: FailureSchedule, hosts: int) -> FailureSchedule:
    """The same, and what befalls whole hosts. Longer, since a dead host takes its time to come back."""
    kinds = frozenset(kind for kind in HOST_FAILURES if chance.random() < 0.5)
    duration_s = made.duration_s + 6.0
    steps = list(made.steps)
    for kind in HOST_FAILURES:
        for what, most in _STEPS[kind] if kind in kinds else ():
            steps += _drawn(chance, (2.0, duration_s), what, hosts, chance.randint(1, most))
    return replace(
        made,
        kinds=made.kinds | kinds,
        duration_s=duration_s,
        steps=tuple(sorted(steps)),
        armed=chance.random() < 0.8,
    )


def add_guest_failures(chance: Random, made: FailureSchedule, guests: int) -> FailureSchedule:
    """The same, and what befalls guests that can move."""
    steps = _drawn(chance, (3.0, made.duration_s), "kill guest", guests, chance.randint(0, 3))
    if FailureKind.PEOPLE in made.kinds:
        steps += [
            (chance.uniform(2.0, made.duration_s), what, 0)
            for what in ("arm", "disarm")
            for _ in range(chance.randint(0, 1))
        ]
    steps = sorted([*made.steps, *steps])
    return replace(made, steps=tuple(steps))


def draw_commit_failure(chance: Random, kinds: frozenset[FailureKind]) -> CommitFailure:
    """What befalls the next commit while misfortune lasts."""
    drawn = chance.random()
    if FailureKind.COMMIT_CRASH in kinds:
        if drawn < 0.06:
            return CommitFailure.CRASH_BEFORE
        if drawn < 0.12:
            return CommitFailure.CRASH_AFTER
    if FailureKind.STORE_TROUBLE in kinds:
        if drawn > 0.94:
            return CommitFailure.UNAVAILABLE
        if drawn > 0.88:
            return CommitFailure.ANSWER_LOST
    return CommitFailure.NONE


_BAD_BEHAVIOURS = (
    ConsumerBehaviour.GONE,
    ConsumerBehaviour.BUSY,
    ConsumerBehaviour.MUTE,
    ConsumerBehaviour.CONFUSED,
)


class Nemesis:
    """Of one world."""

    def __init__(self, world: SimCluster) -> None:
        self._world = world

    def repairs(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What goes on all the time: whatever ended is started again."""
        hosts = (self._watch_over_hosts(),) if self._world.site.probed else ()
        return self._watch_over_servers(), self._watch_over_nodes(), *hosts

    def happen(self, what: str, whom: int) -> None:
        match what:
            case "kill server":
                self._world.each_server(lambda server: server.kill("kill -9"))
            case "second server":
                self._world.start_server()
            case "cut server":
                self._world.each_server(lambda server: self._world.soon(self._cut(server.name)))
            case "cut all":
                servers = [server.name for server in self._world.servers if server.alive]
                for name in [*(host.machine.host for host in self._world.hosts), *servers]:
                    self._world.soon(self._cut(name))
            case "bad consumer":
                self._world.soon(self._sulk(list(self._world.consumers.values())[whom]))
            case "kill guest":
                self._kill_guest(list(self._world.scale.guests)[whom])
            case "shut down host" | "hostile claim":
                self._world.soon(host_failures.carry_out(self._world, what, whom))
            case "kill all" | "hide all" | "bad switch" | "blind death" | "hold host" | "arm" | "disarm":
                self._happen_to_all(what, whom)
            case _:
                self._happen_to(
                    self._world.hosts[whom % len(self._world.hosts)], what, whom // len(self._world.hosts)
                )

    def _happen_to_all(self, what: str, whom: int) -> None:
        match what:
            case "kill all":
                for host in self._world.hosts:
                    host.power_off("the power fails")
            case "hide all":
                for host in self._world.hosts:
                    self._world.soon(self._hide(host))
                    self._world.soon(self._cut(host.machine.host))
            case "bad switch":
                self._world.soon(self._break_switches())
            case "blind death":
                self._world.soon(self._die_unseen(self._world.hosts[whom]))
            case "hold host":
                self._world.soon(self._hold(self._world.hosts[whom]))
            case "arm" | "disarm":
                self._world.soon(self._ask(lambda server: _arm(server, what == "arm")))

    def _kill_guest(self, guest: ResourceId) -> None:
        """Its process ends, wherever it runs."""
        for host in self._world.hosts:
            process = host.machine.guests[guest]
            if process.alive:
                host.machine.record(facts.ResourceDisturbed(guest, host.machine.host, "its process dies"))
                process.fall()

    def _happen_to(self, host: SimHost, what: str, number: int) -> None:
        match what:
            case "kill service":
                host.machine.kill(list(host.machine.services)[number])
            case "kill node":
                host.kill("kill -9")
            case "stop node":
                self._world.soon(host.stop())
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
                self._world.soon(self._cut(host.machine.host))
            case "kill host":
                host.power_off("it dies")
            case "hide host":
                self._world.soon(self._hide(host))
            case "isolate host":
                self._world.soon(self._hide(host))
                self._world.soon(self._cut(host.machine.host))
            case _:
                raise AssertionError(what)

    async def _cut(self, name: str) -> None:
        self._world.record(name, facts.Remark("its link is cut"))
        self._world.network.cut(name)
        await asyncio.sleep(self._world.chance(f"cut {name}").uniform(0.2, 6.0))
        self._world.record(name, facts.Remark("its link is mended"))
        self._world.network.mend(name)

    async def _hide(self, host: SimHost) -> None:
        """Probes from outside are not answered for a while; the host lives."""
        name = host.machine.host
        self._world.record(name, facts.Remark("does not answer from outside"))
        host.hidden += 1
        await asyncio.sleep(self._world.chance(f"hide {name} {self._world.loop.time()}").uniform(1.0, 6.0))
        host.hidden = max(0, host.hidden - 1)
        self._world.record(
            name, facts.Remark("answers from outside" if not host.hidden else "is still not seen")
        )

    async def _die_unseen(self, host: SimHost) -> None:
        """A host dies, nobody can fence it, and then the servers themselves see nothing any more."""
        self._world.soon(self._break_switches())
        host.power_off("it dies")
        await asyncio.sleep(self._world.chance(f"unseen {self._world.loop.time()}").uniform(2.0, 4.0))
        servers = [server.name for server in self._world.servers if server.alive]
        for name in servers:
            self._world.record(name, facts.Remark("its link is cut"))
            self._world.network.cut(name)
        await asyncio.sleep(6.0)
        for name in servers:
            self._world.network.mend(name)

    async def _break_switches(self) -> None:
        chance = self._world.chance(f"switches {self._world.loop.time()}")
        self._world.site.switching = chance.choice(
            [each for each in SwitchBehaviour if each is not SwitchBehaviour.WORKS]
        )
        self._world.record("world", facts.Remark(f"every power switch {self._world.site.switching.value}"))
        await asyncio.sleep(chance.uniform(2.0, 8.0))
        self._world.site.switching = SwitchBehaviour.WORKS

    async def _hold(self, host: SimHost) -> None:
        """An operator holds a host, and later takes it back."""
        name = host.machine.host
        chance = self._world.chance(f"hold {name} {self._world.loop.time()}")
        await self._ask(lambda server: _hold(server, name, "new disks"))
        await asyncio.sleep(chance.uniform(1.0, 8.0))
        await self._ask(lambda server: _hold(server, name, ""))

    async def _ask(self, what: Callable[[SimServer], Awaitable[bool]]) -> None:
        """A person asks whoever leads, until somebody says that it is done."""
        while True:
            for server in reversed(self._world.servers):
                if server.alive and await _answered(what(server)):
                    return
            await asyncio.sleep(0.5)

    async def _watch_over_hosts(self) -> None:
        """What people do in the end: a host that is off is switched on."""
        chance = self._world.chance("people with keys")
        while True:
            await asyncio.sleep(chance.uniform(0.5, 3.0))
            for host in self._world.hosts:
                boots = not host.on and self._world.loop.time() >= host.off_until_s
                if boots and (self._world.peaceful or chance.random() < 0.4):
                    host.boot(chance.randrange(10**9) - round(self._world.loop.time() * 1e9))

    async def _sulk(self, consumer: SimConsumer) -> None:
        chance = self._world.chance(f"mood {consumer.subscription} {self._world.loop.time()}")
        consumer.mood = chance.choice(_BAD_BEHAVIOURS)
        self._world.record(
            f"@{consumer.subscription}", facts.Remark(f"answers {consumer.mood.value} from now on")
        )
        await asyncio.sleep(chance.uniform(0.5, 6.0))
        consumer.mood = ConsumerBehaviour.FINE

    async def _watch_over_servers(self) -> None:
        """What a supervisor does: a server that ended is started again."""
        chance = self._world.chance("supervisor of servers")
        while True:
            await asyncio.sleep(chance.uniform(0.1, 1.5))
            if not any(server.alive for server in self._world.servers):
                self._world.start_server()

    async def _watch_over_nodes(self) -> None:
        chance = self._world.chance("supervisor of nodes")
        while True:
            await asyncio.sleep(chance.uniform(0.1, 2.0))
            for host in self._world.hosts:
                if host.process is None and (self._world.peaceful or chance.random() < 0.5):
                    host.start()


async def _hold(server: SimServer, host: HostId, reason: str) -> bool:
    """False when the host is not known there yet."""
    parts = server.parts
    if parts is None or host not in parts.find(IngestLoop).world.topology.nodes:
        return False
    await parts.find(HostRecords).hold(host, reason, "somebody")
    return True


async def _arm(server: SimServer, armed: bool) -> bool:
    if server.parts is None:
        return False
    await server.parts.find(Arming).set("recovery", armed=armed, by="somebody")
    return True


async def _answered(request: Awaitable[bool]) -> bool:
    """Whether it was done; a server that dies meanwhile never says."""
    try:
        async with asyncio.timeout(3.0):
            return await request
    except (RetryLater, GiveUp, TimeoutError):
        return False
