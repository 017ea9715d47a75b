"""A real HTTP server for monitors, in a thread of the test: answers, refuses, hangs."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SampledServer:
    """`answer` None: requests are read and not answered."""

    def __init__(self) -> None:
        self.answer: bytes | None = answer_of(200)
        self.requests = self.connections = 0
        self.delay_s = 0.0
        self.port = 0
        self.heard: list[bytes] = []
        self.tls: ssl.SSLContext | None = None
        self.loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Transport] = set()

    def call(self, what: object) -> None:
        """Run a coroutine of this server on its loop."""
        asyncio.run_coroutine_threadsafe(what, self.loop).result(10)  # type: ignore[arg-type]

    def drop(self) -> None:
        """Close every kept connection."""

        async def dropped() -> None:
            for transport in list(self._open):
                transport.abort()

        self.call(dropped())

    def refuse(self) -> None:
        """Stop listening, and drop who is there."""

        async def closed() -> None:
            assert self._server is not None
            self._server.close()

        self.call(closed())
        self.drop()

    async def listen(self) -> None:
        """Listen, on the same port as before."""
        self._server = await self.loop.create_server(
            lambda: _Session(self), "127.0.0.1", self.port, ssl=self.tls
        )
        self.port = self._server.sockets[0].getsockname()[1]


class _Session(asyncio.Protocol):
    def __init__(self, server: SampledServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connections += 1
        self._server._open.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server._open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._server.requests += 1
        self._server.heard.append(data)
        self._server.loop.call_later(self._server.delay_s, self._answer)

    def _answer(self) -> None:
        if self._server.answer is not None and not self._transport.is_closing():
            self._transport.write(self._server.answer)
            if b"Connection: close" in self._server.answer:
                self._transport.close()


def answer_of(status: int, *headers: str, body: bytes = b"ok") -> bytes:
    """A whole answer."""
    lines = "".join(f"{line}\r\n" for line in (*headers, f"Content-Length: {len(body)}"))
    return f"HTTP/1.1 {status} said\r\n{lines}\r\n".encode() + body


@contextmanager
def sampled_server(tls: ssl.SSLContext | None = None) -> Iterator[SampledServer]:
    """A server that listens, with `tls` for TLS."""
    server = SampledServer()
    server.tls = tls
    thread = threading.Thread(target=server.loop.run_forever)
    thread.start()
    try:
        server.call(server.listen())
        yield server
        server.refuse()
    finally:
        server.loop.call_soon_threadsafe(server.loop.stop)
        thread.join()
        server.loop.close()
