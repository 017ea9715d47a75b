"""Places given items beside everything that has a place, or proves that this cannot be done. Exact.

Branches only over what is touched: an item that gets a host pushes out whom it clashes with, who must get
another host in turn; the rest stays where it is. Every lawful schedule can be reached so, which makes a
failed search a proof. Pigeonholes are seen by matching items to hosts at one moment. A budget limits how many
healthy units may be displaced: with budgets 0, 1, 2 ... the first success displaces fewest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from homeostat.leases.plans import SearchTime
from homeostat.leases.relocation import HostOrder
from homeostat.leases.schedule import NOWHERE, Schedule

_TIME_EVERY = 16
_MOST_LOCKED = 150
_MOST_SEEN = 150
"""Bounds of recursion; beyond them nothing is claimed."""


class GivenUp(Exception):
    """The steps or the time of a search are used up; nothing is proved."""


class Repair:
    """Searches on one schedule. A success changes it, anything else leaves it as it was."""

    def __init__(self, schedule: Schedule, order: HostOrder, time: SearchTime, most_steps: int) -> None:
        self._schedule = schedule
        self._order = order
        self._time = time
        self._most_steps = most_steps
        self._steps = 0
        self._budget: int | None = None
        self._displaced = 0
        self._locked: set[int] = set()
        self._pending: list[int] = []
        self._barred: set[tuple[int, int]] = set()

    def place_all(self, numbers: Iterable[int], budget: int | None = None) -> bool | None:
        """True: placed. False: proved impossible, within the budget. None: given up, nothing is known."""
        schedule = self._schedule
        before = schedule.snapshot()
        self._steps, self._budget, self._displaced = 0, budget, 0
        self._pending = [number for number in numbers if schedule.at[number] == NOWHERE]
        self._locked, self._barred = set(), set()
        try:
            if self._search():
                return True
        except GivenUp:
            schedule.restore(before)
            return None
        schedule.restore(before)
        return False

    def _search(self) -> bool:
        self._steps += 1
        if self._steps % _TIME_EVERY == 0 and (self._steps > self._most_steps or self._time.is_over):
            raise GivenUp
        if not self._pending:
            return True
        if len(self._locked) > _MOST_LOCKED:
            raise GivenUp
        choices = [(self._hosts_left(number), number) for number in self._pending]
        hosts, number = min(choices, key=lambda each: (len(each[0]), each[1]))
        if not hosts or self._is_crowded(number):
            return False
        self._pending.remove(number)
        self._locked.add(number)
        for host in self._ordered(number, hosts):
            if self._try(number, host):
                return True
        self._locked.remove(number)
        self._pending.append(number)
        return False

    def _hosts_left(self, number: int) -> list[int]:
        return [
            host
            for host in self._order.hosts(number)
            if (number, host) not in self._barred
            and self._schedule.fits_beside(number, host, self._is_settled)
        ]

    def _is_settled(self, number: int) -> bool:
        return number in self._locked or self._schedule.items[number].is_fixed

    def _ordered(self, number: int, hosts: list[int]) -> list[int]:
        """Fewest healthy units in the way first.

        Of empty hosts that are alike only one: the others change nothing.
        """
        schedule = self._schedule
        seen: set[tuple[object, ...]] = set()
        ranked = []
        for place, host in enumerate(hosts):
            if not schedule.on[host]:
                kind = schedule.kind(host)
                if kind in seen and not self._barred:
                    continue
                seen.add(kind)
                ranked.append((0, place, host))
                continue
            clashes = schedule.clashes(number, host)
            away = sum(schedule.items[other].weight for other in clashes if schedule.held[other])
            ranked.append((away if clashes else 0, place, host))
        return [host for _, _, host in sorted(ranked)]

    def _try(self, number: int, host: int) -> bool:
        schedule = self._schedule
        out = [other for other in schedule.clashes(number, host) if not self._is_settled(other)]
        displaced = self._displaced
        for other in out:
            self._push_out(other)
        schedule.place(number, host)
        if self._is_affordable() and self._make_room(number, host):
            return True
        schedule.take_away(number)
        for other in reversed(out):
            self._pull_back(other, host)
        self._displaced = displaced
        return False

    def _make_room(self, number: int, host: int) -> bool:
        """Pushes out instances until all demands fit, in every way that leaves different ones."""
        schedule = self._schedule
        crowd = schedule.overflow(number, host)
        if crowd is None:
            return self._search()
        stay: list[int] = []
        displaced = self._displaced
        for other in crowd:
            if self._is_settled(other):
                continue
            self._push_out(other)
            is_new = (other, host) not in self._barred
            self._barred.add((other, host))
            if self._is_affordable() and self._make_room(number, host):
                return True
            if is_new:
                self._barred.discard((other, host))
            self._pull_back(other, host)
            self._displaced = displaced
            self._locked.add(other)
            stay.append(other)
        self._locked.difference_update(stay)
        return False

    def _is_affordable(self) -> bool:
        return self._budget is None or self._displaced <= self._budget

    def _push_out(self, number: int) -> None:
        schedule = self._schedule
        if schedule.held[number] and schedule.at[number] == schedule.items[number].home:
            self._displaced += schedule.items[number].weight
        schedule.take_away(number)
        self._pending.append(number)

    def _pull_back(self, number: int, host: int) -> None:
        self._pending.remove(number)
        self._schedule.place(number, host)

    def _is_crowded(self, number: int) -> bool:
        """Whether at some moment more whole-host items need a place than hosts can give them."""
        item = self._schedule.items[number]
        if item.demand is not None:
            return False
        moments = {item.start_s}
        for other in self._pending:
            each = self._schedule.items[other]
            if each.demand is None and item.start_s < each.start_s < item.end_s:
                moments.add(each.start_s)
        for host in item.domain if len(item.domain) <= 64 else ():
            for other in self._schedule.on[host]:
                start = self._schedule.items[other].start_s
                if item.start_s < start < item.end_s:
                    moments.add(start)
        return any(self._overflows_at(moment) for moment in sorted(moments))

    def _overflows_at(self, moment: float) -> bool:
        schedule = self._schedule
        users: dict[int, int] = {}
        for number in self._pending:
            item = schedule.items[number]
            is_there = item.demand is None and item.start_s <= moment < item.end_s
            if is_there and not self._augment(number, moment, users, set()):
                return True
        return False

    def _augment(self, number: int, moment: float, users: dict[int, int], seen: set[int]) -> bool:
        """One more item on a host at that moment; `users` are the changes to who is where."""
        if len(seen) > _MOST_SEEN:
            return True
        later = []
        for host in self._order.hosts(number):
            if host in seen or (number, host) in self._barred:
                continue
            if not self._schedule.fits_beside(number, host, self._is_settled):
                continue
            seen.add(host)
            user = users[host] if host in users else self._whole_user(host, moment)
            if user is None:
                users[host] = number
                return True
            later.append((host, user))
        for host, user in later:
            if self._augment(user, moment, users, seen):
                users[host] = number
                return True
        return False

    def _whole_user(self, host: int, moment: float) -> int | None:
        for other in self._schedule.on[host]:
            item = self._schedule.items[other]
            if item.demand is None and item.start_s <= moment < item.end_s:
                return other
        return None


def fewest_displaced(repair: Repair, schedule: Schedule, numbers: Sequence[int], most: int) -> bool:
    """Places the items with all others starting at home, displacing fewest healthy units, fewer than `most`.

    Returns whether it is proved that nothing displaces fewer; the schedule changes only when fewer are.
    """
    before = schedule.snapshot()
    schedule.send_home()
    for budget in range(most):
        outcome = repair.place_all(numbers, budget)
        if outcome:
            return True
        if outcome is None:
            schedule.restore(before)
            return False
    schedule.restore(before)
    return True
