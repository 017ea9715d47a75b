"""The nouns of leases: frozen records of the rows, statuses in Blazar's words, and what is derived from them.

A lease is what a project asked for from one moment to another; it consists of reservations; each reservation
has as many allocations as it was given hosts (or parts of hosts) when it was booked. An allocation without a
host is missing: it stays a row, with the reason and since when.

Invariants: `degraded`, `missing_resources` and `resources_changed` are derived, never stored. All times are
UTC wall clock, in nanoseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

import orjson

from homeostat.contracts.nouns import HostId, Owner
from homeostat.leases.monitoring import HostOutcome

LeaseId = NewType("LeaseId", str)
ReservationId = NewType("ReservationId", str)
AllocationId = NewType("AllocationId", str)
LeaseEventId = NewType("LeaseEventId", str)

MINUTE_NS = 60 * 1_000_000_000


class ResourceType(StrEnum):
    """What a reservation is of. The words are Blazar's, as are those of all statuses below."""

    HOST = "physical:host"
    INSTANCE = "virtual:instance"


class LeaseStatus(StrEnum):
    """Stable: PENDING, ACTIVE, TERMINATED, ERROR. The others are on the way to one of these."""

    CREATING = "CREATING"
    PENDING = "PENDING"
    STARTING = "STARTING"
    ACTIVE = "ACTIVE"
    UPDATING = "UPDATING"
    TERMINATING = "TERMINATING"
    TERMINATED = "TERMINATED"
    DELETING = "DELETING"
    ERROR = "ERROR"


class ReservationStatus(StrEnum):
    """In lower case, as Blazar writes them."""

    PENDING = "pending"
    ACTIVE = "active"
    DELETED = "deleted"
    ERROR = "error"


class LeaseEventType(StrEnum):
    """The moments of a lease."""

    START = "start_lease"
    BEFORE_END = "before_end_lease"
    END = "end_lease"


