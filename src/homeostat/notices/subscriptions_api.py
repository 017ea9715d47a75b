"""The HTTP API of subscriptions: who is told of what, where, and until when.

A subscription belongs to a project. Operators and consumers manage those of their own project, viewers read
them, administrators manage all; the project `infrastructure` is theirs alone. What is not yours is not
there. A secret is taken or made, shown once when it was made here, and never read back.
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated
from urllib.parse import urlsplit

import orjson
from fastapi import APIRouter, Depends, Path, Request, Response

from homeostat.contracts.events.notices import SubscriptionCreated, SubscriptionRemoved
from homeostat.contracts.nouns import INFRASTRUCTURE, Owner, ResourceId
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import Clock, wall_of
from homeostat.kernel.errors import BadInput, Conflict, NotAllowed, NotFound
from homeostat.kernel.http import ERRORS, CurrentCaller
from homeostat.kernel.journal import Change, Draft
from homeostat.notices import store
from homeostat.notices.body import Frame
from homeostat.notices.endpoints import numbered
from homeostat.notices.enrolment import Enrol, Enrolment
from homeostat.notices.model import (
    Endpoint,
    FaultPicture,
    Format,
    GroupBy,
    Subscription,
    Transition,
    destination,
)
from homeostat.notices.renderers import render
from homeostat.notices.settings import NoticesSettings
from homeostat.notices.subscriptions import Reads, Subscriptions
from homeostat.notices.trial import try_out
from homeostat.notices.views import (
    NAME_PATTERN,
    MadeView,
    NewSubscriptionBody,
    NoticeTold,
    SubscriptionBody,
    SubscriptionList,
    SubscriptionView,
    TrialList,
    TrialView,
    view_of,
)
from homeostat.ports import Answered, NoAnswer, Refused, Transport

_CURRENT_SHOWN = 100
_LATEST_NS = 2**62
_BODY_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class NoticesApi:
    """What the routes stand on: `app.state.notices`. `check` refuses a URL, `release` wakes the delivery."""

    enrol: Enrol
    readers: Reads
    subscriptions: Subscriptions
    check: Callable[[str], Awaitable[object]]
    transport: Transport
    release: Callable[[str], None]
    clock: Clock
    settings: NoticesSettings
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from the look at what is there to the commit of what shall be."""


def _parts(request: Request) -> NoticesApi:
    parts: NoticesApi = request.app.state.notices
    return parts


Parts = Annotated[NoticesApi, Depends(_parts)]
NamePath = Annotated[str, Path(pattern=NAME_PATTERN)]
router = APIRouter(prefix="/api/v1/subscriptions", tags=["notices"], responses=ERRORS)


@router.get("")
async def list_subscriptions(caller: CurrentCaller, parts: Parts) -> SubscriptionList:
    """The subscriptions of the caller's project; all of them for an administrator."""
    now_ns = parts.clock.wall_ns()
    rows = (row for row in parts.subscriptions.all() if may_see(caller, row.owner))
    return SubscriptionList(items=[view_of(row, now_ns) for row in rows])


@router.get("/{name}")
async def show_subscription(name: NamePath, caller: CurrentCaller, parts: Parts) -> SubscriptionView:
    """One subscription."""
    return view_of(find(parts, caller, name), parts.clock.wall_ns())


@router.post("", status_code=201)
async def create_subscription(body: NewSubscriptionBody, caller: CurrentCaller, parts: Parts) -> MadeView:
    """Make a subscription, and answer with what is wrong now; 409 when the name is taken, by whomever."""
    owner = _owner_for(caller, body.project)
    await _check(parts, body)
    async with parts.writing:
        if parts.subscriptions.find(body.name) is not None:
            raise Conflict("name", body.name, "a name that no subscription has; PUT changes one of yours")
        return await _make(parts, caller, body.name, owner, body)


