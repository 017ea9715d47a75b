"""The routes of /api/v1/drills: begin, renew, report and list runs, show trends, halt and resume.

Administrators and operators begin, halt and resume; viewers read what is their project's; consumers read
nothing of it. A project's run may name only resources of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Connection

from homeostat.contracts.nouns import WORD, HostId, ResourceId
from homeostat.drills import store
from homeostat.drills.leader.register import DrillRegister, KnownDrills
from homeostat.drills.leader.runs import KINDS, reactions_of
from homeostat.drills.reports.model import DrillReport
from homeostat.drills.reports.trends import Trend, trends_of
from homeostat.drills.store import RunRow
from homeostat.fleet.model import Topology
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import Clock, iso
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import BadInput, NotAllowed
from homeostat.kernel.http import ERRORS, CurrentCaller, Text, view_from
from homeostat.kernel.journal import EventIndex, Journal

LIMIT_MAX = 500
TREND_RUNS = 200
"""Of each drill the newest so many runs are drawn and counted."""
EVENTS_MAX = 10_000
_SEQ_MAX = 2**62
_SEED_MAX = 2**53

Word = Annotated[str, Field(pattern=WORD)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Names = Annotated[tuple[Word, ...], Field(max_length=200)]
Reason = Annotated[Text, Field(min_length=1, max_length=500)]


@dataclass(frozen=True, slots=True)
class DrillsApi:
    """What the routes stand on: `app.state.drills`."""

    register: DrillRegister
    known: KnownDrills
    readers: Readers
    journal: Journal
    topology: Callable[[], Topology]
    clock: Clock


class RunBody(BaseModel):
    """A drill that wants its site for itself."""

    model_config = ConfigDict(extra="forbid")

    run: Name
    drill: Name
    suite: Name | None = None
    site: Name
    hosts: Names = ()
    resources: Names = ()
    seed: Annotated[int, Field(ge=-_SEED_MAX, le=_SEED_MAX)] = 0


class InjectedBody(BaseModel):
    """When the fault began, on the tool's wall clock."""

    model_config = ConfigDict(extra="forbid")

    before_ns: Annotated[int, Field(ge=0, le=_SEQ_MAX)]
    after_ns: Annotated[int, Field(ge=0, le=_SEQ_MAX)]


class HaltBody(BaseModel):
    """Why."""

    model_config = ConfigDict(extra="forbid")

    why: Reason


class RunView(BaseModel):
    """A run. `verdict` is null until its report is there."""

    run: str
    drill: str
    suite: str | None
    site: str
    project: str
    by: str
    hosts: list[str]
    resources: list[str]
    seed: int
    state: Literal["running", "reported", "lapsed"]
    began_at: str
    ended_at: str | None
    verdict: str | None


class HaltView(BaseModel):
    """Drills are halted. Who and why is for those whose project it is, and for administrators."""

    by: str | None
    why: str | None
    at: str


class RunList(BaseModel):
    """The newest first. `next` is for `before`, null at the end; `halt` null: drills may run."""

    items: list[RunView]
    next: int | None
    halt: HaltView | None


class RunDetail(RunView):
    """A run with its report, null when none came."""

    report: DrillReport | None


class Renewal(BaseModel):
    """`stop`: why the tool must end the drill now; null: it may go on."""

    stop: str | None


class RaisedView(BaseModel):
    """A fault of ours. `told_after_ms`: from its commit to the first consumer's answer, null: none yet."""

    fault: str
    kind: str
    about: str
    told_after_ms: float | None


class ReturnView(BaseModel):
    """What works again, and who did that."""

    what: str
    by: str


class NoticingView(BaseModel):
    """What our own fault manager made of a run, so far."""

    faults: list[RaisedView]
    brought_back: list[ReturnView]


class TrendList(BaseModel):
    """By drill and row; the newest 200 runs of each drill."""

    items: list[Trend]


def _parts(request: Request) -> DrillsApi:
    parts: DrillsApi = request.app.state.drills
    return parts


Parts = Annotated[DrillsApi, Depends(_parts)]
RunId = Annotated[str, Path(max_length=63)]
router = APIRouter(prefix="/api/v1/drills", tags=["drills"], responses=ERRORS)


