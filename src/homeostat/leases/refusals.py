"""The reasons for which a request about leases is refused, each with its sentence, and what would help."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from homeostat.contracts.nouns import HostId
from homeostat.leases.book import Occupancy


class RefusalReason(Enum):
    """Why nothing was booked. The value is the sentence for people."""

    START_PASSED = "the start must not be in the past"
    END_NOT_AFTER_START = "the end must be after the start"
    END_PASSED = "the end must not be in the past"
    BEFORE_END_OUTSIDE = "the reminder before the end must be between start and end"
    NO_RESERVATIONS = "a lease needs at least one reservation"
    MORE_THAN_EXIST = "no host has it, or fewer than are asked for, whatever is booked"
    NOT_ENOUGH_HOSTS = "not enough hosts are free within the window"
    STARTED = "the start of a lease that has started cannot change"
    ENDED = "a lease that is over can only be renamed"
    IN_TRANSITION = "something is being done to the lease; try again when that has ended"
    EXTENSION_CONFLICTS = "hosts of the running lease are promised to others within the new window"
    UNKNOWN_RESERVATION = "the lease has no such reservation"
    HOST_RESERVED = "the host is reserved; a host with leases to come cannot be removed"
    HOST_KNOWN = "the host may be reserved already"
    PROPERTY_REQUIRED = "a lease on the host requires the property as it is"
    PROPERTY_UNKNOWN = "no host has such a property"
    HOST_UNKNOWN = "no such host reports to this server"


@dataclass(frozen=True, slots=True)
class LeaseRefusal:
    """`field` and `value` are what was asked for. `free`: how many of the wanted would be free.

    `next_start_ns` is the first moment from which the same would be free, None when nobody knows one;
    `conflicts` are what is in the way: who may read them is decided by whoever shows them.
    """

    reason: RefusalReason
    field: str
    value: object = None
    free: int = 0
    free_hosts: tuple[HostId, ...] = ()
    next_start_ns: int | None = None
    conflicts: tuple[Occupancy, ...] = ()

    @property
    def sentence(self) -> str:
        return f"{self.field}: {self.reason.value}"
