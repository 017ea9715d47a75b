"""The HTTP API of notices: subscriptions, and what became of notices.

A subscription belongs to a project. Operators and consumers manage those of their own project, viewers read
them, administrators manage all; the project `infrastructure` is theirs alone. What is not yours is not
there. A secret is taken or made, shown once when it was made here, and never read back.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from homeostat.contracts.events.notices import SubscriptionCreated, SubscriptionRemoved
from homeostat.contracts.nouns import INFRASTRUCTURE, FaultKind, Owner, ResourceId, Severity
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import Clock, iso
from homeostat.kernel.errors import BadInput, Conflict, NotAllowed, NotFound
from homeostat.kernel.http import ERRORS, CurrentCaller
from homeostat.kernel.journal import Change, Draft, Submission
from homeostat.notices import store
from homeostat.notices.model import Notice, NoticeState, Subscription
from homeostat.notices.outcomes import Appends
from homeostat.notices.settings import NoticesSettings
from homeostat.notices.subscriptions import Reads, Subscriptions

NAME_PATTERN = r"^[a-z0-9-]{1,63}$"
_LOOP = "api"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Word = Annotated[str, Field(pattern=r"^[!-~]{1,255}$")]


@dataclass(frozen=True, slots=True)
class NoticesApi:
    """What the routes stand on: `app.state.notices`. `check` refuses a URL, `release` wakes the delivery."""

    appender: Appends
    readers: Reads
    subscriptions: Subscriptions
    check: Callable[[str], Awaitable[object]]
    release: Callable[[str], None]
    clock: Clock
    settings: NoticesSettings


class SubscriptionBody(BaseModel):
    """What a consumer asks for. Without filters it is told everything of its project."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(min_length=1, max_length=2048)
    secret: Annotated[str, Field(pattern=r"^[!-~]{16,256}$")] | None = None
    key_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None = None
    project: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,63}$")] | None = None
    kinds: list[FaultKind] = Field(default=[], max_length=64)
    resources: list[Word] = Field(default=[], max_length=256)
    minimum_severity: Severity | None = None


class NewSubscriptionBody(SubscriptionBody):
    """The same with the name that it shall have."""

    name: Name


class SubscriptionView(BaseModel):
    """A subscription as it is read. The secret is not in it."""

    name: str
    project: str
    url: str
    key_id: str
    kinds: list[FaultKind]
    resources: list[str]
    minimum_severity: Severity | None
    created_at: str


class MadeView(SubscriptionView):
    """The answer to a write. `secret` is there only when it was made here, and only this once."""

    secret: str | None = None


class SubscriptionList(BaseModel):
    """All that the caller may read, by name."""

    items: list[SubscriptionView]


class NoticeView(BaseModel):
    """A row of the outbox. `seq` is where the journal says that it was queued."""

    key: str
    subscription: str
    project: str
    fault: str
    transition: str
    state: NoticeState
    attempts: int
    reason: str
    seq: int
    queued_at: str


class NoticeList(BaseModel):
    """Newest first; `next` is the `before` of the following page, null on the last one."""

    items: list[NoticeView]
    next: int | None


def _parts(request: Request) -> NoticesApi:
    parts: NoticesApi = request.app.state.notices
    return parts


Parts = Annotated[NoticesApi, Depends(_parts)]
NamePath = Annotated[str, Path(pattern=NAME_PATTERN)]
router = APIRouter(prefix="/api/v1", tags=["notices"], responses=ERRORS)


@router.get("/subscriptions")
async def list_subscriptions(caller: CurrentCaller, parts: Parts) -> SubscriptionList:
    """The subscriptions of the caller's project; all of them for an administrator."""
    rows = (row for row in parts.subscriptions.all() if _may_see(caller, row.owner))
    return SubscriptionList(items=[SubscriptionView(**_view(row)) for row in rows])


@router.get("/subscriptions/{name}")
async def show_subscription(name: NamePath, caller: CurrentCaller, parts: Parts) -> SubscriptionView:
    """One subscription."""
    return SubscriptionView(**_view(_find(parts, caller, name)))


@router.post("/subscriptions", status_code=201)
async def create_subscription(body: NewSubscriptionBody, caller: CurrentCaller, parts: Parts) -> MadeView:
    """Make a subscription; 409 when the name is taken, by whomever."""
    owner = _owner_for(caller, body.project)
    if parts.subscriptions.find(body.name) is not None:
        raise Conflict("name", body.name, "a name that no subscription has; PUT changes one of yours")
    return await _make(parts, caller, body.name, owner, body)


