"""The HTTP API of silences, /api/v1/silences: mute notifications for a time, with a reason and an author.

Operators silence what their own project owns, for their own project's subscriptions; administrators silence
anything, for everybody or for one project. An end is mandatory. One that was ended stays readable: it is
the reason why a consumer was not notified.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel, Field

from homeostat.contracts.events.notices import SilenceCreated, SilenceEnded
from homeostat.contracts.nouns import INFRASTRUCTURE, OWNER, FaultKind, Owner
from homeostat.fleet.model import Topology
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import Clock, iso
from homeostat.kernel.database import DatabaseReader
from homeostat.kernel.errors import BadInput, NotAllowed, NotFound
from homeostat.kernel.http import ERRORS, CurrentCaller, StrictBody, Text, state_part, view_from
from homeostat.kernel.journal import JournalAppender, NewEvent, Submission
from homeostat.notices import store
from homeostat.notices.api_models import Word
from homeostat.notices.matching import silence_refusal
from homeostat.notices.model import Silence
from homeostat.notices.settings import NoticesSettings
from homeostat.notices.subscriptions import Silences

LIMIT_MAX = 1000
SCOPES = ("host", "zone", "resource", "kind", "owner")
_LOOP = "api"
_BEGINS_WITHIN_S = 366 * 86_400
_BEGAN_WITHIN_S = 60
"""A beginning this little ago is now: the clocks of people and servers differ."""

SilenceReason = Annotated[Text, Field(min_length=1, max_length=500)]


@dataclass(frozen=True, slots=True)
class SilencesApi:
    """What the routes stand on: `app.state.silences`."""

    appender: JournalAppender
    readers: DatabaseReader
    silences: Silences
    topology: Callable[[], Topology]
    clock: Clock
    settings: NoticesSettings


class SilenceState(StrEnum):
    """Where a silence stands now."""

    PLANNED = "planned"
    ACTIVE = "active"
    OVER = "over"


class SilenceBody(StrictBody):
    """The scope that is muted: one or more of host, zone, resource, kind and owner; all of them must match.

    `project` is whose subscriptions are spared: the caller's own; administrators: everybody's when absent.
    The end is `ends_at` or `for_s` seconds after the beginning, exactly one of them.
    """

    host: Word | None = None
    zone: Word | None = None
    resource: Word | None = None
    kind: FaultKind | None = None
    owner: Word | None = None
    project: Annotated[str, Field(pattern=OWNER)] | None = None
    reason: SilenceReason
    begins_at: AwareDatetime | None = None
    ends_at: AwareDatetime | None = None
    for_s: Annotated[float, Field(gt=0, le=366 * 86_400)] | None = None


class SilenceView(BaseModel):
    """A silence. `kept_back` counts the notices that it keeps back, or kept back while it lasted."""

    id: str
    state: SilenceState
    scope: str
    project: str
    reason: str
    by: str
    begins_at: str
    ends_at: str
    ended_by: str
    host: str
    zone: str
    resource: str
    kind: str
    owner: str
    kept_back: int


class SilenceList(BaseModel):
    """The newest first."""

    items: list[SilenceView]


CurrentSilencesApi = Annotated[SilencesApi, state_part("silences")]
SilenceIdPath = Annotated[str, Path(max_length=63)]
router = APIRouter(prefix="/api/v1", tags=["silences"], responses=ERRORS)


@router.get("/silences")
async def list_silences(
    caller: CurrentCaller,
    parts: CurrentSilencesApi,
    all: bool = False,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 100,
) -> SilenceList:
    """The silences of the caller's project that are not over, or `all` of them; newest first."""
    if caller.role is not Role.ADMIN and caller.owner == INFRASTRUCTURE:
        return SilenceList(items=[])
    project = None if caller.role is Role.ADMIN else caller.owner
    since_ns = 0 if all else parts.clock.wall_ns()
    query = partial(store.silences, project=project, since_ns=since_ns, limit=limit)
    return SilenceList(items=await _views(parts, await parts.readers.read(query)))


