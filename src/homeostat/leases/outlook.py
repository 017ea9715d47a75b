"""What is said of leases before anything fails (the N-1 table), why something is missing, and what the death
of a host would mean to them.

Everything is computed in workers of its own, so that healing never waits for it. What is shown is what was
computed last: it follows a change of the leases by seconds, and never claims *safe* without a plan. When
nothing could be computed, nothing is claimed.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from homeostat.contracts.component import ExposureRow, ServerParts
from homeostat.contracts.nouns import HostId
from homeostat.kernel.clock import Clock, iso
from homeostat.kernel.errors import RetryLater
from homeostat.kernel.workers import WorkDone
from homeostat.leases.book import LeaseBook
from homeostat.leases.explanation import Explanation, explain
from homeostat.leases.healing import (
    HealingStep,
    HealingWindow,
    find_suffering,
    healing_steps,
    healing_window,
)
from homeostat.leases.healing_loop import LATE_S, PLANNER, PlanningPool
from homeostat.leases.keeper import LeaseKeeper
from homeostat.leases.model import (
    Allocation,
    Hold,
    LeaseId,
    Reservation,
    ReservationId,
    ResourceType,
    lease_subject,
)
from homeostat.leases.monitoring import HealingTimes, healing_times
from homeostat.leases.planner import plan
from homeostat.leases.plans import Plan, PlanHost, PlanRequest
from homeostat.leases.settings import LeasesSettings
from homeostat.leases.snapshot import PackedRequest, SnapshotPacking, unpack
from homeostat.leases.survey import ReservationRisk, Survey

log = structlog.get_logger("leases")

_HERE = "homeostat.leases.outlook"
PAUSE_S = 1.0
"""Between two surveys at least; and no more than a fifth of the time is spent on them."""
LOOK_S = 60.0
"""Without a change it is tried again so often, if the last survey failed."""
SURVEY_S = 5.0
EXPLANATION_S = 3.0
_SHARE = 5.0
HEALS = "Healing finds a host for all of it without a change: it moves when it runs or its start is near."


@dataclass(frozen=True, slots=True)
class SurveyRequest:
    """A snapshot, and hosts that a person holds: nothing new goes there, but what is there may lose them."""

    packed: PackedRequest
    held: tuple[PlanHost, ...]


@dataclass(frozen=True, slots=True)
class ExplanationRequest:
    """Why units of this reservation have no host, or would have none if `failing` failed; `now_s` is UTC."""

    packed: PackedRequest
    reservation: str
    now_s: float
    failing: HostId | None


def survey_in_worker(wanted: SurveyRequest) -> tuple[ReservationRisk, ...]:
    """The N-1 table of a snapshot, in a process where nobody waits for the event loop."""
    request = unpack(wanted.packed)
    return tuple(Survey(replace(request, hosts=request.hosts + wanted.held), time.monotonic).risks())


def explain_in_worker(wanted: ExplanationRequest) -> Explanation:
    """The same for an explanation. One without a change and without units missing: healing will do."""
    found = unpack(wanted.packed)
    if wanted.failing is not None:
        found = after_failure(found, wanted.failing)
    units = tuple(
        unit for unit in found.units if unit.reservation == wanted.reservation or unit.host is not None
    )
    alone = replace(found, units=units)
    if not plan(alone, time.monotonic).missing:
        return Explanation(wanted.reservation, 0, (), None, False, (HEALS,))
    return explain(alone, wanted.reservation, wanted.now_s, time.monotonic)


def after_failure(request: PlanRequest, host: HostId) -> PlanRequest:
    """The situation if this host failed: what is on it needs another one, running or not."""
    return replace(
        request,
        hosts=tuple(each for each in request.hosts if each.id != host),
        units=tuple(
            replace(unit, host=None, is_fixed=False) if unit.host == host else unit for unit in request.units
        ),
    )


@dataclass(frozen=True, slots=True)
class OutlookDependencies:
    """What it works with; `pool` is its own. `times` are those of healing, which does what is foretold."""

    keeper: LeaseKeeper
    pool: PlanningPool
    clock: Clock
    settings: LeasesSettings
    times: HealingTimes | None = None


class LeaseOutlook:
    """One for a server. `risks` is the table that was computed last, by reservation."""

    def __init__(self, parts: OutlookDependencies) -> None:
        self._parts = parts
        self._seen: tuple[int, int] | None = None
        self.risks: Mapping[ReservationId, ReservationRisk] = {}

    async def run(self) -> None:
        """Survey after every change, for ever."""
        waking, loop = self._parts.keeper.watch(), asyncio.get_running_loop()
        while True:
            waking.clear()
            began_s = loop.time()
            await self.look()
            await asyncio.sleep(max(PAUSE_S, (loop.time() - began_s) * (_SHARE - 1)))
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await waking.wait()

    async def _pack(
        self, book: LeaseBook, suffering: Mapping[ReservationId, Sequence[Allocation]], time_s: float
    ) -> PackedRequest:
        """Every unit of every lease that is not over, in pieces."""
        packing, slices = SnapshotPacking(book, suffering, self._parts.keeper.context("outlook")), []
        for each in packing.slices():
            slices.append(each)
            await asyncio.sleep(0)  # others have their turn
        return PackedRequest(packing.head(time_s), tuple(slices))

    async def look(self) -> bool:
        """Survey what is booked now, unless that was done. False: no worker could, and nothing is known."""
        keeper = self._parts.keeper
        book, version = keeper.book, (id(keeper.book), keeper.book.version)
        if version == self._seen:
            return True
        now_ns = self._parts.clock.wall_ns()
        held = tuple(
            PlanHost(each.host, each.vcpus, each.memory_mb, each.disk_gb)
            for each in book.hosts.values()
            if each.reservable and not each.may_be_booked(now_ns)
        )
        suffering = find_suffering(book, HealingWindow(now_ns, None))
        request = SurveyRequest(await self._pack(book, suffering, SURVEY_S), held)
        outcome = await self._parts.pool.run(
            f"{_HERE}:survey_in_worker", request, deadline_s=2 * SURVEY_S + LATE_S
        )
        if not isinstance(outcome, WorkDone) or not isinstance(outcome.value, tuple):
            log.warning("no survey of leases; tried again at the next change", outcome=str(outcome))
            self.risks, self._seen = {}, None
            return False
        self.risks = {ReservationId(each.reservation): each for each in outcome.value}
        self._seen = version
        return True

    async def explain(self, reservation: Reservation) -> tuple[Explanation, HostId | None] | None:
        """Why it lacks hosts, or would if the host that is named failed; None: it lacks none and would not.

        RetryLater: no worker could say.
        """
        keeper = self._parts.keeper
        book, now_ns = keeper.book, self._parts.clock.wall_ns()
        suffering = find_suffering(book, HealingWindow(now_ns, None))
        failing: HostId | None = None
        if reservation.id not in suffering:
            risk = self.risks.get(reservation.id)
            on = {each.host for each in book.allocations_of(reservation.id)}
            failing = None if risk is None else next((host for host in risk.hosts if host in on), None)
            if failing is None:
                return None
        packed = await self._pack(book, suffering, EXPLANATION_S)
        wanted = ExplanationRequest(packed, reservation.id, now_ns / 1e9, failing)
        outcome = await self._parts.pool.run(
            f"{_HERE}:explain_in_worker", wanted, deadline_s=2 * EXPLANATION_S + LATE_S
        )
        if not isinstance(outcome, WorkDone) or not isinstance(outcome.value, Explanation):
            raise RetryLater(f"no explanation could be computed ({outcome}); try again")
        return outcome.value, failing

    async def foretell(self, host: HostId) -> list[ExposureRow]:
        """What healing would do at once if this host failed now, and which leases it would look at later.

        The functions are those of healing, on rows in which the host has failed. RetryLater.
        """
        keeper, settings = self._parts.keeper, self._parts.settings
        row = keeper.book.hosts.get(host)
        if row is None:
            return []
        now_ns = self._parts.clock.wall_ns()
        if (hold := row.hold_at(now_ns)) is not None and not row.failed:
            return list(_held(keeper.book, host, hold))
        book = copy.copy(keeper.book)  # the same rows but for the hosts, and only read
        book.hosts = {**book.hosts, host: replace(row, reservable=False, failed=True, reason="host_down")}
        minutes = settings.plugin(ResourceType.HOST).healing_interval
        times = self._parts.times or healing_times([], minutes * 60.0, LOOK_S)
        window = healing_window(now_ns, round((times.window_s or 0) * 1e9), 0)
        suffering = find_suffering(book, window)
        rows: list[ExposureRow] = []
        if any(each.host == host for found in suffering.values() for each in found):
            time_s = settings.planning_deadline_s
            versions = {each.id: each.version for each in book.reservations.values()}
            request = await self._pack(book, suffering, time_s)
            outcome = await self._parts.pool.run(PLANNER, request, deadline_s=time_s + LATE_S)
            if not isinstance(outcome, WorkDone) or not isinstance(outcome.value, Plan):
                raise RetryLater(f"no plan could be computed ({outcome}); try again")
            steps = healing_steps(book, suffering, outcome.value, versions)
            rows += [each for step in steps for each in _moves(book, step, keeper.book)]
        rows += _later(book, host, window)
        return rows


def _moves(book: LeaseBook, step: HealingStep, now: LeaseBook) -> Iterator[ExposureRow]:
    """What the death would cause; what has no host that works already now is no consequence of it."""
    lease = book.lease_of(step.reservation)
    for allocation in book.allocations_of(step.reservation):
        old = allocation.host
        if allocation.id not in step.hosts or old is None or now.hosts[old].failed:
            continue
        new = step.hosts[allocation.id]
        does = f"moves from {old} to {new}" if new else f"loses {old}; no other host is free"
        yield ExposureRow("leases", lease_subject(lease.id), lease.project, f"{lease.name}: {does}")


def _later(book: LeaseBook, host: HostId, window: HealingWindow) -> Iterator[ExposureRow]:
    found = {each.lease.id: each.lease for each in book.on_host(host) if not window.touches(each.lease)}
    for lease in found.values():
        says = f"{lease.name}: keeps {host} until its start is near, then moves if the host is still down"
        yield ExposureRow("leases", lease_subject(lease.id), lease.project, says)


def _held(book: LeaseBook, host: HostId, hold: Hold) -> Iterator[ExposureRow]:
    """Nothing moves from a host while a person keeps monitors from it."""
    until = "it is released" if hold.until_ns is None else iso(hold.until_ns)
    for lease in {each.lease.id: each.lease for each in book.on_host(host)}.values():
        says = (
            f"{lease.name}: keeps {host}, which is held until {until}, then moves if the host is still down"
        )
        yield ExposureRow("leases", lease_subject(lease.id), lease.project, says)


async def exposure(parts: ServerParts, host: HostId) -> Sequence[ExposureRow]:
    """The consequences of a host's death for leases."""
    return await parts.find(LeaseOutlook).foretell(host)


def lease_risks(
    book: LeaseBook, lease: LeaseId, risks: Mapping[ReservationId, ReservationRisk]
) -> list[ReservationRisk] | None:
    """Those of its reservations; None while they are not known of all."""
    found = [risks.get(each.id) for each in book.reservations_of(lease)]
    known = [each for each in found if each is not None]
    return known if len(known) == len(found) else None
