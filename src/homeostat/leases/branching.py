"""Exact search over a small part of a schedule: branch and bound, the item with fewest hosts left first.

Minimises the units without a host first, or, once that number is settled, the healthy units that are
displaced. Items that were at home always keep a place. Two symmetries are used: hosts that are alike for
everything that is undecided (only when counting missing units: their homes differ), and items that are alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from homeostat.leases.plans import SearchTime
from homeostat.leases.schedule import NOWHERE, Schedule

_TIME_EVERY = 32
_MOST_STEPS = 30_000
"""Ends a search where no clock does, so that a plan can be repeated."""


@dataclass(frozen=True, slots=True)
class BranchResult:
    """Places of the searched items, if better ones than those at the start were found; whether the search
    ended.
    """

    places: dict[int, int] | None
    cost: int
    is_complete: bool


class OutOfTime(Exception):
    """The cap of the search is reached; what was found so far stands."""


def related_items(schedule: Schedule, missing: Iterable[int], limit: int) -> list[int] | None:
    """Movable items that a plan for the missing ones could touch; None: more than the limit."""
    by_host: dict[int, list[int]] = defaultdict(list)
    for number, item in enumerate(schedule.items):
        if not item.is_fixed:
            for host in item.domain if len(item.domain) <= limit else ():
                by_host[host].append(number)
    found = set(missing)
    queue = sorted(found)
    while queue:
        item = schedule.items[queue.pop()]
        if len(item.domain) > limit:
            return None
        for host in item.domain:
            for other in by_host[host]:
                each = schedule.items[other]
                if other not in found and each.start_s < item.end_s and item.start_s < each.end_s:
                    found.add(other)
                    queue.append(other)
        if len(found) > limit:
            return None
    return sorted(found)


class Branching:
    """One search on one schedule, which is as before when it ends."""

    def __init__(self, schedule: Schedule, numbers: list[int], time: SearchTime) -> None:
        self._schedule = schedule
        self._time = time
        self._numbers = numbers
        self._before = {number: schedule.at[number] for number in numbers}
        self._steps = 0
        self._least = 0
        self._allowed_missing: int | None = None
        self._best: dict[int, int] | None = None
        self._best_cost = 0

    def fewest_missing(self, at_least: int) -> BranchResult:
        """Searches for fewer missing units than now; ends when `at_least` is reached, which is known as a
        bound.
        """
        now = sum(self._schedule.items[each].weight for each, host in self._before.items() if host == NOWHERE)
        return self._search(now, at_least)

    def fewest_displaced(self, missing: int) -> BranchResult:
        """Searches for fewer displaced healthy units than now, with at most so many units missing."""
        self._allowed_missing = missing
        return self._search(sum(self._move_cost(each, host) for each, host in self._before.items()), 0)

    def _search(self, now: int, at_least: int) -> BranchResult:
        self._best_cost, self._least = now, at_least
        schedule = self._schedule
        for number in self._numbers:
            if schedule.at[number] != NOWHERE:
                schedule.take_away(number)
        self._prepare()
        is_complete = True
        try:
            self._branch(0, 0)
        except OutOfTime:
            is_complete = False
        for number in self._numbers:
            if schedule.at[number] != NOWHERE:
                schedule.take_away(number)
        for number, host in self._before.items():
            if host != NOWHERE:
                schedule.place(number, host)
        return BranchResult(self._best, self._best_cost, is_complete)

    def _prepare(self) -> None:
        schedule = self._schedule
        items = schedule.items
        self._live = {
            each: {h for h in items[each].domain if schedule.fits(each, h)} for each in self._numbers
        }
        self._open = set(self._numbers)
        self._beside: dict[int, list[int]] = {}
        self._twins: dict[int, list[int]] = {}
        kinds: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for number in self._numbers:
            item = items[number]
            kinds[self._kind(number)].append(number)
            self._beside[number] = [
                other
                for other in self._numbers
                if other != number and items[other].start_s < item.end_s and item.start_s < items[other].end_s
            ]
        for twins in kinds.values():
            for number in twins:
                self._twins[number] = [other for other in twins if other != number]
        users: dict[int, list[int]] = defaultdict(list)
        for number in self._numbers:
            for host in sorted(self._live[number]):
                users[host].append(number)
        self._alike = {host: self._host_kind(host, numbers) for host, numbers in users.items()}
        self._placed_on: dict[int, int] = defaultdict(int)

    def _kind(self, number: int) -> tuple[object, ...]:
        item = self._schedule.items[number]
        home = item.home if self._schedule.held[number] and self._allowed_missing is not None else NOWHERE
        spread = item.reservation if item.is_spread else ""
        held = self._schedule.held[number]
        return item.start_s, item.end_s, item.demand, item.domain, item.weight, spread, held, home

    def _host_kind(self, host: int, users: list[int]) -> tuple[object, ...]:
        if self._allowed_missing is not None:
            return (host,)
        items = self._schedule.items
        fixed = sorted(
            (items[each].start_s, items[each].end_s, items[each].demand or (), items[each].reservation)
            for each in self._schedule.on[host]
        )
        return self._schedule.sizes[host], tuple(users), tuple(fixed)

    def _move_cost(self, number: int, host: int) -> int:
        item = self._schedule.items[number]
        return item.weight if self._schedule.held[number] and host != item.home else 0

    def _branch(self, lost: int, moved: int) -> None:
        self._steps += 1
        if self._steps % _TIME_EVERY == 0 and (self._steps > _MOST_STEPS or self._time.is_over):
            raise OutOfTime
        certain = lost + self._certainly_lost()
        if self._allowed_missing is None:
            if certain >= self._best_cost:
                return
        elif certain > self._allowed_missing or moved >= self._best_cost:
            return
        if (number := self._next()) is None:
            self._best = {each: self._schedule.at[each] for each in self._numbers}
            self._best_cost = certain if self._allowed_missing is None else moved
            return
        self._open.remove(number)
        barred: list[tuple[int, int]] = []
        for host in self._values(number):
            self._try(number, host, lost, moved)
            if self._best is not None and self._best_cost <= self._least:
                break
            for twin in self._twins[number]:
                if twin in self._open and host in self._live[twin]:
                    self._live[twin].remove(host)
                    barred.append((twin, host))
        else:
            if not self._schedule.held[number]:
                self._lose(number, lost, moved)
        for twin, host in barred:
            self._live[twin].add(host)
        self._open.add(number)

    def _certainly_lost(self) -> int:
        """Units of undecided items that have no host left; a healthy one among them ends this branch."""
        lost = 0
        for number in self._open:
            if not self._live[number]:
                if self._schedule.held[number]:
                    return 1 << 30
                lost += self._schedule.items[number].weight
        return lost

    def _next(self) -> int | None:
        left = [
            (len(self._live[each]), self._schedule.items[each].start_s, each)
            for each in self._open
            if self._live[each]
        ]
        return min(left)[2] if left else None

    def _values(self, number: int) -> list[int]:
        home = self._schedule.items[number].home
        seen: set[tuple[object, ...]] = set()
        values = []
        for host in sorted(
            self._live[number], key=lambda each: (each != home, self._placed_on[each] == 0, each)
        ):
            if not self._placed_on[host]:
                if self._alike[host] in seen:
                    continue
                seen.add(self._alike[host])
            values.append(host)
        return values

    def _try(self, number: int, host: int, lost: int, moved: int) -> None:
        schedule = self._schedule
        schedule.place(number, host)
        self._placed_on[host] += 1
        removed = []
        for other in self._beside[number]:
            if other in self._open and host in self._live[other] and not schedule.fits(other, host):
                self._live[other].remove(host)
                removed.append(other)
        try:
            self._branch(lost, moved + self._move_cost(number, host))
        finally:
            for other in removed:
                self._live[other].add(host)
            self._placed_on[host] -= 1
            schedule.take_away(number)

    def _lose(self, number: int, lost: int, moved: int) -> None:
        """Leaves the item and all undecided ones that are like it without a host."""
        gone = [number, *(twin for twin in self._twins[number] if twin in self._open)]
        saved = {each: self._live[each] for each in gone}
        self._open.difference_update(gone)
        self._branch(lost + sum(self._schedule.items[each].weight for each in gone), moved)
        self._open.update(gone[1:])
        self._live.update(saved)
