"""GET /api/v1/faults and /api/v1/explain: what is wrong, what was, why, and where the time went."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import AwareDatetime, BaseModel
from sqlalchemy import Connection, func, select

from homeostat.contracts.events.faults import FaultInhibited, FaultRaised
from homeostat.contracts.nouns import (
    INFRASTRUCTURE,
    FaultId,
    FaultKind,
    Owner,
    ResourceId,
    Severity,
    resource_subject,
)
from homeostat.faults.affected import read
from homeostat.faults.checkpoints import Numbering, Timeline
from homeostat.faults.explanation import Explained, arrivals, explained
from homeostat.faults.herald import NO_TAGS, picture_of
from homeostat.faults.model import Fault, FaultState
from homeostat.faults.ownership import owners
from homeostat.faults.store import FaultQuery, fault_table, load, load_latest
from homeostat.faults.tags import Tags
from homeostat.faults.timeline import timeline
from homeostat.fleet.store import action_table, resource_table
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import iso, wall_of
from homeostat.kernel.database import Readers, journal
from homeostat.kernel.errors import NotFound
from homeostat.kernel.http import ERRORS, CurrentCaller
from homeostat.kernel.journal import Envelope, Seq
from homeostat.kernel.reader import Journal
from homeostat.notices.matching import concerned
from homeostat.notices.subscriptions import Subscriptions

LIMIT_MAX = 1000
SEQ_DIGITS_MAX = 18
INJECTIONS_WITHIN = 5000
ARRIVALS_AMONG = 5000
NS_MAX = 2**62


@dataclass(frozen=True, slots=True)
class FaultsApi:
    """What the routes stand on: `app.state.faults`."""

    readers: Readers
    journal: Journal
    subscriptions: Subscriptions
    tags: Tags = NO_TAGS


class AffectedView(BaseModel):
    """What suffers from a fault beside its subject, as it was when the fault was raised."""

    subject: str
    owner: str
    detail: str


class FaultView(BaseModel):
    """A fault. `outage_ms` is null when no single clock saw both ends.

    `drill` is the run that broke it on purpose, null when none did.
    """

    id: str
    kind: FaultKind
    severity: Severity
    state: FaultState
    about: str
    owner: str
    reason: str
    raised_at: str
    cleared_at: str | None
    cleared_reason: str
    outage_ms: float | None
    affected: list[AffectedView]
    drill: str | None


class FaultList(BaseModel):
    """The faults that the caller may read, newest first."""

    items: list[FaultView]


class Explanation(BaseModel):
    """The chain of causes, in the journal's order. `drills`: the runs that broke it on purpose."""

    id: str
    drills: list[str]
    items: list[Explained]


def _parts(request: Request) -> FaultsApi:
    parts: FaultsApi = request.app.state.faults
    return parts


Parts = Annotated[FaultsApi, Depends(_parts)]
Moment = Annotated[AwareDatetime | None, Query()]
Id = Annotated[str, Path(max_length=200)]
router = APIRouter(prefix="/api/v1", tags=["faults"], responses=ERRORS)


@router.get("/faults")
async def list_faults(  # noqa: PLR0913 - a query has this many fields
    caller: CurrentCaller,
    parts: Parts,
    state: FaultState | None = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 100,
    kind: Annotated[tuple[FaultKind, ...], Query(max_length=64)] = (),
    resource: Annotated[str | None, Query(min_length=1, max_length=255, pattern=r"^[!-~]+$")] = None,
    minimum_severity: Severity | None = None,
    raised_from: Moment = None,
    raised_until: Moment = None,
) -> FaultList:
    """The newest faults first. `resource` is what a fault is about, or suffers from it.

    `raised_from` is included, `raised_until` is not; both are times with a zone.
    """
    wanted = FaultQuery(
        owner=None if caller.role is Role.ADMIN else Owner(caller.owner),
        state=state,
        kinds=kind,
        resource=None if resource is None else ResourceId(resource),
        minimum_severity=minimum_severity,
        from_ns=_ns_of(raised_from),
        until_ns=_ns_of(raised_until),
    )
    faults = await parts.readers.read(lambda conn: load_latest(conn, wanted, limit))
    seen = [_view(caller, parts, fault) for fault in faults if _may_read(caller, fault)]
    # What suffers and is somebody else's is not there, so nobody finds a fault by it.
    return FaultList(items=[each for each in seen if resource is None or _names(each, resource)])


