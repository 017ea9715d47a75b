"""Owners are told of their reservations: what is missing, and every move, as faults of their project.

Level-triggered: the faults that should be open are derived from the book, compared with those that are, and
the difference goes through the write path, which queues the notices in the same transaction. A server that
died in between does the rest at its start. A fault of missing hosts ends when all are there again or the
lease is over; one of a move when the owner acknowledges it, when the lease is over, or, of a move before the
start, when the lease starts.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import structlog

from homeostat.contracts.events.faults import FaultCleared, FaultRaised
from homeostat.contracts.faults import Fault, FaultState
from homeostat.contracts.nouns import FaultId, FaultKind, Owner, Severity
from homeostat.ingest.entry import Decision, IngestState, Moment, PendingNotice
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel.errors import RetryLater
from homeostat.kernel.journal import EventIndex, NewEvent
from homeostat.leases.book import LeaseBook
from homeostat.leases.keeper import LeaseKeeper
from homeostat.leases.model import Lease, LeaseStatus, Reservation, ReservationId, lease_subject

log = structlog.get_logger("leases")

ORIGIN = "leases"
RETRY_S = 1.0
KINDS = (FaultKind.RESERVATION_MISSING, FaultKind.RESERVATION_MOVED)


def missing_subject(reservation: ReservationId) -> str:
    """The journal's subject of a reservation as far as its hosts are there."""
    return f"reservation/{reservation}"


def moves_subject(reservation: ReservationId) -> str:
    """The journal's subject of the moves of a reservation."""
    return f"reservation-moves/{reservation}"


@dataclass(frozen=True, slots=True)
class WantedFault:
    """A fault that should be open. The same `evidence` is the same fault."""

    about: str
    kind: FaultKind
    severity: Severity
    owner: Owner
    reason: str
    since_ns: int
    evidence: str
    lease: Lease

    @property
    def id(self) -> FaultId:
        digest = hashlib.blake2b(f"{self.about} {self.evidence}".encode(), digest_size=6)
        return FaultId("f-" + digest.hexdigest())


def wanted_faults(book: LeaseBook) -> dict[str, WantedFault]:
    """By subject, what owners should have been told of. Pure."""
    found = {}
    for reservation in {each.reservation for each in book.missing()}:
        lease = book.lease_of(reservation)
        if lease.is_open:
            fault = _missing(book, lease, book.reservations[reservation])
            found[fault.about] = fault
    for row in book.reservations.values():
        lease = book.leases[row.lease]
        is_before = lease.status in (LeaseStatus.PENDING, LeaseStatus.STARTING)
        if row.moved_ns is not None and lease.is_open and (is_before or row.changed_ns is not None):
            fault = _moved(book, lease, row, row.moved_ns)
            found[fault.about] = fault
    return found


def _missing(book: LeaseBook, lease: Lease, row: Reservation) -> WantedFault:
    allocations = book.allocations_of(row.id)
    missing = [each for each in allocations if each.host is None]
    since_ns = min(each.since_ns for each in missing)
    count = f"{len(missing)} of {len(allocations)}"
    has_begun = lease.status not in (LeaseStatus.PENDING, LeaseStatus.STARTING)
    return WantedFault(
        missing_subject(row.id),
        FaultKind.RESERVATION_MISSING,
        Severity.CRITICAL if has_begun else Severity.MAJOR,
        lease.project,
        f"lease {lease.name} is without {count} hosts: {missing[0].reason}",
        since_ns,
        f"missing/{since_ns}",
        lease,
    )


def _moved(book: LeaseBook, lease: Lease, row: Reservation, moved_ns: int) -> WantedFault:
    moved = [each for each in book.allocations_of(row.id) if each.since_ns == moved_ns]
    hosts = ", ".join(str(each.host) for each in moved if each.host is not None) or "other hosts"
    reason = next((each.reason for each in moved if each.reason), "its dates or its requirements changed")
    return WantedFault(
        moves_subject(row.id),
        FaultKind.RESERVATION_MOVED,
        Severity.WARNING,
        lease.project,
        f"lease {lease.name} is on {hosts} now: {reason}",
        moved_ns,
        f"moved/{moved_ns}",
        lease,
    )


