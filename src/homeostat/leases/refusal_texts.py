"""The error of our API for a refusal: what was asked for, why not, and what would help.

One line that a person can act on. Invariant: of what another project has, only the host and the window are
said, which the next free slot tells as well.
"""

from __future__ import annotations

from typing import Any

from homeostat.kernel.access import Caller
from homeostat.kernel.clock import iso
from homeostat.kernel.errors import BadInput, Conflict
from homeostat.leases.book import Occupancy
from homeostat.leases.refusals import LeaseRefusal, RefusalReason

NAMED_MAX = 3
"""As many conflicts are named in one line; the rest is counted."""


def moment(at_ns: int) -> str:
    """A moment in one line: `2026-12-01T14:00:00Z`, rounded up to the second."""
    return iso(-(-at_ns // 10**9) * 10**9)[:19] + "Z"


_FIELDS = {
    "start_date": "starts_at",
    "end_date": "ends_at",
    "before_end_date": "before_end_at",
    "max": "reservations.max",
    "amount": "reservations.amount",
    "hypervisor_properties": "reservations.hypervisor_properties",
    "resource_properties": "reservations.resource_properties",
}
_BAD_INPUT = frozenset(
    {
        RefusalReason.START_PASSED,
        RefusalReason.END_NOT_AFTER_START,
        RefusalReason.END_PASSED,
        RefusalReason.BEFORE_END_OUTSIDE,
        RefusalReason.NO_RESERVATIONS,
        RefusalReason.MORE_THAN_EXIST,
        RefusalReason.UNKNOWN_RESERVATION,
        RefusalReason.HOST_UNKNOWN,
    }
)


def refused(refusal: LeaseRefusal, caller: Caller) -> BadInput:
    """The error for a refusal: what was asked for, why not, and what would help."""
    kind = BadInput if refusal.reason in _BAD_INPUT else Conflict
    value: Any = refusal.value
    if refusal.field.endswith("_date") and isinstance(value, int):
        value = moment(value)
    return kind(_FIELDS.get(refusal.field, refusal.field), value, _says(refusal, caller))


def _says(refusal: LeaseRefusal, caller: Caller) -> str:
    said = refusal.reason.value
    if refusal.reason is RefusalReason.NOT_ENOUGH_HOSTS:
        hosts = f" ({', '.join(refusal.free_hosts)})" if refusal.free_hosts else ""
        said += f": {refusal.free} of {refusal.value} free{hosts}; "
        if refusal.next_start_ns is None:
            return said + "no later start was found at which they are free"
        return said + f"next free slot of this length: from {moment(refusal.next_start_ns)}"
    if refusal.conflicts:
        named = [conflict_words(each, caller) for each in refusal.conflicts[:NAMED_MAX]]
        more = len(refusal.conflicts) - len(named)
        said += ": " + "; ".join(named) + (f"; and {more} more" if more else "")
    return said


def conflict_words(found: Occupancy, caller: Caller) -> str:
    """What is in the way. Of another project only where and when."""
    whose = "another project"
    if caller.may_read(found.lease.project):
        whose = f"lease {found.lease.name} of project {found.lease.project}"
    return f"{found.allocation.host} from {moment(found.start_ns)} to {moment(found.end_ns)}: {whose}"
