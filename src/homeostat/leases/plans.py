"""Records of a planning problem and of its plan. Plain and frozen; no store and no requirement language
behind them.

A *unit* is one host, or one instance's part of a host, of a reservation. Times are UTC seconds; a window is
half open, `start_s <= t < end_s`. Amounts of a demand are virtual CPUs, MiB of memory and GB of disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from homeostat.contracts.nouns import HostId

Demand = tuple[int, int, int]
"""Virtual CPUs, memory in MiB, disk in GB."""


class UnitKey(NamedTuple):
    """Names a unit: the reservation and the number within it."""

    reservation: str
    number: int

    def __str__(self) -> str:
        return f"{self.reservation}#{self.number}"


@dataclass(frozen=True, slots=True)
class PlanHost:
    """A host that may be reserved now. A failed or held host is not part of a request."""

    id: HostId
    vcpus: int
    memory_mb: int
    disk_gb: int


@dataclass(frozen=True, slots=True)
class PlanUnit:
    """One unit of a reservation: its window, the hosts that satisfy its requirements, and its present host.

    `demand` is None for a whole host. A fixed unit stays on its host, also on one that is not part of the
    request. `affinity` counts for instances only: True is all on one host or none, False all on different
    hosts.
    """

    reservation: str
    number: int
    start_s: float
    end_s: float
    hosts: frozenset[HostId]
    demand: Demand | None = None
    host: HostId | None = None
    is_fixed: bool = False
    affinity: bool | None = None
    is_running: bool = False

    @property
    def key(self) -> UnitKey:
        return UnitKey(self.reservation, self.number)


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """A snapshot: reservable hosts, and every unit whose window matters. `time_s` caps the search, not the
    set-up.
    """

    hosts: tuple[PlanHost, ...]
    units: tuple[PlanUnit, ...]
    time_s: float = 1.0
    cleaning_s: float = 0.0


class PlanLabel(StrEnum):
    """How much is proved of the number of missing units. Nothing more is claimed."""

    OPTIMAL = "optimal"
    """No plan leaves fewer units missing."""
    FEASIBLE = "feasible"
    """At most `bound` of the missing units could be placed by another plan."""
    INFEASIBLE = "infeasible"
    """No plan gives a host to any of the units that need one: nothing can be healed."""


@dataclass(frozen=True, slots=True)
class PlanMove:
    """A unit gets another host. `is_displaced`: its old host is healthy; it makes room for another unit."""

    unit: UnitKey
    from_host: HostId | None
    to_host: HostId
    is_displaced: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Places of all units that have one, the units that stay without, and what is proved of that.

    `are_moves_fewest` says that no plan with as few missing units displaces fewer healthy ones; False: not
    proved.
    """

    places: Mapping[UnitKey, HostId]
    missing: tuple[UnitKey, ...]
    label: PlanLabel
    bound: int
    moves: tuple[PlanMove, ...]
    are_moves_fewest: bool = False

    @property
    def proved_missing(self) -> int:
        """At least so many units stay without a host in every plan."""
        return len(self.missing) - self.bound

    @property
    def sentence(self) -> str:
        """The label in words."""
        if not self.missing:
            return "Every unit has a host."
        count = _units(len(self.missing))
        match self.label:
            case PlanLabel.OPTIMAL:
                return f"{count} without a host; proved: no plan leaves fewer."
            case PlanLabel.INFEASIBLE:
                return f"{count} without a host; proved: no plan gives a host to any of them."
            case PlanLabel.FEASIBLE:
                return f"{count} without a host; another plan could place at most {self.bound} of them."


def _units(count: int) -> str:
    return f"{count} unit" if count == 1 else f"{count} units"


class SearchTime:
    """The cap of one search on a clock that is passed in; `clock` returns monotonic seconds."""

    __slots__ = ("_clock", "_end")

    def __init__(self, clock: Callable[[], float], time_s: float) -> None:
        self._clock = clock
        self._end = clock() + time_s

    @property
    def is_over(self) -> bool:
        return self._clock() >= self._end
