"""Supervises one resource on its host: performs the steps that `supervision.decide` gives and feeds back
events.

One task a resource, one step at a time, so that two actions of a resource are never in flight. An error of
ours (full disk, no memory, a bug) is logged and the resource is looked at afresh after a pause; the others
go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, assert_never

from homeostat.contracts.nouns import ResourceId, ResourceState
from homeostat.contracts.wire import Intent
from homeostat.kernel.clock import Clock
from homeostat.kernel.processes import Identity, is_alive
from homeostat.resources import model
from homeostat.resources.node import agents
from homeostat.resources.node.pipe import NodePipe, ReportSubject, StateChange
from homeostat.resources.ocf import SHIPPED_PROVIDER, ActionOutcome, AgentCall, AgentName
from homeostat.resources.settings import ResourceSettings, RunnerSettings, executable_of
from homeostat.resources.supervision import decide, is_interruptible

_log = logging.getLogger(__name__)
_PAUSE_MOST_S = 30.0


PULSE_S = 0.1
"""Too large: the beginning of an outage is known less well. Too small: CPU."""
SETTLE_TURNS = 5
"""Turns of the event loop from the end of a watched process to its report: it is polled in the next one,
its future, the wait on that and the task that waits have one each."""


@dataclass(slots=True)
class RunnerPulse:
    """`seen_ns` is the last moment, on CLOCK_BOOTTIME, before which no watched process ended unnoticed.

    An end is seen by the next turn of the event loop, however late that is, on a busy machine or after a
    freeze. So a moment counts when the turns after it are over in which an earlier end is noted.
    """

    seen_ns: int = 0

    async def beat(self, clock: Clock) -> None:
        """One more moment."""
        now_ns = clock.mono_ns()
        for _ in range(SETTLE_TURNS):
            await asyncio.sleep(0)
        self.seen_ns = now_ns

    async def run(self, clock: Clock) -> None:
        """For ever."""
        while True:
            await self.beat(clock)
            await asyncio.sleep(PULSE_S)


@dataclass(slots=True)
class SeenMoments:
    """When one resource was last seen right and last seen wrong, on CLOCK_BOOTTIME; 0: not yet.

    A look counts from its beginning: what it found was so at some moment of it.
    """

    good_ns: int = 0
    bad_ns: int = 0
    watched_ns: int = 0

    def ended(self, step: model.RunAction, began_ns: int, answer: ActionOutcome) -> None:
        """An action ended. What is started does not run when the start begins."""
        if step.verb == "start" or (step.verb == "monitor" and answer is not ActionOutcome.OK):
            self.bad_ns = began_ns
        elif step.verb == "monitor":
            self.good_ns = began_ns

    def died(self, pulse: RunnerPulse) -> None:
        """Its process ended while it was watched, and that was noticed just now. Once for each watch."""
        self.good_ns, self.watched_ns = self.lived_ns(pulse), 0

    def lived_ns(self, pulse: RunnerPulse) -> int:
        """The last moment at which what was not seen wrong since was right."""
        seen = pulse.seen_ns if self.watched_ns and pulse.seen_ns >= self.watched_ns else 0
        return max(self.good_ns, seen)

    def before(self, state: ResourceState) -> int:
        """The last evidence against this state."""
        match state:
            case ResourceState.DOWN | ResourceState.FAILED:
                return self.good_ns
            case ResourceState.UP:
                return self.bad_ns
            case _:
                return 0


@dataclass(frozen=True, slots=True)
class RunnerContext:
    """What all resources of a runner share. `stop` is done when each of them is to be stopped."""

    settings: RunnerSettings
    scratch: agents.Scratch
    line: NodePipe
    stop: asyncio.Future[None]
    clock: Clock
    pulse: RunnerPulse = field(default_factory=RunnerPulse)
    kept: set[SupervisedResource] = field(default_factory=set)

    def seen_ns(self) -> int:
        """The last moment at which every guest that is reported as up was certainly so; 0: not known."""
        lived = (each.lived_ns for each in self.kept if each.is_guest_up)
        return min(lived, default=self.pulse.seen_ns)


def call_for(resource: ResourceSettings, settings: RunnerSettings, step: model.RunAction) -> AgentCall:
    name = AgentName.parse(resource.agent)
    executable = executable_of(name, settings.ocf_root)
    return AgentCall(
        name, executable, resource.id, step.verb, step.timeout_s, resource.parameters, step.interval_s
    )


def policy_of(resource: ResourceSettings, settings: RunnerSettings) -> model.Policy:
    operations = resource.operations
    return model.Policy(
        start_s=operations.start.timeout_s,
        stop_s=operations.stop.timeout_s,
        monitor_s=operations.monitor.timeout_s,
        interval_s=operations.monitor.interval_s,
        stable_s=settings.stable_s,
        backoff_most_s=settings.backoff_most_s,
    )


class SupervisedResource:
    """One resource and the task that keeps it; `generation` is that of a guest's assignment."""

    def __init__(self, resource: ResourceSettings, around: RunnerContext, generation: int = 0) -> None:
        self._resource, self._around = resource, around
        self._about = ReportSubject.of(resource, generation)
        self._policy = policy_of(resource, around.settings)
        self._standing = model.SupervisionState()
        self._watch: agents.PidfdWatch | None = None
        self._seen_ns = (0, 0)
        self._moments = SeenMoments()

    @property
    def lived_ns(self) -> int:
        """The last moment at which it was right, if it is reported as up."""
        return self._moments.lived_ns(self._around.pulse)

    @property
    def is_guest_up(self) -> bool:
        """Whether it may run elsewhere and is reported as up here."""
        return bool(self._about.generation) and self._standing.level is ResourceState.UP

    async def keep(self, level: ResourceState | None, act: Intent | None) -> None:
        """Keep it until the node stops it. `level` and `act` are what the node's store remembers."""
        self._around.kept.add(self)
        try:
            await self._keep(level, act)
        finally:
            self._around.kept.discard(self)

    async def _keep(self, level: ResourceState | None, act: Intent | None) -> None:
        pause_s = 1.0
        while True:
            began_s = time.monotonic()
            try:
                await agents.settle_act(self._resource.id, self._around.scratch)
                await self._follow(model.RunnerStarted(level, act))
                return
            except ConnectionError:
                return  # the node is gone, and so is this runner in a moment
            except Exception:
                _log.exception("%s: the runner failed; looking again in %g s", self._resource.id, pause_s)
            finally:
                self._unwatch()
            level, act = self._standing.level, self._standing.act
            self._standing = model.SupervisionState()
            await asyncio.sleep(pause_s)
            steady = time.monotonic() - began_s > 2 * _PAUSE_MOST_S
            pause_s = 1.0 if steady else min(_PAUSE_MOST_S, 2 * pause_s)

    async def _follow(self, event: model.SupervisionEvent) -> None:
        while True:
            # The clocks are read when the event is seen, before anything is done about it.
            clock = self._around.clock
            self._seen_ns = clock.wall_ns(), clock.mono_ns()
            now = model.Now(self._seen_ns[1], f"{self._resource.id}-{uuid.uuid4().hex[:12]}")
            self._standing, step = decide(self._standing, event, now, self._policy)
            if self._standing.phase is not model.Phase.PROBING and not isinstance(step, model.SendReport):
                self._around.line.looked(ResourceId(self._resource.id))
            if isinstance(step, model.EndSupervision):
                return
            event = await self._perform(step)

    async def _perform(self, step: model.SupervisionStep) -> model.SupervisionEvent:
        match step:
            case model.SendReport():
                await self._tell(step)
                return model.ReportRecorded()
            case model.RunAction():
                return await self._run(step)
            case model.WaitUntil():
                return await self._wait(step)
            case model.EndSupervision():
                raise AssertionError("the loop ends before this")
            case _:
                assert_never(step)

    async def _tell(self, step: model.SendReport) -> None:
        at_ns, mono_ns = self._seen_ns
        before_ns = self._moments.before(step.state)
        if step.unwatched:
            mono_ns = before_ns = 0
        _log.info("%s: %s, %s", self._resource.id, step.state.value, step.reason)
        # Watched before it is told as up: a death while that is written to disk would be seen by nobody.
        watch = self._watched(afresh=True) if step.state is ResourceState.UP else None
        pid = None if watch is None else watch.identity.pid
        news = StateChange(
            step.state, step.reason, at_ns, mono_ns, step.intended, step.finished, pid, before_ns
        )
        await self._around.line.tell(self._about, news)

    async def _run(self, step: model.RunAction) -> model.SupervisionEvent:
        """Run an action; a death it should notice, or a wish to stop it may cut short, ends it early."""
        stop = self._around.stop if is_interruptible(self._standing) else None
        if stop is not None and stop.done():
            return model.StopRequested()
        watch = self._watched() if step.watched else None
        if not step.watched:
            self._unwatch()
        if watch is not None and watch.ended.done():
            return self._died(watch)
        began_ns = self._around.clock.mono_ns()
        try:
            action = agents.RunningAction.begin(
                call_for(self._resource, self._around.settings, step),
                self._around.scratch,
                self._around.settings.ocf_root,
            )
        except OSError as error:
            return _answer(agents.unrunnable_result(error))
        ending = asyncio.ensure_future(action.result())
        try:
            await _first_of(ending, watch.ended if watch else None, stop)
            if ending.done():
                answer = _answer(ending.result())
                self._moments.ended(step, began_ns, answer.answer)
                return answer
            if watch is not None and watch.ended.done():
                self._moments.died(self._around.pulse)  # now: the action may take its time to end
            action.kill()
            await ending
        finally:
            ending.cancel()
        return self._died(watch) if watch is not None and watch.ended.done() else model.StopRequested()

    async def _wait(self, step: model.WaitUntil) -> model.SupervisionEvent:
        watch = self._watched(afresh=True) if step.watched else None
        stop = self._around.stop
        gone = self._gone_already() if watch is None and step.watched else None
        if gone is not None:
            return model.ProcessDied(f"pid {gone.pid}")
        left_s = (step.until_ns - self._around.clock.mono_ns()) / 1e9
        await _first_of(watch.ended if watch else None, stop, timeout_s=max(0.0, left_s))
        if stop.done():
            return model.StopRequested()
        if watch is not None and watch.ended.done():
            return self._died(watch)
        return model.WaitEnded()

    def _pid_file(self) -> Path | None:
        """Where its pid is written, if anywhere."""
        agent = AgentName.parse(self._resource.agent)
        if self._resource.pid_file is None and (agent.provider, agent.type) == (SHIPPED_PROVIDER, "process"):
            return self._around.scratch.pid_file(self._resource.id)
        return self._resource.pid_file

    def _watched(self, *, afresh: bool = False) -> agents.PidfdWatch | None:
        """The watch on its process; `afresh` looks whether the pid file names another one by now."""
        pid_file = self._pid_file()
        if pid_file is None or (self._watch is not None and not afresh):
            return self._watch
        identity = agents.recorded_identity(pid_file)
        if self._watch is not None and identity in (None, self._watch.identity):
            return self._watch  # where a pid file names nobody any more, its end is what was waited for
        self._unwatch()
        if identity is not None:
            self._watch = agents.PidfdWatch.on(identity)
            self._moments.watched_ns = self._around.clock.mono_ns()
        return self._watch

    def _gone_already(self) -> Identity | None:
        """The process that the pid file names, when it ended before it could be watched."""
        pid_file = self._pid_file()
        identity = agents.recorded_identity(pid_file) if pid_file is not None else None
        return None if identity is None or is_alive(identity) else identity

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
            self._moments.watched_ns = 0

    def _died(self, watch: agents.PidfdWatch) -> model.ProcessDied:
        pid = watch.identity.pid
        self._moments.died(self._around.pulse)
        self._unwatch()
        return model.ProcessDied(f"pid {pid}")


def _answer(result: agents.ActionResult) -> model.ActionEnded:
    return model.ActionEnded(result.answer, result.detail)


async def _first_of(*futures: asyncio.Future[Any] | None, timeout_s: float | None = None) -> None:
    """Wait until one of these is done; None never is."""
    waiting = [future for future in futures if future is not None]
    await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
