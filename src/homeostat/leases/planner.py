"""Plans healing: a snapshot of hosts and units in, places for the units out. Pure: the clock is passed in.

Hosts of pending units may change, dates never; fixed units stay, and a unit that has a healthy host never
ends without one. Order of aims: fewest units missing, nearest start first where that is a choice, fewest
healthy units displaced. Steps: free hosts, then chains and trees of relocations, then minimal sets that no
plan places together (cores), which bound every plan, then fewer displaced units, each within its part of the
time. The label says what is proved of the number of missing units and nothing more; with less time it stays
true.
"""

from __future__ import annotations

from collections.abc import Callable

from homeostat.contracts.nouns import HostId
from homeostat.leases.cores import CoreSearch
from homeostat.leases.plans import (
    Demand,
    Plan,
    PlanHost,
    PlanLabel,
    PlanMove,
    PlanRequest,
    PlanUnit,
    SearchTime,
    UnitKey,
)
from homeostat.leases.relocation import HostOrder, Relocation
from homeostat.leases.repair import Repair, fewest_displaced
from homeostat.leases.schedule import NOWHERE, Schedule

__all__ = [
    "Demand",
    "Plan",
    "PlanHost",
    "PlanLabel",
    "PlanMove",
    "PlanRequest",
    "PlanUnit",
    "UnitKey",
    "plan",
]

_DISPLACED_STEPS = 4_000
_MOST_MOMENTS = 30
_SHARES = {"relocation": 0.2, "cores": 0.6, "displaced": 0.2}


def plan(request: PlanRequest, clock: Callable[[], float]) -> Plan:
    """The plan for a request. `clock` returns monotonic seconds; it only decides when a search is given up.

    Raises ValueError when a fixed unit names no host.
    """
    return _Planning(request, clock).run()


