"""Why a reservation has units without a host, and the smallest change that would give them one. Pure.

A change is one host more like an existing one, one reservation that ends whole hours earlier, or fewer units
of the reservation itself. Its size is counted in host hours: a host more counts for the reservation's window,
a shorter reservation for its hours times its units, fewer units for their whole window. A change heals when
all units of the reservation get a host while everything that has one keeps one; others that are missing are
left out. Candidates are tried from the smallest; `is_smallest_proved` says that each smaller one was proved
not to do.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from homeostat.contracts.nouns import HostId
from homeostat.leases.moments import hours, shown
from homeostat.leases.plans import PlanHost, PlanRequest, PlanUnit, SearchTime, UnitKey
from homeostat.leases.relocation import HostOrder, Relocation
from homeostat.leases.repair import Repair
from homeostat.leases.schedule import Schedule

_HOUR_S = 3600.0
_STEPS = 20_000
_MOST_HOSTS_MORE = 8
_SPARE = "spare-{}"


@dataclass(frozen=True, slots=True)
class HostsMore:
    """So many hosts more that are like this one: same size, same properties."""

    like: HostId
    count: int
    size_h: float

    @property
    def sentence(self) -> str:
        what = "One host more" if self.count == 1 else f"{self.count} hosts more"
        return f"{what} like {self.like} would heal it."


@dataclass(frozen=True, slots=True)
class EarlierEnd:
    """The reservation ends so many whole hours earlier."""

    reservation: str
    hours: int
    size_h: float
    end_s: float

    @property
    def sentence(self) -> str:
        return (
            f"Ending {self.reservation} {hours(self.hours)} earlier, at {shown(self.end_s)}, would heal it."
        )


@dataclass(frozen=True, slots=True)
class FewerUnits:
    """The reservation's minimum is lowered by so many units."""

    reservation: str
    count: int
    size_h: float

    @property
    def sentence(self) -> str:
        return f"Lowering the minimum of {self.reservation} by {self.count} would heal it."


Change = HostsMore | EarlierEnd | FewerUnits


