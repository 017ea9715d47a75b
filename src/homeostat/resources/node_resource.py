"""Keeps one resource: performs what `supervision.decide` says and brings back what came of it.

One task a resource, one step at a time, so that two actions of a resource are never in flight. An error of
ours (full disk, no memory, a bug) is logged and the resource is looked at afresh after a pause; the others
go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from homeostat.contracts.nouns import ResourceState
from homeostat.contracts.wire import Intent
from homeostat.kernel.clock import Clock
from homeostat.kernel.processes import Identity, is_alive
from homeostat.resources.model import (
    Answered,
    Died,
    Due,
    Event,
    Leave,
    Now,
    OnDisk,
    Policy,
    Remembered,
    Run,
    Standing,
    Step,
    StopAsked,
    Tell,
    Wait,
)
from homeostat.resources.node_agents import ActionResult, RunningAction, refused, settle_act
from homeostat.resources.node_line import About, News, NodeLine
from homeostat.resources.node_scratch import Scratch
from homeostat.resources.node_watch import Watch, recorded_identity
from homeostat.resources.ocf import SHIPPED_PROVIDER, AgentName, Call
from homeostat.resources.settings import ResourceSettings, RunnerSettings, executable_of
from homeostat.resources.supervision import decide, is_interruptible

_log = logging.getLogger(__name__)
_PAUSE_MOST_S = 30.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all resources of a runner share. `stop` is done when each of them is to be stopped."""

    settings: RunnerSettings
    scratch: Scratch
    line: NodeLine
    stop: asyncio.Future[None]
    clock: Clock


def call_for(resource: ResourceSettings, settings: RunnerSettings, step: Run) -> Call:
    """The agent call of a step."""
    name = AgentName.parse(resource.agent)
    executable = executable_of(name, settings.ocf_root)
    return Call(
        name, executable, resource.id, step.verb, step.timeout_s, resource.parameters, step.interval_s
    )


def policy_of(resource: ResourceSettings, settings: RunnerSettings) -> Policy:
    """The numbers of one resource."""
    operations = resource.operations
    return Policy(
        start_s=operations.start.timeout_s,
        stop_s=operations.stop.timeout_s,
        monitor_s=operations.monitor.timeout_s,
        interval_s=operations.monitor.interval_s,
        stable_s=settings.stable_s,
        backoff_most_s=settings.backoff_most_s,
    )


