"""The sites on which healing is measured: hosts, reservations on them, which hosts fail. No side's own nouns.

Times are seconds from the failure; what starts at or before 0 runs. A reservation stands for a lease of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

HOUR_S = 3600
SLOT_S = 1800
Demand = tuple[int, int, int]
"""Virtual CPUs, memory in MB, disk in GB: of one instance."""
Booked = tuple[int, int, Demand | None]
"""From, until, and what of the host; None: all of it."""


@dataclass(frozen=True, slots=True)
class Host:
    """A reservable host."""

    id: int
    vcpus: int
    memory_mb: int
    disk_gb: int


@dataclass(slots=True)
class Reservation:
    """`hosts`: a host a unit. `demand` None: whole hosts with at least `min_vcpus`; else a slot on each of them."""

    id: str
    start_s: int
    end_s: int
    hosts: list[int]
    min_vcpus: int = 0
    demand: Demand | None = None
    affinity: bool | None = None

    @property
    def runs(self) -> bool:
        """It had started before the failure."""
        return self.start_s <= 0

    def fits(self, host: Host) -> bool:
        """This host, were it empty."""
        if self.demand is None:
            return host.vcpus >= self.min_vcpus
        return all(want <= have for want, have in zip(self.demand, capacity(host), strict=True))


@dataclass(slots=True)
class Site:
    """What both sides are given."""

    hosts: list[Host]
    reservations: list[Reservation] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    load: float = 0.0
    """Of the capacity over the whole time, what is reserved, 0 to 1."""

    def as_json(self) -> dict[str, Any]:
        """For the peer."""
        return asdict(self)


def capacity(host: Host) -> Demand:
    """What instances share."""
    return host.vcpus, host.memory_mb, host.disk_gb


def regular(hosts: int, failed: int) -> Site:
    """A fifth is spare; each of the others has four leases of an hour, one after the other; the first of them runs."""
    site = Site([Host(number, 16, 65536, 1000) for number in range(1, hosts + 1)], load=0.8)
    for host in range(1, hosts - hosts // 5 + 1):
        for turn in range(4):
            start_s = turn * HOUR_S - 600
            site.reservations.append(Reservation(f"{host}-{turn}", start_s, start_s + HOUR_S, [host], 8))
    site.failed = list(range(1, failed + 1))
    return site


def crowded(hosts: int, leases: int, seed: int = 1) -> Site:
    """Three classes of hosts and leases of one to two hosts at random over a week; none of the hosts has failed."""
    chance = random.Random(seed)
    site = Site([Host(number, *CLASSES[number % 3]) for number in range(1, hosts + 1)])
    used: dict[int, list[Booked]] = {host.id: [] for host in site.hosts}
    while len(site.reservations) < leases:
        start_s = chance.randrange(-24, 144) * HOUR_S
        want = Reservation(
            f"l{len(site.reservations)}", start_s, start_s + chance.randrange(12, 36) * HOUR_S, []
        )
        want.min_vcpus = chance.choice((0, 0, 8, 16, 32))
        want.hosts = _places(want, chance.choice((1, 1, 1, 1, 2)), chance.sample(site.hosts, 40), used)
        if want.hosts and want.end_s > 0:
            for host in want.hosts:
                used[host].append((want.start_s, want.end_s, None))
            site.reservations.append(want)
    have = sum(host.vcpus for host in site.hosts) * 168 * HOUR_S
    site.load = sum(
        (min(end_s, 144 * HOUR_S) - start_s) * host.vcpus for host in site.hosts for start_s, end_s, _ in used[host.id]
    ) / have  # fmt: skip
    return site


CLASSES = ((8, 32768, 500), (16, 65536, 1000), (32, 131072, 2000))
"""Virtual CPUs, memory, disk of the three classes of hosts."""
SLOTS = 8
DEMANDS = ((4, 16384, 50), (4, 8192, 200), (8, 32768, 100), (12, 32768, 200))


def mixed(seed: int, *, instances: bool) -> Site:
    """A random site of three classes of hosts, 70 to 100 % reserved over four hours; one host in eight fails."""
    chance = random.Random(seed)
    count = chance.randint(8, 20)
    site = Site([Host(number, *chance.choice(CLASSES)) for number in range(1, count + 1)])
    target = chance.uniform(0.7, 1.0)
    split = count // 3 if instances else 0
    used: dict[int, list[Booked]] = {host.id: [] for host in site.hosts}
    for hosts, draw in ((site.hosts[split:], _draw_hosts), (site.hosts[:split], _draw_instances)):
        while _load(Site(hosts), used) < target and _book(chance, site, (hosts, draw), used):
            pass
    site.load = _load(site, used)
    site.failed = sorted(chance.sample([host.id for host in site.hosts], max(1, count // 8)))
    chance.shuffle(site.reservations)
    return site


Draw = Callable[[random.Random, Reservation], None]
"""Gives a reservation what it asks for."""


def _draw_hosts(chance: random.Random, want: Reservation) -> None:
    want.min_vcpus = chance.choice((0, 0, 8, 16, 32))


def _draw_instances(chance: random.Random, want: Reservation) -> None:
    want.demand, want.affinity = chance.choice(DEMANDS), chance.choice((None, None, True, False))


def _book(
    chance: random.Random, site: Site, where: tuple[list[Host], Draw], used: dict[int, list[Booked]]
) -> bool:
    """Book one more; False when sixty drawn at random do not fit."""
    hosts, draw = where
    for _ in range(60 if hosts else 0):
        first = chance.randrange(SLOTS)
        last = min(SLOTS, first + chance.choice((1, 2, 2, 3, 4)))
        want = Reservation(f"l{len(site.reservations)}", first * SLOT_S, last * SLOT_S, [])
        draw(chance, want)
        amount = chance.choice((1, 1, 1, 2, 3))
        want.hosts = _places(want, amount, chance.sample(hosts, len(hosts)), used)
        if len(want.hosts) == amount:
            for host in want.hosts:
                used[host].append((want.start_s, want.end_s, want.demand))
            site.reservations.append(want)
            return True
    return False


def _places(
    want: Reservation, amount: int, order: Iterable[Host], used: dict[int, list[Booked]]
) -> list[int]:
    found: list[int] = []
    for host in order:
        if not want.fits(host):
            continue
        mine: list[Booked] = []
        while len(found) < amount and is_free(host, [*used[host.id], *mine], want):
            found.append(host.id)
            mine.append((want.start_s, want.end_s, want.demand))
            if want.demand is None or want.affinity is False:
                break
        if want.affinity and len(found) < amount:
            found.clear()
    return found


def is_free(host: Host, used: list[Booked], want: Reservation) -> bool:
    """All of the time of `want`, one unit of it more."""
    meet = [each for each in used if each[0] < want.end_s and want.start_s < each[1]]
    if want.demand is None or any(demand is None for _, _, demand in meet):
        return not meet
    moments = {want.start_s} | {start_s for start_s, _, _ in meet if start_s > want.start_s}
    return all(
        sum(demand[of] for start_s, end_s, demand in meet if demand and start_s <= at_s < end_s)
        + want.demand[of]
        <= capacity(host)[of]
        for at_s in moments
        for of in range(3)
    )


def _load(site: Site, used: dict[int, list[Booked]]) -> float:
    """Of the virtual CPU seconds of these hosts, the reserved part."""
    have = sum(host.vcpus for host in site.hosts) * SLOTS * SLOT_S
    return sum(
        (end_s - start_s) * (demand[0] if demand else host.vcpus)
        for host in site.hosts
        for start_s, end_s, demand in used[host.id]
    ) / (have or 1)