@router.get("/silences/{id}")
async def show_silence(id: SilenceIdPath, caller: CurrentCaller, parts: CurrentSilencesApi) -> SilenceView:
    """One silence, also when it is over."""
    return (await _views(parts, (await _find(parts, caller, id),)))[0]


@router.post("/silences", status_code=201)
async def create_silence(body: SilenceBody, caller: CurrentCaller, parts: CurrentSilencesApi) -> SilenceView:
    """Mute notifications, in force when this answers. Notices sent before are not recalled."""
    row = _wanted(parts, caller, body)
    owners = {str(each.id): each.owner for each in parts.topology().resources.values()}
    why = "" if caller.role is Role.ADMIN else silence_refusal(row, owners)
    if caller.role in (Role.VIEWER, Role.CONSUMER):
        why = f"a {caller.role.value} cannot create silences; use a token of an operator"
    if why:
        raise NotAllowed(why)
    _refuse_what_is_not_there(parts, row)
    _refuse_too_many(parts, row)
    event = SilenceCreated(row.id, row.project, scope_of(row), row.reason, row.begins_ns, row.ends_ns)
    change = store.insert_silence(row)
    await parts.appender.append(Submission(_LOOP, (_draft(parts, caller, row.id, event),), (change,)))
    await parts.silences.reload()
    return _view(row, parts.clock.wall_ns(), 0)


@router.delete("/silences/{id}", status_code=204)
async def end_silence(id: SilenceIdPath, caller: CurrentCaller, parts: CurrentSilencesApi) -> None:
    """End it now: held-back notices of faults that are still open are sent. Repeating it changes nothing."""
    row = await _find(parts, caller, id)
    if caller.role is not Role.ADMIN and not caller.may_write(row.project):
        raise NotAllowed(f"a {caller.role.value} does not end silences of {row.project}")
    now_ns = parts.clock.wall_ns()
    if row.ends_ns <= now_ns:
        # The first time the answer to the commit may have been lost: nobody has read the table since.
        await parts.silences.reload()
        return
    draft = _draft(parts, caller, id, SilenceEnded(id, row.project))
    change = store.end_silence(id, now_ns, caller.name)
    await parts.appender.append(Submission(_LOOP, (draft,), (change,)))
    await parts.silences.reload()


def scope_of(row: Silence) -> str:
    """What it covers, in words: `host n2, kind resource_down`."""
    named = {field.name: getattr(row, field.name) for field in fields(row)}
    return ", ".join(f"{name} {named[name]}" for name in SCOPES if named[name])


def _wanted(parts: SilencesApi, caller: Caller, body: SilenceBody) -> Silence:
    """The row that the body asks for; BadInput where it does not make sense."""
    now_ns = parts.clock.wall_ns()
    own = INFRASTRUCTURE if caller.role is Role.ADMIN else caller.owner
    project = own if body.project is None else body.project
    if caller.role is not Role.ADMIN and project != own:
        raise NotAllowed(f"you may silence for the project {own} only")
    if not any(getattr(body, name) for name in SCOPES):
        raise BadInput("scope", None, f"the scope: one of {', '.join(SCOPES)}, or several")
    if body.begins_at is not None and _ns(body.begins_at) < now_ns - _BEGAN_WITHIN_S * 10**9:
        raise BadInput(
            "begins_at", str(body.begins_at), "a time in the future; without it, the silence begins now"
        )
    begins_ns = now_ns if body.begins_at is None else max(now_ns, _ns(body.begins_at))
    if begins_ns - now_ns > _BEGINS_WITHIN_S * 10**9:
        raise BadInput("begins_at", str(body.begins_at), "a time within the next 366 days")
    return Silence(
        id=f"s-{uuid.uuid4().hex[:12]}",
        project=Owner(project),
        reason=body.reason,
        by=caller.name,
        created_ns=now_ns,
        begins_ns=begins_ns,
        ends_ns=_end_ns(parts, body, begins_ns),
        host=body.host or "",
        zone=body.zone or "",
        resource=body.resource or "",
        kind="" if body.kind is None else body.kind.value,
        owner=body.owner or "",
    )