@router.get("/faults/{fault}")
async def show_fault(fault: Id, caller: CurrentCaller, parts: Parts) -> FaultView:
    """One fault."""
    found = await parts.readers.read(lambda conn: load(conn, [FaultId(fault)]))
    if not found or not _may_read(caller, found[0]):
        raise NotFound(f"there is no fault {fault!r}, or it is not yours to read")
    return _view(caller, parts, found[0])


@router.get("/explain/{id}")
async def explain(id: Id, caller: CurrentCaller, parts: Parts) -> Explanation:
    """The chain of causes around a fault, an act, or an event's number; of a resource the newest."""
    chain = await chain_of(id, caller, parts)
    raised = [each.event.fault for each in chain if isinstance(each.event, FaultRaised)]
    faults = await parts.readers.read(lambda conn: load(conn, raised)) if raised else []
    drills = {run for fault in faults if (run := _drill(parts, fault)) is not None}
    return Explanation(id=id, drills=sorted(drills), items=explained(chain))


async def chain_of(id: str, caller: Caller, parts: FaultsApi) -> list[Envelope]:
    """The events of that chain that are the caller's business; NotFound when there is none.

    A viewer of `infrastructure` sees what is the infrastructure's, and no tenant's.
    """
    if _is_number(id) and caller.role is not Role.ADMIN:  # it may be anybody's event
        raise NotFound(f"nothing called {id!r} is known, or it is not yours to read")
    seq, projects = await parts.readers.read(lambda conn: _locate(conn, id))
    found = [] if seq is None or not any(map(caller.may_read, projects)) else await parts.journal.chain(seq)
    if not found:
        raise NotFound(f"nothing called {id!r} is known, or it is not yours to read")
    chain = [*found, *await _arrivals(parts, found)]
    known = await parts.readers.read(lambda conn: owners(conn, chain))
    return [each for each in chain if any(map(caller.may_read, known.projects(each)))]


@router.get("/faults/{fault}/timeline")
async def show_timeline(
    fault: Id,
    caller: CurrentCaller,
    parts: Parts,
    numbering: Numbering = Numbering.BLUEPRINT,
    consumer: Annotated[str | None, Query(max_length=200)] = None,
) -> Timeline:
    """Where the time went: the checkpoints from the failure to those told, of one consumer or the last."""
    found = await parts.readers.read(lambda conn: load(conn, [FaultId(fault)]))
    if not found or not _may_read(caller, found[0]):
        raise NotFound(f"there is no fault {fault!r}, or it is not yours to read")
    assert isinstance(found[0].raised_seq, int), "a stored fault is committed"
    chain = await parts.journal.chain(found[0].raised_seq)
    chain += await _injections(parts, found[0].about, found[0].raised_seq)
    folded = timeline([each for each in chain if _may_see(caller, parts, each)], fault, numbering, consumer)
    if folded is None:
        who = "" if consumer is None else f" for {consumer!r}"
        raise NotFound(
            f"the journal has no timeline of {fault!r}{who} (any more), or it is not yours to read"
        )
    return folded


async def _arrivals(parts: FaultsApi, chain: list[Envelope]) -> list[Envelope]:
    """When the guests that moved in this chain ran again, looked for among the next thousands of starts."""
    first = next((each.seq for each in chain if each.kind == "GuestMoved"), None)
    if first is None:
        return []
    return arrivals(chain, await parts.journal.read(first, ARRIVALS_AMONG, kinds={"ResourceUp"}))


