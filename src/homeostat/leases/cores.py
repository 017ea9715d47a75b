"""The fewest items to leave without a host, from minimal sets that cannot all be placed.

A *core* is a set of items that no plan places together. Every plan leaves out at least one item of each core,
so a cheapest choice that hits all known cores is a bound for every plan; when the rest can be placed it is
the best plan. Each core that is found tightens the bound. Costs count units first and prefer, at equal
numbers, to leave out later starts, so the nearest starts are kept. Cores are also what an explanation names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from homeostat.leases.branching import Branching, related_items
from homeostat.leases.plans import SearchTime
from homeostat.leases.relocation import HostOrder
from homeostat.leases.repair import Repair
from homeostat.leases.schedule import NOWHERE, Schedule

_HITTING_STEPS = 20_000
_FIRST_STEPS = 30_000
_MOST_RELATED = 300


@dataclass(frozen=True, slots=True)
class CoreResult:
    """Units that every plan leaves out at least, and the cores that prove it."""

    at_least: int
    cores: tuple[frozenset[int], ...]


class CoreSearch:
    """One search on one schedule, which ends with the best places that were found."""

    def __init__(self, schedule: Schedule, order: HostOrder, time: SearchTime) -> None:
        self._schedule = schedule
        self._time = time
        self._repair = Repair(schedule, order, time, _FIRST_STEPS)
        self._related = related_items(schedule, schedule.needing, _MOST_RELATED)
        self._cores: list[frozenset[int]] = []
        ranked = sorted(schedule.needing, key=lambda each: (-schedule.items[each].start_s, -each))
        self._cost = {
            number: (schedule.items[number].weight << (len(ranked) + 1)) + (1 << rank)
            for rank, number in enumerate(ranked)
        }
        self._best = schedule.snapshot()
        self._best_cost = self._left_out(self._best)

    def run(self) -> CoreResult:
        schedule = self._schedule
        for number in [each for each in schedule.needing if schedule.at[each] == NOWHERE]:
            if self._time.is_over:
                break
            if not self._has_twin_core(number) and self._can_place([number]) is False:
                self._cores.append(frozenset({number}))
        at_least = 0
        while not self._time.is_over:
            hitting = self._cheapest_hitting()
            if hitting is None:
                break
            at_least = sum(schedule.items[each].weight for each in hitting)
            if sum(self._cost[each] for each in hitting) >= self._best_cost:
                break
            outcome = self._can_place([each for each in schedule.needing if each not in hitting])
            if outcome is not False:
                break
            self._cores.append(self._shrunk([each for each in schedule.needing if each not in hitting]))
        schedule.restore(self._best)
        return CoreResult(at_least, tuple(self._cores))

    def _has_twin_core(self, number: int) -> bool:
        """An item like one that cannot be placed cannot either; the core is added."""
        kind = self._schedule.item_kind(number)
        for core in self._cores:
            if len(core) == 1 and self._schedule.item_kind(next(iter(core))) == kind:
                self._cores.append(frozenset({number}))
                return True
        return False

    def _left_out(self, places: Sequence[int]) -> int:
        return sum(self._cost[number] for number in self._schedule.needing if places[number] == NOWHERE)

    def _can_place(self, numbers: Iterable[int]) -> bool | None:
        """Whether these of the needing items can be placed together; the best outcome is kept."""
        schedule = self._schedule
        wanted = set(numbers)
        schedule.restore(self._best)
        for number in schedule.needing:
            if number not in wanted and schedule.at[number] != NOWHERE:
                schedule.take_away(number)
        outcome = self._outcome(sorted(wanted))
        if outcome:
            places = schedule.snapshot()
            cost = self._left_out(places)
            if cost < self._best_cost:
                self._best, self._best_cost = places, cost
        return outcome

    def _outcome(self, wanted: list[int]) -> bool | None:
        schedule = self._schedule
        if self._related is None:
            return self._repair.place_all(wanted)
        numbers = [each for each in self._related if schedule.held[each] or each in wanted]
        result = Branching(schedule, numbers, self._time, _FIRST_STEPS).all_placed()
        if result.places is not None:
            places = schedule.snapshot()
            for number, host in result.places.items():
                places[number] = host
            schedule.restore(places)
            return True
        return False if result.is_complete else None

    def _shrunk(self, numbers: list[int]) -> frozenset[int]:
        """A smaller set that still cannot be placed: what can be left out is."""
        core = sorted(numbers, key=lambda each: (self._best[each] == NOWHERE, self._cost[each]))
        kept: list[int] = []
        while core:
            number = core.pop(0)
            if self._time.is_over or self._can_place([*kept, *core]) is not False:
                kept.append(number)
        return frozenset(kept)

    def _cheapest_hitting(self) -> set[int] | None:
        """The cheapest items of which every core has one; None: too many ways."""
        cores = sorted(self._cores, key=len)
        best: list[set[int]] = []
        best_cost = [sum(self._cost.values()) + 1]
        steps = [0]

        def branch(chosen: set[int], cost: int) -> None:
            steps[0] += 1
            if cost >= best_cost[0] or steps[0] > _HITTING_STEPS:
                return
            core = next((each for each in cores if chosen.isdisjoint(each)), None)
            if core is None:
                best_cost[0] = cost
                best[:] = [set(chosen)]
                return
            for number in sorted(core, key=self._cost.__getitem__):
                branch(chosen | {number}, cost + self._cost[number])

        branch(set(), 0)
        return best[0] if steps[0] <= _HITTING_STEPS else None
