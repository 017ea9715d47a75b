"""GET /api/v1/faults and /api/v1/explain: what is wrong, what was, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel
from sqlalchemy import Connection, select

from homeostat.contracts.nouns import INFRASTRUCTURE, FaultId, FaultKind, Owner, Severity
from homeostat.faults.explanation import Explained, explained
from homeostat.faults.model import Fault, FaultState
from homeostat.faults.store import load, load_latest
from homeostat.fleet.store import action_table, resource_table
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import iso
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import NotFound
from homeostat.kernel.http import ERRORS, CurrentCaller
from homeostat.kernel.journal import Envelope, Seq
from homeostat.kernel.reader import Journal
from homeostat.notices.subscriptions import Subscriptions

LIMIT_MAX = 1000
SEQ_DIGITS_MAX = 18


@dataclass(frozen=True, slots=True)
class FaultsApi:
    """What the routes stand on: `app.state.faults`."""

    readers: Readers
    journal: Journal
    subscriptions: Subscriptions


class FaultView(BaseModel):
    """A fault. `outage_ms` is null when no single clock saw both ends."""

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


class FaultList(BaseModel):
    """The faults that the caller may read, newest first."""

    items: list[FaultView]


class Explanation(BaseModel):
    """The chain of causes, in the journal's order."""

    id: str
    items: list[Explained]


def _parts(request: Request) -> FaultsApi:
    parts: FaultsApi = request.app.state.faults
    return parts


Parts = Annotated[FaultsApi, Depends(_parts)]
Id = Annotated[str, Path(max_length=200)]
router = APIRouter(prefix="/api/v1", tags=["faults"], responses=ERRORS)


@router.get("/faults")
async def list_faults(
    caller: CurrentCaller,
    parts: Parts,
    state: FaultState | None = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 100,
) -> FaultList:
    """The newest faults first."""
    owner = None if caller.role is Role.ADMIN else Owner(caller.owner)
    wanted = None if state is None else state.value
    faults = await parts.readers.read(lambda conn: load_latest(conn, owner, wanted, limit))
    return FaultList(items=[_view(fault) for fault in faults if caller.may_read(fault.owner)])


@router.get("/faults/{fault}")
async def show_fault(fault: Id, caller: CurrentCaller, parts: Parts) -> FaultView:
    """One fault."""
    found = await parts.readers.read(lambda conn: load(conn, [FaultId(fault)]))
    if not found or not caller.may_read(found[0].owner):
        raise NotFound(f"there is no fault {fault!r}, or it is not yours to read")
    return _view(found[0])


@router.get("/explain/{id}")
async def explain(id: Id, caller: CurrentCaller, parts: Parts) -> Explanation:
    """The chain of causes around a fault, an act, or an event's number."""
    return Explanation(id=id, items=explained(await chain_of(id, caller, parts)))


async def chain_of(id: str, caller: Caller, parts: FaultsApi) -> list[Envelope]:
    """The events of that chain that the caller may read; NotFound when there is none."""
    seq, owner = await parts.readers.read(lambda conn: _locate(conn, id))
    chain = [] if seq is None or not caller.may_read(owner) else await parts.journal.chain(seq)
    if not chain:
        raise NotFound(f"nothing called {id!r} is known, or it is not yours to read")
    return [each for each in chain if _may_see(caller, parts, each)]


def _locate(connection: Connection, id: str) -> tuple[Seq | None, str]:
    """The event that stands for an id, and the project that owns it."""
    if id.isascii() and id.isdecimal() and len(id) <= SEQ_DIGITS_MAX:
        return Seq(int(id)), INFRASTRUCTURE
    for fault in load(connection, [FaultId(id)]):
        assert isinstance(fault.raised_seq, int), "a stored fault is committed"
        return fault.raised_seq, fault.owner
    query = select(action_table.c.intended_seq, resource_table.c.owner).where(
        action_table.c.id == id, action_table.c.about == "resource/" + resource_table.c.id
    )
    for row in connection.execute(query):
        return Seq(row.intended_seq), row.owner
    return None, INFRASTRUCTURE


def _may_see(caller: Caller, parts: FaultsApi, envelope: Envelope) -> bool:
    """Whom else was told is the business of that subscription's project, and of administrators."""
    if caller.role is Role.ADMIN or "subscription" not in envelope.payload:
        return True
    subscription = parts.subscriptions.find(str(envelope.payload["subscription"]))
    return subscription is not None and caller.may_read(subscription.owner)


def _view(fault: Fault) -> FaultView:
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
    )
