"""The HTTP API of subscriptions: consumers, the faults and endpoints of each, expiry, test notices.

A subscription belongs to a project. Operators and consumers manage those of their own project, viewers read
them, administrators manage all; the project `infrastructure` is theirs alone. A subscription of another
project is answered as if it did not exist. A secret is taken or made, shown once when it was made here, and
never read back.

A test notice is signed, says that nothing is wrong, and is sent now and never again. It does not pass the
outbox, is no event, and is not retried: the caller waits for the answer. A consumer handles it as any
notice; it has a fault of kind `test` about the subscription.
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
from fastapi import APIRouter, Path, Response

from homeostat import ports
from homeostat.contracts.events.notices import SubscriptionCreated, SubscriptionRemoved
from homeostat.contracts.nouns import INFRASTRUCTURE, LABEL, Owner, ResourceId
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import Clock, to_wall_ns
from homeostat.kernel.database import DatabaseReader
from homeostat.kernel.errors import BadInput, Conflict, NotAllowed, NotFound
from homeostat.kernel.http import ERRORS, CurrentCaller, state_part
from homeostat.kernel.journal import NewEvent, RowChange
from homeostat.notices import api_models, model, signing, store
from homeostat.notices.content import NoticeContent, RenderContext
from homeostat.notices.formats import render, render_content
from homeostat.notices.settings import NoticesSettings
from homeostat.notices.subscriptions import (
    CommitSubscriptionChange,
    SubscriptionChange,
    Subscriptions,
    numbered_endpoints,
)

TEST_TRANSITION = "test"
_TEST_BODY_BYTES_MAX = 64 * 1024


async def send_test_notice(
    transport: ports.Transport, clock: Clock, subscription: model.Subscription, endpoint: model.Endpoint
) -> ports.WebhookResult:
    """Send one; what the consumer answered. Takes as long as the transport permits."""
    now_ns = clock.wall_ns()
    name = model.destination(subscription.name, endpoint.number)
    fault = f"t-{uuid.uuid4().hex[:12]}"
    said = NoticeContent(
        key=f"{name}:{fault}:{TEST_TRANSITION}",
        transition=TEST_TRANSITION,
        fault=fault,
        kind=TEST_TRANSITION,
        severity="warning",
        about=f"subscription/{subscription.name}",
        owner=subscription.owner,
        reason="test of this subscription; no fault",
        raised_ns=now_ns,
    )
    frame = RenderContext(name, subscription.name, subscription.owner, _TEST_BODY_BYTES_MAX)
    body = render_content(endpoint.format, frame, said)
    headers = signing.headers(subscription.secret, subscription.key_id, now_ns // 10**9, said.key, body)
    return await transport.post(ports.WebhookRequest(endpoint.url, headers, body))


_CURRENT_SHOWN = 100
_LATEST_NS = 2**62
_BODY_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class NoticesApi:
    """What the routes stand on: `app.state.notices`. `check` refuses a URL, `release` wakes the delivery."""

    enrol: CommitSubscriptionChange
    readers: DatabaseReader
    subscriptions: Subscriptions
    check: Callable[[str], Awaitable[object]]
    transport: ports.Transport
    release: Callable[[str], None]
    clock: Clock
    settings: NoticesSettings
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from the look at what is there to the commit of what shall be."""


CurrentNoticesApi = Annotated[NoticesApi, state_part("notices")]
NamePath = Annotated[str, Path(pattern=LABEL)]
router = APIRouter(prefix="/api/v1/subscriptions", tags=["notices"], responses=ERRORS)


@router.get("")
async def list_subscriptions(caller: CurrentCaller, parts: CurrentNoticesApi) -> api_models.SubscriptionList:
    """The subscriptions of the caller's project; all of them for an administrator."""
    now_ns = parts.clock.wall_ns()
    rows = (row for row in parts.subscriptions.all() if may_see(caller, row.owner))
    return api_models.SubscriptionList(items=[api_models.view_of(row, now_ns) for row in rows])


@router.get("/{name}")
async def show_subscription(
    name: NamePath, caller: CurrentCaller, parts: CurrentNoticesApi
) -> api_models.SubscriptionView:
    """One subscription."""
    return api_models.view_of(find_subscription(parts, caller, name), parts.clock.wall_ns())


