"""The movable guests of a simulated host: real assignment logic on a simulated pipe to their node process.

That a guest really runs is reported by its process on the machine, to the history and not to Homeostat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.roles import Assigned, Recorded, Report
from homeostat.contracts.wire import Intent, ResourceStatus, decode, encode
from homeostat.resources.node.agents import Scratch
from homeostat.resources.node.guests import MovableGuest, StoredGuest
from homeostat.resources.node.pipe import NodePipe
from homeostat.resources.node.resource import RunnerContext
from homeostat.resources.ocf import ActionOutcome
from homeostat.resources.settings import ResourceSettings, RunnerSettings
from homeostat.sim import history as story
from homeostat.sim.machine import AGENT, RecordReport, SimMachine, SimProcess, SimRunner

GUESTS = {ResourceId("db"): "n1", ResourceId("cache"): "", ResourceId("queue"): "n2"}
"""The guests of a run that every host may be told to run, and where each belongs."""
_PIPE_MOST_S = 0.002


def guest_settings(guests: dict[ResourceId, str], owners: tuple[Owner, ...]) -> RunnerSettings:
    """What the node.yaml of every host says of them."""
    named = enumerate(guests.items())
    return RunnerSettings(
        resources=tuple(
            ResourceSettings(
                id=guest,
                agent=AGENT,
                kind=ResourceKind.GUEST,
                owner=owners[number % len(owners)],
                movable=True,
                home=home,
            )
            for number, (guest, home) in named
        )
    )


def guest_processes(machine: SimMachine, settings: RunnerSettings) -> dict[ResourceId, SimProcess]:
    return {
        ResourceId(each.id): SimProcess(
            ResourceId(each.id),
            Owner(each.owner),
            kind=ResourceKind.GUEST,
            changed=partial(_changed, machine, ResourceId(each.id)),
        )
        for each in settings.resources
    }


def _changed(machine: SimMachine, guest: ResourceId, runs: bool) -> None:
    machine.record(story.GuestRuns(guest, machine.host) if runs else story.GuestEnded(guest, machine.host))


class SimGuest(MovableGuest):
    """A guest whose agent is played. What it decides is the real thing."""

    def __init__(
        self,
        resource: ResourceSettings,
        around: RunnerContext,
        remembered: StoredGuest,
        keeper: Callable[[asyncio.Future[None], int], SimRunner],
        machine: SimMachine,
    ) -> None:
        super().__init__(resource, around, remembered)
        self._keeper, self._machine = keeper, machine

    async def _kept(
        self, around: RunnerContext, generation: int, state: ResourceState | None, act: Intent | None
    ) -> None:
        await self._keeper(around.stop, generation).keep(state, act)

    async def _answer(self) -> ActionOutcome:
        return (await self._machine.act(self._name, "monitor", "")).answer


@dataclass(frozen=True, slots=True)
class RunnerDependencies:
    """What a node process has for its runner: `assigned` is on its disk, `record` puts a report there."""

    record: RecordReport
    assigned: Callable[[], Assigned | None]
    levels: dict[ResourceId, ResourceStatus]
    acts: dict[ResourceId, Intent]
    looked: Callable[[ResourceId], None]


class SimLine(NodePipe):
    """A pipe that says of each resource when it was looked at."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, looked: Callable[[ResourceId], None]
    ) -> None:
        super().__init__(reader, writer)
        self._each_looked = looked

    def looked(self, resource: ResourceId) -> None:
        """Handed on."""
        self._each_looked(resource)


class SimGuestRunner:
    """One life of a runner, as far as its guests go."""

    def __init__(
        self,
        machine: SimMachine,
        settings: RunnerSettings,
        node: RunnerDependencies,
        made: tuple[type[SimGuest], type[SimRunner]],
    ) -> None:
        self._machine, self._node, self._made = machine, node, made
        self._settings = settings
        self._reader = asyncio.StreamReader()
        self._line = SimLine(self._reader, _Pipe(self._take), node.looked)  # type: ignore[arg-type]
        self._changed = asyncio.Event()
        self._kept: set[asyncio.Task[None]] = set()

    def reassigned(self) -> None:
        """The node's store has another assignment."""
        self._changed.set()

    def tasks(self) -> list[Awaitable[Any]]:
        """What goes on until the runner dies."""
        loop, machine, node = asyncio.get_running_loop(), self._machine, self._node
        around = RunnerContext(
            self._settings, Scratch(Path("/nowhere")), self._line, loop.create_future(), machine.clock
        )
        guest, runner = self._made
        guests = []
        for resource in self._settings.resources:
            name = ResourceId(resource.id)
            remembered = StoredGuest(node.levels.get(name), node.acts.get(name))
            keeper = partial(self._keeper, runner, name)
            guests.append(guest(resource, around, remembered, keeper, machine).heed())
        return [self._line.listen(), self._tell_assignments(), *guests]

    def _keeper(
        self, runner: type[SimRunner], name: ResourceId, stop: asyncio.Future[None], generation: int
    ) -> SimRunner:
        made = runner(self._machine, name, self._node.record, stop, generation)
        made.looked = self._node.looked
        return made

    async def _tell_assignments(self) -> None:
        """What `fleet.node_roles.Role` does."""
        while True:
            self._changed.clear()
            told = self._node.assigned()
            if told is not None:
                await asyncio.sleep(self._machine.chance.uniform(0, _PIPE_MOST_S))
                self._reader.feed_data(encode(told) + b"\n")
            await self._changed.wait()

    def _take(self, line: bytes) -> None:
        report = decode(Report, line)

        async def record() -> None:
            await self._node.record(report)
            self._reader.feed_data(encode(Recorded(report.number)) + b"\n")

        task = asyncio.create_task(record())
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)


@dataclass(frozen=True, slots=True)
class _Pipe:
    """The runner's stdout."""

    write: Callable[[bytes], None]

    async def drain(self) -> None:
        """Nothing waits in it."""


def running_on(machines: list[SimMachine], guest: ResourceId) -> list[HostId]:
    return [machine.host for machine in machines if guest in machine.guests and machine.guests[guest].alive]
