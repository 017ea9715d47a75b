"""The routes /api/v1/faults and /api/v1/explain: faults, their chains of causes, and their timelines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel
from sqlalchemy import Connection, func, select

from homeostat.contracts import nouns
from homeostat.contracts.events import resources
from homeostat.contracts.events.faults import FaultInhibited, FaultRaised
from homeostat.contracts.faults import Fault, FaultState
from homeostat.contracts.journal_view import JournalView
from homeostat.faults.checkpoints import Numbering, Timeline
from homeostat.faults.notice_bridge import NO_DRILL_TAGS, picture_of
from homeostat.faults.store import FaultQuery, fault_table, load, load_latest
from homeostat.faults.timeline import timeline
from homeostat.faults.timeline_text import outage_range
from homeostat.fleet.store import action_table, resource_table
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import iso, to_wall_ns
from homeostat.kernel.database import Readers, journal
from homeostat.kernel.errors import NotFound
from homeostat.kernel.http import ERRORS, CurrentCaller, state_part, view_from
from homeostat.kernel.journal import Envelope, Journal, Seq
from homeostat.notices.matching import concerned_owners
from homeostat.notices.model import RestoredGuest
from homeostat.notices.subscriptions import Subscriptions
from homeostat.ports import DrillTags


class ExplainedEvent(BaseModel):
    """One event of a chain. `after_ms` counts from the earliest; `cause` is the number of another event."""

    seq: int
    at: str
    after_ms: float
    cause: int | None
    kind: str
    by: str
    what: str


def arrivals(chain: Sequence[Envelope], ups: Iterable[Envelope]) -> list[Envelope]:
    """Where the story of guests that moved ends: of `ups` the first of each on its new host, after the move.

    A start has a chain of its own, with its node's acts: nothing in the journal says that the move caused it.
    """
    moved: dict[str, tuple[int, str]] = {}
    for each in chain:
        if isinstance(each.event, resources.GuestMoved):
            moved[each.subject] = (each.seq, each.event.host)
    found: dict[str, Envelope] = {}
    for up in sorted(ups, key=lambda each: each.seq):
        since, host = moved.get(up.subject, (up.seq, ""))
        if isinstance(up.event, resources.ResourceUp) and up.event.host == host and up.seq > since:
            found.setdefault(up.subject, up)
    known = {each.seq for each in chain}
    return [each for each in found.values() if each.seq not in known]


def explain_events(
    chain: Sequence[Envelope], sentence: Callable[[object | None, str, str], str]
) -> list[ExplainedEvent]:
    """The chain as rows, in the journal's order. `sentence` takes an event, its kind and its subject."""
    if not chain:
        return []
    first_ns = min(each.at_ns for each in chain)
    return [
        ExplainedEvent(
            seq=each.seq,
            at=iso(each.at_ns),
            after_ms=round((each.at_ns - first_ns) / 1e6, 1),
            cause=each.cause,
            kind=each.kind,
            by=each.origin,
            what=sentence(each.event, each.kind, each.subject),
        )
        for each in chain
    ]


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
    view: JournalView
    tags: DrillTags = NO_DRILL_TAGS


class RecoveredView(BaseModel):
    """Where a guest runs again, and since when by the wall clock of that host. The outage was between the
    bounds, null where nobody knows."""

    host: str
    at: str
    outage_lower_ms: float | None
    outage_upper_ms: float | None


class AffectedView(BaseModel):
    """What suffers from a fault beside its subject, as it was when the fault was raised.

    `recovered`: it runs again, on another host than the one that died, and was told so.
    """

    subject: str
    owner: str
    detail: str
    recovered: RecoveredView | None = None


class FaultView(BaseModel):
    """A fault. The outage was between `outage_lower_ms` and `outage_upper_ms`, null where nobody knows.

    `outage_ms` is the upper bound, by the name of earlier versions. `superseded_by` is the fault that took
    its place, null when none did: its subject stayed wrong. Of a dead host a project sees `recovered` as the
    state when all that it had there runs elsewhere.

    `drill` is the run that broke it on purpose, null when none did.
    """

    id: str
    kind: nouns.FaultKind
    severity: nouns.Severity
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
    outage_lower_ms: float | None = None
    outage_upper_ms: float | None = None
    superseded_by: str | None = None

    @property
    def outage(self) -> str:
        """The bounds for people; empty while it is not over."""
        return "" if self.cleared_at is None else outage_range(self.outage_lower_ms, self.outage_upper_ms)


class FaultList(BaseModel):
    """The faults that the caller may read, newest first."""

    items: list[FaultView]


class Explanation(BaseModel):
    """The chain of causes, in the journal's order. `drills`: the runs that broke it on purpose."""

    id: str
    drills: list[str]
    items: list[ExplainedEvent]


CurrentFaultsApi = Annotated[FaultsApi, state_part("faults")]
TimeQuery = Annotated[AwareDatetime | None, Query()]
Id = Annotated[str, Path(max_length=200)]
router = APIRouter(prefix="/api/v1", tags=["faults"], responses=ERRORS)


