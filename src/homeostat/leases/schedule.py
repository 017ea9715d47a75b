"""The schedule of a planning problem: which item is on which host, who stands in whose way, and how to undo.

An *item* is what gets a place as a whole: a unit, or all instances of a reservation with affinity. The
schedule is the only mutable part of the planner. Invariant: no two items of a host overlap, but for instances
whose demands fit beside each other at every moment. Cleaning time is part of an item's end: two windows of
different reservations then keep that distance whichever comes first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from homeostat.contracts.nouns import HostId
from homeostat.leases.plans import Demand, PlanRequest, PlanUnit

NOWHERE = -1
_NOTHING: Demand = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Item:
    """One or more units that are placed together. Hosts are indices into the schedule."""

    units: tuple[int, ...]
    reservation: str
    start_s: float
    end_s: float
    demand: Demand | None
    domain: tuple[int, ...]
    home: int
    """The present host where it may stay; NOWHERE: it needs a host."""
    is_fixed: bool
    is_spread: bool
    is_running: bool

    @property
    def weight(self) -> int:
        return len(self.units)


class Schedule:
    """Items on hosts. Built from a request with every item at home; those that need a host are nowhere."""

    def __init__(self, request: PlanRequest) -> None:
        self.hosts = request.hosts
        self.units = list(request.units)
        self.sizes: list[Demand] = [(each.vcpus, each.memory_mb, each.disk_gb) for each in request.hosts]
        self.index = {each.id: number for number, each in enumerate(request.hosts)}
        self.on: list[list[int]] = [[] for _ in request.hosts]
        self.items: list[Item] = []
        self.needing: list[int] = []
        self._kinds: list[tuple[object, ...]] = []
        self._outages: list[int] = []
        self._domains: dict[frozenset[HostId], tuple[int, ...]] = {}
        self._cleaning_s = request.cleaning_s
        self.items += self._grouped(range(len(self.units)))
        self.at: list[int] = [NOWHERE] * len(self.items)
        order = sorted(
            range(len(self.items)), key=lambda i: (not self.items[i].is_fixed, self.items[i].start_s)
        )
        for number in order:
            item = self.items[number]
            if item.is_fixed:
                if item.home != NOWHERE:
                    self.place(number, item.home)
            elif item.home != NOWHERE and self.fits(number, item.home):
                self.place(number, item.home)
            else:
                self.needing.append(number)
        self.held = [place != NOWHERE for place in self.at]

    def add(self, units: Sequence[PlanUnit]) -> list[int]:
        """Adds all units of a reservation, at home where that is free; returns the items' numbers."""
        first = len(self.units)
        self.units += units
        added = []
        for item in self._grouped(range(first, len(self.units))):
            number = len(self.items)
            self.items.append(item)
            self.at.append(NOWHERE)
            self.held.append(item.home != NOWHERE and self.fits(number, item.home))
            if self.held[-1]:
                self.place(number, item.home)
            added.append(number)
        return added

    def _grouped(self, numbers: Iterable[int]) -> Iterable[Item]:
        together: dict[str, list[int]] = {}
        anchors: dict[str, HostId] = {}
        for number in numbers:
            unit = self.units[number]
            if unit.is_fixed:
                if unit.host is None:
                    raise ValueError(f"unit {unit.key}: is_fixed without a host; a fixed unit names its host")
                if unit.affinity and unit.demand is not None:
                    anchors[unit.reservation] = unit.host
            elif unit.affinity and unit.demand is not None:
                together.setdefault(unit.reservation, []).append(number)
                continue
            yield self._item([number], None)
        for reservation, members in together.items():
            yield self._item(members, anchors.get(reservation))

    def _item(self, numbers: Sequence[int], anchor: HostId | None) -> Item:
        units = [self.units[number] for number in numbers]
        first = units[0]
        allowed = first.hosts
        for unit in units[1:]:
            if unit.hosts is not allowed:
                allowed = allowed & unit.hosts
        if anchor is not None:
            allowed = allowed & {anchor}
        domain = self._domains.get(allowed)
        if domain is None:
            domain = tuple(sorted(self.index[each] for each in allowed if each in self.index))
            self._domains[allowed] = domain
        return Item(
            tuple(numbers),
            first.reservation,
            first.start_s,
            first.end_s + self._cleaning_s,
            _summed(units),
            domain,
            self._home(units, allowed),
            first.is_fixed,
            first.affinity is False and first.demand is not None,
            any(unit.is_running for unit in units),
        )

    def _home(self, units: Sequence[PlanUnit], allowed: frozenset[HostId]) -> int:
        host = units[0].host
        if host is None or any(unit.host != host for unit in units):
            return NOWHERE
        if not units[0].is_fixed and host not in allowed:
            return NOWHERE
        return self.index.get(host, NOWHERE)

    def close(self, host: int) -> int:
        """Keeps everything that comes later away from the host; returns the item to take away to open it
        again.
        """
        if self._outages:
            number = self._outages.pop()
        else:
            number = len(self.items)
            self.items.append(Item((), "", -math.inf, math.inf, None, (), NOWHERE, True, False, False))
            self.at.append(NOWHERE)
            self.held.append(False)
        self.place(number, host)
        return number

    def reopen(self, number: int) -> None:
        self.take_away(number)
        self._outages.append(number)

    def place(self, number: int, host: int) -> None:
        self.at[number] = host
        self.on[host].append(number)

    def take_away(self, number: int) -> None:
        self.on[self.at[number]].remove(number)
        self.at[number] = NOWHERE

    def fits(self, number: int, host: int) -> bool:
        """Whether the item can be put there as things are. Says nothing of its domain."""
        on = self.on[host]
        item = self.items[number]
        if item.demand is None:
            start, end = item.start_s, item.end_s
            for other in on:
                each = self.items[other]
                if each.start_s < end and start < each.end_s:
                    return False
            return True
        beside = self._beside(item, on)
        if any(self._excludes(item, self.items[other]) for other in beside):
            return False
        return self._has_room(item, host, beside)

    def clashes(self, number: int, host: int) -> list[int]:
        """Items of the host beside which this one can never be, whatever the room."""
        item = self.items[number]
        beside = self._beside(item, self.on[host])
        if item.demand is None:
            return beside
        return [other for other in beside if self._excludes(item, self.items[other])]

    def fits_beside(self, number: int, host: int, counts: Callable[[int], bool]) -> bool:
        """Whether the item can be there with only those others that count."""
        item = self.items[number]
        beside = [other for other in self._beside(item, self.on[host]) if counts(other)]
        if item.demand is None:
            return not beside
        if any(self._excludes(item, self.items[other]) for other in beside):
            return False
        return self._has_room(item, host, beside)

    def overflow(self, number: int, host: int) -> list[int] | None:
        """Where the item is: the others at a moment at which the demands do not fit; None: they always do."""
        item = self.items[number]
        if item.demand is None:
            return None
        beside = [other for other in self._beside(item, self.on[host]) if other != number]
        moments = {item.start_s, *(self.items[other].start_s for other in beside)}
        for moment in sorted(each for each in moments if each >= item.start_s):
            crowd = [each for each in beside if self.items[each].start_s <= moment < self.items[each].end_s]
            demands = [item.demand, *(self.items[each].demand or _NOTHING for each in crowd)]
            total = [sum(each[kind] for each in demands) for kind in range(3)]
            if any(used > have for used, have in zip(total, self.sizes[host], strict=True)):
                return crowd
        return None

    def kind(self, host: int) -> tuple[object, ...]:
        """Equal for hosts that differ in nothing but what is on them."""
        if not self._kinds:
            members: list[list[int]] = [[] for _ in self.hosts]
            for name, domain in enumerate(self._domains.values()):
                for each in domain:
                    members[each].append(name)
            self._kinds = [(size, tuple(names)) for size, names in zip(self.sizes, members, strict=True)]
        return self._kinds[host]

    def item_kind(self, number: int) -> tuple[object, ...]:
        """Equal for items that can take each other's place."""
        item = self.items[number]
        spread = item.reservation if item.is_spread else None
        return item.start_s, item.end_s, item.demand, id(item.domain), item.weight, spread

    def snapshot(self) -> list[int]:
        return list(self.at)

    def restore(self, places: Sequence[int]) -> None:
        """Everything is where it was when the snapshot was taken."""
        changed = [
            number for number, (now, old) in enumerate(zip(self.at, places, strict=True)) if now != old
        ]
        for number in changed:
            if self.at[number] != NOWHERE:
                self.take_away(number)
        for number in changed:
            if places[number] != NOWHERE:
                self.place(number, places[number])

    def send_home(self) -> None:
        """Healthy items go to their homes; those that needed a host lose theirs."""
        self.restore(
            [item.home if held else NOWHERE for item, held in zip(self.items, self.held, strict=True)]
        )

    def few_blockers(self, number: int, host: int) -> list[tuple[int, ...]]:
        """As `blockers`, but for a whole host only a set of at most one: all that a chain needs."""
        item = self.items[number]
        if item.demand is not None:
            return self.blockers(number, host)
        start, end, items = item.start_s, item.end_s, self.items
        found = NOWHERE
        for other in self.on[host]:
            each = items[other]
            if each.start_s < end and start < each.end_s:
                if found != NOWHERE or each.is_fixed:
                    return []
                found = other
        return [()] if found == NOWHERE else [(found,)]

    def blockers(self, number: int, host: int) -> list[tuple[int, ...]]:
        """Sets of items, each of which leaves room for the item when it is taken away; none: fixed items are
        in the way.

        For a whole host there is one such set. Beside instances the smallest few are offered, not all.
        """
        item = self.items[number]
        beside = self._beside(item, self.on[host])
        if item.demand is None:
            return [] if any(self.items[other].is_fixed for other in beside) else [tuple(beside)]
        must = [other for other in beside if self._excludes(item, self.items[other])]
        if any(self.items[other].is_fixed for other in must):
            return []
        rest = [other for other in beside if other not in must]
        if self._has_room(item, host, rest):
            return [tuple(must)]
        movable = [other for other in rest if not self.items[other].is_fixed]
        singles = [
            other for other in movable if self._has_room(item, host, [each for each in rest if each != other])
        ]
        if singles:
            return [(*must, other) for other in singles]
        largest = sorted(movable, key=lambda other: self.items[other].demand or _NOTHING, reverse=True)
        gone: list[int] = []
        for other in largest:
            gone.append(other)
            if self._has_room(item, host, [each for each in rest if each not in gone]):
                return [(*must, *gone)]
        return []

    def _beside(self, item: Item, on: Iterable[int]) -> list[int]:
        start, end, items = item.start_s, item.end_s, self.items
        return [other for other in on if items[other].start_s < end and start < items[other].end_s]

    @staticmethod
    def _excludes(item: Item, other: Item) -> bool:
        if other.demand is None:
            return True
        return item.is_spread and other.reservation == item.reservation

    def _has_room(self, item: Item, host: int, beside: Sequence[int]) -> bool:
        """Whether the demands fit at every moment: use only grows where a window starts."""
        vcpus, memory_mb, disk_gb = self.sizes[host]
        want = item.demand or _NOTHING
        if want[0] > vcpus or want[1] > memory_mb or want[2] > disk_gb:
            return False
        others = [self.items[other] for other in beside]
        moments = {item.start_s}
        moments.update(each.start_s for each in others if each.start_s > item.start_s)
        for moment in moments:
            used = list(want)
            for each in others:
                if each.start_s <= moment < each.end_s:
                    demand = each.demand or _NOTHING
                    used[0] += demand[0]
                    used[1] += demand[1]
                    used[2] += demand[2]
            if used[0] > vcpus or used[1] > memory_mb or used[2] > disk_gb:
                return False
        return True


def _summed(units: Sequence[PlanUnit]) -> Demand | None:
    demands = [unit.demand for unit in units if unit.demand is not None]
    if not demands:
        return None
    return (
        sum(each[0] for each in demands),
        sum(each[1] for each in demands),
        sum(each[2] for each in demands),
    )
