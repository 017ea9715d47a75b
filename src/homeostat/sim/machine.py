"""The simulated machine: processes of services and guests, their agents, and the runner that calls the
agents.

The runner's decisions are the real ones (`resources.supervision`); processes and agents are simulated.
Services outlive their node process, as they do on a real host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar, assert_never

from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.roles import Report
from homeostat.contracts.wire import Intent
from homeostat.resources import model
from homeostat.resources.node.pipe import ReportSubject, StateChange, report_of
from homeostat.resources.ocf import ActionOutcome
from homeostat.resources.supervision import decide, is_interruptible
from homeostat.sim import history as story
from homeostat.sim.environment import SimClock

AGENT = "ocf:homeostat:process"
POLICY = model.Policy(
    start_s=2.0, stop_s=2.0, monitor_s=1.0, interval_s=5.0, stable_s=10.0, backoff_most_s=4.0
)

E = TypeVar("E")
WriteFact = Callable[[story.HistoryFact], None]
RecordReport = Callable[[Report], "asyncio.Future[None]"]


@dataclass(slots=True)
class SimProcess:
    """One resource's process on a machine. `ended` is set at its death and renewed at its start.

    `changed` is called with whether it runs from now on.
    """

    resource: ResourceId
    owner: Owner
    alive: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    kind: ResourceKind = ResourceKind.SERVICE
    changed: Callable[[bool], None] | None = None

    def rise(self) -> None:
        if not self.alive:
            self.alive, self.ended = True, asyncio.Event()
            if self.changed is not None:
                self.changed(True)

    def fall(self) -> None:
        if self.alive:
            self.alive = False
            self.ended.set()
            if self.changed is not None:
                self.changed(False)


@dataclass(slots=True)
class SimMachine:
    """A host. `clumsiness` is the probability that an agent's start fails, `deaths` how often it went off.

    `guests` are those that it could run.
    """

    host: HostId
    clock: SimClock
    chance: Random
    record: WriteFact
    services: dict[ResourceId, SimProcess]
    clumsiness: float = 0.0
    acts: int = 0
    guests: dict[ResourceId, SimProcess] = field(default_factory=dict)
    deaths: int = 0

    def process(self, resource: ResourceId) -> SimProcess:
        return self.services.get(resource) or self.guests[resource]

    def kill(self, resource: ResourceId) -> bool:
        """End the process of a service; False when there is none."""
        service = self.services[resource]
        if not service.alive:
            return False
        self.record(story.ProcessKilled(resource, self.host, self.clock.wall_ns()))
        service.fall()
        return True

    def power_off(self) -> None:
        """Everything that runs here ends. It is the host's death, not one of each."""
        self.deaths += 1
        for service in (*self.services.values(), *self.guests.values()):
            if service.alive:
                self.record(story.ResourceDisturbed(service.resource, self.host, "it ends with its host"))
                service.fall()

    def new_action(self, resource: ResourceId) -> str:
        self.acts += 1
        return f"{resource}-{self.host}-{self.acts:06d}"

    async def act(self, resource: ResourceId, verb: str, action: str) -> model.ActionEnded:
        """One action of the agent. When it is cut short, a start may have succeeded all the same."""
        service, chance, deaths = self.process(resource), self.chance, self.deaths
        if verb == "monitor":
            await asyncio.sleep(chance.uniform(0.001, 0.02))
            return model.ActionEnded(ActionOutcome.OK if service.alive else ActionOutcome.NOT_RUNNING)
        self.record(story.ActBegan(self.host, resource, verb, action))
        try:
            await asyncio.sleep(chance.uniform(0.005, 0.3))
        except asyncio.CancelledError:
            self.record(story.ResourceDisturbed(resource, self.host, f"its {verb} is cut short"))
            if chance.random() < 0.5 and deaths == self.deaths:
                self._take_effect(service, verb)
            raise
        if verb == "start" and chance.random() < self.clumsiness:
            self.record(story.ResourceDisturbed(resource, self.host, "its start fails"))
            return model.ActionEnded(ActionOutcome.SOFT, "the agent failed")
        self._take_effect(service, verb)
        return model.ActionEnded(ActionOutcome.OK)

    def _take_effect(self, service: SimProcess, verb: str) -> None:
        if verb == "start":
            service.rise()
        else:
            service.fall()


