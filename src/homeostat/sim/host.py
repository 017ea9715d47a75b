"""A simulated host: the real observation store and the real link in a node process that can be killed."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from homeostat.contracts.nouns import ResourceId, ResourceState
from homeostat.contracts.roles import Report
from homeostat.contracts.wire import Transition
from homeostat.fleet.node_link import LinkSettings
from homeostat.fleet.node_observations import ObservationStore
from homeostat.kernel.errors import StoreUnavailable
from homeostat.kernel.loops import Task, run_tasks
from homeostat.resources.settings import RunnerSettings, offers_of
from homeostat.sim import story
from homeostat.sim.guests import AtNode, GuestRunner
from homeostat.sim.machine import Machine
from homeostat.sim.network import Network
from homeostat.sim.parts import SimParts

_STORE_RETRY_S = 1.0


@dataclass(slots=True)
class NodeLimits:
    """How many unacknowledged observations a node keeps."""

    unacknowledged_max: int = 10_000


@dataclass(slots=True)
class Host:
    """One machine and the node process on it, if there is one. `movable` are the guests that it could run."""

    machine: Machine
    network: Network
    parts: SimParts
    path: Path
    limits: NodeLimits
    movable: RunnerSettings = field(default_factory=RunnerSettings)
    lives: int = 0
    stores: int = 0
    process: NodeProcess | None = field(default=None)
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
        machine.tell(story.HostDied(machine.host, why))
        self.kill("its host is off")
        machine.power_off()

    def boot(self, booted_ns: int) -> None:
        """On again. Its monotonic clock begins anew at `booted_ns`; its disk is as it was."""
        if not self.on:
            self.on = True
            self.machine.clock = replace(self.machine.clock, booted_ns=booted_ns)
            self.machine.tell(story.HostBooted(self.machine.host))

    def start(self) -> None:
        """Start the node process."""
        if self.process is None and self.on:
            self.lives += 1
            self.process = NodeProcess(self)

    def kill(self, why: str) -> None:
        """As SIGKILL does: its runner dies with it, its services do not."""
        process, self.process = self.process, None
        if process is not None:
            self.machine.tell(story.Said(f"the node process is killed: {why}"))
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
            self.machine.tell(story.Left(self.machine.host))
            process.die()

    def forget(self) -> None:
        """Lose the observation store; only while no process has it open."""
        if self.process is None:
            self.machine.tell(story.MemoryLost(self.machine.host, "its observation store is lost"))
            self._remove(self.path)

    def copy(self) -> None:
        """Take a copy of the store, to be put back some day."""
        if self.process is None and self.path.exists():
            shutil.copy(self.path, self.path.with_suffix(".copy"))
            self.copied = True

    def put_back(self) -> None:
        """The store goes back to the copy: later observations are gone."""
        if self.process is None and self.copied:
            self.machine.tell(story.MemoryLost(self.machine.host, "its observation store is an old copy"))
            self._remove(self.path)
            shutil.copy(self.path.with_suffix(".copy"), self.path)

    def new_boot(self) -> str:
        """A name for an observation store."""
        self.stores += 1
        return f"{self.machine.host}-store-{self.stores}"

    def _remove(self, path: Path) -> None:
        for name in (path.name, path.name + "-wal", path.name + "-shm"):
            path.with_name(name).unlink(missing_ok=True)


class NodeProcess:
    """One life of a node process."""

    def __init__(self, host: Host) -> None:
        self._host, self._machine = host, host.machine
        name = self._machine.host
        self.store: ObservationStore = host.parts.store(
            host.path, host.limits.unacknowledged_max, host.new_boot
        )
        self._bus = host.network.attach(name)
        offers = offers_of(host.movable)
        settings = LinkSettings(name, 1.0, f"{name}-life-{host.lives}", offers)
        self.link = host.parts.link(settings, self._bus, self.store, self._machine.clock)
        self._runner: list[asyncio.Future[None]] = []
        self._lost = self.store.lost
        self._machine.tell(story.Watching(name, True))
        self._main = asyncio.create_task(self._run())

    def die(self) -> None:
        """Nothing that this process still does reaches its disk, the network or the machine."""
        self._machine.tell(story.Watching(self._machine.host, False))
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
        acts, levels = self.store.open_intents(), {each.resource: each for each in self.store.levels()}
        for resource in self._machine.services:
            runner = self._host.parts.runner(self._machine, resource, self._record)
            level = levels.get(resource)
            keeping = runner.keep(None if level is None else level.state, acts.get(resource))
            self._runner.append(asyncio.create_task(keeping))
        if self._host.movable.resources:
            node, parts = AtNode(self._record, self.store.assigned, levels, acts), self._host.parts
            guests = GuestRunner(self._machine, self._host.movable, node, (parts.guest, parts.runner))
            self.link.on_assigned(guests.reassigned)
            self._runner += [asyncio.ensure_future(each) for each in guests.tasks()]
        tasks: list[Task] = list(self.link.tasks())
        await run_tasks(tasks, stopping=asyncio.Event())

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

    def _write(self, report: Report) -> Transition:
        transition = self.store.record(report)
        host = self._machine.host
        if report.intended is not None:
            self._machine.tell(story.IntentRecorded(host, report.intended.action))
        if report.state is ResourceState.UP:
            self._machine.tell(story.Ready(ResourceId(report.resource), host))
        if self.store.lost > self._lost:
            self._lost = self.store.lost
            self._machine.tell(
                story.MemoryLost(host, "its list is full and the oldest observation is dropped")
            )
        return transition