class _Planning:
    """One run over one schedule."""

    def __init__(self, request: PlanRequest, clock: Callable[[], float]) -> None:
        self._request = request
        self._clock = clock
        self._schedule = Schedule(request)
        self._order = HostOrder(self._schedule)
        self._bound = 0
        self._are_moves_fewest = False

    def run(self) -> Plan:
        schedule = self._schedule
        time = self._time("relocation")
        relocation = Relocation(schedule, self._order, time)
        schedule.needing.sort(
            key=lambda each: (schedule.items[each].start_s, schedule.items[each].end_s, each)
        )
        crowded = [number for number in schedule.needing if not relocation.place_free(number)]
        for number in crowded:
            if not time.is_over and not relocation.place_by_chain(number):
                relocation.place_by_tree(number)
        self._bound_missing()
        self._prefer_near_starts(relocation)
        self._displace_fewer()
        return self._finished()

    def _time(self, step: str) -> SearchTime:
        return SearchTime(self._clock, self._request.time_s * _SHARES[step])

    def _missing(self) -> list[int]:
        return [number for number in self._schedule.needing if self._schedule.at[number] == NOWHERE]

    def _weight(self, numbers: list[int]) -> int:
        return sum(self._schedule.items[number].weight for number in numbers)

    def _bound_missing(self) -> None:
        """Sets how many of the missing units another plan could place at most, and finds such a plan if it
        can.
        """
        schedule = self._schedule
        missing = self._missing()
        possible = [number for number in missing if self._has_open_host(number)]
        self._bound = self._weight(possible)
        if not possible:
            return
        lost = self._weight(missing)
        self._bound = min(self._bound, lost - max(0, *map(self._short_at, self._crowded_moments(possible))))
        if self._bound <= 0:
            self._bound = 0
            return
        result = CoreSearch(schedule, self._order, self._time("cores")).run()
        left = self._weight(self._missing())
        self._bound = max(0, min(self._bound - (lost - left), left - result.at_least))

    def _crowded_moments(self, missing: list[int]) -> list[float]:
        return sorted({self._schedule.items[number].start_s for number in missing})[:_MOST_MOMENTS]

    def _short_at(self, moment: float) -> int:
        """By how many hosts the whole-host items of a moment are too many: a pigeonhole.

        Counts what must be on the hosts that the missing items could use, against those not fixed to others.
        """
        schedule = self._schedule
        alive = [
            n for n, i in enumerate(schedule.items) if i.demand is None and i.start_s <= moment < i.end_s
        ]
        wanted = [n for n in alive if schedule.at[n] == NOWHERE and not schedule.items[n].is_fixed]
        hosts = {host for domain in _distinct(schedule, wanted) for host in domain}
        confined = {id(domain) for domain in _distinct(schedule, alive) if hosts.issuperset(domain)}
        movable = sum(
            not schedule.items[n].is_fixed and id(schedule.items[n].domain) in confined for n in alive
        )
        taken = {
            at
            for item, at in zip(schedule.items, schedule.at, strict=True)
            if item.is_fixed and item.start_s <= moment < item.end_s and at in hosts
        }
        return movable - (len(hosts) - len(taken))

    def _has_open_host(self, number: int) -> bool:
        return any(self._schedule.blockers(number, host) for host in self._schedule.items[number].domain)

    def _prefer_near_starts(self, relocation: Relocation) -> None:
        """Lets a missing unit take the place of one that starts later and needed a host as well."""
        schedule = self._schedule
        for number in self._missing():
            item = schedule.items[number]
            later = [
                other
                for other in reversed(schedule.needing)
                if schedule.at[other] != NOWHERE
                and schedule.items[other].start_s > item.start_s
                and schedule.items[other].weight == item.weight
            ]
            for other in later:
                host = schedule.at[other]
                schedule.take_away(other)
                if relocation.place_free(number):
                    break
                schedule.place(other, host)

    def _displaced(self) -> list[int]:
        schedule = self._schedule
        return [
            n for n, item in enumerate(schedule.items) if schedule.held[n] and schedule.at[n] != item.home
        ]

    def _displace_fewer(self) -> None:
        """Sends displaced units home where that is possible, then searches for fewer of them."""
        schedule = self._schedule
        for number in self._displaced():
            home = schedule.items[number].home
            if schedule.fits(number, home):
                schedule.take_away(number)
                schedule.place(number, home)
        displaced = self._displaced()
        self._are_moves_fewest = not displaced
        if not displaced:
            return
        placed = [number for number in schedule.needing if schedule.at[number] != NOWHERE]
        repair = Repair(schedule, self._order, self._time("displaced"), _DISPLACED_STEPS)
        self._are_moves_fewest = fewest_displaced(repair, schedule, placed, self._weight(displaced))

    def _finished(self) -> Plan:
        schedule = self._schedule
        places: dict[UnitKey, HostId] = {}
        missing: list[tuple[float, UnitKey]] = []
        moves: list[PlanMove] = []
        for number, item in enumerate(schedule.items):
            host = schedule.at[number]
            for index in item.units:
                unit = schedule.units[index]
                key = unit.key
                if item.is_fixed and unit.host is not None:
                    places[key] = unit.host
                elif host == NOWHERE:
                    missing.append((unit.start_s, key))
                else:
                    places[key] = schedule.hosts[host].id
                    if unit.host != schedule.hosts[host].id:
                        moves.append(PlanMove(key, unit.host, schedule.hosts[host].id, schedule.held[number]))
        missing.sort()
        return Plan(
            places,
            tuple(key for _, key in missing),
            self._label(len(missing)),
            self._bound,
            tuple(moves),
            self._are_moves_fewest,
        )

    def _label(self, missing: int) -> PlanLabel:
        if self._bound:
            return PlanLabel.FEASIBLE
        healed = any(self._schedule.at[number] != NOWHERE for number in self._schedule.needing)
        return PlanLabel.INFEASIBLE if missing and not healed else PlanLabel.OPTIMAL


def _distinct(schedule: Schedule, numbers: list[int]) -> list[tuple[int, ...]]:
    """The domains of the items, each once: a schedule has one tuple for each set of hosts."""
    return list({id(domain): domain for domain in (schedule.items[n].domain for n in numbers)}.values())
