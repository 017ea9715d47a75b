"""The HTTP API of notices: their list with states, and their stream as server-sent events.

A reader of the stream has a place, the seq of the last notice that it was sent. The outbox is read behind
that place, again and again; a signal that there is something new only says when to look. So replay and live
are one thing: seqs are given in the order of commits, and nothing is ever queued behind a place that was
read.

There is no queue for a reader: what it did not take yet is in the database. A reader who does not take a
piece within `stream_stall_s` is cut off, and goes on from its place when it comes back.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import orjson
import structlog
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from homeostat.contracts.nouns import INFRASTRUCTURE, LABEL, Owner
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.connections import StreamCount, StreamPlace
from homeostat.kernel.database import DatabaseReader
from homeostat.kernel.errors import BadInput, HomeostatError, NotAllowed, RetryLater
from homeostat.kernel.http import ERRORS, Callers, Credentials, CurrentCaller, state_part
from homeostat.kernel.journal import Seq
from homeostat.notices import store
from homeostat.notices.api_models import NoticeList, notice_view
from homeostat.notices.content import RenderContext
from homeostat.notices.formats import render
from homeostat.notices.model import FaultLookup, FaultPicture, Notice, NoticeFormat, NoticeState
from homeostat.notices.settings import NoticesSettings
from homeostat.notices.subscriptions_api import CurrentNoticesApi, find_subscription

_AT_ONCE = 100
_RETRY_MS = 1000
_log = structlog.get_logger("notices")


@dataclass(frozen=True, slots=True)
class StreamFilter:
    """What a reader may and wants to hear. None: all projects, all subscriptions.

    `still_may` is asked at each heartbeat whether the reader's token is still good. The stream counts among
    those of `caller`; None: it does not.
    """

    owner: Owner | None
    subscription: str | None
    still_may: Callable[[], Awaitable[bool]]
    caller: Caller | None = None


class NoticeStreams:
    """All readers of one server. Used on one event loop."""

    def __init__(
        self,
        readers: DatabaseReader,
        recall: FaultLookup,
        settings: NoticesSettings,
        count: StreamCount | None = None,
    ) -> None:
        """`count` is shared with other streams of the same callers."""
        self._readers, self._recall, self._settings = readers, recall, settings
        self._count = count or StreamCount()
        self._open = 0
        self._new = asyncio.Event()

    def look(self) -> None:
        """The outbox has, or may have, new notices."""
        new, self._new = self._new, asyncio.Event()
        new.set()

    async def newest(self) -> Seq:
        """The place of a reader who wants no replay."""
        return await self._readers.read(store.last_queued)

    def open(self, wanted: StreamFilter, after: Seq) -> StreamingResponse:
        """The answer to one reader. RetryLater when there are too many, of all or of his own."""
        if self._open >= self._settings.streams_max:
            raise RetryLater(
                f"{self._open} readers hear the stream already, notices.streams_max permits no more"
            )
        place = None if wanted.caller is None else self._count.enter(wanted.caller)
        self._open += 1  # now, and not with the first piece: many may be admitted before one begins
        answer = _StallLimitedResponse(
            self._events(wanted, after),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"},
            stall_s=self._settings.stream_stall_s,
        )
        answer.leave = weakref.finalize(answer, self._left, place)  # also of one that nobody ever sends
        return answer

    def _left(self, place: StreamPlace | None) -> None:
        self._open -= 1
        if place is not None:
            place.leave()

    async def _events(self, wanted: StreamFilter, after: Seq) -> AsyncGenerator[str]:
        try:
            # The place at once, so that a reader who is cut off before the first notice misses none.
            yield f"retry: {_RETRY_MS}\nid: {after}\nevent: open\ndata: {{}}\n\n"
            async for piece in self._behind(wanted, after):
                yield piece
        except HomeostatError as error:
            _log.warning("a notice stream ends; its client reconnects", reason=str(error))

    async def _behind(self, wanted: StreamFilter, place: Seq) -> AsyncGenerator[str]:
        loop = asyncio.get_running_loop()
        beat_s = loop.time() + self._settings.stream_heartbeat_s
        while True:
            if loop.time() >= beat_s:  # whatever others receive meanwhile
                if not await wanted.still_may():
                    return
                yield ": still here\n\n"
                beat_s = loop.time() + self._settings.stream_heartbeat_s
            new = self._new  # taken before the read: what is queued during it is not overlooked
            query = partial(
                store.streamed,
                owner=wanted.owner,
                name=wanted.subscription,
                after=place,
                limit=_AT_ONCE,
            )
            rows = await self._readers.read(query)
            pictures = await self._recall(sorted({row.fault for row in rows})) if rows else {}
            for row in rows:
                place = store.seq_of(row)
                yield self._event(row, pictures.get(row.fault))
            if len(rows) == _AT_ONCE:
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout_at(beat_s):
                    await new.wait()

    def _event(self, row: Notice, picture: FaultPicture | None) -> str:
        if picture is None:
            gone = {"notice": row.key, "transition": row.transition.value, "fault": {"id": row.fault}}
            return _event_of(row, "forgotten", orjson.dumps(gone))
        limit, url = self._settings.body_bytes_max, self._settings.public_url
        frame = RenderContext(row.destination, row.subscription, row.owner, limit, url, row.part)
        return _event_of(row, "notice", render(NoticeFormat.JSON, frame, picture, row.transition))


def _event_of(row: Notice, kind: str, data: bytes) -> str:
    return f"id: {store.seq_of(row)}\nevent: {kind}\ndata: {data.decode()}\n\n"


class _StallLimitedResponse(StreamingResponse):
    """A stream that waits for its reader, but not for ever. `leave` gives its place back."""

    leave: Callable[[], object]

    def __init__(
        self, content: AsyncGenerator[str], *, media_type: str, headers: dict[str, str], stall_s: float
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._content = content
        self._stall_s = stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As the framework's; its place is free when this ends, however it ends."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.leave()

    async def stream_response(self, send: Send) -> None:
        """As the framework's, each piece under a deadline."""

        async def send_soon(message: object) -> None:
            async with asyncio.timeout(self._stall_s):
                await send(message)  # type: ignore[arg-type]

        try:
            await super().stream_response(send_soon)
        except TimeoutError:
            _log.warning("a client of the notice stream does not read; disconnected", stall_s=self._stall_s)
        finally:
            await self._content.aclose()


