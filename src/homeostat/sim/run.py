"""Simulated runs: a cluster is made, suffers its failures, is left in peace, and is judged.

`run_seed` draws one from a seed, `run_many` does many seeds in processes of their own: each process has one
database in memory and reuses it. `run_large_fleet` tells three scenarios of a large fleet in figures: most of
it falls silent, two hosts die, a third of it dies.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import multiprocessing.util
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random

import structlog

from homeostat.contracts.events.faults import FaultRaised
from homeostat.contracts.nouns import HostId
from homeostat.fleet.settings import FencingSettings, FleetSettings, GateSettings
from homeostat.sim import history as facts
from homeostat.sim import nemesis
from homeostat.sim.checkers import Violation, read_database
from homeostat.sim.cluster import HOSTS, ClusterSize, SimCluster
from homeostat.sim.database import SimDatabase
from homeostat.sim.environment import NetworkConditions, VirtualLoop
from homeostat.sim.guests import GUESTS
from homeostat.sim.history import RunHistory
from homeostat.sim.host import SimHost
from homeostat.sim.host_failures import draw_hostile_claims, draw_shutdowns
from homeostat.sim.under_test import ClassesUnderTest

CALM_MOST_S = 60.0
TRIAL_S = 12.0
REST = "in peace the world comes to rest"
_FLEET = FleetSettings(
    sweep_s=0.25, probe_interval_s=0.25, fencing=FencingSettings(deadline_s=1.0, retry_s=1.0)
)


@dataclass(frozen=True, slots=True)
class SimVerdict:
    """How a run ended. `settled_s` is None when the world did not come to rest."""

    seed: int
    plan: nemesis.FailureSchedule
    story: RunHistory
    violations: tuple[Violation, ...]
    settled_s: float | None
    commits: int

    @property
    def green(self) -> bool:
        return not self.violations


def has_hosts(seed: int) -> bool:
    """Whether hosts are probed and fenced in this run: in every second one."""
    return seed % 4 in (0, 3)


def run_seed(seed: int, disk: SimDatabase, parts: ClassesUnderTest | None = None) -> SimVerdict:
    """One run, from an empty database to its verdict."""
    with _empty(disk, seed) as loop:
        return loop.run_until_complete(_live(SimCluster(seed, loop, disk, parts or ClassesUnderTest())))


@contextmanager
def _empty(disk: SimDatabase, seed: int) -> Iterator[VirtualLoop]:
    """The loop of a run that begins with an empty database. Logging is off while it runs."""
    disk.clear()
    with closing(VirtualLoop(Random(f"{seed}/threads"))) as loop, logging_off():
        yield loop


@contextmanager
def logging_off() -> Iterator[None]:
    """The code under test logs nothing: a run that goes wrong is told by its story."""
    before, disabled = structlog.get_config(), logging.root.manager.disable
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        structlog.configure(**before)
        logging.disable(disabled)


async def _live(world: SimCluster) -> SimVerdict:
    """From the first start to the verdict."""
    made = _schedule(world)
    await world.begin(made)
    repairs = await _suffer(world, made)
    world.make_peace()
    settled_s = await _settle(world)
    if settled_s is not None and world.site.probed:
        await _try_a_death(world)
        settled_s = await _settle(world)
    unrest = world.restless()
    for task in repairs:
        task.cancel()
    await world.bury()
    commits = sum(1 for _ in world.story.of(facts.SubmissionCommitted))
    found = world.violations()
    if settled_s is None:
        found = (*found, Violation(REST, "world", f"after {CALM_MOST_S:g} s in peace: {unrest}"))
    return SimVerdict(world.seed, made, world.story, found, settled_s, commits)


def _schedule(world: SimCluster) -> nemesis.FailureSchedule:
    """What will go wrong; in every second world hosts are probed and fenced, and guests move."""
    made = nemesis.draw_schedule(world.chance("plan"), len(HOSTS), len(HOSTS) * 2, 4)
    if has_hosts(world.seed):
        made = nemesis.add_host_failures(world.chance("hosts"), made, len(HOSTS))
        shutdowns, claims = world.chance("shutdowns"), world.chance("hostile")
        if nemesis.FailureKind.HOSTS_DIE in made.kinds:
            made = made.with_steps(draw_shutdowns(shutdowns, made.duration_s, len(HOSTS)))
        made = made.with_steps(draw_hostile_claims(claims, made.duration_s, len(HOSTS), len(GUESTS)))
        made = nemesis.add_guest_failures(world.chance("guests"), made, len(GUESTS))
        gate = GateSettings(
            armed=["recovery"] if made.armed else [],
            harm_max=1 if nemesis.FailureKind.SMALL_BOUNDS in made.kinds else 5,
            harm_window_s=8.0,
        )
        world.scale = ClusterSize(fleet=_FLEET.model_copy(update={"gate": gate}), guests=GUESTS)
    return made


async def _suffer(world: SimCluster, made: nemesis.FailureSchedule) -> list[asyncio.Task[None]]:
    """Every step of the plan; the repairs that go on all the time are returned, still at work."""
    misfortune = nemesis.Nemesis(world)
    repairs = [world.soon(each) for each in misfortune.repairs()]
    for at_s, what, whom in made.steps:
        await asyncio.sleep(max(0.0, at_s - world.loop.time()))
        misfortune.happen(what, whom)
    await asyncio.sleep(max(0.0, made.duration_s - world.loop.time()))
    return repairs


async def _try_a_death(world: SimCluster) -> None:
    """Now that nothing else is wrong, a host that dies must be noticed, though it said goodbye before."""
    chance = world.chance("trial")
    host = chance.choice(world.hosts)
    if chance.random() < 0.5:
        await host.stop()
    host.off_until_s = world.loop.time() + TRIAL_S
    world.record("world", facts.DeathTrial(host.machine.host, host.off_until_s))
    host.power_off("it dies")
    await asyncio.sleep(TRIAL_S)


async def _settle(world: SimCluster) -> float | None:
    """Wait until nothing is wrong and nothing waits."""
    until_s = world.loop.time() + CALM_MOST_S
    while world.loop.time() < until_s:
        await asyncio.sleep(1.0)
        if not world.restless():
            return world.loop.time()
    world.record("world", facts.Remark(f"does not come to rest: {world.restless()}"))
    return None


_CHUNK = 5
_databases: list[SimDatabase] = []


def run_many(
    seeds: Iterable[int], *, processes: int, parts: ClassesUnderTest | None = None
) -> Iterator[SimVerdict]:
    """The verdicts, in the order of the seeds. Those of green runs come without their story."""
    if processes == 1:
        with closing(SimDatabase.in_memory()) as disk:
            for seed in seeds:
                yield run_seed(seed, disk, parts)
        return
    # Not forked: a fork of a process that has threads may inherit a lock that nobody lets go.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_open_database)
    try:
        yield from pool.map(partial(_run_one, parts), seeds, chunksize=_CHUNK)
    finally:
        pool.shutdown(cancel_futures=True)


def _open_database() -> None:
    disk = SimDatabase.in_memory()
    _databases.append(disk)
    multiprocessing.util.Finalize(disk, disk.close, exitpriority=10)


def _run_one(parts: ClassesUnderTest | None, seed: int) -> SimVerdict:
    verdict = run_seed(seed, _databases[0], parts)
    if verdict.green:
        verdict.story.lines.clear()
    return verdict


SILENT_S = 10.0
"""How long most of the fleet is not heard."""
RECOVERY_S = 6.0
"""From the moment at which it is heard again: what is sent in this time is counted."""
SERVICES_DIE = 20
"""So many services die in the silence, and their nodes report it afterwards."""
_LARGE_FLEET = FleetSettings(
    sweep_s=0.25,
    probe_interval_s=0.5,
    fencing=FencingSettings(deadline_s=1.0, retry_s=1.0),
    gate=GateSettings(armed=["recovery"]),
)


@dataclass(frozen=True, slots=True)
class ScenarioFigures:
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
class LargeFleetReport:
    """The figures of the three stories, by name, and what the checkers say of all of it."""

    hosts: int
    stories: dict[str, ScenarioFigures]
    violations: tuple[Violation, ...]


def run_large_fleet(
    hosts: int, disk: SimDatabase, parts: ClassesUnderTest | None = None, seed: int = 0
) -> LargeFleetReport:
    """Two thirds fall silent; then two hosts die; then a third dies at once."""
    names = tuple(HostId(f"n{number:03d}") for number in range(1, hosts + 1))
    size = ClusterSize(names, ("web",), _LARGE_FLEET)
    with _empty(disk, seed) as loop:
        world = SimCluster(seed, loop, disk, parts or ClassesUnderTest(), scale=size)
        return loop.run_until_complete(_ScenarioRunner(world).run())


@dataclass(slots=True)
class _ScenarioRunner:
    world: SimCluster
    stories: dict[str, ScenarioFigures] = field(default_factory=dict)

    async def run(self) -> LargeFleetReport:
        world = self.world
        world.peaceful = True
        await world.begin(nemesis.FailureSchedule(frozenset(), 0.0, (), NetworkConditions()))
        await self._until(lambda: world.disk.number("SELECT count(*) FROM resource") == len(world.hosts))
        await asyncio.sleep(5.0)
        third = len(world.hosts) // 3
        await self._silence(world.hosts[: 2 * third])
        await self._death("2 hosts die", world.hosts[:2])
        await self._death("a third dies at once", world.hosts[third : 2 * third])
        await world.bury()
        return LargeFleetReport(len(world.hosts), self.stories, world.violations())

    async def _silence(self, hit: list[SimHost]) -> None:
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
        await self._recover("most are silent at once", before, hit)

    async def _death(self, name: str, hit: list[SimHost]) -> None:
        before = self._before()
        for host in hit:
            host.power_off("it dies")
        await asyncio.sleep(SILENT_S)
        self.world.network.arrived.clear()
        for host in hit:
            host.boot(0 - round(self.world.loop.time() * 1e9))
            host.start()
        await self._recover(name, before, hit)

    async def _recover(self, name: str, before: tuple[int, int], hit: list[SimHost]) -> None:
        """What is sent when they are heard again, and the figures of the story when all is well."""
        await asyncio.sleep(RECOVERY_S)
        sent = dict(self.world.network.arrived)
        await self._until(lambda: not self._absent())
        line, seq = before
        events = read_database(self.world.disk.readers.engine).events
        now = [envelope for envelope in events if envelope.seq > seq]
        kinds = {str(e.event.fault): e.event.kind for e in events if isinstance(e.event, FaultRaised)}
        lines = [each.fact for each in self.world.story.lines[line:]]
        self.stories[name] = ScenarioFigures(
            hit=len(hit),
            accused=sum(each.kind == "HostDown" for each in now),
            fenced=sum(isinstance(each, facts.FenceBegan) for each in lines),
            refused=dict(Counter(str(each.payload["reason"]) for each in now if each.kind == "ActRefused")),
            told=dict(
                Counter(
                    (kinds[each.fault].value, each.transition)
                    for each in lines
                    if isinstance(each, facts.NoticeReceived) and each.subscription == "everything"
                )
            ),
            sent=sent,
            absent=self._absent(),
        )

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