class SimRunner:
    """Keeps one resource as `resources.node_resource.KeptResource` does, on a played machine.

    `stop` is done when it is to be stopped, `generation` that of a guest's assignment; `looked` is called
    when what its first look showed is reported.
    """

    def __init__(
        self,
        machine: SimMachine,
        resource: ResourceId,
        record: RecordReport,
        stop: asyncio.Future[None] | None = None,
        generation: int = 0,
    ) -> None:
        self._machine, self._resource, self._record = machine, resource, record
        self.looked: Callable[[ResourceId], None] = lambda _: None
        self._stop, self._generation = stop, generation
        self._service = machine.process(resource)
        self._standing = model.SupervisionState()
        self._reports = 0
        self._seen_ns = (0, 0)

    async def keep(self, level: ResourceState | None, act: Intent | None) -> None:
        """Until the node process is gone. `level` and `act` are what its store remembers."""
        event: model.SupervisionEvent = model.RunnerStarted(level, act)
        while True:
            clock = self._machine.clock
            self._seen_ns = clock.wall_ns(), clock.mono_ns()
            now = model.Now(self._seen_ns[1], self._machine.new_action(self._resource))
            self._standing, step = decide(self._standing, event, now, POLICY)
            if self._standing.phase is not model.Phase.PROBING and not isinstance(step, model.SendReport):
                self.looked(self._resource)
            match step:
                case model.SendReport():
                    await self.report(step)
                    event = model.ReportRecorded()
                case model.RunAction():
                    event = await self._run(step)
                case model.WaitUntil():
                    event = await self._wait(step)
                case model.EndSupervision():
                    return
                case _:
                    assert_never(step)

    async def report(self, step: model.SendReport) -> None:
        """Returns when the report is on the node's disk: nothing may be done before."""
        self._reports += 1
        at_ns, mono_ns = self._seen_ns
        service, before_ns = self._service, 0 if step.unwatched else mono_ns
        about = ReportSubject(self._resource, service.kind, service.owner, AGENT, self._generation)
        news = StateChange(step.state, step.reason, at_ns, mono_ns, step.intended, step.finished, before_ns)
        await self._record(report_of(self._reports, about, news))

    async def _run(self, step: model.RunAction) -> model.SupervisionEvent:
        act, stop = self._standing.act, self._stop if is_interruptible(self._standing) else None
        if stop is not None and stop.done():
            return model.StopRequested()
        acting = asyncio.ensure_future(
            self._machine.act(self._resource, step.verb, "" if act is None else act.action)
        )
        return await self._first(acting, step.watched, stop)

    async def _wait(self, step: model.WaitUntil) -> model.SupervisionEvent:
        left_s = max(0.0, (step.until_ns - self._machine.clock.mono_ns()) / 1e9)
        event = await self._first(asyncio.ensure_future(_due(left_s)), step.watched, self._stop)
        return model.StopRequested() if self._stop is not None and self._stop.done() else event

    async def _first(
        self, doing: asyncio.Future[E], watched: bool, stop: asyncio.Future[None] | None
    ) -> E | model.ProcessDied | model.StopRequested:
        """What is being done, or what comes first: its death when that is watched, or a wish to stop it."""
        ended = asyncio.ensure_future(self._service.ended.wait())
        waiting: list[asyncio.Future[object]] = [doing, ended] if watched else [doing]  # type: ignore[list-item]
        try:
            if stop is not None:
                waiting.append(stop)  # type: ignore[arg-type]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            return model.ProcessDied("pid 1") if watched and ended.done() else model.StopRequested()
        finally:
            ended.cancel()
            doing.cancel()


async def _due(left_s: float) -> model.WaitEnded:
    await asyncio.sleep(left_s)
    return model.WaitEnded()
