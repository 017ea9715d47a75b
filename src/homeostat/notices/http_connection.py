"""Connects to a webhook and exchanges HTTP/1.1 on one kept-alive connection. asyncio and httptools.

Only addresses that `targets` chose are connected to. It knows neither deadlines nor retries. Invariants: a
name is looked up for each new connection, and that connection goes to an address of that very answer; every
socket's address is judged right before it connects. No proxy is ever asked. One exchange at a time; what is
read of an answer is bounded; a connection that said anything nobody asked for is not used again.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from typing import TypeVar, cast

import httptools

from homeostat.kernel.errors import BadInput
from homeostat.notices.targets import Address, AddressGuard, WebhookTarget, choose

NameLookup = Callable[[str], Awaitable[tuple[Address, ...]]]
"""The addresses of a name; OSError when there is none."""

AddressInfo = tuple[int, int, int, str, tuple[str | int, ...]]
"""As `socket.getaddrinfo` has it."""

P = TypeVar("P", bound=asyncio.Protocol)

_NEXT_ADDRESS_S = 0.25
"""Head start of an address before the next one is tried beside it (RFC 8305)."""


class RefusedAddress(OSError):
    """An address that we do not connect to."""


class NoConnection(Exception):
    """Nobody answered, or not with TLS that we trust; the request was not sent."""


@lru_cache(maxsize=1)
def tls() -> ssl.SSLContext:
    """What HTTPS is checked with: the machine's own authorities and the name. Made once, in 20 ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def open_socket(guard: AddressGuard, info: AddressInfo) -> socket.socket:
    """The last look before a connect: whatever came here as an address is judged once more."""
    family, kind, protocol, _, place = info
    reason = guard.judge(ip_address(str(place[0]).partition("%")[0]), int(place[1]))
    if reason is not None:
        raise RefusedAddress(reason)
    return socket.socket(family, kind, protocol)


async def connect(
    target: WebhookTarget,
    addresses: Sequence[Address],
    opened: Callable[[AddressInfo], socket.socket],
    made: Callable[[], P],
    timeout_s: float,
) -> P:
    """A connection to the first of these addresses that answers, TLS included for https.

    `timeout_s` is for the TCP connection. NoConnection, RefusedAddress.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            connected = await _first(target, addresses, opened)
    except RefusedAddress:
        raise
    except (OSError, TimeoutError) as error:
        raise NoConnection(str(error) or f"no connection within {timeout_s:g} s") from error
    secure = target.url[:6].lower() == "https:"
    try:
        _, protocol = await loop.create_connection(
            made,
            sock=connected,
            ssl=tls() if secure else None,
            server_hostname=target.host if secure else None,
        )
    except (OSError, ssl.SSLError) as error:
        raise NoConnection(str(error) or type(error).__name__) from error
    return protocol


async def addresses_of(target: WebhookTarget, lookup: NameLookup, guard: AddressGuard) -> tuple[Address, ...]:
    """Where we may connect to for this target, looked up now. NoConnection, RefusedAddress."""
    if target.address is not None:
        return (target.address,)
    try:
        found = await lookup(target.host)
    except OSError as error:
        raise NoConnection(f"{target.host}: {error}") from error
    try:
        return choose(target, found, guard)
    except BadInput as error:
        raise RefusedAddress(error.accepted) from error


async def _first(
    target: WebhookTarget, addresses: Sequence[Address], opened: Callable[[AddressInfo], socket.socket]
) -> socket.socket:
    """The socket that is connected first; each address begins a little after the one before it."""
    going: set[asyncio.Task[socket.socket]] = set()
    waiting, failed = list(addresses), OSError(f"{target.host} has no address")
    try:
        while waiting or going:
            if waiting:
                address = waiting.pop(0)
                if not waiting and not going:  # almost always: no task for the only one
                    return await _connected(address, target.port, opened)
                going.add(asyncio.create_task(_connected(address, target.port, opened)))
            done, going = await asyncio.wait(
                going, timeout=_NEXT_ADDRESS_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for each in done:
                error = each.exception()
                if error is None:
                    going |= done - {each}
                    return each.result()
                if not isinstance(error, OSError):
                    raise error
                failed = error
        raise failed
    finally:
        for each in going:
            each.cancel()
            each.add_done_callback(_close_late)


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    """One that was too late, connected or not."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _connected(
    address: Address, port: int, opened: Callable[[AddressInfo], socket.socket]
) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    made = opened((family, socket.SOCK_STREAM, 0, "", (str(address), port)))
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (str(address), port))
    except BaseException:
        made.close()
        raise
    return made


HEAD_BYTES_MAX = 64 * 1024
"""The status line and headers of an answer, interim ones and what came with them included."""


class ConnectionBroken(Exception):
    """The connection ended, or what came was no answer; nobody knows whether the request was understood."""


@dataclass(slots=True)
class ResponseHead:
    """What an answer begins with. `headers` are those that were asked for, by lower-case name."""

    status: int
    answered_mono_ns: int
    headers: dict[bytes, str] = field(default_factory=dict)


class HttpConnection(asyncio.Protocol):
    """A connected socket. `wanted` are the lower-case names of the headers that are kept."""

    def __init__(self, wanted: frozenset[bytes], body_bytes_max: int, mono_ns: Callable[[], int]) -> None:
        self._wanted, self._body_bytes_max, self._mono_ns = wanted, body_bytes_max, mono_ns
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._head: asyncio.Future[ResponseHead] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._headers: dict[bytes, str] = {}
        self._seen_bytes = 0
        self._interim = False
        self._keeps = True
        self.body = bytearray()
        self.idle_since_s = 0.0

    @property
    def usable(self) -> bool:
        idle = self._ended is None or self.complete
        return self._keeps and idle and self._transport is not None and not self._transport.is_closing()

    @property
    def complete(self) -> bool:
        return self._ended is not None and self._ended.done()

    async def ask(self, head: bytes, body: bytes) -> ResponseHead:
        """Send a request and wait for the status and headers of its answer. Broke."""
        loop = asyncio.get_running_loop()
        if self._transport is None or not self.usable:
            raise ConnectionBroken("the other side closed it")
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
            self._head.set_result(ResponseHead(status, self._mono_ns(), self._headers))

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
            self._head.set_exception(ConnectionBroken(why))
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