class LeaseEventStatus(StrEnum):
    """Whether a moment of a lease was dealt with."""

    UNDONE = "UNDONE"
    IN_PROGRESS = "IN_PROGRESS"
    DONE = "DONE"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class Lease:
    """`ended_ns` is when it was over, whatever its status then; None while it may still hold hosts.

    `user` is who asked for it. `created_ns` and `updated_ns` are for people.
    """

    id: LeaseId
    name: str
    project: Owner
    user: str
    start_ns: int
    end_ns: int
    status: LeaseStatus
    created_ns: int
    updated_ns: int
    ended_ns: int | None = None

    @property
    def is_open(self) -> bool:
        return self.ended_ns is None

    def has_begun(self, now_ns: int) -> bool:
        """Whether somebody may use its hosts already: what works of them is kept from then on."""
        return self.status is not LeaseStatus.PENDING or self.start_ns <= now_ns


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was asked for; the window is the lease's.

    Of a physical:host `minimum` to `maximum` hosts, of a virtual:instance `amount` slots of `vcpus`,
    `memory_mb` and `disk_gb`; `affinity` True: all on one host, False: each on another, None: no matter.
    The two texts of properties are Blazar's requirements (`requirements.py`), empty: any host.
    `moved_ns` is the last move that the owner has not acknowledged, `changed_ns` the same while it ran;
    `version` counts changes of this row and of its allocations.
    """

    id: ReservationId
    lease: LeaseId
    resource_type: ResourceType
    status: ReservationStatus
    minimum: int
    maximum: int
    hypervisor_properties: str = ""
    resource_properties: str = ""
    before_end: str = "default"
    amount: int = 0
    vcpus: int = 0
    memory_mb: int = 0
    disk_gb: int = 0
    affinity: bool | None = None
    moved_ns: int | None = None
    changed_ns: int | None = None
    acknowledged_ns: int | None = None
    version: int = 1

    @property
    def resources_changed(self) -> bool:
        return self.changed_ns is not None


@dataclass(frozen=True, slots=True)
class Allocation:
    """The n-th host, or slot on a host, of a reservation; `host` None: it is missing.

    `since_ns` is since when it has this host or none, `reason` why, empty as it was booked.
    """

    id: AllocationId
    reservation: ReservationId
    number: int
    host: HostId | None
    since_ns: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LeaseEvent:
    """A moment of a lease. `attempts` were begun so far."""

    id: LeaseEventId
    lease: LeaseId
    event_type: LeaseEventType
    time_ns: int
    status: LeaseEventStatus = LeaseEventStatus.UNDONE
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Hold:
    """A person keeps monitors and new reservations from a host; `until_ns` None: until it is ended."""

    reason: str
    until_ns: int | None
    by: str


@dataclass(frozen=True, slots=True)
class HostCapacity:
    """Facts of a machine; zeros and empty while nobody knows them."""

    vcpus: int = 0
    memory_mb: int = 0
    disk_gb: int = 0
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class MonitorReport:
    """What a monitor says of a host, and since when that is so."""

    outcome: HostOutcome
    reason: str
    seen_ns: int


@dataclass(frozen=True, slots=True)
class ReservableHost:
    """A host that may be reserved. `number` is its id at Blazar's API.

    `reservable` is what monitors say, with `reason` and `since_ns`. One that is not reservable has `failed`,
    or nobody knows how it is: then nothing is moved from it. `reports` is what each monitor last said of it
    that is not good, as a JSON object by monitor, also while a hold keeps it from counting. Without a hold
    `hold_reason` is empty. `properties` are extra properties that people gave it, as a JSON object of texts.
    """

    host: HostId
    number: int
    reservable: bool = True
    reason: str = ""
    since_ns: int = 0
    vcpus: int = 0
    memory_mb: int = 0
    disk_gb: int = 0
    architecture: str = ""
    hold_reason: str = ""
    hold_until_ns: int | None = None
    hold_by: str = ""
    properties: str = "{}"
    failed: bool = False
    reports: str = "{}"

    @property
    def capacity(self) -> HostCapacity:
        return HostCapacity(self.vcpus, self.memory_mb, self.disk_gb, self.architecture)

    @property
    def reported(self) -> dict[str, MonitorReport]:
        """What each monitor last said that is not good."""
        return _reports(self.reports)

    @property
    def extra(self) -> Mapping[str, str]:
        """The extra properties."""
        found: Mapping[str, str] = orjson.loads(self.properties)
        return found

    def hold_at(self, now_ns: int) -> Hold | None:
        """The hold that counts now; one whose time is over does not."""
        if not self.hold_reason or (self.hold_until_ns is not None and self.hold_until_ns <= now_ns):
            return None
        return Hold(self.hold_reason, self.hold_until_ns, self.hold_by)

    def may_be_booked(self, now_ns: int) -> bool:
        return self.reservable and self.hold_at(now_ns) is None


@dataclass(frozen=True, slots=True)
class HostProperty:
    """What is said of an extra property, whichever hosts have it; one of which nothing is said is public."""

    name: str
    private: bool = False


def properties_text(properties: Mapping[str, str]) -> str:
    """As they are kept in a row; equal properties give equal texts."""
    return orjson.dumps(dict(properties), option=orjson.OPT_SORT_KEYS).decode()


def reports_after(reports: str, monitor: str, report: MonitorReport) -> str:
    """The reports of a row after another one; a good one takes what its monitor said before away."""
    after = {name: each for name, each in _reports(reports).items() if name != monitor}
    if report.outcome is not HostOutcome.RECOVERED:
        after[monitor] = report
    rows = {name: (each.outcome.value, each.reason, each.seen_ns) for name, each in after.items()}
    return orjson.dumps(rows, option=orjson.OPT_SORT_KEYS).decode()


def _reports(text: str) -> dict[str, MonitorReport]:
    found: dict[str, tuple[str, str, int]] = orjson.loads(text)
    return {name: MonitorReport(HostOutcome(said), reason, ns) for name, (said, reason, ns) in found.items()}


def missing_resources(allocations: Iterable[Allocation]) -> bool:
    """Blazar's flag of a reservation: some of its allocations have no host."""
    return any(each.host is None for each in allocations)


def degraded(reservations: Iterable[tuple[Reservation, Iterable[Allocation]]]) -> bool:
    """Blazar's flag of a lease: some reservation has one of the two flags."""
    return any(
        reservation.resources_changed or missing_resources(allocations)
        for reservation, allocations in reservations
    )


def lease_subject(lease: LeaseId) -> str:
    return f"lease/{lease}"


def reservable_subject(host: HostId) -> str:
    """The journal's subject of a host as something that may be reserved."""
    return f"reservable/{host}"