def is_settled(faults: Mapping[str, Fault], wanted: Mapping[str, WantedFault]) -> bool:
    """Whether the open faults are those that should be."""
    there = {about: fault.id for about, fault in faults.items() if fault.kind in KINDS}
    return there == {about: each.id for about, each in wanted.items()}


def settle(wanted: Mapping[str, WantedFault], world: IngestState, now: Moment) -> Decision:
    """Raise what is not open, clear what should not be. Pure."""
    decision = Decision(now.base)
    ours = {about: fault for about, fault in world.faults.items() if fault.kind in KINDS}
    for about, fault in ours.items():
        after = wanted.get(about)
        if after is None or after.id != fault.id:
            _clear(decision, fault, "" if after is None else after.id, now)
    for about, each in wanted.items():
        before = ours.get(about)
        if before is None or before.id != each.id:
            _raise(decision, each, () if before is None else (before.id,))
    return decision


def _raise(decision: Decision, wanted: WantedFault, follows: tuple[FaultId, ...]) -> None:
    fault = Fault(
        id=wanted.id,
        kind=wanted.kind,
        severity=wanted.severity,
        about=wanted.about,
        owner=wanted.owner,
        reason=wanted.reason,
        state=FaultState.OPEN,
        raised_seq=EventIndex(decision.base + len(decision.events)),
        trace=lease_subject(wanted.lease.id),
        raised_ns=wanted.since_ns,
        raised_mono_ns=None,
    )
    event = FaultRaised(
        fault.id, fault.kind, fault.severity, fault.about, fault.owner, fault.reason, fault.raised_ns
    )
    place = (f"fault/{fault.id}", wanted.since_ns, ORIGIN, fault.trace)
    seq = decision.add(NewEvent(event, *place, key=f"raised/{fault.id}"))
    decision.raised.append(fault)
    decision.tellings.append(PendingNotice(fault, "raised", seq, follows=follows))


def _clear(decision: Decision, fault: Fault, superseded_by: str, now: Moment) -> None:
    reason = "another move followed" if superseded_by else _CLEARED[fault.kind]
    over = replace(
        fault,
        state=FaultState.CLEARED,
        cleared_ns=now.wall_ns,
        cleared_reason=reason,
        superseded_by=superseded_by,
    )
    event = FaultCleared(fault.id, fault.about, reason, now.wall_ns, None, superseded_by=superseded_by)
    place = (f"fault/{fault.id}", now.wall_ns, ORIGIN, fault.trace, fault.raised_seq)
    seq = decision.add(NewEvent(event, *place, key=f"cleared/{fault.id}"))
    decision.changed.append(over)
    decision.tellings.append(PendingNotice(over, "superseded" if superseded_by else "cleared", seq))


_CLEARED = {
    FaultKind.RESERVATION_MISSING: "all hosts are there again, or the lease is over",
    FaultKind.RESERVATION_MOVED: "acknowledged, or the lease started on these hosts or is over",
}


class OwnerNotifier:
    """The loop; one for a server."""

    def __init__(self, keeper: LeaseKeeper, path: IngestLoop) -> None:
        self._keeper, self._path = keeper, path

    async def run(self) -> None:
        """Compare after every change, for ever."""
        waking = self._keeper.watch()
        while True:
            waking.clear()
            wanted = wanted_faults(self._keeper.book)
            if not is_settled(self._path.world.faults, wanted):
                try:
                    await self._path.record(partial(settle, wanted))
                except RetryLater as error:
                    log.warning("owners of leases are notified later", reason=str(error))
                    await asyncio.sleep(RETRY_S)
                    continue
            await waking.wait()