def _end_ns(parts: SilencesApi, body: SilenceBody, begins_ns: int) -> int:
    longest_s = parts.settings.silence_longest_s
    bound = f"an end after the beginning, at most {longest_s:g} s later (notices.silence_longest_s)"
    if (body.ends_at is None) == (body.for_s is None):
        raise BadInput("ends_at", None if body.ends_at is None else str(body.ends_at), "ends_at or for_s")
    if body.for_s is not None:
        field, shown, ends_ns = "for_s", str(body.for_s), begins_ns + round(body.for_s * 1e9)
    else:
        assert body.ends_at is not None
        field, shown, ends_ns = "ends_at", str(body.ends_at), _ns(body.ends_at)
    if not begins_ns < ends_ns <= begins_ns + round(longest_s * 1e9):
        raise BadInput(field, shown, bound)
    return ends_ns


def _ns(at: datetime) -> int:
    return round(at.timestamp() * 1e6) * 1000


def _refuse_what_is_not_there(parts: SilencesApi, row: Silence) -> None:
    """A mistyped name would silence nothing, and nobody would notice before it matters."""
    topology, zones = parts.topology(), set(parts.silences.zones.values())
    for field, value, known in (
        ("host", row.host, {str(host) for host in topology.nodes}),
        ("zone", row.zone, zones),
        ("resource", row.resource, {str(each) for each in topology.resources}),
    ):
        if value and value not in known:
            raise BadInput(field, value, f"the name of a {field} that is there")


def _refuse_too_many(parts: SilencesApi, row: Silence) -> None:
    most = parts.settings.silences_max
    rows = [each for each in parts.silences.all() if each.ends_ns > parts.clock.wall_ns()]
    own = sum(each.project == row.project for each in rows)
    if len(rows) >= most or (row.project != INFRASTRUCTURE and own >= max(1, most // 10)):
        raise NotAllowed(
            f"{len(rows)} silences are not over, {own} of {row.project}; see notices.silences_max"
        )


async def _find(parts: SilencesApi, caller: Caller, silence: str) -> Silence:
    row = None
    if "\x00" not in silence:
        row = await parts.readers.read(partial(store.find_silence, silence=silence))
    hidden = caller.role is not Role.ADMIN and caller.owner == INFRASTRUCTURE
    if row is None or hidden or not caller.may_read(row.project):
        raise NotFound(f"there is no silence {silence}, or it is not yours to read")
    return row


async def _views(parts: SilencesApi, rows: tuple[Silence, ...]) -> list[SilenceView]:
    ids = [row.id for row in rows]
    counts = await parts.readers.read(partial(store.kept_back, silences=ids))
    now_ns = parts.clock.wall_ns()
    return [_view(row, now_ns, counts[row.id]) for row in rows]


def _view(row: Silence, now_ns: int, kept_back: int) -> SilenceView:
    over, begun = now_ns >= row.ends_ns, now_ns >= row.begins_ns
    return view_from(
        SilenceView,
        row,
        state=SilenceState.OVER if over else SilenceState.ACTIVE if begun else SilenceState.PLANNED,
        scope=scope_of(row),
        begins_at=iso(row.begins_ns),
        ends_at=iso(row.ends_ns),
        kept_back=kept_back,
    )


def _draft(parts: SilencesApi, caller: Caller, silence: str, event: object) -> NewEvent:
    subject = f"silence/{silence}"
    return NewEvent(event, subject, parts.clock.wall_ns(), f"api/{caller.name}", subject)
