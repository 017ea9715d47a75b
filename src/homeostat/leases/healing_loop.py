"""Heals: looks for reservations that suffer whenever capacity changed and at every interval, has a worker
plan, and commits the plan one reservation after the other.

A host is marked as failed before this loop hears of it. What cannot be healed is tried again at the next
change of capacity and at the next look; what another commit overtook is planned again at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from homeostat.contracts.nouns import INFRASTRUCTURE, SetPoint, SetPointState
from homeostat.kernel.access import Caller
from homeostat.kernel.clock import Clock
from homeostat.kernel.errors import RetryLater
from homeostat.kernel.workers import WorkDone, WorkOutcome
from homeostat.leases.book import LeaseBook, LeaseChange
from homeostat.leases.booking import LeaseContext
from homeostat.leases.healing import (
    HealingStep,
    HealingWindow,
    find_suffering,
    heal,
    healing_steps,
    healing_window,
)
from homeostat.leases.keeper import LeaseKeeper
from homeostat.leases.model import Allocation, ReservationId, ResourceType
from homeostat.leases.monitoring import HealingTimes, healing_times
from homeostat.leases.plans import Plan
from homeostat.leases.settings import LeasesSettings
from homeostat.leases.snapshot import PackedRequest, SnapshotPacking
from homeostat.leases.views import unknown_hosts

log = structlog.get_logger("leases")

PLANNER = "homeostat.leases.snapshot:plan_in_worker"
NO_HORIZON_LOOK_S = 60.0
"""Between two looks when the interval is 0, which Blazar takes for: never look again."""
RETRY_S = 1.0
SHORTEST_S = 0.001
"""No wait is shorter: a remainder below what the clock resolves would be waited for again and again."""
PROMISE = "running leases without a host that works"
NAMED_MAX = 3
LATE_S = 5.0
"""How much longer than its own limit the planner may take, its process's start included."""


class PlanningPool(Protocol):
    """`kernel.workers.Workers`."""

    async def run(self, function: str, argument: object, *, deadline_s: float) -> WorkOutcome: ...


@dataclass(frozen=True, slots=True)
class HealingDependencies:
    """What the loop works with."""

    keeper: LeaseKeeper
    pool: PlanningPool
    clock: Clock
    settings: LeasesSettings
    times: HealingTimes | None = None
    """What the monitors of hosts ask for; without it the interval of whole hosts counts."""


