"""What goes wrong in a run, done to its world; and the people and supervisors who put it right again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from homeostat.contracts.nouns import HostId, ResourceId
from homeostat.kernel.errors import GiveUp, RetryLater
from homeostat.sim import story as facts
from homeostat.sim.consumers import Consumer, Mood
from homeostat.sim.control import Server
from homeostat.sim.host import Host
from homeostat.sim.outside import Switching
from homeostat.sim.world import World

_BAD_MOODS = (Mood.GONE, Mood.BUSY, Mood.MUTE, Mood.CONFUSED)


class Misfortune:
    """Of one world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def repairs(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What goes on all the time: whatever ended is started again."""
        hosts = (self._watch_over_hosts(),) if self._world.site.probed else ()
        return self._watch_over_servers(), self._watch_over_nodes(), *hosts

    def happen(self, what: str, whom: int) -> None:
        """One step of a plan."""
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
            case "arm guests" | "disarm guests":
                self._world.soon(self._ask(lambda server: _arm(server, "resources", what == "arm guests")))
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
                self._world.soon(self._ask(lambda server: _arm(server, "faults", what == "arm")))

    def _kill_guest(self, guest: ResourceId) -> None:
        """Its process ends, wherever it runs."""
        for host in self._world.hosts:
            process = host.machine.guests[guest]
            if process.alive:
                host.machine.tell(facts.Faltered(guest, host.machine.host, "its process dies"))
                process.fall()

    def _happen_to(self, host: Host, what: str, number: int) -> None:
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
        self._world.tell(name, facts.Said("its link is cut"))
        self._world.network.cut(name)
        await asyncio.sleep(self._world.chance(f"cut {name}").uniform(0.2, 6.0))
        self._world.tell(name, facts.Said("its link is mended"))
        self._world.network.mend(name)

    async def _hide(self, host: Host) -> None:
        """Probes from outside are not answered for a while; the host lives."""
        name = host.machine.host
        self._world.tell(name, facts.Said("does not answer from outside"))
        host.hidden += 1
        await asyncio.sleep(self._world.chance(f"hide {name} {self._world.loop.time()}").uniform(1.0, 6.0))
        host.hidden = max(0, host.hidden - 1)
        self._world.tell(name, facts.Said("answers from outside" if not host.hidden else "is still not seen"))

    async def _die_unseen(self, host: Host) -> None:
        """A host dies, nobody can fence it, and then the servers themselves see nothing any more."""
        self._world.soon(self._break_switches())
        host.power_off("it dies")
        await asyncio.sleep(self._world.chance(f"unseen {self._world.loop.time()}").uniform(2.0, 4.0))
        servers = [server.name for server in self._world.servers if server.alive]
        for name in servers:
            self._world.tell(name, facts.Said("its link is cut"))
            self._world.network.cut(name)
        await asyncio.sleep(6.0)
        for name in servers:
            self._world.network.mend(name)

    async def _break_switches(self) -> None:
        chance = self._world.chance(f"switches {self._world.loop.time()}")
        self._world.site.switching = chance.choice(
            [each for each in Switching if each is not Switching.WORKS]
        )
        self._world.tell("world", facts.Said(f"every power switch {self._world.site.switching.value}"))
        await asyncio.sleep(chance.uniform(2.0, 8.0))
        self._world.site.switching = Switching.WORKS

    async def _hold(self, host: Host) -> None:
        """A person asks for no harm to a host, and later takes it back."""
        name = host.machine.host
        chance = self._world.chance(f"hold {name} {self._world.loop.time()}")
        await self._ask(lambda server: _hold(server, name, "new disks"))
        await asyncio.sleep(chance.uniform(1.0, 8.0))
        await self._ask(lambda server: _hold(server, name, ""))

    async def _ask(self, what: Callable[[Server], Awaitable[bool]]) -> None:
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

    async def _sulk(self, consumer: Consumer) -> None:
        chance = self._world.chance(f"mood {consumer.subscription} {self._world.loop.time()}")
        consumer.mood = chance.choice(_BAD_MOODS)
        self._world.tell(
            f"@{consumer.subscription}", facts.Said(f"answers {consumer.mood.value} from now on")
        )
        await asyncio.sleep(chance.uniform(0.5, 6.0))
        consumer.mood = Mood.FINE

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


async def _hold(server: Server, host: HostId, reason: str) -> bool:
    """False when the host is not known there yet."""
    path = server.path
    if path is None or host not in path.world.topology.nodes:
        return False
    await path.record(lambda entry: entry.hold(host, reason, "somebody"))
    return True


async def _arm(server: Server, room: str, armed: bool) -> bool:
    if server.arming is None:
        return False
    await server.arming.set(room, armed=armed, by="somebody")
    return True


async def _answered(asked: Awaitable[bool]) -> bool:
    """Whether it was done; a server that dies meanwhile never says."""
    try:
        async with asyncio.timeout(3.0):
            return await asked
    except (RetryLater, GiveUp, TimeoutError):
        return False
