"""The HTTP API of notices: what became of them, and the stream of them."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse

from homeostat.contracts.nouns import INFRASTRUCTURE, Owner
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.errors import BadInput, NotAllowed
from homeostat.kernel.http import ERRORS, Callers, Credentials, CurrentCaller
from homeostat.kernel.journal import Seq
from homeostat.notices import store
from homeostat.notices.model import NoticeState
from homeostat.notices.streams import Streams, Wanted
from homeostat.notices.subscriptions_api import Parts, find
from homeostat.notices.views import NAME_PATTERN, NoticeList, notice_view

_SEQ_MAX = 2**62


def _streams(request: Request) -> Streams:
    streams: Streams = request.app.state.notice_streams
    return streams


router = APIRouter(prefix="/api/v1/notices", tags=["notices"], responses=ERRORS)


@router.get("")
async def list_notices(
    caller: CurrentCaller,
    parts: Parts,
    state: NoticeState | None = None,
    before: Annotated[int | None, Query(ge=0, le=_SEQ_MAX)] = None,
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
    return NoticeList(items=[notice_view(row) for row in rows], next=following)


@router.get(
    "/stream",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "Notices, for as long as you listen"}
    },
)
async def stream_notices(  # noqa: PLR0913 - a stream has this many fields
    caller: CurrentCaller,
    credentials: Credentials,
    request: Request,
    parts: Parts,
    streams: Annotated[Streams, Depends(_streams)],
    subscription: Annotated[str | None, Query(pattern=NAME_PATTERN)] = None,
    since: Annotated[int | None, Query(ge=0, le=_SEQ_MAX)] = None,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> StreamingResponse:
    """Notices of one subscription or of the caller's project as server-sent events, in order.

    `id` is a notice's seq, `data` its body in our own format. Begins behind `Last-Event-ID`, else behind
    `since`, else with the next notice.
    """
    owner = _owner_of(caller)
    if subscription is not None:
        owner = find(parts, caller, subscription).owner
    newest = await streams.newest()
    after = _place(last_event_id, since)
    callers: Callers = request.app.state.callers

    async def still_may() -> bool:
        return credentials is not None and await callers.find(credentials.credentials) == caller

    wanted = Wanted(owner, subscription, still_may)
    return streams.open(wanted, newest if after is None else min(after, newest))


def _owner_of(caller: Caller) -> Owner | None:
    if caller.role is Role.ADMIN:
        return None
    if caller.owner == INFRASTRUCTURE:
        raise NotAllowed("only administrators hear of the project infrastructure")
    return Owner(caller.owner)


def _place(last_event_id: str | None, since: int | None) -> Seq | None:
    """Behind which notice a reader goes on; None: it did not say."""
    if not last_event_id:
        return None if since is None else Seq(since)
    if not (last_event_id.isascii() and last_event_id.isdecimal() and int(last_event_id) <= _SEQ_MAX):
        raise BadInput("Last-Event-ID", last_event_id, "the id of an event of this stream")
    return Seq(int(last_event_id))
