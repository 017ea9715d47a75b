"""A simulated host: its movable guests, and the real observation store and link in a node process that can
be killed.

Guests have the real assignment logic, on a simulated pipe to their node process. That a guest really runs is
reported by its process on the machine, to the history and not to Homeostat.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from homeostat.contracts.nouns import Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.roles import LOOKED_EVERY_S, Report
from homeostat.contracts.wire import (
    ResourceStatus,
    ResourceTransition,
    Snapshot,
    Subjects,
    encode,
)
from homeostat.kernel.errors import StoreUnavailable
from homeostat.kernel.loops import Task, run_tasks
from homeostat.node.link import LinkSettings, NodeLink
from homeostat.node.observations import ObservationStore
from homeostat.resources.settings import RunnerSettings, offers_of
from homeostat.sim import history as story
from homeostat.sim.environment import SimNetwork
from homeostat.sim.guests import RunnerDependencies, SimGuest, SimGuestRunner
from homeostat.sim.machine import AGENT, SimMachine, SimRunner
from homeostat.sim.under_test import ClassesUnderTest

_STORE_RETRY_S = 1.0
_LATE_RUNNER_S = 6.0
"""Longer than a host has to be back before its fault is cleared."""


@dataclass(slots=True)
class SimHost:
    """One machine and the node process on it, if there is one. `movable` are the guests that it could run.

    `unacknowledged_max`: so many observations that were not acknowledged its node keeps.
    """

    machine: SimMachine
    network: SimNetwork
    parts: ClassesUnderTest
    path: Path
    unacknowledged_max: int
    movable: RunnerSettings = field(default_factory=RunnerSettings)
    lives: int = 0
    stores: int = 0
    process: SimNodeProcess | None = field(default=None)
    copied: bool = False
    on: bool = True
    hidden: int = 0
    off_until_s: float = 0.0

    @property
    def answers(self) -> bool:
        """Whether probes from outside are answered. `hidden` counts what is between them and the host."""
        return self.on and not self.hidden

    def power_off(self, why: str) -> None:
        """The whole machine: its node process, and everything that ran there."""
        if not self.on:
            return
        self.on = False
        machine = self.machine
        machine.record(story.HostDied(machine.host, why))
        self.kill("its host is off")
        machine.power_off()

    def boot(self, booted_ns: int) -> None:
        """On again. Its monotonic clock begins anew at `booted_ns`; its disk is as it was."""
        if not self.on:
            self.on = True
            self.machine.clock = replace(self.machine.clock, booted_ns=booted_ns)
            self.machine.record(story.HostBooted(self.machine.host))

    def start(self) -> None:
        if self.process is None and self.on:
            self.lives += 1
            self.process = SimNodeProcess(self)

    def kill(self, why: str) -> None:
        """As SIGKILL does: its runner dies with it, its services do not."""
        process, self.process = self.process, None
        if process is not None:
            self.machine.record(story.Remark(f"the node process is killed: {why}"))
            process.die()

    async def stop(self) -> None:
        """As SIGTERM does: say what there is to say, then goodbye. Services go on."""
        process = self.process
        if process is None:
            return
        process.stop_runner()
        await process.link.drain(1.0)
        if self.process is process:
            await process.link.goodbye()
        if self.process is process:
            self.process = None
            self.machine.record(story.NodeLeft(self.machine.host))
            process.die()

    async def shut_down(self) -> None:
        """As `poweroff` does: the node process is asked to stop and says goodbye, then the power goes."""
        await self.stop()
        self.power_off("it is shut down in order")

    def forget(self) -> None:
        """Lose the observation store; only while no process has it open."""
        if self.process is None:
            self.machine.record(story.NodeMemoryLost(self.machine.host, "its observation store is lost"))
            self._remove(self.path)

    def copy(self) -> None:
        """Take a copy of the store, to be put back some day."""
        if self.process is None and self.path.exists():
            shutil.copy(self.path, self.path.with_suffix(".copy"))
            self.copied = True

    def put_back(self) -> None:
        """The store goes back to the copy: later observations are gone."""
        if self.process is None and self.copied:
            self.machine.record(
                story.NodeMemoryLost(self.machine.host, "its observation store is an old copy")
            )
            self._remove(self.path)
            shutil.copy(self.path.with_suffix(".copy"), self.path)

    def new_boot(self) -> str:
        self.stores += 1
        return f"{self.machine.host}-store-{self.stores}"

    def _remove(self, path: Path) -> None:
        for name in (path.name, path.name + "-wal", path.name + "-shm"):
            path.with_name(name).unlink(missing_ok=True)


class SimNodeProcess:
    """One life of a node process."""

    def __init__(self, host: SimHost) -> None:
        self._host, self._machine = host, host.machine
        name = self._machine.host
        self.store: ObservationStore = host.parts.of(ObservationStore)(
            host.path, host.unacknowledged_max, host.new_boot
        )
        self._bus = host.network.attach(name)
        offers = offers_of(host.movable)
        settings = LinkSettings(name, 1.0, f"{name}-life-{host.lives}", offers)
        self.link = host.parts.of(NodeLink)(settings, self._bus, self.store, self._machine.clock)
        self._runner: list[asyncio.Future[None]] = []
        self._unseen: set[ResourceId] = set()
        self._lost = self.store.lost
        self._machine.record(story.NodeWatching(name, True))
        self._main = asyncio.create_task(self._run())

    async def forge(self, guest: ResourceId, generation: int, owner: Owner) -> None:
        """What somebody with the password of this node says: a part of a snapshot, with one false level."""
        known, clock, name = self.store.snapshot(), self._machine.clock, self._machine.host
        at_ns, seq = clock.wall_ns(), known.acknowledged
        level = ResourceStatus(
            guest, ResourceKind.GUEST, owner, AGENT, ResourceState.UP, "forged", at_ns, seq, None, generation
        )
        told = Snapshot(
            name, known.boot, f"{name}-life-{self._host.lives}", seq, (level,), known.first, (), 1, 2
        )
        await self._bus.publish(Subjects(name).levels, encode(told))

    def die(self) -> None:
        """Nothing that this process still does reaches its disk, the network or the machine."""
        self._machine.record(story.NodeWatching(self._machine.host, False))
        self._host.network.detach(self._bus)
        self.store.close()
        self.stop_runner()
        self._main.cancel()

    def stop_runner(self) -> None:
        """The runner dies; an action of an agent that was going on is cut short."""
        for task in self._runner:
            task.cancel()
        self._runner = []

    async def _run(self) -> None:
        await self.link.listen()
        begins = asyncio.create_task(self._begin_runner())
        self._runner.append(begins)
        tasks: list[Task] = list(self.link.tasks())
        await run_tasks(tasks, stopping=asyncio.Event())

    async def _begin_runner(self) -> None:
        """Some boots are slow: the node speaks while its runner has not begun to look."""
        lives = f"{self._machine.host}/{self._host.lives}"
        late_s = Random(lives).choice((0.0, 0.0, 0.0, _LATE_RUNNER_S)) if self._machine.deaths else 0.0
        if late_s:
            self.link.looked(False)
            await asyncio.sleep(late_s)
        acts, levels = self.store.open_intents(), {each.resource: each for each in self.store.levels()}
        movable = {ResourceId(each.id) for each in self._host.movable.resources}
        self._unseen = {*self._machine.services, *movable}
        self.link.looked(not self._unseen)
        self._runner.append(asyncio.create_task(self._speak()))
        for resource in self._machine.services:
            runner = self._host.parts.of(SimRunner)(self._machine, resource, self._record)
            runner.looked = self._saw
            level = levels.get(resource)
            keeping = runner.keep(None if level is None else level.state, acts.get(resource))
            self._runner.append(asyncio.create_task(keeping))
        if self._host.movable.resources:
            node = RunnerDependencies(self._record, self.store.assigned, levels, acts, self._saw)
            made = self._host.parts.of(SimGuest), self._host.parts.of(SimRunner)
            guests = SimGuestRunner(self._machine, self._host.movable, node, made)
            self.link.on_assigned(guests.reassigned)
            self._runner += [asyncio.ensure_future(each) for each in guests.tasks()]

    async def _speak(self) -> None:
        """What `resources.node.pipe` says at intervals."""
        while True:
            await asyncio.sleep(LOOKED_EVERY_S)
            self.link.looked(not self._unseen)

    def _saw(self, resource: ResourceId) -> None:
        """What `resources.node.pipe` and `node.runner_protocol` do with a look."""
        self._unseen.discard(resource)
        self.link.looked(not self._unseen)

    def _record(self, report: Report) -> asyncio.Future[None]:
        return asyncio.ensure_future(self._put_on_disk(report))

    async def _put_on_disk(self, report: Report) -> None:
        """What `fleet.node_roles.Role` does with a line of the runner."""
        await asyncio.sleep(self._machine.chance.uniform(0, 0.002))
        while True:
            try:
                transition = await asyncio.to_thread(self._write, report)
                break
            except StoreUnavailable:
                await asyncio.sleep(_STORE_RETRY_S)
        self.link.recorded(transition)
        await asyncio.sleep(self._machine.chance.uniform(0, 0.002))

    def _write(self, report: Report) -> ResourceTransition:
        transition = self.store.record(report)
        host = self._machine.host
        if report.intended is not None:
            self._machine.record(story.IntentRecorded(host, report.intended.action))
        if report.state is ResourceState.UP:
            self._machine.record(story.ResourceReady(ResourceId(report.resource), host))
        if self.store.lost > self._lost:
            self._lost = self.store.lost
            self._machine.record(
                story.NodeMemoryLost(host, "its list is full and the oldest observation is dropped")
            )
        return transition
