"""One kept-alive HTTP/1.1 connection to a webhook: a request out, an answer back. asyncio and httptools.

It knows neither addresses nor deadlines nor retries. Invariants: one exchange at a time; what is read of an
answer is bounded; a connection that said anything nobody asked for is not used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import httptools

HEAD_BYTES_MAX = 64 * 1024
"""The status line and headers of an answer, interim ones and what came with them included."""


class Broke(Exception):
    """The connection ended, or what came was no answer; nobody knows whether the request was understood."""


@dataclass(slots=True)
class Head:
    """What an answer begins with. `headers` are those that were asked for, by lower-case name."""

    status: int
    answered_mono_ns: int
    headers: dict[bytes, str] = field(default_factory=dict)


class Connection(asyncio.Protocol):
    """A connected socket. `wanted` are the lower-case names of the headers that are kept."""

    def __init__(self, wanted: frozenset[bytes], body_bytes_max: int, mono_ns: Callable[[], int]) -> None:
        self._wanted, self._body_bytes_max, self._mono_ns = wanted, body_bytes_max, mono_ns
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._head: asyncio.Future[Head] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._headers: dict[bytes, str] = {}
        self._seen_bytes = 0
        self._interim = False
        self._keeps = True
        self.body = bytearray()
        self.idle_since_s = 0.0

    @property
    def usable(self) -> bool:
        """Whether another request may go out here."""
        idle = self._ended is None or self.complete
        return self._keeps and idle and self._transport is not None and not self._transport.is_closing()

    @property
    def complete(self) -> bool:
        """Whether nothing more will come of the answer."""
        return self._ended is not None and self._ended.done()

    async def ask(self, head: bytes, body: bytes) -> Head:
        """Send a request and wait for the status and headers of its answer. Broke."""
        loop = asyncio.get_running_loop()
        if self._transport is None or not self.usable:
            raise Broke("the other side closed it")
        self._head, self._ended = loop.create_future(), loop.create_future()
        self._headers, self._seen_bytes, self.body = {}, 0, bytearray()
        self._transport.writelines((head, body))
        return await self._head

    async def rest(self) -> None:
        """Return when the whole answer is there, or will never be."""
        if self._ended is not None:
            await self._ended

    def abort(self) -> None:
        """Let it go at once, whatever still waits to be sent."""
        self._keeps = False
        if self._transport is not None:
            self._transport.abort()

    # ---- called by the loop ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's looks like one and is none

    def data_received(self, data: bytes) -> None:
        if self._head is None or self._ended is None or self._ended.done():
            self.abort()  # nobody asked
            return
        self._seen_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._stop("it wants to speak something else")
        except httptools.HttpParserError as error:
            self._stop(f"that is no HTTP: {error}")
        if not self._head.done() and self._seen_bytes > HEAD_BYTES_MAX:
            self._stop("the head of its answer is too long")
        elif len(self.body) > self._body_bytes_max:
            self._stop("the body of its answer is too long")

    def connection_lost(self, exc: Exception | None) -> None:
        self._keeps = False
        self._settle(str(exc) if exc else "the other side closed it")

    # ---- called by the parser ----

    def on_message_begin(self) -> None:
        if self._ended is None or self._ended.done():
            self._keeps = False  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower in self._wanted and self._keeps:
            self._headers.setdefault(lower, value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self._interim = True  # "go on" and its like: the answer comes behind it
        elif self._head is not None and not self._head.done():
            self._head.set_result(Head(status, self._mono_ns(), self._headers))

    def on_body(self, body: bytes) -> None:
        if self._ended is not None and not self._ended.done():
            self.body += body

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim, self._headers = False, {}
            return
        self._keeps = self._keeps and self._parser.should_keep_alive()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _stop(self, why: str) -> None:
        self.abort()
        self._settle(why)

    def _settle(self, why: str) -> None:
        """Nothing more will come."""
        if self._head is not None and not self._head.done():
            self._head.set_exception(Broke(why))
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
