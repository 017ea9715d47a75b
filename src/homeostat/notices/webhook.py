"""Carries a notice over HTTP: the `Transport` port on connections of our own (docs/decisions/0020).

It decides nothing about retries; `http_connection` goes only to addresses that `targets` chose. Invariants:
no redirect, proxy, cookie or decompression; one host that hangs, in DNS too, holds a bounded part of us;
what is read of an answer is bounded, in bytes and in time.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from ipaddress import ip_address
from time import time

from homeostat.kernel.clock import SystemClock
from homeostat.kernel.errors import BadInput
from homeostat.notices import http_connection
from homeostat.notices.settings import NoticesSettings
from homeostat.notices.targets import Address, AddressGuard, WebhookTarget, check, choose
from homeostat.ports import NoWebhookReply, WebhookRefused, WebhookReply, WebhookRequest, WebhookResult

HANDLED_HEADER = "Homeostat-Handled"
"""With it a consumer says in its answer when it received the notice, for the timeline."""
_RETRY_AFTER, _HANDLED = b"retry-after", HANDLED_HEADER.lower().encode()
_WANTED = frozenset({_RETRY_AFTER, _HANDLED})
_STAMPS = re.compile(r"received=([0-9]{1,19}),\s?handled=([0-9]{1,19})", re.ASCII)
_LOOKUPS_AT_ONCE = 32
_ANSWER_BODY_S = 0.5
_SAID_LENGTH = 200
_CHECKED_MAX = 10_000
_IDLE_S = 15.0
"""So long an unused connection is kept at least."""
_IDLE_MAX = 256
"""Unused connections in all: a process may often have a thousand open files."""


class SystemLookup:
    """The machine's resolver in threads of its own; a name asked for twice at once is looked up once."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUPS_AT_ONCE, thread_name_prefix="lookup")
        self._going_on: dict[str, asyncio.Future[tuple[Address, ...]]] = {}

    async def __call__(self, host: str) -> tuple[Address, ...]:
        going_on = self._going_on.get(host)
        if going_on is None:
            going_on = asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host)
            self._going_on[host] = going_on
            going_on.add_done_callback(lambda done: self._forget(host, done))
        return await asyncio.shield(going_on)

    def close(self) -> None:
        """Does not wait: a lookup that hangs ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _forget(self, host: str, done: asyncio.Future[tuple[Address, ...]]) -> None:
        self._going_on.pop(host, None)
        if not done.cancelled():
            done.exception()  # seen by those who still wait; nobody may


class TargetCheck:
    """The check when a subscription is made: text, name and addresses. Sends nothing."""

    def __init__(self, guard: AddressGuard, lookup: http_connection.NameLookup, timeout_s: float) -> None:
        self._guard, self._lookup, self._timeout_s = guard, lookup, timeout_s

    async def __call__(self, url: str) -> WebhookTarget:
        """BadInput in one line when we would not send there, or when the name is not known now."""
        target = check(url, self._guard)
        if target.address is None:
            try:
                async with asyncio.timeout(self._timeout_s):
                    addresses = await self._lookup(target.host)
            except (OSError, TimeoutError) as error:
                raise BadInput("url", url[:200], f"a host with an address; {target.host} has none") from error
            choose(target, addresses, self._guard)
        return target


@dataclass(slots=True)
class _Place:
    """One host and port with its scheme: what waits there to be used again, and how many may be there."""

    slots: asyncio.Semaphore
    idle: deque[http_connection.HttpConnection] = field(default_factory=deque)
    users: int = 0


class WebhookTransport:
    """Kept-alive connections to webhooks. Made and closed on one event loop."""

    def __init__(
        self, guard: AddressGuard, lookup: http_connection.NameLookup, settings: NoticesSettings
    ) -> None:
        self._guard, self._lookup, self._settings = guard, lookup, settings
        self._mono_ns = SystemClock().mono_ns
        self._checked: dict[str, tuple[WebhookTarget, str]] = {}
        self._slots = asyncio.Semaphore(settings.workers)
        self._places: dict[str, _Place] = {}
        self._idle_count = 0
        self._pruning: asyncio.TimerHandle | None = None
        self._closed = False
        http_connection.tls()  # now: nobody waits for it yet

    async def post(self, request: WebhookRequest) -> WebhookResult:
        """Send once; never longer than `total_timeout_s` and half a second for the rest of the answer."""
        try:
            target, start = self._check(request.url)
            head = _head(start, request)
        except BadInput as error:
            return WebhookRefused(str(error))
        except ValueError as error:
            return NoWebhookReply(f"the request cannot be written: {error}")
        name = f"{request.url[:5].lower()}/{target.place}"
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = _Place(asyncio.Semaphore(self._settings.sends_per_host))
        place.users += 1
        try:
            return await self._exchange(target, place, head, request.body)
        except TimeoutError:
            return NoWebhookReply("no answer in time")
        except http_connection.RefusedAddress as error:
            return WebhookRefused(str(error))
        except http_connection.NoConnection as error:
            return NoWebhookReply(f"no connection: {error}")
        except (http_connection.ConnectionBroken, OSError) as error:
            return NoWebhookReply(f"the connection broke: {error or type(error).__name__}")
        finally:
            place.users -= 1
            if not place.users and not place.idle:
                self._places.pop(name, None)

    async def _exchange(
        self, target: WebhookTarget, place: _Place, head: bytes, body: bytes
    ) -> WebhookResult:
        connection: http_connection.HttpConnection | None = None
        timeout = asyncio.timeout(self._settings.total_timeout_s)
        try:
            async with timeout, place.slots, self._slots:
                connection = self._idle(place) or await self._connect(target)
                answer = await connection.ask(head, body)
                timeout.reschedule(None)
                await self._rest(connection)
            return WebhookReply(
                answer.status,
                _retry_after_s(answer.headers.get(_RETRY_AFTER)),
                bytes(connection.body[:_SAID_LENGTH]).decode(errors="replace"),
                answer.answered_mono_ns,
                consumer_timestamps(answer.headers.get(_HANDLED)),
            )
        finally:
            if connection is not None:
                self._give_back(place, connection)

    def _check(self, url: str) -> tuple[WebhookTarget, str]:
        """What may be said of the text alone, once a URL: the guard never changes while we live."""
        known = self._checked.get(url)
        if known is None:
            target = check(url, self._guard)
            if len(self._checked) >= _CHECKED_MAX:
                self._checked.clear()
            known = self._checked[url] = (target, _start(target))
        return known

    async def close(self) -> None:
        self._closed = True
        if self._pruning is not None:
            self._pruning.cancel()
        for place in self._places.values():
            for each in place.idle:
                each.abort()
        self._places.clear()
        await asyncio.sleep(0)  # the loop closes the sockets

    async def _connect(self, target: WebhookTarget) -> http_connection.HttpConnection:
        addresses = await http_connection.addresses_of(target, self._lookup, self._guard)
        limit = self._settings.response_bytes_max
        return await http_connection.connect(
            target,
            addresses,
            partial(http_connection.open_socket, self._guard),
            lambda: http_connection.HttpConnection(_WANTED, limit, self._mono_ns),
            self._settings.connect_timeout_s,
        )

    def _idle(self, place: _Place) -> http_connection.HttpConnection | None:
        """The one that was used last: the others may grow old."""
        while place.idle:
            found = place.idle.pop()
            self._idle_count -= 1
            if found.usable:
                return found
            found.abort()
        return None

    def _give_back(self, place: _Place, connection: http_connection.HttpConnection) -> None:
        if self._closed or not connection.usable or self._idle_count >= _IDLE_MAX:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since_s = loop.time()
        place.idle.append(connection)
        self._idle_count += 1
        if self._pruning is None:
            self._pruning = loop.call_later(_IDLE_S, self._prune)

    def _prune(self) -> None:
        """Close what nobody has used for a while: many servers do so themselves, in the middle of a send."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() - _IDLE_S
        for name, place in list(self._places.items()):
            while place.idle and (place.idle[0].idle_since_s <= until_s or not place.idle[0].usable):
                place.idle.popleft().abort()
                self._idle_count -= 1
            if not place.idle and not place.users:
                del self._places[name]
        left = any(place.idle for place in self._places.values())
        self._pruning = loop.call_later(_IDLE_S / 2, self._prune) if left else None

    async def _rest(self, connection: http_connection.HttpConnection) -> None:
        """Read a short body so that the connection can be used again; cut off a long or a slow one."""
        if connection.complete:  # it came with its head, as almost always
            return
        try:
            async with asyncio.timeout(_ANSWER_BODY_S):
                await connection.rest()
        except TimeoutError:
            connection.abort()


