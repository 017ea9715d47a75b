"""Certificates made in a test, good and bad ones, and a front that speaks TLS for who does not."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


class Authority:
    """A CA, and its certificate in a file."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._ca = trustme.CA()
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def give(self, context: ssl.SSLContext, *names: str, expired: bool = False) -> None:
        """A certificate for these names, for everybody who connects from now on."""
        ends = datetime.now(UTC) - timedelta(days=1) if expired else None
        begins = datetime.now(UTC) - timedelta(days=9) if expired else None
        self._ca.issue_cert(*names, not_before=begins, not_after=ends).configure_cert(context)

    def serving(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        """What a server needs to speak TLS by one of these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.give(context, *names, expired=expired)
        return context


class Front:
    """TLS before plain ports: each port given has one that speaks TLS for it."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.tls = tls
        self.loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._passing: set[asyncio.Task[None]] = set()

    def of(self, port: int) -> int:
        """The port with TLS for this one."""
        return asyncio.run_coroutine_threadsafe(self._listen(port), self.loop).result(10)

    def plain(self) -> int:
        """A port that answers without TLS, whatever it is told."""

        async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 said\r\nContent-Length: 0\r\n\r\n")
            writer.close()

        async def listening() -> int:
            self._servers.append(await asyncio.start_server(answered, "127.0.0.1", 0))
            found: int = self._servers[-1].sockets[0].getsockname()[1]
            return found

        return asyncio.run_coroutine_threadsafe(listening(), self.loop).result(10)

    async def _listen(self, port: int) -> int:
        async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._passing.add(task)
            with suppress(OSError):
                there, out = await asyncio.open_connection("127.0.0.1", port)
                await asyncio.gather(_copied(reader, out), _copied(there, writer))
            writer.transport.abort()
            self._passing.discard(task)

        server = await asyncio.start_server(passed, "127.0.0.1", 0, ssl=self.tls)
        self._servers.append(server)
        found: int = server.sockets[0].getsockname()[1]
        return found

    async def end(self) -> None:
        """Nobody is passed on any more."""
        for server in self._servers:
            server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side ends; then both have ended."""
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


@contextmanager
def front(tls: ssl.SSLContext) -> Iterator[Front]:
    """One that runs until the end of the test."""
    made = Front(tls)
    thread = threading.Thread(target=made.loop.run_forever)
    thread.start()
    try:
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(made.end(), made.loop).result(10)
        made.loop.call_soon_threadsafe(made.loop.stop)
        thread.join()
        made.loop.close()
