"""Places an item, at need by giving others another host. Nobody loses a place without getting one: pure
search.

A chain (each step takes one item's place) is found breadth first, fewest displaced healthy items first; it is
complete where all windows share a moment. A tree (a step takes the place of several) is searched depth first
within a number of steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from homeostat.leases.plans import SearchTime
from homeostat.leases.schedule import NOWHERE, Schedule

_CHAIN_LOOKS = 2_000_000
_TREE_DEPTH = 4
_TREE_STEPS = 400


class HostOrder:
    """In which order hosts are tried: whole hosts take never allocated ones, instances take shared ones
    first.

    Among equals the host that fewest kinds of requirements can use comes first, so that a rare host is left.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._usefulness = [0] * len(schedule.hosts)
        # Domains are one tuple for each set of hosts (Schedule): told apart by identity, as they may be long.
        for domain in {
            id(d): d for d in (schedule.items[number].domain for number in schedule.needing)
        }.values():
            for host in domain:
                self._usefulness[host] += 1
        self._unused: dict[int, int] = {}
        self._ordered: dict[tuple[int, bool], tuple[int, ...]] = {}

    def hosts(self, number: int) -> tuple[int, ...]:
        item = self._schedule.items[number]
        key = (id(item.domain), item.demand is None)
        known = self._ordered.get(key)
        if known is None:
            known = self._ordered[key] = tuple(sorted(item.domain, key=lambda host: self._rank(host, key[1])))
        return known

    def unused(self, number: int) -> int:
        """How many of the item's hosts had nothing on them when the order was made; they come first."""
        key = id(self._schedule.items[number].domain)
        if key not in self._unused:
            domain = self._schedule.items[number].domain
            self._unused[key] = sum(not self._schedule.on[host] for host in domain)
        return self._unused[key]

    def _rank(self, host: int, is_whole: bool) -> tuple[int, int, int]:
        on = self._schedule.on[host]
        if is_whole:
            used = 1 if on else 0
        else:
            used = 0 if any(self._schedule.items[other].demand is not None for other in on) else 1
        return used, self._usefulness[host], host


class Relocation:
    """Finds places on one schedule. Each successful call changes it; a failed one leaves it as it was."""

    def __init__(
        self, schedule: Schedule, order: HostOrder, time: SearchTime, chain_looks: int = _CHAIN_LOOKS
    ) -> None:
        self._schedule = schedule
        self._order = order
        self._time = time
        self._chain_looks = chain_looks
        self._steps = 0

    def place_free(self, number: int) -> bool:
        """Puts the item on the first host where it fits as things are."""
        for host in self._order.hosts(number):
            if self._schedule.fits(number, host):
                self._schedule.place(number, host)
                return True
        return False

    def place_by_chain(self, number: int) -> bool:
        """Puts the item where one other makes room, which goes where one other makes room, and so on."""
        schedule = self._schedule
        came: dict[int, tuple[int, int]] = {number: (NOWHERE, NOWHERE)}
        queue = deque([number])
        looks = 0
        while queue:
            current = queue.popleft()
            if self._time.is_over or looks > self._chain_looks:
                return False
            hosts = self._order.hosts(current)
            looks += len(hosts)
            for host in hosts:
                if host == schedule.at[current]:
                    continue
                for gone in schedule.few_blockers(current, host):
                    if not gone:
                        if self._apply(current, host, came):
                            return True
                    elif len(gone) == 1 and gone[0] not in came:
                        came[gone[0]] = (current, host)
                        if schedule.held[gone[0]]:
                            queue.append(gone[0])
                        else:
                            queue.appendleft(gone[0])
        return False

    def _apply(self, last: int, host: int, came: dict[int, tuple[int, int]]) -> bool:
        schedule = self._schedule
        steps = [(last, host)]
        while came[steps[-1][0]][0] != NOWHERE:
            steps.append(came[steps[-1][0]])
        before = [(number, schedule.at[number]) for number, _ in steps]
        self._lift(number for number, _ in steps)
        for count, (number, target) in enumerate(steps):
            if not schedule.fits(number, target):
                self._lift(each for each, _ in steps[:count])
                for each, old in before:
                    if old != NOWHERE:
                        schedule.place(each, old)
                return False
            schedule.place(number, target)
        return True

    def _lift(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if self._schedule.at[number] != NOWHERE:
                self._schedule.take_away(number)

    def place_by_tree(self, number: int) -> bool:
        """Puts the item where several others make room, each of which is placed in turn."""
        self._steps = _TREE_STEPS
        trail: list[tuple[int, int]] = []
        if self._settle(number, _TREE_DEPTH, set(), trail):
            return True
        self._undo(trail, 0)
        return False

    def _settle(self, number: int, depth: int, locked: set[int], trail: list[tuple[int, int]]) -> bool:
        schedule = self._schedule
        self._steps -= 1
        if self._steps < 0 or self._time.is_over:
            return False
        for host in self._order.hosts(number):
            if schedule.fits(number, host):
                self._move(number, host, trail)
                return True
        if depth == 0:
            return False
        locked = locked | {number}
        for host, gone in self._choices(number, locked):
            mark = len(trail)
            for other in gone:
                self._move(other, NOWHERE, trail)
            self._move(number, host, trail)
            if all(self._settle(other, depth - 1, locked, trail) for other in gone):
                return True
            self._undo(trail, mark)
            if self._steps < 0:
                return False
        return False

    def _choices(self, number: int, locked: set[int]) -> list[tuple[int, tuple[int, ...]]]:
        schedule = self._schedule
        choices = [
            (host, gone)
            for host in self._order.hosts(number)
            for gone in schedule.blockers(number, host)
            if gone and locked.isdisjoint(gone)
        ]
        choices.sort(key=lambda each: (sum(schedule.held[other] for other in each[1]), len(each[1])))
        return choices

    def _move(self, number: int, host: int, trail: list[tuple[int, int]]) -> None:
        schedule = self._schedule
        trail.append((number, schedule.at[number]))
        if schedule.at[number] != NOWHERE:
            schedule.take_away(number)
        if host != NOWHERE:
            schedule.place(number, host)

    def _undo(self, trail: list[tuple[int, int]], mark: int) -> None:
        while len(trail) > mark:
            number, old = trail.pop()
            if self._schedule.at[number] != NOWHERE:
                self._schedule.take_away(number)
            if old != NOWHERE:
                self._schedule.place(number, old)