@router.post("", status_code=201)
async def create_subscription(
    body: api_models.NewSubscriptionBody, caller: CurrentCaller, parts: CurrentNoticesApi
) -> api_models.NewSubscriptionView:
    """Create a subscription; the answer has the open faults. 409 when the name is taken, by any project."""
    owner = _owner_for(caller, body.project)
    await _check(parts, body)
    async with parts.writing:
        if parts.subscriptions.find(body.name) is not None:
            raise Conflict(
                "name", body.name, "a name that no subscription has yet; PUT changes an existing one of yours"
            )
        return await _make(parts, caller, body.name, owner, body)


@router.put("/{name}", responses={201: {"model": api_models.NewSubscriptionView, "description": "Made"}})
async def put_subscription(
    name: NamePath,
    body: api_models.SubscriptionBody,
    caller: CurrentCaller,
    parts: CurrentNoticesApi,
    response: Response,
) -> api_models.NewSubscriptionView:
    """Create a subscription of this name, or replace the one that is there.

    Open faults that a changed one newly covers are sent to it at once.
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
            return api_models.NewSubscriptionView(
                **api_models.view_of(there, parts.clock.wall_ns()).model_dump()
            )
        made = await _commit(parts, caller, wanted, store.replace_subscription(wanted))
    parts.release(name)
    return made


@router.delete("/{name}", status_code=204)
async def remove_subscription(name: NamePath, caller: CurrentCaller, parts: CurrentNoticesApi) -> None:
    """Remove it; its pending notices are given up."""
    async with parts.writing:
        there = find_subscription(parts, caller, name)
        _owner_for(caller, there.owner)
        draft = _draft(parts, caller, name, SubscriptionRemoved(name))
        await parts.enrol(SubscriptionChange(name, None, draft, store.remove_subscription(name)))
    parts.release(name)


@router.post("/{name}/test")
async def test_subscription(
    name: NamePath, caller: CurrentCaller, parts: CurrentNoticesApi
) -> api_models.TestNoticeList:
    """Send one signed test notice to each endpoint; the answers."""
    row = find_subscription(parts, caller, name)
    _owner_for(caller, row.owner)
    targets = [each for each in row.endpoints if each.url]
    return api_models.TestNoticeList(
        items=await asyncio.gather(*(_try(parts, row, each) for each in targets))
    )


async def _try(
    parts: NoticesApi, row: model.Subscription, endpoint: model.Endpoint
) -> api_models.TestNoticeView:
    began_ns = parts.clock.mono_ns()
    reply = await send_test_notice(parts.transport, parts.clock, row, endpoint)
    took_ms = (parts.clock.mono_ns() - began_ns) / 1e6
    status: int | None = None
    match reply:
        case ports.WebhookReply(status=code, said=said):
            status, detail = code, said
        case ports.NoWebhookReply(reason=reason):
            detail = f"no answer: {reason}"
        case ports.WebhookRefused(reason=reason):
            detail = f"not sent: {reason}"
    return api_models.TestNoticeView(
        endpoint=endpoint.number,
        url=endpoint.url,
        format=endpoint.format,
        accepted=status is not None and 200 <= status < 300,
        status=status,
        detail=detail,
        took_ms=took_ms,
    )


async def _make(
    parts: NoticesApi, caller: Caller, name: str, owner: Owner, body: api_models.SubscriptionBody
) -> api_models.NewSubscriptionView:
    _refuse_too_many(parts, owner)
    made_here = None if body.secret is not None else secrets.token_urlsafe(32)
    bare = model.Subscription(name, owner, (), made_here or "", "default", parts.clock.wall_ns())
    row = await _applied(parts, bare, body)
    made = await _commit(parts, caller, row, store.insert_subscription(row))
    return made.model_copy(update={"secret": made_here})


async def _commit(
    parts: NoticesApi, caller: Caller, row: model.Subscription, written: RowChange
) -> api_models.NewSubscriptionView:
    change = SubscriptionChange(row.name, row, _draft(parts, caller, row.name, _created(row)), written)
    await parts.enrol(change)
    newest = change.current[::-1][:_CURRENT_SHOWN]
    return api_models.NewSubscriptionView(
        **api_models.view_of(row, parts.clock.wall_ns()).model_dump(),
        seq=change.seq,
        current_count=len(change.current),
        current=[_notice_body(parts, row, each) for each in newest],
    )


def _notice_body(
    parts: NoticesApi, row: model.Subscription, fault: model.FaultPicture
) -> api_models.NoticeBodyView:
    first = model.destination(row.name, row.endpoints[0].number)
    frame = RenderContext(first, row.name, row.owner, _BODY_BYTES_MAX, parts.settings.public_url)
    return api_models.NoticeBodyView.model_validate(
        orjson.loads(render(model.NoticeFormat.JSON, frame, fault, model.NoticeTransition.RAISED))
    )


def _created(row: model.Subscription) -> SubscriptionCreated:
    # Only where the URLs lead: a path or a query may hold what nobody else should know.
    targets = (urlsplit(each.url) for each in row.endpoints if each.url)
    origins = dict.fromkeys(f"{target.scheme}://{target.netloc}" for target in targets)
    return SubscriptionCreated(row.name, row.owner, " ".join(origins))


def _draft(parts: NoticesApi, caller: Caller, name: str, event: object) -> NewEvent:
    now_ns = parts.clock.wall_ns()
    return NewEvent(event, f"subscription/{name}", now_ns, f"api/{caller.name}", uuid.uuid4().hex)


def _wanted(body: api_models.SubscriptionBody) -> list[tuple[str, model.NoticeFormat]]:
    """Every endpoint that the body asks for."""
    if body.url is not None and body.endpoints:
        raise BadInput("url", body.url, "either url or endpoints, not both; url is short for one endpoint")
    if body.url is not None:
        return [(body.url, model.NoticeFormat.JSON)]
    wanted = [(each.url, each.format) for each in body.endpoints]
    for index, (url, _) in enumerate(wanted):
        if url in [other for other, _ in wanted[:index]]:
            raise BadInput(f"endpoints.{index}.url", url, "each URL once")
    return wanted


async def _check(parts: NoticesApi, body: api_models.SubscriptionBody) -> None:
    for url, _ in _wanted(body):
        await parts.check(url)
    if body.group_wait_ms and body.group_by is model.GroupBy.NONE:
        raise BadInput("group_wait_ms", body.group_wait_ms, "0, or group_by as well: kind, host or owner")
    if body.expires_at is not None and not 0 < to_wall_ns(body.expires_at) < _LATEST_NS:
        raise BadInput("expires_at", body.expires_at.isoformat(), "a time between 1970 and 2116")


async def _applied(
    parts: NoticesApi, row: model.Subscription, body: api_models.SubscriptionBody
) -> model.Subscription:
    """What the body asks for; a secret and a key id that it leaves out stay as they are."""
    last = await parts.readers.read(partial(store.last_number, name=row.name))
    return replace(
        row,
        endpoints=numbered_endpoints(row.endpoints, _wanted(body), last),
        secret=body.secret or row.secret,
        key_id=body.key_id or row.key_id,
        kinds=tuple(dict.fromkeys(body.kinds)),
        resources=tuple(dict.fromkeys(ResourceId(each) for each in body.resources)),
        minimum_severity=body.minimum_severity,
        expires_ns=None if body.expires_at is None else to_wall_ns(body.expires_at),
        group_by=body.group_by,
        group_wait_ms=body.group_wait_ms,
    )


def may_see(caller: Caller, owner: Owner) -> bool:
    """Whether subscriptions and notices of this project are there for this caller."""
    if caller.role is Role.ADMIN:
        return True
    return owner != INFRASTRUCTURE and caller.may_read(owner)


def find_subscription(parts: NoticesApi, caller: Caller, name: str) -> model.Subscription:
    """The one of this name; NotFound when the caller may not know of it."""
    row = parts.subscriptions.find(name)
    if row is None or not may_see(caller, row.owner):
        raise NotFound(f"there is no subscription {name}, or it is not yours to read")
    return row


def _owner_of(caller: Caller, parts: NoticesApi, name: str, body: api_models.SubscriptionBody) -> Owner:
    """The project of one that is there and shall be changed."""
    there = find_subscription(parts, caller, name)
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
        raise NotAllowed("a viewer cannot change subscriptions; use a token of an operator or a consumer")
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