class HealingLoop:
    """The loop; one for a server. Passes never overlap. `plan` is what the last pass rested on."""

    def __init__(self, parts: HealingDependencies) -> None:
        self._parts = parts
        self._last_pass_ns = 0
        self.passes = 0
        self.plan: Plan | None = None

        minutes = parts.settings.plugin(ResourceType.HOST).healing_interval
        self._times = parts.times or healing_times([], minutes * 60.0, NO_HORIZON_LOOK_S)

    async def run(self) -> None:
        """Look for ever: at fixed times, and at every change of capacity."""
        keeper, loop = self._parts.keeper, asyncio.get_running_loop()
        waking, look_s = keeper.watch(), loop.time()
        while True:
            if loop.time() >= look_s:
                look_s += self._times.period_s
            seen = keeper.capacity_version
            try:
                done = await self.look()
            except RetryLater as error:
                log.warning("healing is tried again", reason=str(error))
                done = False
            until_s = look_s if done else min(look_s, loop.time() + RETRY_S)
            while (left_s := until_s - loop.time()) > 0 and keeper.capacity_version == seen:
                waking.clear()
                await self._wait(waking, max(left_s, SHORTEST_S))

    async def _wait(self, waking: asyncio.Event, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await waking.wait()
        except TimeoutError:
            pass

    async def set_points(self, caller: Caller) -> tuple[SetPoint, ...]:
        """Running leases that the caller may read without a host that works; unknown while that of one is."""
        book, now_ns = self._parts.keeper.book, self._parts.clock.wall_ns()
        running = [
            each
            for each in book.leases.values()
            if each.is_open and each.has_begun(now_ns) and caller.may_read(each.project)
        ]
        if not running:
            return ()
        suffering = {book.lease_of(each).id for each in find_suffering(book, HealingWindow(now_ns, now_ns))}
        lacking = [each.name for each in running if each.id in suffering]
        doubted = [each.name for each in running if unknown_hosts(book, each.id)]
        standing = (
            SetPointState.BROKEN if lacking else SetPointState.UNKNOWN if doubted else SetPointState.KEPT
        )
        named = lacking or doubted
        more = f" and {len(named) - NAMED_MAX} more" if len(named) > NAMED_MAX else ""
        detail = (
            ""
            if not named
            else f"{'without' if lacking else 'unknown'}: {', '.join(named[:NAMED_MAX])}{more}"
        )
        value = None if standing is SetPointState.UNKNOWN else float(len(lacking))
        project = "" if caller.may_read(INFRASTRUCTURE) else caller.owner
        return (
            SetPoint("leases", PROMISE, 0, "leases", value, standing, detail, project, needs_nodes=False),
        )

    async def look(self) -> bool:
        """One pass. False: not everything that was planned could be written, another one should follow soon.

        RetryLater.
        """
        parts, keeper = self._parts, self._parts.keeper
        began_ns = parts.clock.mono_ns()
        window_ns = round((self._times.window_s or 0) * 1e9)
        window = healing_window(parts.clock.wall_ns(), window_ns, self._last_pass_ns)
        suffering = find_suffering(keeper.book, window)
        self.passes += 1
        done = True
        if suffering:
            done = await self._heal(suffering)
        self._last_pass_ns = parts.clock.mono_ns() - began_ns
        return done

    async def _heal(self, suffering: Mapping[ReservationId, Sequence[Allocation]]) -> bool:
        keeper, time_s = self._parts.keeper, self._parts.settings.planning_deadline_s
        book = keeper.book
        versions = {each.id: each.version for each in book.reservations.values()}
        packing, slices = SnapshotPacking(book, suffering, keeper.context("healing")), []
        for each in packing.slices():
            slices.append(each)
            await asyncio.sleep(0)  # others have their turn
        request = PackedRequest(packing.head(time_s), tuple(slices))
        outcome = await self._parts.pool.run(PLANNER, request, deadline_s=time_s + LATE_S)
        if not isinstance(outcome, WorkDone) or not isinstance(outcome.value, Plan):
            log.error("the planner gave no plan; tried again", outcome=str(outcome))
            return False
        self.plan = outcome.value
        causes = {
            reservation: tuple(
                seq
                for each in found
                if each.host is not None and (seq := keeper.failed_seq.get(each.host)) is not None
            )
            for reservation, found in suffering.items()
        }
        if keeper.book is not book:
            return False  # it was read again meanwhile
        steps = [
            replace(step, causes=causes.get(step.reservation, ()))
            for step in healing_steps(book, suffering, self.plan, versions)
        ]
        return await self._take(steps)

    async def _take(self, steps: Sequence[HealingStep]) -> bool:
        """Each in a transaction of its own, those that wait for another after it; circles together."""
        waiting, progress = list(steps), True
        while waiting and progress:
            left = [step for step in waiting if not await self._commit([step])]
            progress, waiting = len(left) < len(waiting), left
        if waiting and len(waiting) > 1 and await self._commit(waiting):
            return True
        for step in waiting:
            log.info("overtaken by another change, planned again", reservation=step.reservation)
        return not waiting

    async def _commit(self, steps: Sequence[HealingStep]) -> bool:
        """Whether it was possible. RetryLater."""
        taken = True

        def decide(book: LeaseBook, context: LeaseContext) -> LeaseChange:
            nonlocal taken
            change = heal(book, steps, context)
            if isinstance(change, LeaseChange):
                return change
            taken = False
            return LeaseChange()

        await self._parts.keeper.decide(decide, "healing")
        return taken
