"""Seeded planning problems, and a healer like Blazar's to compare with."""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict
from collections.abc import Iterator

from homeostat.contracts.nouns import HostId
from homeostat.leases.planner import Demand, PlanHost, PlanRequest, PlanUnit, UnitKey
from homeostat.leases.schedule import NOWHERE, Schedule

HOUR = 3600.0
CLASSES: tuple[tuple[str, Demand], ...] = (
    ("small", (8, 16384, 200)),
    ("large", (32, 65536, 800)),
    ("gpu", (16, 65536, 400)),
)
FLAVORS: tuple[Demand, ...] = ((2, 4096, 20), (4, 8192, 40), (8, 8192, 100), (6, 32768, 50))


def standing_clock() -> float:
    """A clock that never moves: the search ends only where it is complete or has used up its steps."""
    return 0.0


def mixed_case(seed: int, hosts: int = 7, time_s: float = 2.0) -> PlanRequest:
    """Three classes of hosts at 70 to 100 % load, whole hosts and instances, of which one or two failed."""
    chance = random.Random(seed)
    machines = _machines(chance, hosts)
    load = chance.uniform(0.7, 1.0)
    cleaning_s = chance.choice((0.0, 0.0, 900.0))
    units = list(_booked(chance, machines, load, cleaning_s))
    failed = set(chance.sample([each.id for each in machines], chance.randint(1, 2)))
    return PlanRequest(
        tuple(each for each in machines if each.id not in failed),
        tuple(_after_failure(chance, unit, failed) for unit in units),
        time_s,
        cleaning_s,
    )


def _machines(chance: random.Random, count: int) -> list[PlanHost]:
    machines = []
    for number in range(count):
        name, size = CLASSES[chance.choices((0, 1, 2), (5, 3, 2))[0]]
        machines.append(PlanHost(HostId(f"{name}-{number}"), *size))
    return machines


def _booked(
    chance: random.Random, machines: list[PlanHost], load: float, cleaning_s: float
) -> Iterator[PlanUnit]:
    """Reservations that all have their places, until the hosts are as full as the load says."""
    goal = load * len(machines) * 12 * HOUR
    booked = 0.0
    units: list[PlanUnit] = []
    for number in range(400):
        if booked >= goal:
            break
        reservation = f"r{number}"
        start_s = chance.randrange(-3, 9) * HOUR
        end_s = start_s + chance.choice((1, 2, 2, 3, 4, 6, 8)) * HOUR
        if end_s <= 0:
            continue
        wanted = _wanted(chance, reservation, machines, (start_s, end_s))
        placed = _placed(units, wanted, machines, cleaning_s, chance)
        if placed:
            units += placed
            share = 1.0 if wanted[0].demand is None else 0.3
            booked += len(placed) * share * (end_s - start_s)
    yield from units


def _wanted(
    chance: random.Random, reservation: str, machines: list[PlanHost], window: tuple[float, float]
) -> list[PlanUnit]:
    demand = chance.choice(FLAVORS) if chance.random() < 0.4 else None
    floor = chance.choice(((0, 0, 0), (0, 0, 0), (16, 0, 0), (0, 65536, 0), (0, 0, 300), (32, 0, 0)))
    if demand is not None:
        floor = demand
    name = "gpu" if chance.random() < 0.15 else ""
    eligible = frozenset(
        each.id
        for each in machines
        if each.id.startswith(name)
        and each.vcpus >= floor[0]
        and each.memory_mb >= floor[1]
        and each.disk_gb >= floor[2]
    )
    affinity = chance.choice((None, None, True, False)) if demand is not None else None
    count = chance.choice((1, 1, 2, 3)) if demand is not None else chance.choice((1, 1, 1, 2))
    return [
        PlanUnit(reservation, each, *window, hosts=eligible, demand=demand, affinity=affinity)
        for each in range(count)
    ]


def _placed(
    units: list[PlanUnit],
    wanted: list[PlanUnit],
    machines: list[PlanHost],
    cleaning_s: float,
    chance: random.Random,
) -> list[PlanUnit]:
    schedule = Schedule(PlanRequest(tuple(machines), (*units, *wanted), cleaning_s=cleaning_s))
    placed = []
    for number in schedule.needing:
        item = schedule.items[number]
        free = [host for host in item.domain if schedule.fits(number, host)]
        if not free:
            return []
        schedule.place(number, chance.choice(free))
        placed += [
            dataclasses.replace(schedule.units[unit], host=machines[schedule.at[number]].id)
            for unit in item.units
        ]
    return placed


def _after_failure(chance: random.Random, unit: PlanUnit, failed: set[HostId]) -> PlanUnit:
    is_running = unit.start_s <= 0
    if unit.host in failed:
        return dataclasses.replace(unit, host=None, is_running=is_running)
    is_busy = chance.random() < 0.1 and unit.affinity is None
    return dataclasses.replace(unit, is_fixed=is_running or is_busy, is_running=is_running)


