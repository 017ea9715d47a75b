"""Notices as a stream of server-sent events: what a reader missed first, then what is queued, without a seam.

A reader has a place, the seq of the last notice that it was told. The outbox is read behind that place, again
and again; being told that it has something new only says when to look. So replay and live are one thing:
seqs are given in the order of commits, and nothing is ever queued behind a place that was read.

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

import orjson
import structlog
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from homeostat.contracts.nouns import Owner
from homeostat.kernel.errors import HomeostatError, RetryLater
from homeostat.kernel.journal import Seq
from homeostat.notices import store
from homeostat.notices.body import Frame
from homeostat.notices.model import FaultPicture, Format, Notice
from homeostat.notices.refill import Recall
from homeostat.notices.renderers import render
from homeostat.notices.settings import NoticesSettings
from homeostat.notices.subscriptions import Reads

_AT_ONCE = 100
_RETRY_MS = 1000
_log = structlog.get_logger("notices")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reader may and wants to hear. None: all projects, all subscriptions.

    `still_may` is asked at each heartbeat whether the reader's token is still good.
    """

    owner: Owner | None
    subscription: str | None
    still_may: Callable[[], Awaitable[bool]]


class Streams:
    """All readers of one server. Used on one event loop."""

    def __init__(self, readers: Reads, recall: Recall, settings: NoticesSettings) -> None:
        self._readers, self._recall, self._settings = readers, recall, settings
        self._open = 0
        self._new = asyncio.Event()

    def look(self) -> None:
        """The outbox has, or may have, new notices."""
        new, self._new = self._new, asyncio.Event()
        new.set()

    async def newest(self) -> Seq:
        """The place of a reader who wants no replay."""
        return await self._readers.read(store.last_queued)

    def open(self, wanted: Wanted, after: Seq) -> StreamingResponse:
        """The answer to one reader. RetryLater when there are too many."""
        if self._open >= self._settings.streams_max:
            raise RetryLater(
                f"{self._open} readers hear the stream already, notices.streams_max permits no more"
            )
        self._open += 1  # now, and not with the first piece: many may be admitted before one begins
        answer = _Patient(
            self._told(wanted, after),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"},
            stall_s=self._settings.stream_stall_s,
        )
        answer.leave = weakref.finalize(answer, self._left)  # also of one that nobody ever sends
        return answer

    def _left(self) -> None:
        self._open -= 1

    async def _told(self, wanted: Wanted, after: Seq) -> AsyncGenerator[str]:
        try:
            # The place at once, so that a reader who is cut off before the first notice misses none.
            yield f"retry: {_RETRY_MS}\nid: {after}\nevent: open\ndata: {{}}\n\n"
            async for piece in self._behind(wanted, after):
                yield piece
        except HomeostatError as error:
            _log.warning("a stream of notices ends; its reader comes back", reason=str(error))

    async def _behind(self, wanted: Wanted, place: Seq) -> AsyncGenerator[str]:
        loop = asyncio.get_running_loop()
        beat_s = loop.time() + self._settings.stream_heartbeat_s
        while True:
            if loop.time() >= beat_s:  # whatever others are told meanwhile
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
        frame = Frame(row.destination, row.subscription, row.owner, limit, url)
        return _event_of(row, "notice", render(Format.JSON, frame, picture, row.transition))


def _event_of(row: Notice, kind: str, data: bytes) -> str:
    return f"id: {store.seq_of(row)}\nevent: {kind}\ndata: {data.decode()}\n\n"


class _Patient(StreamingResponse):
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
            _log.warning("a reader of the stream does not read; it is cut off", stall_s=self._stall_s)
        finally:
            await self._content.aclose()
