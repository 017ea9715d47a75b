"""The HTTP API of leases, /api/v1/leases: book, look, change, acknowledge, delete.

A project sees its own leases and nothing of others; operators write what is their project's, administrators
everything. `{id}` is the id of a lease, the beginning of it (eight characters or more), or its name while
only one lease of the caller has that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Protocol

from fastapi import APIRouter, Path, Query

from homeostat.contracts.nouns import HostId, Owner
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import Clock, to_wall_ns
from homeostat.kernel.errors import BadInput, NotAllowed, NotFound
from homeostat.kernel.http import ERRORS, CurrentCaller, state_part
from homeostat.kernel.journal import Journal
from homeostat.leases.booking import LeaseRequest
from homeostat.leases.explanation import Explanation
from homeostat.leases.explanation_views import LeaseExplanation, explanation_view, named
from homeostat.leases.keeper import LeaseKeeper
from homeostat.leases.lease_update import LeaseUpdate, ReservationUpdate
from homeostat.leases.model import Lease, LeaseId, LeaseStatus, Reservation, ReservationId
from homeostat.leases.outlook import lease_risks
from homeostat.leases.refusal_texts import refused
from homeostat.leases.refusals import LeaseRefusal
from homeostat.leases.survey import ReservationRisk
from homeostat.leases.views import (
    LeaseBody,
    LeaseChangeBody,
    LeaseList,
    LeaseView,
    Outlook,
    failed_hosts,
    lease_view,
    reservation_request,
    reservation_update,
    unknown_hosts,
)

LIMIT_MAX = 1000
ID_LENGTH_MIN = 8
"""So much of an id names a lease, if no other one begins like that."""


class OutlookSource(Protocol):
    """`LeaseOutlook`."""

    @property
    def risks(self) -> Mapping[ReservationId, ReservationRisk]: ...

    async def explain(self, reservation: Reservation) -> tuple[Explanation, HostId | None] | None: ...


@dataclass(frozen=True, slots=True)
class LeasesApi:
    """What the routes stand on: `app.state.leases`."""

    keeper: LeaseKeeper
    clock: Clock
    journal: Journal
    outlook: OutlookSource


CurrentLeases = Annotated[LeasesApi, state_part("leases")]
LeasePath = Annotated[str, Path(max_length=255)]
router = APIRouter(prefix="/api/v1", tags=["leases"], responses=ERRORS)


@router.get("/leases")
async def list_leases(
    caller: CurrentCaller,
    parts: CurrentLeases,
    all: bool = False,
    status: LeaseStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 100,
) -> LeaseList:
    """Leases that are not over, or `all`; by their starts."""
    rows = [
        row
        for row in parts.keeper.book.leases.values()
        if caller.may_read(row.project)
        and (all or row.is_open or status is not None)
        and (status is None or row.status is status)
    ]
    rows.sort(key=lambda row: (row.start_ns, row.created_ns, row.id))
    return LeaseList(items=[shown_lease(parts, row, caller) for row in rows[:limit]])


@router.post("/leases", status_code=201)
async def create_lease(body: LeaseBody, caller: CurrentCaller, parts: CurrentLeases) -> LeaseView:
    """Book it whole, or say what is free and from when on the same would be."""
    project = caller.owner if body.project is None else body.project
    _must_write(caller, project)
    start_ns = None if body.starts_at is None else to_wall_ns(body.starts_at)
    request = LeaseRequest(
        body.name,
        Owner(project),
        caller.name,
        start_ns,
        _end_ns(body, parts.clock.wall_ns() if start_ns is None else start_ns),
        _ns_or_none(body.before_end_at),
        tuple(
            reservation_request(each, f"reservations.{number}")
            for number, each in enumerate(body.reservations)
        ),
    )
    return shown_lease(parts, _done(await parts.keeper.create(request), caller), caller)


@router.get("/leases/{id}")
async def show_lease(id: LeasePath, caller: CurrentCaller, parts: CurrentLeases) -> LeaseView:
    """One lease, also when it is over."""
    return shown_lease(parts, find_lease(parts, caller, id), caller)


@router.patch("/leases/{id}")
async def change_lease(
    id: LeasePath, body: LeaseChangeBody, caller: CurrentCaller, parts: CurrentLeases
) -> LeaseView:
    """Change what is given. A running reservation keeps its hosts, or the answer names what is in the way."""
    row = _writable(parts, caller, id)
    rows = {each.id: each for each in parts.keeper.book.reservations_of(row.id)}
    updates: dict[ReservationId, ReservationUpdate] = {}
    for number, each in enumerate(body.reservations):
        known = rows.get(ReservationId(each.id))
        if known is None:
            raise BadInput(f"reservations.{number}.id", each.id, f"one of {', '.join(rows)}")
        updates[known.id] = reservation_update(each, known, f"reservations.{number}")
    update = LeaseUpdate(
        body.name,
        _ns_or_none(body.starts_at),
        _ns_or_none(body.ends_at),
        _ns_or_none(body.before_end_at),
        updates,
    )
    if update == LeaseUpdate():
        raise BadInput(
            "body", None, "a field to change: name, starts_at, ends_at, before_end_at, reservations"
        )
    return shown_lease(parts, _done(await parts.keeper.update(row.id, update, caller.name), caller), caller)


@router.delete("/leases/{id}", status_code=204)
async def delete_lease(id: LeasePath, caller: CurrentCaller, parts: CurrentLeases) -> None:
    """It is gone with all of its reservations, also while it runs; what it held is free."""
    await parts.keeper.delete(_writable(parts, caller, id).id, caller.name)


@router.post("/leases/{id}/ack")
async def acknowledge_lease(id: LeasePath, caller: CurrentCaller, parts: CurrentLeases) -> LeaseView:
    """Take note of what changed: the flag `resources_changed` is cleared. What is missing stays missing."""
    row = _writable(parts, caller, id)
    return shown_lease(parts, await parts.keeper.acknowledge(row.id, caller.name), caller)


@router.get("/leases/{id}/explain")
async def explain_lease(id: LeasePath, caller: CurrentCaller, parts: CurrentLeases) -> LeaseExplanation:
    """Why it stands as it does: who has the hosts that it could use, and the smallest change that helps."""
    row = find_lease(parts, caller, id)
    shown, book = shown_lease(parts, row, caller), parts.keeper.book
    found = []
    for reservation in book.reservations_of(row.id) if row.is_open else ():
        explained = await parts.outlook.explain(reservation)
        if explained is not None:
            found.append(explained)
    return LeaseExplanation(
        lease=row.id,
        name=row.name,
        health=shown.health,
        outlook=shown.outlook,
        sentences=[
            *_standing(shown),
            *(
                f"If {host} fails: {named(each, book, caller)}" if host else named(each, book, caller)
                for explanation, host in found
                for each in explanation.sentences
                if each not in {other.sentence for other in explanation.competitors}
            ),
        ],
        reservations=[explanation_view(each, host, book, caller) for each, host in found],
    )


def _standing(shown: LeaseView) -> list[str]:
    """What is true of it now, in sentences."""
    if shown.ended_at is not None:
        return [f"{shown.name} is over since {shown.ended_at}."]
    wanted = sum(len(each.allocations) for each in shown.reservations)
    count = "1 place" if wanted == 1 else f"{wanted} places"
    said = [f"{shown.name} is {shown.status.value}: {wanted - shown.missing} of {count} with a host."]
    if shown.failed_hosts:
        said.append(f"Failed of these: {', '.join(shown.failed_hosts)}.")
    if shown.reason:
        said.append(f"Last change: {shown.reason}.")
    match shown.outlook:
        case Outlook.SAFE:
            said.append("Safe: if any one of its hosts fails, another one is free or can be freed.")
        case Outlook.AT_RISK if not shown.missing and not shown.failed_hosts:
            said.append(f"At risk: {shown.outlook_reason}")
        case _:
            pass
    return said


def shown_lease(parts: LeasesApi, row: Lease, caller: Caller) -> LeaseView:
    """With its outlook; one that is over has none.

    The table of risks is some seconds old: a lease is never shown as safe that lacks a host by now, or of
    whose hosts one failed, or is not known to work.
    """
    book = parts.keeper.book
    if not row.is_open:
        return lease_view(book, row, Outlook.UNKNOWN, "")
    if lost := failed_hosts(book, row.id):
        return lease_view(book, row, Outlook.AT_RISK, f"{', '.join(lost)} failed.")
    found = lease_risks(book, row.id, parts.outlook.risks)
    risky = [each for each in found or () if not each.is_safe]
    if risky:
        return lease_view(book, row, Outlook.AT_RISK, named(risky[0].reason, book, caller))
    if any(book.is_missing(each.id) for each in book.reservations_of(row.id)):
        return lease_view(book, row, Outlook.AT_RISK, "It lacks a host already now.")
    if doubted := unknown_hosts(book, row.id):
        return lease_view(book, row, Outlook.UNKNOWN, f"Nobody knows whether {', '.join(doubted)} works.")
    return lease_view(book, row, Outlook.SAFE if found else Outlook.UNKNOWN, "")


def find_lease(parts: LeasesApi, caller: Caller, text: str) -> Lease:
    """By id, by the beginning of the id, or by name. NotFound; BadInput when several have the name."""
    book = parts.keeper.book
    row = book.leases.get(LeaseId(text))
    if row is not None and caller.may_read(row.project):
        return row
    own = [each for each in book.leases.values() if caller.may_read(each.project)]
    found = [each for each in own if each.name == text]
    found = [each for each in found if each.is_open] or found
    if not found and len(text) >= ID_LENGTH_MIN:
        found = [each for each in own if each.id.startswith(text)]
    if len(found) > 1:
        shown = ", ".join(sorted(each.id for each in found)[:5])
        raise BadInput("lease", text, f"an id; {len(found)} leases are called so: {shown}")
    if not found:
        raise NotFound(f"there is no lease {text!r}, or it is not yours to read")
    return found[0]


def _writable(parts: LeasesApi, caller: Caller, text: str) -> Lease:
    row = find_lease(parts, caller, text)
    _must_write(caller, row.project)
    return row


def _must_write(caller: Caller, project: str) -> None:
    if caller.role in (Role.VIEWER, Role.CONSUMER):
        raise NotAllowed(f"a {caller.role.value} does not change leases; use a token of an operator")
    if not caller.may_write(project):
        raise NotAllowed(f"you may lease for the project {caller.owner} only")


def _done(outcome: Lease | LeaseRefusal, caller: Caller) -> Lease:
    if isinstance(outcome, LeaseRefusal):
        raise refused(outcome, caller)
    return outcome


def _ns_or_none(at: datetime | None) -> int | None:
    return None if at is None else to_wall_ns(at)


def _end_ns(body: LeaseBody, start_ns: int) -> int:
    if (body.ends_at is None) == (body.for_s is None):
        raise BadInput("ends_at", None if body.ends_at is None else str(body.ends_at), "ends_at or for_s")
    if body.for_s is not None:
        return start_ns + round(body.for_s * 1e9)
    assert body.ends_at is not None
    return to_wall_ns(body.ends_at)