@router.put("/subscriptions/{name}", responses={201: {"model": MadeView, "description": "Made"}})
async def put_subscription(
    name: NamePath, body: SubscriptionBody, caller: CurrentCaller, parts: Parts, response: Response
) -> MadeView:
    """Make a subscription of this name, or make the one that is there so. The same again changes nothing."""
    there = parts.subscriptions.find(name)
    if there is None:
        response.status_code = 201
        return await _make(parts, caller, name, _owner_for(caller, body.project), body)
    _find(parts, caller, name)
    _owner_for(caller, there.owner)
    if body.project is not None and body.project != there.owner:
        raise BadInput("project", body.project, f"it stays in {there.owner}; remove it and make it anew")
    wanted = _applied(there, body)
    if wanted != there:
        await parts.check(wanted.url)
        await _commit(parts, caller, wanted, store.replace_subscription(wanted))
        parts.release(name)
    return MadeView(**_view(wanted))


@router.delete("/subscriptions/{name}", status_code=204)
async def remove_subscription(name: NamePath, caller: CurrentCaller, parts: Parts) -> None:
    """Remove it; what waits for it is given up."""
    there = _find(parts, caller, name)
    _owner_for(caller, there.owner)
    draft = _draft(parts, caller, name, SubscriptionRemoved(name))
    await parts.appender.append(Submission(_LOOP, (draft,), (store.remove_subscription(name),)))
    await parts.subscriptions.reload()
    parts.release(name)


@router.get("/notices")
async def list_notices(
    caller: CurrentCaller,
    parts: Parts,
    state: NoticeState | None = None,
    before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> NoticeList:
    """What the caller's subscriptions were told, or are still to be told. `before` is a seq."""
    if caller.role is not Role.ADMIN and caller.owner == INFRASTRUCTURE:
        return NoticeList(items=[], next=None)
    owner = None if caller.role is Role.ADMIN else caller.owner
    rows = await parts.readers.read(
        partial(store.notices, owner=owner, state=state, before=before, limit=limit)
    )
    following = store.seq_of(rows[-1]) if len(rows) == limit else None
    return NoticeList(items=[_notice_view(row) for row in rows], next=following)


async def _make(
    parts: NoticesApi, caller: Caller, name: str, owner: Owner, body: SubscriptionBody
) -> MadeView:
    _refuse_too_many(parts, owner)
    await parts.check(body.url)
    made_here = None if body.secret is not None else secrets.token_urlsafe(32)
    bare = Subscription(name, owner, body.url, made_here or "", "default", parts.clock.wall_ns())
    row = _applied(bare, body)
    await _commit(parts, caller, row, store.insert_subscription(row))
    return MadeView(**_view(row), secret=made_here)


async def _commit(parts: NoticesApi, caller: Caller, row: Subscription, change: Change) -> None:
    # Only where the URL leads: a path or a query may hold what nobody else should know.
    event = SubscriptionCreated(row.name, row.owner, _origin(row.url))
    draft = _draft(parts, caller, row.name, event)
    await parts.appender.append(Submission(_LOOP, (draft,), (change,)))
    await parts.subscriptions.reload()


def _draft(parts: NoticesApi, caller: Caller, name: str, event: object) -> Draft:
    return Draft(
        event=event,
        subject=f"subscription/{name}",
        at_ns=parts.clock.wall_ns(),
        origin=f"api/{caller.name}",
        trace=uuid.uuid4().hex,
    )


def _applied(row: Subscription, body: SubscriptionBody) -> Subscription:
    """What the body asks for; a secret and a key id that it leaves out stay as they are."""
    return replace(
        row,
        url=body.url,
        secret=body.secret or row.secret,
        key_id=body.key_id or row.key_id,
        kinds=tuple(dict.fromkeys(body.kinds)),
        resources=tuple(dict.fromkeys(ResourceId(each) for each in body.resources)),
        minimum_severity=body.minimum_severity,
    )


def _may_see(caller: Caller, owner: Owner) -> bool:
    if caller.role is Role.ADMIN:
        return True
    return owner != INFRASTRUCTURE and caller.may_read(owner)


def _find(parts: NoticesApi, caller: Caller, name: str) -> Subscription:
    row = parts.subscriptions.find(name)
    if row is None or not _may_see(caller, row.owner):
        raise NotFound(f"subscription {name}: there is none that you may read")
    return row


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


def _view(row: Subscription) -> dict[str, object]:
    return {
        "name": row.name,
        "project": row.owner,
        "url": row.url,
        "key_id": row.key_id,
        "kinds": list(row.kinds),
        "resources": list(row.resources),
        "minimum_severity": row.minimum_severity,
        "created_at": iso(row.created_ns),
    }


def _notice_view(row: Notice) -> NoticeView:
    return NoticeView(
        key=row.key,
        subscription=row.subscription,
        project=row.owner,
        fault=row.fault,
        transition=row.transition.value,
        state=row.state,
        attempts=row.attempts,
        reason=row.reason,
        seq=store.seq_of(row),
        queued_at=iso(row.queued_ns),
    )