@router.get("/runs")
async def list_runs(
    caller: CurrentCaller,
    parts: Parts,
    drill: Annotated[str | None, Query(max_length=63)] = None,
    before: Annotated[int | None, Query(ge=0, le=_SEQ_MAX)] = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 100,
) -> RunList:
    """What ran, newest first, and whether drills are halted."""
    halt = parts.known.claims.halt
    shown = None if halt is None else _halt_view(caller, halt.by, halt.why, halt.owner, halt.at_ns)
    if caller.role is Role.CONSUMER:
        return RunList(items=[], next=None, halt=None)
    query = partial(store.load_runs, owner=_owner(caller), drill=_plain(drill), before=before, limit=limit)
    rows = await parts.readers.read(query)
    last = rows[-1].began_seq if len(rows) == limit else None
    assert not isinstance(last, EventIndex), "a stored run is committed"
    return RunList(items=[view_of(row) for row in rows], next=last, halt=shown)


@router.post("/runs", status_code=201)
async def begin_run(body: RunBody, caller: CurrentCaller, parts: Parts) -> RunView:
    """Claim the site for a drill. 409 while another has it or drills are halted; renew every second."""
    _refuse_lookers(caller)
    if not body.hosts and not body.resources:
        raise BadInput("hosts", [], "the hosts or the resources that are drilled")
    if caller.role is not Role.ADMIN:
        rows = parts.topology().resources
        for name in body.resources:
            there = rows.get(ResourceId(name))
            if there is None or not caller.may_read(there.owner):
                raise NotAllowed(f"{name} is not there, or not of your project {caller.owner}")
    row = RunRow(
        run=body.run,
        drill=body.drill,
        suite=body.suite or "",
        site=body.site,
        hosts=tuple(HostId(each) for each in dict.fromkeys(body.hosts)),
        resources=tuple(ResourceId(each) for each in dict.fromkeys(body.resources)),
        seed=body.seed,
        owner=caller.owner,
        by=caller.name,
        began_ns=parts.clock.wall_ns(),
        began_seq=EventIndex(0),
    )
    await parts.register.begin(row, caller)
    return view_of((await parts.register.find(body.run, caller.may_read))[0])


@router.get("/runs/{run}")
async def show_run(run: RunId, caller: CurrentCaller, parts: Parts) -> RunDetail:
    """One run with its report."""
    row, report = await parts.register.find(_plain(run) or "", _reads(caller))
    found = None if report is None else DrillReport.model_validate_json(report)
    return RunDetail(**view_of(row).model_dump(), report=found)


@router.post("/runs/{run}/renew")
async def renew_run(run: RunId, caller: CurrentCaller, parts: Parts) -> Renewal:
    """Renew the claim. The tool must stop when the answer says so: drills are halted, or its claim lapsed."""
    row = await _own(parts, caller, run)
    return Renewal(stop=await parts.register.renew(row.run))


@router.post("/runs/{run}/injected", status_code=204)
async def note_injected(run: RunId, body: InjectedBody, caller: CurrentCaller, parts: Parts) -> None:
    """The fault is there: a stamp in the journal."""
    row = await _own(parts, caller, run)
    if body.after_ns < body.before_ns:
        raise BadInput("after_ns", body.after_ns, "a moment not before before_ns")
    await parts.register.injected(row, body.before_ns, body.after_ns)


@router.get("/runs/{run}/noticed")
async def show_noticed(run: RunId, caller: CurrentCaller, parts: Parts) -> NoticingView:
    """The faults that we raised about this run's hosts and resources since it began, and who acted."""
    row, _ = await parts.register.find(_plain(run) or "", _reads(caller))
    assert not isinstance(row.began_seq, EventIndex), "a stored run is committed"
    events = await parts.journal.read(row.began_seq, EVENTS_MAX, kinds=KINDS)
    within = [each for each in events if row.ended_seq is None or each.seq <= row.ended_seq]
    found = reactions_of(within, row.hosts, row.resources)
    rows = parts.topology().resources.values()
    mine = {f"resource/{each.id}" for each in rows if caller.may_read(each.owner)}

    def shown(subject: str) -> bool:
        """Of a project's own run on a host, what is others' there is not shown."""
        return caller.role is Role.ADMIN or subject in mine

    return NoticingView(
        faults=[view_from(RaisedView, each) for each in found.faults if shown(each.about)],
        brought_back=[
            view_from(ReturnView, each) for each in found.returns if shown(f"resource/{each.what}")
        ],
    )