@router.put("/{name}", responses={201: {"model": MadeView, "description": "Made"}})
async def put_subscription(
    name: NamePath, body: SubscriptionBody, caller: CurrentCaller, parts: Parts, response: Response
) -> MadeView:
    """Make a subscription of this name, or make the one that is there so.

    What a changed one may hear of now and did not hear before, it is told at once.
    """
    there = parts.subscriptions.find(name)
    owner = _owner_for(caller, body.project) if there is None else _owner_of(caller, parts, name, body)
    await _check(parts, body)
    async with parts.writing:
        there = parts.subscriptions.find(name)
        if there is None:
            response.status_code = 201
            return await _make(parts, caller, name, owner, body)
        _owner_of(caller, parts, name, body)
        wanted = await _applied(parts, there, body)
        if wanted == there:
            return MadeView(**view_of(there, parts.clock.wall_ns()).model_dump())
        made = await _commit(parts, caller, wanted, store.replace_subscription(wanted))
    parts.release(name)
    return made


@router.delete("/{name}", status_code=204)
async def remove_subscription(name: NamePath, caller: CurrentCaller, parts: Parts) -> None:
    """Remove it; what waits for it is given up."""
    async with parts.writing:
        there = find(parts, caller, name)
        _owner_for(caller, there.owner)
        draft = _draft(parts, caller, name, SubscriptionRemoved(name))
        await parts.enrol(Enrolment(name, None, draft, store.remove_subscription(name)))
    parts.release(name)


@router.post("/{name}/test")
async def test_subscription(name: NamePath, caller: CurrentCaller, parts: Parts) -> TrialList:
    """Send each endpoint one signed notice that says that nothing is wrong; what it answered."""
    row = find(parts, caller, name)
    _owner_for(caller, row.owner)
    told = [each for each in row.endpoints if each.url]
    return TrialList(items=await asyncio.gather(*(_try(parts, row, each) for each in told)))


async def _try(parts: NoticesApi, row: Subscription, endpoint: Endpoint) -> TrialView:
    began_ns = parts.clock.mono_ns()
    reply = await try_out(parts.transport, parts.clock, row, endpoint)
    took_ms = (parts.clock.mono_ns() - began_ns) / 1e6
    status: int | None = None
    match reply:
        case Answered(status=code, said=said):
            status, detail = code, said
        case NoAnswer(reason=reason):
            detail = f"no answer: {reason}"
        case Refused(reason=reason):
            detail = f"not sent: {reason}"
    return TrialView(
        endpoint=endpoint.number,
        url=endpoint.url,
        format=endpoint.format,
        accepted=status is not None and 200 <= status < 300,
        status=status,
        detail=detail,
        took_ms=took_ms,
    )


async def _make(
    parts: NoticesApi, caller: Caller, name: str, owner: Owner, body: SubscriptionBody
) -> MadeView:
    _refuse_too_many(parts, owner)
    made_here = None if body.secret is not None else secrets.token_urlsafe(32)
    bare = Subscription(name, owner, (), made_here or "", "default", parts.clock.wall_ns())
    row = await _applied(parts, bare, body)
    made = await _commit(parts, caller, row, store.insert_subscription(row))
    return made.model_copy(update={"secret": made_here})


async def _commit(parts: NoticesApi, caller: Caller, row: Subscription, change: Change) -> MadeView:
    enrolment = Enrolment(row.name, row, _draft(parts, caller, row.name, _created(row)), change)
    await parts.enrol(enrolment)
    newest = enrolment.current[::-1][:_CURRENT_SHOWN]
    return MadeView(
        **view_of(row, parts.clock.wall_ns()).model_dump(),
        seq=enrolment.seq,
        current_count=len(enrolment.current),
        current=[_told(parts, row, each) for each in newest],
    )


def _told(parts: NoticesApi, row: Subscription, fault: FaultPicture) -> NoticeTold:
    first = destination(row.name, row.endpoints[0].number)
    frame = Frame(first, row.name, row.owner, _BODY_BYTES_MAX, parts.settings.public_url)
    return NoticeTold.model_validate(orjson.loads(render(Format.JSON, frame, fault, Transition.RAISED)))


def _created(row: Subscription) -> SubscriptionCreated:
    # Only where the URLs lead: a path or a query may hold what nobody else should know.
    origins = dict.fromkeys(_origin(each.url) for each in row.endpoints if each.url)
    return SubscriptionCreated(row.name, row.owner, " ".join(origins))


