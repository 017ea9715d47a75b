"""Events of leases and reservable hosts: what is promised to a project, on which hosts, and how it stands.

Who may run what on a reserved host is in `ReservationPlaced` and `ReservationReleased`: each event has the
whole state of its reservation, so that a reader keeps the last one of each and needs nothing before it.
Times are UTC wall clock, in nanoseconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

from homeostat.contracts.events import events_in
from homeostat.contracts.nouns import HostId, Owner

DRY_RUN = "dry run"


@dataclass(frozen=True, slots=True)
class ReservableHostAdded:
    """A host may be reserved from now on. `number` is its id at Blazar's API."""

    host: HostId
    number: int
    by: str


@dataclass(frozen=True, slots=True)
class ReservableHostRemoved:
    """A host cannot be reserved any more, and its row is gone."""

    host: HostId
    number: int
    by: str


@dataclass(frozen=True, slots=True)
class ReservableHostChanged:
    """Extra properties of a host became these; facts of the machine come with `HostCapacityNoted`."""

    host: HostId
    properties: dict[str, str]
    by: str


@dataclass(frozen=True, slots=True)
class HostCapacityNoted:
    """The cores, memory and disk that reservations of a host are counted against."""

    host: HostId
    vcpus: int
    memory_mb: int
    disk_gb: int
    architecture: str


@dataclass(frozen=True, slots=True)
class HostReported:
    """A monitor says something else of a host than before: `outcome` is failed, absent or recovered.

    `withheld` is why nothing follows from it: `DRY_RUN`, or a hold, after which it counts. `seen_ns`: since
    when.
    """

    host: HostId
    monitor: str
    outcome: str
    reason: str
    seen_ns: int
    withheld: str = ""


@dataclass(frozen=True, slots=True)
class HostUnreservable:
    """Nothing new is placed on a host any more: it failed, or (with `failed` false) may have failed.

    Only of one that failed reservations are moved. `seen_ns`: since when.
    """

    host: HostId
    reason: str
    seen_ns: int
    failed: bool = True


@dataclass(frozen=True, slots=True)
class HostReservable:
    """A host can be reserved again."""

    host: HostId
    reason: str


@dataclass(frozen=True, slots=True)
class ReservableHostHeld:
    """A person keeps monitors and new reservations from a host, or (with `held` false) no longer.

    `until_ns` None: until it is ended.
    """

    host: HostId
    held: bool
    reason: str
    until_ns: int | None
    by: str


@dataclass(frozen=True, slots=True)
class LeaseCreated:
    """A project has a lease. `reservations` are the ids of what it consists of."""

    lease: str
    name: str
    project: Owner
    user: str
    start_ns: int
    end_ns: int
    reservations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeaseUpdated:
    """Name or dates of a lease became these."""

    lease: str
    name: str
    project: Owner
    start_ns: int
    end_ns: int
    by: str


@dataclass(frozen=True, slots=True)
class LeaseStatusChanged:
    """A lease and all of its reservations have another status. `reason` is empty when time alone did it."""

    lease: str
    project: Owner
    status: str
    reservation_status: str
    reason: str


@dataclass(frozen=True, slots=True)
class BeforeEndReached:
    """The moment that the owner wanted to be reminded of, before the end of a lease."""

    lease: str
    project: Owner
    end_ns: int


@dataclass(frozen=True, slots=True)
class LeaseDeleted:
    """A lease is gone with all of its reservations, because somebody deleted it."""

    lease: str
    name: str
    project: Owner
    by: str


@dataclass(frozen=True, slots=True)
class Place:
    """The n-th allocation of a reservation and its host; None: it is missing."""

    allocation: str
    number: int
    host: HostId | None


@dataclass(frozen=True, slots=True)
class ReservationPlaced:
    """From now on these hosts are reserved for the project within the window, and those before are not.

    `resource_type` physical:host keeps every other project off the whole host; of a virtual:instance each
    place is `vcpus`, `memory_mb` and `disk_gb` of its host (0 for a whole host).
    """

    reservation: str
    lease: str
    project: Owner
    resource_type: str
    start_ns: int
    end_ns: int
    places: tuple[Place, ...]
    vcpus: int = 0
    memory_mb: int = 0
    disk_gb: int = 0


@dataclass(frozen=True, slots=True)
class ReservationReleased:
    """A reservation holds no host any more: its lease ended or was deleted."""

    reservation: str
    lease: str
    project: Owner


@dataclass(frozen=True, slots=True)
class ReservationMoved:
    """Allocations left hosts that failed, or that the plan needs for another one.

    `hosts` are the pairs (from, to), `""` where there was none before. `active`: while it was running.
    """

    reservation: str
    lease: str
    project: Owner
    hosts: tuple[tuple[str, str], ...]
    active: bool
    reason: str


@dataclass(frozen=True, slots=True)
class ReservationMissing:
    """`missing` allocations of a reservation have no host; it is tried again whenever capacity changes."""

    reservation: str
    lease: str
    project: Owner
    missing: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReservationRestored:
    """Every allocation of a reservation has a host again."""

    reservation: str
    lease: str
    project: Owner
    reason: str


@dataclass(frozen=True, slots=True)
class LeaseAcknowledged:
    """The owner took note that resources of these reservations changed; their flags are cleared."""

    lease: str
    project: Owner
    reservations: tuple[str, ...]
    by: str


EVENTS = tuple(each for each in events_in(globals()) if each is not Place)
