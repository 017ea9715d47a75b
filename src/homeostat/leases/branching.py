"""Whether all items of a small part of a schedule can be placed together.

Exact: depth first, scarcest item first.

Every item of the part may get another host; each that is placed narrows the hosts of those beside it. Two
symmetries save time: empty hosts that are alike for everything that is searched, and items that are alike.
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
    """Places of all items, or None; when the search is complete, None is the proof that there are none."""

    places: dict[int, int] | None
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

    def __init__(
        self, schedule: Schedule, numbers: list[int], time: SearchTime, most_steps: int = _MOST_STEPS
    ) -> None:
        self._most_steps = most_steps
        self._schedule = schedule
        self._time = time
        self._numbers = numbers
        self._before = {number: schedule.at[number] for number in numbers}
        self._steps = 0
        self._found: dict[int, int] | None = None

    def all_placed(self) -> BranchResult:
        """Searches for a way to place every item."""
        schedule = self._schedule
        self._lift()
        self._prepare()
        is_complete = True
        try:
            self._branch()
        except OutOfTime:
            is_complete = False
        self._lift()
        for number, host in self._before.items():
            if host != NOWHERE:
                schedule.place(number, host)
        return BranchResult(self._found, is_complete)

    def _lift(self) -> None:
        for number in self._numbers:
            if self._schedule.at[number] != NOWHERE:
                self._schedule.take_away(number)

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
            kinds[schedule.item_kind(number)].append(number)
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

    def _host_kind(self, host: int, users: list[int]) -> tuple[object, ...]:
        items = self._schedule.items
        fixed = sorted(
            (items[each].start_s, items[each].end_s, items[each].demand or (), items[each].reservation)
            for each in self._schedule.on[host]
        )
        return self._schedule.sizes[host], tuple(users), tuple(fixed)

    def _branch(self) -> bool:
        self._steps += 1
        if self._steps % _TIME_EVERY == 0 and (self._steps > self._most_steps or self._time.is_over):
            raise OutOfTime
        if not self._open:
            self._found = {each: self._schedule.at[each] for each in self._numbers}
            return True
        items = self._schedule.items
        left, _, number = min((len(self._live[each]), items[each].start_s, each) for each in self._open)
        if not left:
            return False
        self._open.remove(number)
        barred: list[tuple[int, int]] = []
        for host in self._values(number):
            if self._try(number, host):
                return True
            for twin in self._twins[number]:
                if twin in self._open and host in self._live[twin]:
                    self._live[twin].remove(host)
                    barred.append((twin, host))
        for twin, host in barred:
            self._live[twin].add(host)
        self._open.add(number)
        return False

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

    def _try(self, number: int, host: int) -> bool:
        schedule = self._schedule
        schedule.place(number, host)
        self._placed_on[host] += 1
        removed = []
        for other in self._beside[number]:
            if other in self._open and host in self._live[other] and not schedule.fits(other, host):
                self._live[other].remove(host)
                removed.append(other)
        if self._branch():
            return True
        for other in removed:
            self._live[other].add(host)
        self._placed_on[host] -= 1
        schedule.take_away(number)
        return False