_SEQ_MAX = 2**62


router = APIRouter(prefix="/api/v1/notices", tags=["notices"], responses=ERRORS)


@router.get("")
async def list_notices(
    caller: CurrentCaller,
    parts: CurrentNoticesApi,
    state: NoticeState | None = None,
    before: Annotated[int | None, Query(ge=0, le=_SEQ_MAX)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> NoticeList:
    """The notices of the caller's subscriptions, delivered or pending. `before` is a seq."""
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
    parts: CurrentNoticesApi,
    streams: Annotated[NoticeStreams, state_part("notice_streams")],
    subscription: Annotated[str | None, Query(pattern=LABEL)] = None,
    since: Annotated[int | None, Query(ge=0, le=_SEQ_MAX)] = None,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> StreamingResponse:
    """Notices of one subscription or of the caller's project as server-sent events, in order.

    `id` is a notice's seq, `data` its body in our own format. Begins behind `Last-Event-ID`, else behind
    `since`, else with the next notice.
    """
    owner = _owner_of(caller)
    if subscription is not None:
        owner = find_subscription(parts, caller, subscription).owner
    newest = await streams.newest()
    after = _place(last_event_id, since)
    callers: Callers = request.app.state.callers

    async def still_may() -> bool:
        return credentials is not None and await callers.find(credentials.credentials) == caller

    wanted = StreamFilter(owner, subscription, still_may, caller)
    return streams.open(wanted, newest if after is None else min(after, newest))


def _owner_of(caller: Caller) -> Owner | None:
    if caller.role is Role.ADMIN:
        return None
    if caller.owner == INFRASTRUCTURE:
        raise NotAllowed("only administrators may read faults of the project infrastructure")
    return Owner(caller.owner)


def _place(last_event_id: str | None, since: int | None) -> Seq | None:
    """Behind which notice a reader goes on; None: it did not say."""
    if not last_event_id:
        return None if since is None else Seq(since)
    if not (last_event_id.isascii() and last_event_id.isdecimal() and int(last_event_id) <= _SEQ_MAX):
        raise BadInput("Last-Event-ID", last_event_id, "the id of an event of this stream")
    return Seq(int(last_event_id))
