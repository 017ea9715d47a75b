"""The judge of a healing: whether a result is lawful, and the fewest missing units that any healing could leave.

The second is an integer program for HiGHS, written from the rules alone and sharing nothing with the planner:

    a host carries one whole-host unit at a time, or instances up to its capacity, never both
    what runs on a healthy host stays there; what ran on a failed one may go to any host that fits
    what has not started may change its hosts, never its time, and keeps as many as it has healthy ones
    affinity: True, all of a reservation on one host or none of it; False, each on another host
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import highspy
from heal_sites import Host, Reservation, Site, capacity

Places = dict[str, list[int]]
"""The hosts of each reservation; fewer than it has units: the others are missing."""


@dataclass(frozen=True, slots=True)
class Optimum:
    """The fewest missing units, proven."""

    missing: int
    wall_s: float


def missing(site: Site, places: Places) -> int:
    """Units that have no host."""
    return sum(len(each.hosts) - len(places[each.id]) for each in site.reservations)


def unlawful(site: Site, places: Places) -> str:
    """The first rule that a result breaks; empty when it breaks none."""
    by_id = {host.id: host for host in site.hosts}
    on: dict[int, list[Reservation]] = defaultdict(list)
    for each in site.reservations:
        broken = _broken_by(each, places[each.id], site, by_id)
        if broken:
            return f"{each.id}: {broken}"
        for host in places[each.id]:
            on[host].append(each)
    return next((said for host, units in on.items() if (said := _overbooked(by_id[host], units))), "")


def _broken_by(each: Reservation, found: list[int], site: Site, by_id: dict[int, Host]) -> str:
    """A rule about one reservation."""
    is_apart = each.demand is None or each.affinity is False
    stays = [host for host in each.hosts if host not in site.failed]
    if is_apart and len(set(found)) < len(found):
        return "one host twice"
    if each.affinity and len(set(found)) > 1:
        return "two hosts against its affinity"
    if each.runs and any(found.count(host) < stays.count(host) for host in stays):
        return "runs and was moved from a healthy host"
    if len(found) < len(stays):
        return "lost a healthy host"
    wrong = [host for host in found if host in site.failed or not each.fits(by_id[host])]
    return f"host {wrong[0]} has failed or does not fit" if wrong else ""


def _overbooked(host: Host, units: list[Reservation]) -> str:
    for at_s in {each.start_s for each in units}:
        now = [each for each in units if each.start_s <= at_s < each.end_s]
        whole = sum(each.demand is None for each in now)
        if whole and len(now) > 1:
            return f"host {host.id}: booked twice at {at_s} s ({now[0].id}, {now[1].id})"
        for of, have in enumerate(capacity(host)):
            if sum(each.demand[of] for each in now if each.demand) > have:
                return f"host {host.id}: more instances than it carries at {at_s} s"
    return ""


@dataclass
class _Program:
    """The integer program as it grows."""

    solver: highspy.Highs
    alive: list[Host]
    failed: list[int]
    on: dict[int, list[tuple[Reservation, object]]] = field(default_factory=lambda: defaultdict(list))
    """On each host, what may be there and how many units of it: a variable, or 1 for what stays."""
    placed: list[object] = field(default_factory=list)
    wanted: int = 0

    def add(self, each: Reservation) -> None:
        """A reservation: what stays, and variables for what may go elsewhere."""
        stay = [host for host in each.hosts if each.runs and host not in self.failed]
        move = [host for host in each.hosts if not each.runs or host in self.failed]
        for host in stay:
            self.on[host].append((each, 1))
        if not move:
            return
        self.wanted += len(move)
        fit = [host.id for host in self.alive if each.fits(host)]
        if each.affinity:
            fit = [host for host in fit if not stay or host == stay[0]]
            counts = {host: len(move) * self.solver.addBinary() for host in fit}
        elif each.demand is None or each.affinity is False:
            counts = {host: self.solver.addBinary() for host in fit if host not in stay}
        else:
            counts = {host: self.solver.addIntegral(lb=0, ub=len(move)) for host in fit}
        if not counts:
            return
        total = sum(counts.values())
        self.solver.addConstr(total <= len(move))
        self.solver.addConstr(total >= sum(host not in self.failed for host in move))
        for host, many in counts.items():
            self.on[host].append((each, many))
            self.placed.append(many)

    def bound(self, host: Host) -> None:
        """What a host carries at every moment at which something begins."""
        for at_s in {each.start_s for each, _ in self.on[host.id]}:
            now = [(each, many) for each, many in self.on[host.id] if each.start_s <= at_s < each.end_s]
            whole = sum(many for each, many in now if each.demand is None)
            self._at_most(whole, 1)
            slots = [(each.demand, many) for each, many in now if each.demand is not None]
            for of, have in enumerate(capacity(host)) if slots else ():
                self._at_most(sum(demand[of] * many for demand, many in slots) + have * whole, have)

    def _at_most(self, total: object, most: int) -> None:
        if not isinstance(total, int):  # a plain number: only what stays, which was lawful before
            self.solver.addConstr(total <= most)


def optimum(site: Site, time_s: float = 60.0) -> Optimum:
    """Solve it; raises SystemExit when HiGHS proves nothing in that time."""
    solver = highspy.Highs()
    solver.silent()
    solver.setOptionValue("time_limit", time_s)
    solver.setOptionValue("threads", 1)
    program = _Program(solver, [host for host in site.hosts if host.id not in site.failed], site.failed)
    for each in site.reservations:
        program.add(each)
    for host in program.alive:
        program.bound(host)
    if not program.placed:
        return Optimum(program.wanted, 0.0)
    solver.maximize(sum(program.placed))
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise SystemExit(f"bench: HiGHS did not prove a case: {solver.getModelStatus()}")
    return Optimum(program.wanted - round(solver.getObjectiveValue()), solver.getRunTime())