class KeptResource:
    """One resource and the task that keeps it; `generation` is that of a guest's assignment."""

    def __init__(self, resource: ResourceSettings, around: Surroundings, generation: int = 0) -> None:
        self._resource, self._around = resource, around
        self._about = About.of(resource, generation)
        self._policy = policy_of(resource, around.settings)
        self._standing = Standing()
        self._watch: Watch | None = None
        self._seen_ns = (0, 0)

    async def keep(self, level: ResourceState | None, act: Intent | None) -> None:
        """Keep it until the node stops it. `level` and `act` are what the node's store remembers."""
        pause_s = 1.0
        while True:
            began_s = time.monotonic()
            try:
                await settle_act(self._resource.id, self._around.scratch)
                await self._follow(Remembered(level, act))
                return
            except ConnectionError:
                return  # the node is gone, and so is this runner in a moment
            except Exception:
                _log.exception("%s: the runner failed; looking again in %g s", self._resource.id, pause_s)
            finally:
                self._unwatch()
            level, act = self._standing.level, self._standing.act
            self._standing = Standing()
            await asyncio.sleep(pause_s)
            steady = time.monotonic() - began_s > 2 * _PAUSE_MOST_S
            pause_s = 1.0 if steady else min(_PAUSE_MOST_S, 2 * pause_s)

    async def _follow(self, event: Event) -> None:
        while True:
            # The clocks are read when the event is seen, before anything is done about it.
            clock = self._around.clock
            self._seen_ns = clock.wall_ns(), clock.mono_ns()
            now = Now(self._seen_ns[1], f"{self._resource.id}-{uuid.uuid4().hex[:12]}")
            self._standing, step = decide(self._standing, event, now, self._policy)
            if isinstance(step, Leave):
                return
            event = await self._perform(step)

    async def _perform(self, step: Step) -> Event:
        match step:
            case Tell():
                await self._tell(step)
                return OnDisk()
            case Run():
                return await self._run(step)
            case Wait():
                return await self._wait(step)
            case Leave():
                raise AssertionError("the loop ends before this")
            case _:
                assert_never(step)

    async def _tell(self, step: Tell) -> None:
        at_ns, mono_ns = self._seen_ns
        if step.unwatched:
            mono_ns = 0
        _log.info("%s: %s, %s", self._resource.id, step.state.value, step.reason)
        # Watched before it is told as up: a death while that is written to disk would be seen by nobody.
        watch = self._watched(afresh=True) if step.state is ResourceState.UP else None
        pid = None if watch is None else watch.identity.pid
        news = News(step.state, step.reason, at_ns, mono_ns, step.intended, step.finished, pid)
        await self._around.line.tell(self._about, news)

    async def _run(self, step: Run) -> Event:
        """Run an action; a death it should notice, or a wish to stop it may cut short, ends it early."""
        stop = self._around.stop if is_interruptible(self._standing) else None
        if stop is not None and stop.done():
            return StopAsked()
        watch = self._watched() if step.watched else None
        if not step.watched:
            self._unwatch()
        if watch is not None and watch.ended.done():
            return self._died(watch)
        try:
            action = RunningAction.begin(
                call_for(self._resource, self._around.settings, step),
                self._around.scratch,
                self._around.settings.ocf_root,
            )
        except OSError as error:
            return _answer(refused(error))
        ending = asyncio.ensure_future(action.result())
        try:
            await _first_of(ending, watch.ended if watch else None, stop)
            if ending.done():
                return _answer(ending.result())
            action.kill()
            await ending
        finally:
            ending.cancel()
        return self._died(watch) if watch is not None and watch.ended.done() else StopAsked()

    async def _wait(self, step: Wait) -> Event:
        watch = self._watched(afresh=True) if step.watched else None
        stop = self._around.stop
        gone = self._gone_already() if watch is None and step.watched else None
        if gone is not None:
            return Died(f"pid {gone.pid}")
        left_s = (step.until_ns - self._around.clock.mono_ns()) / 1e9
        await _first_of(watch.ended if watch else None, stop, timeout_s=max(0.0, left_s))
        if stop.done():
            return StopAsked()
        if watch is not None and watch.ended.done():
            return self._died(watch)
        return Due()

    def _pid_file(self) -> Path | None:
        """Where its pid is written, if anywhere."""
        agent = AgentName.parse(self._resource.agent)
        if self._resource.pid_file is None and (agent.provider, agent.type) == (SHIPPED_PROVIDER, "process"):
            return self._around.scratch.pid_file(self._resource.id)
        return self._resource.pid_file

    def _watched(self, *, afresh: bool = False) -> Watch | None:
        """The watch on its process; `afresh` looks whether the pid file names another one by now."""
        pid_file = self._pid_file()
        if pid_file is None or (self._watch is not None and not afresh):
            return self._watch
        identity = recorded_identity(pid_file)
        if self._watch is not None and identity in (None, self._watch.identity):
            return self._watch  # where a pid file names nobody any more, its end is what was waited for
        self._unwatch()
        if identity is not None:
            self._watch = Watch.on(identity)
        return self._watch

    def _gone_already(self) -> Identity | None:
        """The process that the pid file names, when it ended before it could be watched."""
        pid_file = self._pid_file()
        identity = recorded_identity(pid_file) if pid_file is not None else None
        return None if identity is None or is_alive(identity) else identity

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _died(self, watch: Watch) -> Died:
        pid = watch.identity.pid
        self._unwatch()
        return Died(f"pid {pid}")


def _answer(result: ActionResult) -> Answered:
    return Answered(result.answer, result.detail)


async def _first_of(*futures: asyncio.Future[Any] | None, timeout_s: float | None = None) -> None:
    """Wait until one of these is done; None never is."""
    waiting = [future for future in futures if future is not None]
    await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