@dataclass(frozen=True, slots=True)
class Competitor:
    """A reservation that has a host which the explained one could use, within its window."""

    reservation: str
    host: HostId
    start_s: float
    end_s: float
    is_fixed: bool

    @property
    def sentence(self) -> str:
        stays = " and cannot move" if self.is_fixed else ""
        window = f"from {shown(self.start_s)} to {shown(self.end_s)}"
        return f"{self.host} is reserved by {self.reservation} {window}{stays}."


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is missing, who is in the way, and what would help.

    `change` is None when nothing that was tried does.
    """

    reservation: str
    missing: int
    competitors: tuple[Competitor, ...]
    change: Change | None
    is_smallest_proved: bool
    sentences: tuple[str, ...]


def explain(request: PlanRequest, reservation: str, now_s: float, clock: Callable[[], float]) -> Explanation:
    """Explains why units of the reservation have no host, in the situation that the request describes.

    `now_s` is the UTC time: nothing ends before it. `time_s` of the request caps the search for a change.
    Raises ValueError when the request has no such reservation, or when none of its units lacks a host.
    """
    mine = [unit for unit in request.units if unit.reservation == reservation]
    if not mine:
        raise ValueError(f"reservation {reservation}: not in the request")
    lacking = [unit for unit in mine if not _has_host(request, unit)]
    if not lacking:
        raise ValueError(f"reservation {reservation}: none of its units lacks a host")
    others = [unit for unit in request.units if unit.reservation == reservation or _has_host(request, unit)]
    alone = dataclasses.replace(request, units=tuple(others))
    competitors = tuple(_competitors(alone, lacking))
    change, is_proved = _smallest_change(
        alone, reservation, lacking, now_s, SearchTime(clock, request.time_s)
    )
    return Explanation(
        reservation,
        len(lacking),
        competitors,
        change,
        is_proved,
        tuple(_sentences(alone, lacking, competitors, change, is_proved)),
    )


def applied(request: PlanRequest, change: Change) -> PlanRequest:
    """The request after the change.

    A host more is named `spare-1` and so on, and suits whom its model suits.
    """
    match change:
        case HostsMore():
            return _with_hosts(request, change)
        case EarlierEnd():
            units = [
                dataclasses.replace(unit, end_s=change.end_s)
                if unit.reservation == change.reservation
                else unit
                for unit in request.units
            ]
            return dataclasses.replace(request, units=tuple(units))
        case FewerUnits():
            lacking = [
                unit.key
                for unit in request.units
                if unit.reservation == change.reservation and not _has_host(request, unit)
            ]
            gone = set(lacking[-change.count :])
            return dataclasses.replace(
                request, units=tuple(unit for unit in request.units if unit.key not in gone)
            )


def candidates(request: PlanRequest, reservation: str, now_s: float) -> list[Change]:
    """All changes that are considered, smallest first; ties in the order hosts, ends, units, then by name."""
    lacking = [
        unit for unit in request.units if unit.reservation == reservation and not _has_host(request, unit)
    ]
    span_h = _hours_up(lacking[0].end_s - max(now_s, lacking[0].start_s))
    changes: list[Change] = [
        FewerUnits(reservation, count, float(count * span_h)) for count in range(1, len(lacking) + 1)
    ]
    for host in _models(request):
        changes += [
            HostsMore(host.id, count, float(count * span_h))
            for count in range(1, min(len(lacking), _MOST_HOSTS_MORE) + 1)
        ]
    changes += _earlier_ends(request, now_s)
    rank = {HostsMore: 0, EarlierEnd: 1, FewerUnits: 2}
    return sorted(changes, key=lambda each: (each.size_h, rank[type(each)], str(each)))


def _earlier_ends(request: PlanRequest, now_s: float) -> Iterator[EarlierEnd]:
    members: dict[str, list[PlanUnit]] = defaultdict(list)
    for unit in request.units:
        members[unit.reservation].append(unit)
    for name, units in members.items():
        first = units[0]
        left_s = first.end_s - max(now_s, first.start_s)
        for count in range(1, math.ceil(left_s / _HOUR_S)):
            yield EarlierEnd(name, count, float(count * len(units)), first.end_s - count * _HOUR_S)


def _smallest_change(
    request: PlanRequest, reservation: str, lacking: Sequence[PlanUnit], now_s: float, time: SearchTime
) -> tuple[Change | None, bool]:
    """The first candidate that heals, and whether every smaller one was proved not to."""
    is_proved = True
    for change in candidates(request, reservation, now_s):
        if time.is_over:
            return None, False
        if _is_hopeless(change, request, lacking):
            continue
        outcome = heals(applied(request, change), reservation, time)
        if outcome:
            return change, is_proved
        is_proved = is_proved and outcome is False
    return None, is_proved


def _is_hopeless(change: Change, request: PlanRequest, lacking: Sequence[PlanUnit]) -> bool:
    """A shorter reservation that had no host and is not the explained one frees nothing."""
    if not isinstance(change, EarlierEnd) or change.reservation == lacking[0].reservation:
        return False
    freed = [unit for unit in request.units if unit.reservation == change.reservation]
    return all(unit.host not in {host.id for host in request.hosts} for unit in freed)


def heals(request: PlanRequest, reservation: str, time: SearchTime) -> bool | None:
    """Whether all units of the reservation can be placed beside all that has a host.

    None: not known in time.
    """
    schedule = Schedule(request)
    order = HostOrder(schedule)
    wanted = [number for number in schedule.needing if schedule.items[number].reservation == reservation]
    if len(wanted) < len(schedule.needing):
        raise ValueError("heals: a unit of another reservation lacks a host; leave it out of the request")
    relocation = Relocation(schedule, order, time)
    for number in wanted:
        if not relocation.place_free(number):
            relocation.place_by_chain(number)
    return Repair(schedule, order, time, _STEPS).place_all(wanted)


def _has_host(request: PlanRequest, unit: PlanUnit) -> bool:
    if unit.is_fixed:
        return True
    return unit.host in unit.hosts and any(host.id == unit.host for host in request.hosts)


def _models(request: PlanRequest) -> list[PlanHost]:
    """One host of each class: same size, and in the same sets of hosts that satisfy requirements."""
    sets = list(dict.fromkeys(unit.hosts for unit in request.units))
    classes: dict[tuple[object, ...], PlanHost] = {}
    for host in request.hosts:
        member = tuple(host.id in each for each in sets)
        classes.setdefault((host.vcpus, host.memory_mb, host.disk_gb, member), host)
    return list(classes.values())


def _with_hosts(request: PlanRequest, change: HostsMore) -> PlanRequest:
    model = next(host for host in request.hosts if host.id == change.like)
    more = tuple(
        dataclasses.replace(model, id=HostId(_SPARE.format(number))) for number in range(1, change.count + 1)
    )
    names = frozenset(host.id for host in more)
    wider: dict[frozenset[HostId], frozenset[HostId]] = {}
    units = []
    for unit in request.units:
        if change.like in unit.hosts:
            unit = dataclasses.replace(unit, hosts=wider.setdefault(unit.hosts, unit.hosts | names))
        units.append(unit)
    return dataclasses.replace(request, hosts=(*request.hosts, *more), units=tuple(units))


def _competitors(request: PlanRequest, lacking: Sequence[PlanUnit]) -> Iterator[Competitor]:
    wanted = lacking[0]
    reach_s = request.cleaning_s
    seen: set[UnitKey] = set()
    for unit in sorted(request.units, key=lambda each: (str(each.host), each.start_s, each.reservation)):
        if unit.host is None or unit.host not in wanted.hosts or unit.reservation == wanted.reservation:
            continue
        if (
            unit.start_s < wanted.end_s + reach_s
            and wanted.start_s < unit.end_s + reach_s
            and unit.key not in seen
        ):
            seen.add(unit.key)
            yield Competitor(unit.reservation, unit.host, unit.start_s, unit.end_s, unit.is_fixed)


def _sentences(
    request: PlanRequest,
    lacking: Sequence[PlanUnit],
    competitors: Sequence[Competitor],
    change: Change | None,
    is_proved: bool,
) -> Iterable[str]:
    first = lacking[0]
    allowed = [host.id for host in request.hosts if host.id in first.hosts]
    count = "1 unit" if len(lacking) == 1 else f"{len(lacking)} units"
    yield (
        f"{first.reservation} lacks a host for {count} from {shown(first.start_s)} to {shown(first.end_s)}; "
        f"{len(allowed)} reservable hosts satisfy its requirements."
    )
    yield from (each.sentence for each in competitors)
    if change is None:
        yield "No single change that was tried would heal it."
        return
    yield change.sentence
    yield "Proved: no smaller change does." if is_proved else "A smaller change was not ruled out in time."


def _hours_up(span_s: float) -> int:
    return max(1, math.ceil(span_s / _HOUR_S))
