"""One run: a world is made from a seed, goes through its misfortune, is left in peace, and is judged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import structlog

from homeostat.fleet.settings import FencingSettings, FleetSettings, GateSettings
from homeostat.sim import story as facts
from homeostat.sim.chaos import Kind, Plan, plan, with_guests, with_hosts
from homeostat.sim.checkers import Violation
from homeostat.sim.disk import Disk
from homeostat.sim.guests import GUESTS
from homeostat.sim.misfortune import Misfortune
from homeostat.sim.parts import SimParts
from homeostat.sim.story import Story
from homeostat.sim.virtual import VirtualLoop
from homeostat.sim.world import HOSTS, Scale, World

CALM_MOST_S = 60.0
TRIAL_S = 12.0
REST = "in peace the world comes to rest"
_FLEET = FleetSettings(
    sweep_s=0.25, probe_interval_s=0.25, fencing=FencingSettings(deadline_s=1.0, retry_s=1.0)
)


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


def has_hosts(seed: int) -> bool:
    """Whether hosts are probed and fenced in this run: in every second one."""
    return seed % 4 in (0, 3)


def run_seed(seed: int, disk: Disk, parts: SimParts | None = None) -> Verdict:
    """One run, from an empty database to its verdict."""
    disk.clear()
    loop = VirtualLoop(Random(f"{seed}/threads"))
    try:
        with quiet():
            world = World(seed, loop, disk, parts or SimParts())
            return loop.run_until_complete(_live(world))
    finally:
        loop.close()


@contextmanager
def quiet() -> Iterator[None]:
    """The code under test logs nothing: a run that goes wrong is told by its story."""
    before, disabled = structlog.get_config(), logging.root.manager.disable
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        structlog.configure(**before)
        logging.disable(disabled)


async def _live(world: World) -> Verdict:
    """From the first start to the verdict."""
    made = _plan(world)
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
    commits = sum(1 for _ in world.story.of(facts.Wrote))
    found = world.violations()
    if settled_s is None:
        found = (*found, Violation(REST, "world", f"after {CALM_MOST_S:g} s in peace: {unrest}"))
    return Verdict(world.seed, made, world.story, found, settled_s, commits)


def _plan(world: World) -> Plan:
    """What will go wrong; in every second world hosts are probed and fenced, and guests move."""
    made = plan(world.chance("plan"), len(HOSTS), len(HOSTS) * 2, 4)
    if has_hosts(world.seed):
        made = with_hosts(world.chance("hosts"), made, len(HOSTS))
        made = with_guests(world.chance("guests"), made, len(GUESTS))
        gate = GateSettings(
            armed=[*(["faults"] if made.armed else []), *(["resources"] if made.moves else [])],
            harm_max=1 if Kind.SMALL_BOUNDS in made.kinds else 5,
            harm_window_s=8.0,
        )
        world.scale = Scale(fleet=_FLEET.model_copy(update={"gate": gate}), guests=GUESTS)
    return made


async def _suffer(world: World, made: Plan) -> list[asyncio.Task[None]]:
    """Every step of the plan; the repairs that go on all the time are returned, still at work."""
    misfortune = Misfortune(world)
    repairs = [world.soon(each) for each in misfortune.repairs()]
    for at_s, what, whom in made.steps:
        await asyncio.sleep(max(0.0, at_s - world.loop.time()))
        misfortune.happen(what, whom)
    await asyncio.sleep(max(0.0, made.duration_s - world.loop.time()))
    return repairs


async def _try_a_death(world: World) -> None:
    """Now that nothing else is wrong, a host that dies must be noticed."""
    host = world.chance("trial").choice(world.hosts)
    host.off_until_s = world.loop.time() + TRIAL_S
    world.tell("world", facts.Trial(host.machine.host, host.off_until_s))
    host.power_off("it dies")
    await asyncio.sleep(TRIAL_S)


async def _settle(world: World) -> float | None:
    """Wait until nothing is wrong and nothing waits."""
    until_s = world.loop.time() + CALM_MOST_S
    while world.loop.time() < until_s:
        await asyncio.sleep(1.0)
        if not world.restless():
            return world.loop.time()
    world.tell("world", facts.Said(f"does not come to rest: {world.restless()}"))
    return None
