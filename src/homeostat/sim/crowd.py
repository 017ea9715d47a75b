"""Three stories of a large fleet in figures: most of it falls silent, two hosts die, a third of it dies.

The loops are the real ones, time is virtual. `python -m homeostat.sim --crowd 300` prints the figures.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from homeostat.contracts.events.faults import FaultRaised
from homeostat.contracts.nouns import HostId
from homeostat.fleet.settings import FencingSettings, FleetSettings, GateSettings
from homeostat.sim import story as facts
from homeostat.sim.chaos import Plan
from homeostat.sim.checkers import Violation, read_record
from homeostat.sim.disk import Disk
from homeostat.sim.host import Host
from homeostat.sim.network import Weather
from homeostat.sim.parts import SimParts
from homeostat.sim.run import quiet
from homeostat.sim.virtual import VirtualLoop
from homeostat.sim.world import Scale, World

SILENT_S = 10.0
"""How long most of the fleet is not heard."""
RECOVERY_S = 6.0
"""From the moment at which it is heard again: what is sent in this time is counted."""
SERVICES_DIE = 20
"""So many services die in the silence, and their nodes tell of it afterwards."""
_FLEET = FleetSettings(
    sweep_s=0.25,
    probe_interval_s=0.5,
    fencing=FencingSettings(deadline_s=1.0, retry_s=1.0),
    gate=GateSettings(armed=["faults"]),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of one story.

    `told` counts notices at the consumer who hears everything, by kind of fault and transition. `sent` counts
    messages that arrived in the recovery, by their last word. `absent` is how many hosts are not present, or
    down, or have an open fault, in the end.
    """

    hit: int
    accused: int
    fenced: int
    refused: dict[str, int]
    told: dict[tuple[str, str], int]
    sent: dict[str, int]
    absent: int


@dataclass(frozen=True, slots=True)
class Crowd:
    """The figures of the three stories, by name, and what the checkers say of all of it."""

    hosts: int
    stories: dict[str, Figures]
    violations: tuple[Violation, ...]


def run_crowd(hosts: int, disk: Disk, parts: SimParts | None = None, seed: int = 0) -> Crowd:
    """Two thirds fall silent; then two hosts die; then a third dies at once."""
    disk.clear()
    loop = VirtualLoop(Random(f"{seed}/threads"))
    names = tuple(HostId(f"n{number:03d}") for number in range(1, hosts + 1))
    try:
        with quiet():
            world = World(seed, loop, disk, parts or SimParts(), scale=Scale(names, ("web",), _FLEET))
            return loop.run_until_complete(_Teller(world).tell())
    finally:
        loop.close()


@dataclass(slots=True)
class _Teller:
    world: World
    stories: dict[str, Figures] = field(default_factory=dict)

    async def tell(self) -> Crowd:
        world = self.world
        world.peaceful = True
        await world.begin(Plan(frozenset(), 0.0, (), Weather()))
        await self._until(lambda: world.disk.number("SELECT count(*) FROM resource") == len(world.hosts))
        await asyncio.sleep(5.0)
        third = len(world.hosts) // 3
        await self._silence(world.hosts[: 2 * third])
        await self._death("2 hosts die", world.hosts[:2])
        await self._death("a third dies at once", world.hosts[third : 2 * third])
        await world.bury()
        return Crowd(len(world.hosts), self.stories, world.violations())

    async def _silence(self, hit: list[Host]) -> None:
        """A switch breaks: the hosts live, and neither their agents nor their answers come through."""
        before = self._before()
        for host in hit:
            host.hidden = 1
            self.world.network.cut(host.machine.host)
        await asyncio.sleep(SILENT_S / 2)
        for host in hit[:SERVICES_DIE]:
            host.machine.kill(next(iter(host.machine.services)))
        await asyncio.sleep(SILENT_S / 2)
        self.world.network.arrived.clear()
        for host in hit:
            host.hidden = 0
            self.world.network.mend(host.machine.host)
        await asyncio.sleep(RECOVERY_S)
        sent = dict(self.world.network.arrived)
        await self._until(lambda: not self._absent())
        self._write("most are silent at once", before, hit, sent)

    async def _death(self, name: str, hit: list[Host]) -> None:
        before = self._before()
        for host in hit:
            host.power_off("it dies")
        await asyncio.sleep(SILENT_S)
        self.world.network.arrived.clear()
        for host in hit:
            host.boot(0 - round(self.world.loop.time() * 1e9))
            host.start()
        await asyncio.sleep(RECOVERY_S)
        sent = dict(self.world.network.arrived)
        await self._until(lambda: not self._absent())
        self._write(name, before, hit, sent)

    async def _until(self, so: Callable[[], bool]) -> None:
        """Look for a minute; what is wrong afterwards is in the figures."""
        for _ in range(120):
            if so():
                return
            await asyncio.sleep(0.5)

    def _absent(self) -> int:
        number = self.world.disk.number
        return (
            len(self.world.hosts)
            - number("SELECT count(*) FROM node WHERE agent = 'present' AND down_ns IS NULL")
            + number("SELECT count(*) FROM fault WHERE state != 'cleared'")
            + number("SELECT count(*) FROM outbox WHERE state = 'pending'")
        )

    def _before(self) -> tuple[int, int]:
        return len(self.world.story.lines), self.world.disk.number("SELECT max(seq) FROM journal")

    def _write(self, name: str, before: tuple[int, int], hit: list[Host], sent: dict[str, int]) -> None:
        line, seq = before
        events = read_record(self.world.disk.readers.engine).events
        now = [envelope for envelope in events if envelope.seq > seq]
        kinds = {str(e.event.fault): e.event.kind for e in events if isinstance(e.event, FaultRaised)}
        lines = [each.fact for each in self.world.story.lines[line:]]
        self.stories[name] = Figures(
            hit=len(hit),
            accused=sum(each.kind == "HostDown" for each in now),
            fenced=sum(isinstance(each, facts.FenceBegan) for each in lines),
            refused=_counted(str(each.payload["reason"]) for each in now if each.kind == "ActRefused"),
            told=dict(
                Counter(
                    (kinds[each.fault].value, each.transition)
                    for each in lines
                    if isinstance(each, facts.Received) and each.subscription == "everything"
                )
            ),
            sent=sent,
            absent=self._absent(),
        )


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(words))
