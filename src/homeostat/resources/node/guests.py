"""Guests of a host that may also run elsewhere: runs those that the server assigned here and stops the
others.

Invariants: a guest that is not assigned here is not started here; after a start of the runner one that is
assigned is adopted if it runs, and started only when a server has confirmed the assignment to this
incarnation of the node, since it may have been moved meanwhile; one that runs here and is not assigned is
stopped. What a kept guest needs after that, restarts above all, needs no server. The assignment itself is
decided by the server, not here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from homeostat.contracts.nouns import ResourceId, ResourceState
from homeostat.contracts.wire import Finish, Intent, Outcome, ResourceStatus
from homeostat.resources.model import RunAction
from homeostat.resources.node.agents import run_action, settle_act
from homeostat.resources.node.pipe import ReportSubject, StateChange
from homeostat.resources.node.resource import RunnerContext, SupervisedResource, call_for
from homeostat.resources.ocf import ActionOutcome
from homeostat.resources.settings import ResourceSettings

T = TypeVar("T")
_log = logging.getLogger(__name__)
_PAUSE_S = 5.0
_MAY_RUN = (ActionOutcome.OK, ActionOutcome.SOFT, ActionOutcome.TIMED_OUT)
_QUIET = (ResourceState.STOPPED, ResourceState.UNKNOWN)
_NOT_HERE = "not_assigned: it is not assigned to this host and does not run here"


@dataclass(slots=True)
class StoredGuest:
    """What the node's store knows of a guest from before this runner. Used once."""

    level: ResourceStatus | None
    act: Intent | None


class MovableGuest:
    """One guest that this host may be told to run, and the task that heeds its assignment."""

    def __init__(self, resource: ResourceSettings, around: RunnerContext, remembered: StoredGuest) -> None:
        self._resource, self._around, self._remembered = resource, around, remembered
        self._name = ResourceId(resource.id)

    async def heed(self) -> None:
        """Run it while it is assigned here, and see that it does not run otherwise; until the node stops."""
        while not self._around.stop.done():
            changed = self._around.line.reassigned
            try:
                if await self._look():
                    await unless(self._around.stop, changed.wait())
            except ConnectionError:
                return  # the node is gone, and so is this runner in a moment
            except Exception:
                _log.exception("%s: the runner failed; looking again in %g s", self._resource.id, _PAUSE_S)
                await asyncio.sleep(_PAUSE_S)

    async def _look(self) -> bool:
        """Do what the assignment says; whether nothing is left to do before it changes."""
        told = self._around.line.assigned
        generation = told.mine.get(self._name)
        if generation is not None:
            if told.confirmed or await self._answer() is ActionOutcome.OK:
                await self._keep(generation)
                return False
        elif told.confirmed:
            if not await self._see_it_gone():
                return False
            self._around.line.looked(self._name)
        return True

    async def _keep(self, generation: int) -> None:
        """Keep it until it is assigned otherwise, then stop it."""
        leaving: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._around.stop.add_done_callback(lambda _: finish(leaving))  # a stop of the node stops it, too
        remembered, self._remembered = self._remembered, StoredGuest(None, None)
        level = remembered.level
        # What it was under an earlier assignment, on whichever host, is no outage of this one.
        state = level.state if level is not None and level.generation == generation else None
        around = replace(self._around, stop=leaving)
        keeping = asyncio.ensure_future(self._kept(around, generation, state, remembered.act))
        try:
            while not keeping.done():
                changing = asyncio.ensure_future(self._around.line.reassigned.wait())
                if self._around.line.assigned.mine.get(self._name) != generation:
                    finish(leaving)
                try:
                    ends = {keeping} if leaving.done() else {keeping, changing}
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changing.cancel()
            keeping.result()
        finally:
            keeping.cancel()

    async def _see_it_gone(self) -> bool:
        """It is not ours: stop it if it may run, close what was open about it. False: try again."""
        remembered, self._remembered = self._remembered, StoredGuest(None, None)
        level, act = remembered.level, remembered.act
        generation = 0 if level is None else level.generation
        if await self._answer() in _MAY_RUN:
            _log.warning("%s: it runs here and is not assigned to this host; stopping it", self._resource.id)
            around = replace(self._around, stop=asyncio.get_running_loop().create_future())
            around.stop.set_result(None)
            state = None if level is None else level.state
            await self._kept(around, generation, state, act)
            if await self._answer() in _MAY_RUN:
                await asyncio.sleep(_PAUSE_S)
                return False
        elif act is not None or (level is not None and level.state not in _QUIET):
            finished = Finish(act.action, Outcome.UNKNOWN, 0.0, _NOT_HERE) if act is not None else None
            seen = self._around.clock.wall_ns(), self._around.clock.mono_ns()
            news = StateChange(ResourceState.STOPPED, _NOT_HERE, *seen, finished=finished)
            await self._around.line.tell(ReportSubject.of(self._resource, generation), news)
        return True

    async def _kept(
        self, around: RunnerContext, generation: int, state: ResourceState | None, act: Intent | None
    ) -> None:
        """From its first look until it is to stop and was stopped."""
        await SupervisedResource(self._resource, around, generation).keep(state, act)

    async def _answer(self) -> ActionOutcome:
        """What its agent says now, after an act that an earlier runner left in flight."""
        scratch, settings = self._around.scratch, self._around.settings
        await settle_act(self._resource.id, scratch)
        look = RunAction("monitor", self._resource.operations.monitor.timeout_s)
        return (await run_action(call_for(self._resource, settings, look), scratch, settings.ocf_root)).answer


async def unless(ended: asyncio.Future[None], act: Coroutine[Any, Any, T]) -> T | None:
    """What an act brings; None when `ended` is done before it."""
    waiting = asyncio.ensure_future(act)
    ends: set[asyncio.Future[Any]] = {waiting, ended}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else None
    finally:
        waiting.cancel()


def finish(future: asyncio.Future[None]) -> None:
    """Done, unless it is already."""
    if not future.done():
        future.set_result(None)