@router.put("/runs/{run}/report", status_code=204)
async def put_report(run: RunId, body: DrillReport, caller: CurrentCaller, parts: Parts) -> None:
    """The run is over; its report, as docs/drill-report.schema.json has it. The last one counts."""
    row = await _own(parts, caller, run)
    for field, said, known in (("run", body.run, row.run), ("drill", body.drill, row.drill)):
        if said != known:
            raise BadInput(field, said, f"{known}, as the run was begun")
    await parts.register.finish(row, body.verdict.value, _text(body))


@router.post("/halt")
async def halt_drills(body: HaltBody, caller: CurrentCaller, parts: Parts) -> HaltView:
    """Every running drill stops at its next renewal, and none begins until they are resumed."""
    _refuse_lookers(caller)
    halt = await parts.register.halt(caller, body.why)
    return _halt_view(caller, halt.by, halt.why, halt.owner, halt.at_ns)


@router.post("/resume", status_code=204)
async def resume_drills(caller: CurrentCaller, parts: Parts) -> None:
    """Drills may begin again; the same again changes nothing. What an administrator halted, one resumes."""
    _refuse_lookers(caller)
    halt = parts.known.claims.halt
    if halt is not None and not caller.may_write(halt.owner):
        raise NotAllowed("somebody else halted the drills; an administrator resumes them")
    await parts.register.resume(caller)


@router.get("/trends")
async def show_trends(
    caller: CurrentCaller, parts: Parts, drill: Annotated[str | None, Query(max_length=63)] = None
) -> TrendList:
    """The outage bounds of each drill over its runs, and what they prove together."""
    if caller.role is Role.CONSUMER:
        return TrendList(items=[])
    owner, wanted = _owner(caller), _plain(drill)

    def read(connection: Connection) -> list[Trend]:
        found: list[Trend] = []
        for name in store.load_drills(connection, owner) if wanted is None else [wanted]:
            texts = store.load_reports(connection, owner, name, TREND_RUNS)
            found += trends_of([DrillReport.model_validate_json(text) for text in texts])
        return found

    return TrendList(items=await parts.readers.read(read))


def view_of(row: RunRow) -> RunView:
    return view_from(
        RunView,
        row,
        suite=row.suite or None,
        project=row.owner,
        hosts=list(row.hosts),
        resources=list(row.resources),
        state=row.how,
        began_at=iso(row.began_ns),
        ended_at=None if row.ended_ns is None else iso(row.ended_ns),
        verdict=row.verdict or None,
    )


def _halt_view(caller: Caller, by: str, why: str, owner: str, at_ns: int) -> HaltView:
    mine = caller.may_read(owner)
    return HaltView(by=by if mine else None, why=why if mine else None, at=iso(at_ns))


async def _own(parts: DrillsApi, caller: Caller, run: str) -> RunRow:
    """A run that the caller may change; NotFound for one that is not the caller's to read."""
    row, _ = await parts.register.find(_plain(run) or "", _reads(caller))
    _refuse_lookers(caller)
    return row


def _refuse_lookers(caller: Caller) -> None:
    if caller.role not in (Role.ADMIN, Role.OPERATOR):
        raise NotAllowed(f"a {caller.role.value} does not drill; use a token of an operator")


def _reads(caller: Caller) -> Callable[[str], bool]:
    return lambda owner: caller.role is not Role.CONSUMER and caller.may_read(owner)


def _owner(caller: Caller) -> str | None:
    return None if caller.role is Role.ADMIN else caller.owner


def _plain(text: str | None) -> str | None:
    """What no run is called is as good as nothing: a NUL would be an error of the database."""
    return None if text is None else text.replace("\x00", "")


def _text(report: DrillReport) -> str:
    """The report as it is stored; what could not be read again is refused now."""
    try:
        text = json.dumps(report.model_dump(mode="json"), ensure_ascii=True, allow_nan=False)
        text.encode()
        json.loads(text)
        DrillReport.model_validate_json(text)
    except (ValueError, ValidationError) as error:
        raise BadInput("report", None, f"a report by its schema ({str(error).splitlines()[0]})") from None
    return text