def _start(target: WebhookTarget) -> str:
    """The lines of a request that are the same for every notice to this URL."""
    path = target.url[target.url.index("//") + 2 :]
    cut = next((at for at, letter in enumerate(path) if letter in "/?"), len(path))
    path = path[cut:] if path[cut : cut + 1] == "/" else f"/{path[cut:]}"
    host = f"[{target.host}]" if ":" in target.host else target.host
    usual = {"http:": 80, "https": 443}[target.url[:5].lower()] == target.port
    return f"POST {path} HTTP/1.1\r\nHost: {host}{'' if usual else f':{target.port}'}\r\nAccept: */*\r\n"


def _head(start: str, request: WebhookRequest) -> bytes:
    """ValueError for a header that would be two."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    if not lines.count("\r") == lines.count("\n") == len(request.headers) or "\0" in lines:
        raise ValueError("a header has a line break in it")
    return f"{start}{lines}Content-Length: {len(request.body)}\r\n\r\n".encode()


def _look_up(host: str) -> tuple[Address, ...]:
    infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # A scoped address (fe80::1%eth0) is link-local and refused without its scope too.
    return tuple(dict.fromkeys(ip_address(str(info[4][0]).partition("%")[0]) for info in infos))


def consumer_timestamps(value: str | None) -> tuple[int | None, int | None]:
    """When the consumer had read and handled a notice; nothing when it does not say so as it should.

    Two whole numbers of nanoseconds since the epoch in their order: `received=1,handled=2`.
    """
    found = None if value is None else _STAMPS.fullmatch(value)
    if found is None:
        return None, None
    received_ns, handled_ns = int(found[1]), int(found[2])
    return (received_ns, handled_ns) if received_ns <= handled_ns else (None, None)


def _retry_after_s(value: str | None) -> float | None:
    """Seconds from now, from either form of the header; None when there is none that can be read."""
    if value is None or len(value) > 64:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return None