@router.get("/faults")
async def list_faults(  # noqa: PLR0913 - a query has this many fields
    caller: CurrentCaller,
    parts: CurrentFaultsApi,
    state: FaultState | None = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 100,
    kind: Annotated[tuple[nouns.FaultKind, ...], Query(max_length=64)] = (),
    resource: Annotated[str | None, Query(pattern=nouns.WORD)] = None,
    minimum_severity: nouns.Severity | None = None,
    raised_from: TimeQuery = None,
    raised_until: TimeQuery = None,
) -> FaultList:
    """The newest faults first. `resource` is what a fault is about, or suffers from it.

    `raised_from` is included, `raised_until` is not; both are times with a zone.
    """
    wanted = FaultQuery(
        owner=None if caller.role is Role.ADMIN else nouns.Owner(caller.owner),
        state=state,
        kinds=kind,
        resource=None if resource is None else nouns.ResourceId(resource),
        minimum_severity=minimum_severity,
        from_ns=_ns_of(raised_from),
        until_ns=_ns_of(raised_until),
    )
    faults = await parts.readers.read(lambda conn: load_latest(conn, wanted, limit))
    seen = [_view(caller, parts, fault) for fault in faults if _may_read(caller, fault)]
    if state is not None:
        seen = [each for each in seen if each.state is state]
    if resource is not None:
        subject = nouns.resource_subject(nouns.ResourceId(resource))
        # What suffers and is somebody else's is not there, so nobody finds a fault by it.
        seen = [each for each in seen if subject in (each.about, *(row.subject for row in each.affected))]
    return FaultList(items=seen)


@router.get("/faults/{fault}")
async def show_fault(fault: Id, caller: CurrentCaller, parts: CurrentFaultsApi) -> FaultView:
    """One fault."""
    found = await parts.readers.read(lambda conn: load(conn, [nouns.FaultId(fault)]))
    if not found or not _may_read(caller, found[0]):
        raise NotFound(f"there is no fault {fault!r}, or it is not yours to read")
    return _view(caller, parts, found[0])


@router.get("/explain/{id}")
async def explain(id: Id, caller: CurrentCaller, parts: CurrentFaultsApi) -> Explanation:
    """The chain of causes around a fault, an act, or an event's number; of a resource the newest."""
    chain = await chain_of(id, caller, parts)
    raised = [each.event.fault for each in chain if isinstance(each.event, FaultRaised)]
    faults = await parts.readers.read(lambda conn: load(conn, raised)) if raised else []
    drills = {run for fault in faults if (run := _drill(parts, fault)) is not None}
    return Explanation(id=id, drills=sorted(drills), items=explain_events(chain, parts.view.sentence))


async def chain_of(id: str, caller: Caller, parts: FaultsApi) -> list[Envelope]:
    """The events of that chain that are the caller's business; NotFound when there is none.

    A viewer of `infrastructure` sees what is the infrastructure's, and no tenant's.
    """
    if _is_number(id) and caller.role is not Role.ADMIN:  # it may be anybody's event
        raise NotFound(f"nothing called {id!r} is known, or it is not yours to read")
    seq, owners = await parts.readers.read(lambda conn: _locate(conn, id))
    found = [] if seq is None or not any(map(caller.may_read, owners)) else await parts.journal.chain(seq)
    if not found:
        raise NotFound(f"nothing called {id!r} is known, or it is not yours to read")
    chain = [*found, *await _arrivals(parts, found)]
    projects = await parts.readers.read(lambda conn: parts.view.projects(conn, chain))
    return [each for each in chain if any(map(caller.may_read, projects[int(each.seq)]))]


@router.get("/faults/{fault}/timeline")
async def show_timeline(
    fault: Id,
    caller: CurrentCaller,
    parts: CurrentFaultsApi,
    numbering: Numbering = Numbering.BLUEPRINT,
    consumer: Annotated[str | None, Query(max_length=200)] = None,
) -> Timeline:
    """The checkpoints from the failure to the notified consumer: one consumer, or the last."""
    found = await parts.readers.read(lambda conn: load(conn, [nouns.FaultId(fault)]))
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
        return Seq(int(id)), frozenset({nouns.INFRASTRUCTURE})
    for fault in load(connection, [nouns.FaultId(id)]):
        assert isinstance(fault.raised_seq, int), "a stored fault is committed"
        return fault.raised_seq, concerned_owners(picture_of(fault))
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
    subject = nouns.resource_subject(nouns.ResourceId(id))
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
    return None if at is None else min(max(to_wall_ns(at), -NS_MAX), NS_MAX)


def _may_read(caller: Caller, fault: Fault) -> bool:
    return any(map(caller.may_read, concerned_owners(picture_of(fault))))


def _drill(parts: FaultsApi, fault: Fault) -> str | None:
    return parts.tags.run_of(fault.about, fault.host, fault.owner, fault.raised_seq) or None


def _view(caller: Caller, parts: FaultsApi, fault: Fault) -> FaultView:
    picture = picture_of(fault)
    is_mine = caller.role is Role.ADMIN or not picture.is_recovered(nouns.Owner(caller.owner))
    return view_from(
        FaultView,
        fault,
        state=fault.state if is_mine or fault.state is FaultState.CLEARED else FaultState.RECOVERED,
        raised_at=iso(fault.raised_ns),
        cleared_at=None if fault.cleared_ns is None else iso(fault.cleared_ns),
        affected=[
            view_from(AffectedView, each, recovered=_recovered(picture.restored.get(each.subject)))
            for each in picture.affected
            if caller.may_read(each.owner)
        ],
        drill=_drill(parts, fault),
        outage_upper_ms=fault.outage_ms,
        superseded_by=fault.superseded_by or None,
    )


def _recovered(guest: RestoredGuest | None) -> RecoveredView | None:
    return None if guest is None else view_from(RecoveredView, guest, at=iso(guest.at_ns))