def full_cloud(hosts: int, failed: int, spare: float = 0.2, time_s: float = 1.0) -> PlanRequest:
    """The specification's benchmark: spare hosts, four back-to-back leases on each other one, the first
    running.

    What is within an hour of the failed hosts needs a place: two leases each.
    """
    machines = tuple(PlanHost(HostId(f"h{number}"), 32, 65536, 800) for number in range(hosts))
    everywhere = frozenset(each.id for each in machines)
    used = round(hosts * (1 - spare))
    units = []
    for number in range(used):
        for turn in range(4):
            start_s = (turn - 0.5) * HOUR
            if number < failed and turn > 1:
                continue
            units.append(
                PlanUnit(
                    f"r{number}-{turn}",
                    0,
                    start_s,
                    start_s + HOUR,
                    everywhere,
                    host=None if number < failed else machines[number].id,
                    is_fixed=number >= failed and turn == 0,
                    is_running=turn == 0,
                )
            )
    return PlanRequest(machines[failed:], tuple(units), time_s)


def busy_cloud(hosts: int, leases: int, seed: int = 1, time_s: float = 60.0) -> PlanRequest:
    """Three classes of hosts with two days of leases on most of them; one host in ten is spare, but no gpu
    host.
    """
    chance = random.Random(seed)
    machines = _machines(chance, hosts)
    by_class = {
        name: frozenset(each.id for each in machines if each.id.startswith(name)) for name, _ in CLASSES
    }
    everywhere = frozenset(each.id for each in machines)
    used = [each for each in machines if each.id.startswith("gpu") or chance.random() < 0.88]
    units = []
    free_from = {each.id: chance.randrange(-6, 3) for each in used}
    for number in range(leases):
        host = used[number % len(used)].id
        start = free_from[host] + chance.choice((0, 0, 1, 2))
        free_from[host] = end = start + chance.choice((2, 4, 8, 12))
        eligible = (
            by_class[host.partition("-")[0]]
            if host.startswith("gpu") or chance.random() < 0.5
            else everywhere
        )
        is_running = start <= 0 < end
        units.append(
            PlanUnit(
                f"r{number}",
                0,
                start * HOUR,
                end * HOUR,
                eligible,
                host=host,
                is_fixed=is_running,
                is_running=is_running,
            )
        )
    return PlanRequest(tuple(machines), tuple(units), time_s)


def greedy_missing(request: PlanRequest) -> int:
    """Units without a host when healing goes one allocation at a time in order and never moves another one.

    As Blazar: never allocated hosts first, then allocated but free ones; instances go to shared hosts first.
    """
    schedule = Schedule(request)
    missing = 0
    for number in sorted(schedule.needing, key=lambda each: schedule.items[each].units):
        item = schedule.items[number]
        free = [host for host in item.domain if schedule.fits(number, host)]
        free.sort(key=lambda host: (bool(schedule.on[host]) == (item.demand is None), host))
        if free:
            schedule.place(number, free[0])
        else:
            missing += item.weight
    return missing


def broken_promises(request: PlanRequest, places: dict[UnitKey, HostId]) -> list[str]:
    """What is wrong with places, found by comparing pairs of units: a judge beside the schedule's own."""
    wrong = []
    sizes = {each.id: (each.vcpus, each.memory_mb, each.disk_gb) for each in request.hosts}
    by_host: dict[HostId, list[PlanUnit]] = defaultdict(list)
    for unit in request.units:
        host = places.get(unit.key)
        if unit.is_fixed and host != unit.host:
            wrong.append(f"{unit.key} is fixed on {unit.host} and is on {host}")
        if host is None:
            if unit.host in sizes and unit.host in unit.hosts:
                wrong.append(f"{unit.key} was on {unit.host} and has no host")
            continue
        if not unit.is_fixed and (host not in unit.hosts or host not in sizes):
            wrong.append(f"{unit.key} may not be on {host}")
        by_host[host].append(unit)
    for host, units in by_host.items():
        if host in sizes:
            wrong += _clashes(host, sizes[host], units, request.cleaning_s)
    return wrong + _split_groups(request, places)


def _clashes(host: HostId, size: Demand, units: list[PlanUnit], cleaning_s: float) -> Iterator[str]:
    for moment in {unit.start_s for unit in units}:
        alive = [unit for unit in units if unit.start_s <= moment < unit.end_s + cleaning_s]
        if len(alive) > 1 and any(unit.demand is None for unit in alive):
            yield f"{host} is given twice: {[str(unit.key) for unit in alive]}"
            continue
        for kind in range(3):
            if sum(unit.demand[kind] for unit in alive if unit.demand is not None) > size[kind]:
                yield f"{host} is too full at {moment}"
        spread = [unit.reservation for unit in alive if unit.affinity is False]
        if len(set(spread)) < len(spread):
            yield f"{host} has two units of a reservation that must be spread"


def _split_groups(request: PlanRequest, places: dict[UnitKey, HostId]) -> list[str]:
    groups: dict[str, set[HostId | None]] = defaultdict(set)
    for unit in request.units:
        if unit.affinity and unit.demand is not None:
            groups[unit.reservation].add(places.get(unit.key))
    return [f"{name} is on {hosts}" for name, hosts in groups.items() if len(hosts) > 1]


__all__ = [
    "HOUR",
    "NOWHERE",
    "broken_promises",
    "busy_cloud",
    "full_cloud",
    "greedy_missing",
    "mixed_case",
    "standing_clock",
]
