"""The fewest missing units by HiGHS, an independent solver, from the records alone."""

from __future__ import annotations

from collections import defaultdict

import highspy

from homeostat.contracts.nouns import HostId
from homeostat.leases.planner import PlanRequest, PlanUnit


class Judge:
    """An integer program: one binary for each unit and host that it may have. Solved to proven optimality."""

    def __init__(self, request: PlanRequest) -> None:
        self._request = request
        self._sizes = {each.id: (each.vcpus, each.memory_mb, each.disk_gb) for each in request.hosts}
        self._model = highspy.Highs()
        self._model.silent()
        self._uses: dict[HostId, list[tuple[PlanUnit, object]]] = defaultdict(list)
        self._missing = []
        self._displaced = []
        for unit in request.units:
            self._add_unit(unit)
        for host, uses in self._uses.items():
            self._add_host(host, uses)
        self._add_groups()

    def fewest_missing(self) -> int | None:
        """None: not even those that have a host can all keep one."""
        if not self._missing:
            self._missing.append(self._model.addVariable(lb=0, ub=0))
        self._model.minimize(sum(self._missing))
        if self._model.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
            return None
        assert self._model.getModelStatus() == highspy.HighsModelStatus.kOptimal
        return round(self._model.getObjectiveValue())

    def fewest_displaced(self, missing: int) -> int:
        """Of all plans with so many missing units."""
        if not self._displaced:
            return 0
        self._model.addConstr(sum(self._missing) <= missing)
        self._model.minimize(sum(self._displaced))
        assert self._model.getModelStatus() == highspy.HighsModelStatus.kOptimal
        return round(self._model.getObjectiveValue())

    def _add_unit(self, unit: PlanUnit) -> None:
        if unit.is_fixed:
            if unit.host in self._sizes:
                self._uses[unit.host].append((unit, 1))
            return
        placed = []
        is_home = unit.host in self._sizes and unit.host in unit.hosts
        for host in sorted(unit.hosts & self._sizes.keys()):
            use = self._model.addBinary()
            self._uses[host].append((unit, use))
            placed.append(use)
            if is_home and host != unit.host:
                self._displaced.append(use)
        if is_home:
            self._model.addConstr(sum(placed) == 1)
            return
        missing = self._model.addBinary()
        self._missing.append(missing)
        self._model.addConstr(sum(placed) + missing == 1)

    def _add_host(self, host: HostId, uses: list[tuple[PlanUnit, object]]) -> None:
        for moment in {unit.start_s for unit, _ in uses}:
            alive = [
                (unit, use)
                for unit, use in uses
                if unit.start_s <= moment < unit.end_s + self._request.cleaning_s
            ]
            whole = [use for unit, use in alive if unit.demand is None]
            shares = [(unit.demand, use) for unit, use in alive if unit.demand is not None]
            self._at_most(whole, 1)
            for _, use in shares if whole else ():
                self._at_most([*whole, use], 1)
            for kind in range(3):
                self._at_most([demand[kind] * use for demand, use in shares], self._sizes[host][kind])

    def _at_most(self, terms: list[object], limit: int) -> None:
        numbers = sum(term for term in terms if isinstance(term, int))
        rest = [term for term in terms if not isinstance(term, int)]
        if rest:
            self._model.addConstr(sum(rest) <= limit - numbers)

    def _add_groups(self) -> None:
        groups: dict[tuple[str, bool], dict[HostId, list[object]]] = defaultdict(lambda: defaultdict(list))
        members: dict[str, int] = defaultdict(int)
        for unit in self._request.units:
            members[unit.reservation] += 1
        for host, uses in self._uses.items():
            for unit, use in uses:
                if unit.affinity is not None and unit.demand is not None:
                    groups[unit.reservation, unit.affinity][host].append(use)
        for (name, is_together), hosts in groups.items():
            for terms in hosts.values():
                if is_together:
                    self._all_or_none(terms, members[name])
                else:
                    self._at_most(terms, 1)

    def _all_or_none(self, terms: list[object], members: int) -> None:
        """Fixed members count: where one of them is elsewhere, none of the others may be here."""
        free = [term for term in terms if not isinstance(term, int)]
        for term in free if len(terms) < members else ():
            self._model.addConstr(term <= 0)
        for term in free[1:]:
            self._model.addConstr(free[0] - term == 0)
