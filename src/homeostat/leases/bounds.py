"""How many units can be placed at most: a bound that holds for every plan, from prices on items.

Lagrangian relaxation: that an item gets at most one host is replaced by a price for each use of it. Every
host then packs what pays best for itself, which a sweep over its windows solves exactly; hosts that are alike
are solved once. For any prices the sum of prices and of what the hosts earn is at least the number of units
that any plan places. Prices follow the subgradient; the least bound seen is the result. Where hosts are
interchangeable or all windows share a moment this is the exact number once prices have settled.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass

from homeostat.leases.plans import Demand, SearchTime
from homeostat.leases.schedule import NOWHERE, Schedule

_ROUNDS = 150
_STATES = 4000
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Lot:
    """Items that are alike: the sweep of a host decides how many of them it takes."""

    items: tuple[int, ...]
    start_s: float
    end_s: float
    demand: Demand | None
    at_most: int
    """Of one host: one where it takes the whole host or must be spread."""
    worth: int
    """Units that count when placed; 0: at home before, and must be placed."""
    hosts: frozenset[int]


@dataclass(frozen=True, slots=True)
class HostClass:
    """Hosts that are alike for all lots: same size, same lots, same fixed items."""

    count: int
    size: Demand
    lots: tuple[int, ...]
    fixed: tuple[tuple[float, float, Demand], ...]


class TooManyStates(Exception):
    """A sweep would take too long; the bound is given up."""


class PlacementBound:
    """The bound for the movable items of a schedule, with those at home as things that must be placed."""

    def __init__(self, schedule: Schedule, numbers: list[int]) -> None:
        self._lots = _lots(schedule, numbers)
        self._classes = _classes(schedule, self._lots)

    def most_placed(self, known: int, time: SearchTime) -> int:
        """At most so many units that need a host get one. Ends early when that is `known`, which some plan
        places.
        """
        lots = self._lots
        best = sum(lot.worth * len(lot.items) for lot in lots)
        prices = [0.5 * lot.worth for lot in lots]
        step, stale = 1.0, 0
        least = math.inf
        for _ in range(_ROUNDS):
            if best <= known or time.is_over:
                break
            try:
                earned, taken = self._earned(prices, time)
            except TooManyStates:
                break
            value = earned + sum(price * len(lot.items) for price, lot in zip(prices, lots, strict=True))
            if value < least - 1e-4:
                least, stale = value, 0
                best = min(best, math.floor(value + _ROUNDING))
            else:
                stale += 1
                if stale >= 6:
                    step, stale = step / 2, 0
            slopes = [len(lot.items) - count for lot, count in zip(lots, taken, strict=True)]
            length = sum(
                slope * slope
                for slope, price, lot in zip(slopes, prices, lots, strict=True)
                if slope < 0 or price > 0 or not lot.worth
            )
            if not length or step < 0.01:
                break
            pace = step * max(value - known, 0.3) / length
            prices = [
                price - pace * slope if not lot.worth else max(0.0, price - pace * slope)
                for price, slope, lot in zip(prices, slopes, lots, strict=True)
            ]
        return best

    def _earned(self, prices: list[float], time: SearchTime) -> tuple[float, list[int]]:
        taken = [0] * len(prices)
        earned = 0.0
        for each in self._classes:
            pays = [(lot, gain) for lot in each.lots if (gain := self._lots[lot].worth - prices[lot]) > 1e-12]
            if not pays:
                continue
            if time.is_over:
                raise TooManyStates
            if all(self._lots[lot].demand is None for lot, _ in pays):
                value, chosen = self._best_row(pays)
            else:
                value, chosen = self._best_packing(each, pays)
            earned += each.count * value
            for lot, count in chosen:
                taken[lot] += each.count * count
        return earned, taken

    def _best_row(self, pays: list[tuple[int, float]]) -> tuple[float, list[tuple[int, int]]]:
        """Windows that do not overlap, of the greatest gain."""
        rows = sorted(pays, key=lambda pay: self._lots[pay[0]].end_s)
        ends = [self._lots[lot].end_s for lot, _ in rows]
        best = [0.0]
        before = []
        for number, (lot, gain) in enumerate(rows):
            before.append(bisect_right(ends, self._lots[lot].start_s, 0, number))
            best.append(max(best[-1], best[before[-1]] + gain))
        chosen = []
        left = len(rows)
        while left:
            if best[left] == best[left - 1]:
                left -= 1
            else:
                chosen.append((rows[left - 1][0], 1))
                left = before[left - 1]
        return best[-1], chosen

    def _best_packing(
        self, host: HostClass, pays: list[tuple[int, float]]
    ) -> tuple[float, list[tuple[int, int]]]:
        """Windows and demands that fit on the host at every moment, of the greatest gain; a sweep over
        starts.

        A state is what runs at the moment, with the best gain that leads to it and the choices behind that.
        """
        arrivals: list[tuple[float, int, int, float]] = [
            (start, 0, number, 0.0) for number, (start, _, _) in enumerate(host.fixed)
        ]
        arrivals += [(self._lots[lot].start_s, 1, lot, gain) for lot, gain in pays]
        arrivals.sort()
        states: dict[tuple[tuple[float, int, int], ...], tuple[float, tuple[object, ...]]] = {(): (0.0, ())}
        for start, is_lot, number, gain in arrivals:
            after: dict[tuple[tuple[float, int, int], ...], tuple[float, tuple[object, ...]]] = {}
            for running, (value, chosen) in states.items():
                alive = tuple(each for each in running if each[0] > start)
                if not is_lot:
                    if self._has_room_for_fixed(host, alive, number):
                        state = tuple(sorted((*alive, (host.fixed[number][1], -1 - number, 1))))
                        _keep(after, state, value, chosen)
                    continue
                _keep(after, alive, value, chosen)
                for count in range(1, self._room(host, alive, number) + 1):
                    state = tuple(sorted((*alive, (self._lots[number].end_s, number, count))))
                    _keep(after, state, value + gain * count, (chosen, number, count))
            states = after
            if len(states) > _STATES:
                raise TooManyStates
        value, chosen = max(states.values(), key=lambda each: each[0])
        return value, _unrolled(chosen)

    def _room(self, host: HostClass, alive: tuple[tuple[float, int, int], ...], number: int) -> int:
        """How many of the lot fit beside what runs now. Later fixed items are seen when they come."""
        lot = self._lots[number]
        if lot.demand is None:
            return 0 if alive else 1
        left = self._left(host, alive)
        if left is None:
            return 0
        most = min(lot.at_most, len(lot.items))
        for have, want in zip(left, lot.demand, strict=True):
            if want:
                most = min(most, have // want)
        return max(most, 0)

    def _has_room_for_fixed(
        self, host: HostClass, alive: tuple[tuple[float, int, int], ...], number: int
    ) -> bool:
        """Fixed items alone always count as fitting: a host that is booked twice already bounds nothing."""
        if all(other < 0 for _, other, _ in alive):
            return True
        left = self._left(host, alive)
        return left is not None and all(
            have >= want for have, want in zip(left, host.fixed[number][2], strict=True)
        )

    def _left(self, host: HostClass, alive: tuple[tuple[float, int, int], ...]) -> list[int] | None:
        """What of the host is free; None: a whole-host item runs."""
        left = list(host.size)
        for _, other, count in alive:
            demand = self._lots[other].demand if other >= 0 else host.fixed[-1 - other][2]
            if demand is None:
                return None
            for kind in range(3):
                left[kind] -= demand[kind] * count
        return left


_States = dict[tuple[tuple[float, int, int], ...], tuple[float, tuple[object, ...]]]


def _keep(
    states: _States, state: tuple[tuple[float, int, int], ...], value: float, chosen: tuple[object, ...]
) -> None:
    known = states.get(state)
    if known is None or known[0] < value:
        states[state] = (value, chosen)


def _unrolled(chosen: tuple[object, ...]) -> list[tuple[int, int]]:
    result = []
    while chosen:
        before, lot, count = chosen
        assert isinstance(before, tuple) and isinstance(lot, int) and isinstance(count, int)
        result.append((lot, count))
        chosen = before
    return result


def _lots(schedule: Schedule, numbers: list[int]) -> list[Lot]:
    alike: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for number in numbers:
        item = schedule.items[number]
        spread = item.reservation if item.is_spread else None
        key = (
            item.start_s,
            item.end_s,
            item.demand,
            id(item.domain),
            item.weight,
            spread,
            schedule.held[number],
        )
        alike[key].append(number)
    lots = []
    for members in alike.values():
        item = schedule.items[members[0]]
        whole = item.demand is None or item.is_spread
        worth = 0 if schedule.held[members[0]] else item.weight
        hosts = frozenset(host for host in item.domain if _is_open(schedule, members[0], host))
        lots.append(
            Lot(
                tuple(members),
                item.start_s,
                item.end_s,
                item.demand,
                1 if whole else len(members),
                worth,
                hosts,
            )
        )
    return lots


def _is_open(schedule: Schedule, number: int, host: int) -> bool:
    return schedule.at[number] == host or bool(schedule.blockers(number, host))


def _classes(schedule: Schedule, lots: list[Lot]) -> list[HostClass]:
    users: dict[int, list[int]] = defaultdict(list)
    for number, lot in enumerate(lots):
        for host in lot.hosts:
            users[host].append(number)
    counts: dict[tuple[Demand, tuple[int, ...], tuple[tuple[float, float, Demand], ...]], int] = defaultdict(
        int
    )
    for host, numbers in sorted(users.items()):
        fixed = []
        for other in schedule.on[host]:
            item = schedule.items[other]
            if item.is_fixed and item.demand is not None and item.home != NOWHERE:
                fixed.append((item.start_s, item.end_s, item.demand))
        counts[schedule.sizes[host], tuple(numbers), tuple(sorted(fixed))] += 1
    return [HostClass(count, size, numbers, fixed) for (size, numbers, fixed), count in counts.items()]
