"""The N-1 survey: for each host, what would become of its reservations if it failed now, before it does.

A reservation is *safe* when for each of its hosts a plan is known that gives all its units there another
host; that plan is kept as a witness and checked again after every change. Otherwise it is *at risk*, with the
reason. Running and busy units count as well: when their host dies there is nothing left to keep. A search is
bounded, so *at risk* without `is_proved` means that no replacement was found; *safe* is never claimed without
a witness.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from homeostat.contracts.nouns import HostId
from homeostat.leases.moments import shown
from homeostat.leases.plans import PlanRequest, PlanUnit, SearchTime, UnitKey
from homeostat.leases.relocation import HostOrder, Relocation
from homeostat.leases.repair import Repair
from homeostat.leases.schedule import NOWHERE, Schedule

_CHAIN_LOOKS = 1_500
_REPAIR_STEPS = 64
_REPAIR_HOSTS = 40
"""Where more hosts could serve, only chains are tried: exact searches of 1,000 hosts take too long."""
_NAMED = 3


@dataclass(frozen=True, slots=True)
class HostFailure:
    """What a plan does if one host fails: the new places of units, and the units that get none with the
    reason.
    """

    host: HostId
    places: Mapping[UnitKey, HostId]
    stranded: Mapping[UnitKey, str]
    is_proved: bool
    """That not all units of the host can be placed."""


@dataclass(frozen=True, slots=True)
class ReservationRisk:
    """One row of the table. `hosts` are those whose failure would leave a unit of it without a host."""

    reservation: str
    is_safe: bool
    hosts: tuple[HostId, ...]
    reason: str


class Survey:
    """The table of a snapshot, kept up to date by changes.

    `time_s` of the request caps a pass over all hosts.
    """

    def __init__(self, request: PlanRequest, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._time_s = request.time_s
        self._schedule = Schedule(dataclasses.replace(request, units=tuple(map(_movable, request.units))))
        self._order = HostOrder(self._schedule)
        self._items: dict[str, list[int]] = defaultdict(list)
        self._pinned: dict[UnitKey, bool] = {unit.key: unit.is_fixed for unit in request.units}
        for number in range(len(self._schedule.items)):
            self._enter(number)
        self._witness: dict[int, list[tuple[int, int]]] = {}
        self._failures: dict[int, HostFailure] = {}
        self._stranded: dict[int, list[int]] = {}
        self.unreviewed: set[HostId] = set()
        """Hosts whose failure strands somebody and whom a change elsewhere may help by a longer chain of
        moves.
        """
        self.stale: set[HostId] = {each.id for each in request.hosts}
        """Hosts whose failure is still to be looked at; their reservations count as at risk."""
        self.refresh()

    def refresh(self) -> None:
        """Looks at hosts that are stale, until the time is over."""
        time = SearchTime(self._clock, self._time_s)
        for host in sorted(self.stale):
            if time.is_over:
                return
            self._examine(self._schedule.index[host], time)
            self.stale.discard(host)

    def review(self) -> None:
        """Looks again at hosts whose stranded units a change elsewhere may help; for quiet times."""
        self.stale |= self.unreviewed
        self.unreviewed.clear()
        self.refresh()

    def failure(self, host: HostId) -> HostFailure | None:
        """What would happen if the host failed; None: not looked at, or not a reservable host."""
        return self._failures.get(self._schedule.index.get(host, NOWHERE))

    def risks(self) -> list[ReservationRisk]:
        """All reservations, by name."""
        return [self.risk(reservation) for reservation in sorted(self._items)]

    def risk(self, reservation: str) -> ReservationRisk:
        """Raises KeyError when the survey has no such reservation."""
        schedule = self._schedule
        if reservation not in self._items:
            raise KeyError(reservation)
        hosts: dict[HostId, str] = {}
        for number in self._items[reservation]:
            at = schedule.at[number]
            if at == NOWHERE:
                return ReservationRisk(reservation, False, (), "A unit of it has no host already now.")
            failure = self._failures.get(at)
            name = schedule.hosts[at].id
            if failure is None:
                hosts[name] = f"The failure of {name} is not looked at yet."
                continue
            for unit in schedule.items[number].units:
                if (reason := failure.stranded.get(schedule.units[unit].key)) is not None:
                    hosts[name] = f"If {name} fails, {reason}"
        if hosts:
            return ReservationRisk(reservation, False, tuple(hosts), next(iter(hosts.values())))
        return ReservationRisk(reservation, True, (), "Each of its hosts can be replaced.")

    def units(self) -> list[PlanUnit]:
        """All units as the survey knows them now."""
        schedule = self._schedule
        numbers = (
            index for items in self._items.values() for each in items for index in schedule.items[each].units
        )
        units = [schedule.units[index] for index in numbers]
        return [dataclasses.replace(unit, is_fixed=self._pinned[unit.key]) for unit in units]

    def change(self, reservation: str, units: Sequence[PlanUnit]) -> None:
        """The reservation has these units now; none: it has ended. Looks again at what that touches.

        A failure that was survived is looked at again when its witness breaks; one that was not, when a
        stranded unit can go where something changed. What does not fit into the time stays in `stale`, the
        rest of those at risk in `unreviewed`: *safe* is always checked at once, *at risk* may be too careful
        until `review`.
        """
        schedule = self._schedule
        touched: set[int] = set()
        for number in self._items.pop(reservation, []):
            if schedule.at[number] != NOWHERE:
                touched.add(schedule.at[number])
                schedule.take_away(number)
        self._pinned.update((unit.key, unit.is_fixed) for unit in units)
        for number in schedule.add([_movable(unit) for unit in units]):
            self._enter(number)
            if schedule.at[number] != NOWHERE:
                touched.add(schedule.at[number])
        self.stale |= {schedule.hosts[host].id for host in self._affected(touched)}
        self.refresh()

    def _enter(self, number: int) -> None:
        """An item with a fixed unit stays, but for the failure of its own host."""
        schedule = self._schedule
        item = schedule.items[number]
        self._items[item.reservation].append(number)
        if any(self._pinned[schedule.units[unit].key] for unit in item.units):
            schedule.items[number] = dataclasses.replace(item, is_fixed=True)

    def _affected(self, touched: set[int]) -> Iterable[int]:
        """Hosts whose failure must be looked at again; where it is enough, the known witness is mended."""
        for host, failure in list(self._failures.items()):
            uses = failure.stranded or any(target in touched for _, target in self._witness[host])
            if host in touched or (uses and not self._mend(host, touched)):
                yield host

    def _mend(self, host: int, touched: set[int]) -> bool:
        """Plays the witness again, what was stranded going where something changed; False: cannot be mended.

        What lost its place there gets a free one or is stranded, until `review` looks for longer ways.
        """
        schedule = self._schedule
        ended = [number for number, _ in self._witness[host] if schedule.at[number] == NOWHERE]
        witness = [each for each in self._witness[host] if each[0] not in ended]
        stranded = self._stranded[host]
        lifted = [*(number for number, _ in witness), *stranded]
        before = [schedule.at[number] for number in lifted]
        self._lift(lifted)
        outage = schedule.close(host)
        homeless = [number for number, target in witness if not self._put(number, target)]
        homeless = [number for number in homeless if not self._place_free(number, host)]
        homes = dict(zip(lifted, before, strict=True))
        can_mend = all(homes[number] == host for number in homeless)
        rescued = [] if homeless else [number for number in stranded if self._rescue(number, touched)]
        left = [*homeless, *(number for number in stranded if number not in rescued)]
        placed = [(number, schedule.at[number]) for number in lifted if schedule.at[number] != NOWHERE]
        if can_mend and (placed != witness or homeless or ended):
            self._record(host, placed, left, False)
        self._lift(number for number, _ in placed)
        schedule.reopen(outage)
        for number, at in zip(lifted, before, strict=True):
            if at != NOWHERE:
                schedule.place(number, at)
        if left:
            self.unreviewed.add(schedule.hosts[host].id)
        return can_mend

    def _put(self, number: int, target: int) -> bool:
        fits = self._schedule.fits(number, target)
        if fits:
            self._schedule.place(number, target)
        return fits

    def _rescue(self, number: int, touched: set[int]) -> bool:
        schedule = self._schedule
        allowed = schedule.units[schedule.items[number].units[0]].hosts
        targets = [target for target in sorted(touched) if schedule.hosts[target].id in allowed]
        return any(self._put(number, target) for target in targets)

    def _lift(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if self._schedule.at[number] != NOWHERE:
                self._schedule.take_away(number)

    def _record(self, host: int, witness: list[tuple[int, int]], left: list[int], is_proved: bool) -> None:
        """Keeps the outcome, while the schedule is as it would be after the failure."""
        schedule = self._schedule
        name = schedule.hosts[host].id
        places = {key: schedule.hosts[at].id for number, at in witness for key in self._keys(number)}
        stranded = {key: self._reason(number, host) for number in left for key in self._keys(number)}
        self._witness[host], self._stranded[host] = witness, left
        self._failures[host] = HostFailure(name, places, stranded, is_proved)

    def _examine(self, host: int, time: SearchTime) -> None:
        """Takes the host away, places what was on it, and puts everything back."""
        schedule = self._schedule
        before = schedule.snapshot()
        out = sorted(schedule.on[host], key=lambda each: (schedule.items[each].start_s, each))
        for number in out:
            schedule.take_away(number)
        outage = schedule.close(host)
        relocation = Relocation(schedule, self._order, time, _CHAIN_LOOKS)
        crowded = [number for number in out if not self._place_free(number, host)]
        crowded = [number for number in crowded if not relocation.place_by_chain(number)]
        outcome: bool | None = None if crowded else True
        if crowded and all(len(schedule.items[number].domain) <= _REPAIR_HOSTS for number in crowded):
            outcome = Repair(schedule, self._order, time, _REPAIR_STEPS).place_all(crowded)
        changed = [
            (number, now)
            for number, (now, old) in enumerate(zip(schedule.at, before, strict=False))
            if now not in (old, NOWHERE) and number != outage
        ]
        left = [number for number in crowded if schedule.at[number] == NOWHERE]
        self._record(host, changed, left, outcome is False)
        self.unreviewed.discard(schedule.hosts[host].id)
        schedule.reopen(outage)
        schedule.restore([*before, *[NOWHERE] * (len(schedule.at) - len(before))])

    def _keys(self, number: int) -> list[UnitKey]:
        return [self._schedule.units[unit].key for unit in self._schedule.items[number].units]

    def _place_free(self, number: int, failed: int) -> bool:
        """As the planner, but each failed host begins elsewhere: a change then breaks few witnesses."""
        schedule = self._schedule
        hosts = self._order.hosts(number)
        first = failed * 7 % self._order.unused(number) if self._order.unused(number) else 0
        for places in (range(first, len(hosts)), range(first)):
            for place in places:
                if schedule.fits(number, hosts[place]):
                    schedule.place(number, hosts[place])
                    return True
        return False

    def _reason(self, number: int, failed: int) -> str:
        """Who has the hosts that the item could use, in words."""
        schedule = self._schedule
        item = schedule.items[number]
        window = f"from {shown(item.start_s)} to {shown(schedule.units[item.units[0]].end_s)}"
        others = [host for host in item.domain if host != failed]
        what = f"{item.reservation} finds no host {window}"
        if not others:
            return f"{what}: no other host satisfies its requirements."
        named = []
        for host in others[:_NAMED]:
            users = sorted(
                {schedule.items[each].reservation for each in schedule.on[host] if self._meets(number, each)}
            )
            named.append(f"{schedule.hosts[host].id} has {', '.join(users) or 'too little room'}")
        more = f", and {len(others) - _NAMED} hosts more" if len(others) > _NAMED else ""
        return f"{what}: {'; '.join(named)}{more}."

    def _meets(self, number: int, other: int) -> bool:
        item, each = self._schedule.items[number], self._schedule.items[other]
        return each.start_s < item.end_s and item.start_s < each.end_s


def _movable(unit: PlanUnit) -> PlanUnit:
    """Instances with affinity form one item again, whatever of them is fixed: their host fails for all of
    them.
    """
    return dataclasses.replace(unit, is_fixed=False) if unit.affinity and unit.demand is not None else unit