def _draft(parts: NoticesApi, caller: Caller, name: str, event: object) -> Draft:
    return Draft(
        event=event,
        subject=f"subscription/{name}",
        at_ns=parts.clock.wall_ns(),
        origin=f"api/{caller.name}",
        trace=uuid.uuid4().hex,
    )


def _wanted(body: SubscriptionBody) -> list[tuple[str, Format]]:
    """Every endpoint that the body asks for."""
    if body.url is not None and body.endpoints:
        raise BadInput("url", body.url, "either url or endpoints; url is short for one endpoint")
    if body.url is not None:
        return [(body.url, Format.JSON)]
    wanted = [(each.url, each.format) for each in body.endpoints]
    for index, (url, _) in enumerate(wanted):
        if url in [other for other, _ in wanted[:index]]:
            raise BadInput(f"endpoints.{index}.url", url, "each URL once")
    return wanted


async def _check(parts: NoticesApi, body: SubscriptionBody) -> None:
    for url, _ in _wanted(body):
        await parts.check(url)
    if body.group_wait_ms and body.group_by is GroupBy.NONE:
        raise BadInput("group_wait_ms", body.group_wait_ms, "0, or group_by as well: kind, host or owner")
    if body.expires_at is not None and not 0 < wall_of(body.expires_at) < _LATEST_NS:
        raise BadInput("expires_at", body.expires_at.isoformat(), "a time between 1970 and 2116")


async def _applied(parts: NoticesApi, row: Subscription, body: SubscriptionBody) -> Subscription:
    """What the body asks for; a secret and a key id that it leaves out stay as they are."""
    last = await parts.readers.read(partial(store.last_number, name=row.name))
    return replace(
        row,
        endpoints=numbered(row.endpoints, _wanted(body), last),
        secret=body.secret or row.secret,
        key_id=body.key_id or row.key_id,
        kinds=tuple(dict.fromkeys(body.kinds)),
        resources=tuple(dict.fromkeys(ResourceId(each) for each in body.resources)),
        minimum_severity=body.minimum_severity,
        expires_ns=None if body.expires_at is None else wall_of(body.expires_at),
        group_by=body.group_by,
        group_wait_ms=body.group_wait_ms,
    )


def may_see(caller: Caller, owner: Owner) -> bool:
    """Whether subscriptions and notices of this project are there for this caller."""
    if caller.role is Role.ADMIN:
        return True
    return owner != INFRASTRUCTURE and caller.may_read(owner)


def find(parts: NoticesApi, caller: Caller, name: str) -> Subscription:
    """The one of this name; NotFound when the caller may not know of it."""
    row = parts.subscriptions.find(name)
    if row is None or not may_see(caller, row.owner):
        raise NotFound(f"subscription {name}: there is none that you may read")
    return row


def _owner_of(caller: Caller, parts: NoticesApi, name: str, body: SubscriptionBody) -> Owner:
    """The project of one that is there and shall be changed."""
    there = find(parts, caller, name)
    _owner_for(caller, there.owner)
    if body.project is not None and body.project != there.owner:
        raise BadInput("project", body.project, f"it stays in {there.owner}; remove it and make it anew")
    return there.owner


def _owner_for(caller: Caller, project: str | None) -> Owner:
    """The project of a subscription that this caller may write; NotAllowed says why not."""
    owner = Owner(caller.owner if project is None else project)
    if caller.role is Role.ADMIN:
        return owner
    if caller.role is Role.VIEWER:
        raise NotAllowed("a viewer does not change subscriptions; use a token of an operator or a consumer")
    if owner == INFRASTRUCTURE:
        raise NotAllowed("only administrators subscribe for the project infrastructure")
    if owner != caller.owner:
        raise NotAllowed(f"you may subscribe for the project {caller.owner} only")
    return owner


def _refuse_too_many(parts: NoticesApi, owner: Owner) -> None:
    rows = parts.subscriptions.all()
    settings = parts.settings
    if len(rows) >= settings.subscriptions_max:
        raise NotAllowed(f"there are {len(rows)} subscriptions, notices.subscriptions_max permits no more")
    own = sum(row.owner == owner for row in rows)
    if own >= settings.subscriptions_per_project:
        raise NotAllowed(
            f"project {owner} has {own} subscriptions, notices.subscriptions_per_project permits no more"
        )


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