async def _injections(parts: FaultsApi, about: str, raised: Seq) -> list[Envelope]:
    """Stamps of what was broken on purpose around the time of a fault. They may come in after it was seen."""
    first, last = Seq(max(0, raised - INJECTIONS_WITHIN)), Seq(raised + INJECTIONS_WITHIN)
    near = await parts.journal.latest(last, 20, after=first, kind="FaultInjected", subject=about)
    return [each for each in near if each.subject == about]


def _is_number(id: str) -> bool:
    return id.isascii() and id.isdecimal() and len(id) <= SEQ_DIGITS_MAX


def _locate(connection: Connection, id: str) -> tuple[Seq | None, frozenset[str]]:
    """The event that stands for an id, and the projects that it concerns."""
    if _is_number(id):
        return Seq(int(id)), frozenset({INFRASTRUCTURE})
    for fault in load(connection, [FaultId(id)]):
        assert isinstance(fault.raised_seq, int), "a stored fault is committed"
        return fault.raised_seq, concerned(picture_of(fault))
    query = select(action_table.c.intended_seq, resource_table.c.owner).where(
        action_table.c.id == id, action_table.c.about == "resource/" + resource_table.c.id
    )
    for row in connection.execute(query):
        return Seq(row.intended_seq), frozenset({row.owner})
    return _locate_resource(connection, id)


def _locate_resource(connection: Connection, id: str) -> tuple[Seq | None, frozenset[str]]:
    """The newest of a resource's own fault and its move to another host."""
    owner = connection.execute(select(resource_table.c.owner).where(resource_table.c.id == id)).scalar()
    if owner is None:
        return None, frozenset()
    subject = resource_subject(ResourceId(id))
    raised = select(func.max(fault_table.c.raised_seq)).where(fault_table.c.about == subject)
    moved = select(func.max(journal.c.seq)).where(
        journal.c.subject == subject, journal.c.kind == "GuestMoved"
    )
    found = [connection.execute(each).scalar() for each in (raised, moved)]
    newest = max((seq for seq in found if seq is not None), default=None)
    return None if newest is None else Seq(newest), frozenset({owner})


def _may_see(caller: Caller, parts: FaultsApi, envelope: Envelope) -> bool:
    """Whom else was told is the business of that subscription's project, and of administrators."""
    if caller.role is Role.ADMIN:
        return True
    if isinstance(envelope.event, FaultInhibited):  # told with a host, whose fault is many projects'
        return caller.may_read(envelope.event.owner)
    if "subscription" not in envelope.payload:
        return True
    subscription = parts.subscriptions.find(str(envelope.payload["subscription"]))
    return subscription is not None and caller.may_read(subscription.owner)


def _ns_of(at: datetime | None) -> int | None:
    """Within what the database can hold: nothing was raised outside of that."""
    return None if at is None else min(max(wall_of(at), -NS_MAX), NS_MAX)


def _names(fault: FaultView, resource: str) -> bool:
    return resource_subject(ResourceId(resource)) in (fault.about, *(each.subject for each in fault.affected))


def _may_read(caller: Caller, fault: Fault) -> bool:
    return any(map(caller.may_read, concerned(picture_of(fault))))


def _drill(parts: FaultsApi, fault: Fault) -> str | None:
    return parts.tags.run_of(fault.about, fault.host, fault.owner, fault.raised_seq) or None


def _view(caller: Caller, parts: FaultsApi, fault: Fault) -> FaultView:
    return FaultView(
        id=fault.id,
        kind=fault.kind,
        severity=fault.severity,
        state=fault.state,
        about=fault.about,
        owner=fault.owner,
        reason=fault.reason,
        raised_at=iso(fault.raised_ns),
        cleared_at=None if fault.cleared_ns is None else iso(fault.cleared_ns),
        cleared_reason=fault.cleared_reason,
        outage_ms=fault.outage_ms,
        affected=[
            AffectedView(subject=each.subject, owner=each.owner, detail=each.detail)
            for each in read(fault.affected)
            if caller.may_read(each.owner)
        ],
        drill=_drill(parts, fault),
    )
