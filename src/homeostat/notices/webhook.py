"""Carries a notice over HTTP: the `Transport` port on aiohttp. Only the addresses that `targets` chose.

It decides nothing about retries. Invariants: no redirect, proxy, cookie or decompression; every socket's
address is judged right before it connects; a name is looked up for each new connection, and that connection
goes to an address of that very answer; one host that hangs, in DNS too, holds a bounded part of us.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from time import time

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from homeostat.kernel.clock import SystemClock
from homeostat.kernel.errors import BadInput
from homeostat.notices.settings import NoticesSettings
from homeostat.notices.targets import Address, Guard, Target, check, choose
from homeostat.ports import Answered, NoAnswer, Post, Refused, Reply

Lookup = Callable[[str], Awaitable[tuple[Address, ...]]]
"""The addresses of a name; OSError when there is none."""

HANDLED_HEADER = "Homeostat-Handled"
"""With it a consumer says in its answer when it was told, for the timeline."""
_STAMPS = re.compile(r"received=([0-9]{1,19}),\s?handled=([0-9]{1,19})", re.ASCII)
_LOOKUPS_AT_ONCE = 32
_ANSWER_BODY_S = 0.5
_SAID_LENGTH = 200
_CHECKED_MAX = 10_000


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

    def __init__(self, guard: Guard, lookup: Lookup, timeout_s: float) -> None:
        self._guard, self._lookup, self._timeout_s = guard, lookup, timeout_s

    async def __call__(self, url: str) -> Target:
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


class WebhookTransport:
    """Kept-alive connections to webhooks. Made and closed on one event loop."""

    def __init__(self, guard: Guard, lookup: Lookup, settings: NoticesSettings) -> None:
        self._guard, self._settings, self._clock = guard, settings, SystemClock()
        self._checked: set[str] = set()
        connector = aiohttp.TCPConnector(
            limit=settings.workers,
            limit_per_host=settings.sends_per_host,
            resolver=_GuardedResolver(guard, lookup),
            use_dns_cache=False,
            socket_factory=self._open_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(
                total=settings.total_timeout_s, sock_connect=settings.connect_timeout_s
            ),
        )

    async def post(self, request: Post) -> Reply:
        """Send once; never longer than `total_timeout_s` and half a second for the rest of the answer."""
        try:
            self._check(request.url)
            answer = await self._session.post(
                request.url, data=request.body, headers=dict(request.headers), allow_redirects=False
            )
            answered_mono_ns = self._clock.mono_ns()
        except BadInput as error:
            return Refused(str(error))
        except TimeoutError as error:
            return NoAnswer(f"no answer in time ({str(error) or 'timeout'})")
        except aiohttp.ClientConnectorError as error:
            refusal = _refusal(error)
            return NoAnswer(f"no connection: {error.os_error}") if refusal is None else Refused(refusal)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return NoAnswer(f"the connection broke: {error or type(error).__name__}")
        return Answered(
            answer.status,
            _retry_after_s(answer.headers.get("Retry-After")),
            await self._rest(answer),
            answered_mono_ns,
            stamps(answer.headers.get(HANDLED_HEADER)),
        )

    def _check(self, url: str) -> None:
        """What may be said of the text alone, once a URL: the guard never changes while we live."""
        if url not in self._checked:
            check(url, self._guard)
            if len(self._checked) >= _CHECKED_MAX:
                self._checked.clear()
            self._checked.add(url)

    async def close(self) -> None:
        """Let all connections go."""
        await self._session.close()

    async def _rest(self, answer: aiohttp.ClientResponse) -> str:
        """Read a short body so that the connection can be used again; cut off a long or a slow one."""
        read = bytearray()
        if answer.content.is_eof():  # it came with its head, as almost always
            read += answer.content.read_nowait()
            answer.release()
            return bytes(read[:_SAID_LENGTH]).decode(errors="replace")
        try:
            async with asyncio.timeout(_ANSWER_BODY_S):
                while piece := await answer.content.readany():
                    read += piece
                    if len(read) > self._settings.response_bytes_max:
                        answer.close()
                        break
        except (aiohttp.ClientError, OSError, TimeoutError):
            answer.close()
        answer.release()
        return bytes(read[:_SAID_LENGTH]).decode(errors="replace")

    def _open_socket(self, info: tuple[int, int, int, str, tuple[str | int, ...]]) -> socket.socket:
        """The last look before a connect: whatever came here as an address is judged once more."""
        family, kind, protocol, _, place = info
        reason = self._guard.judge(ip_address(str(place[0]).partition("%")[0]), int(place[1]))
        if reason is not None:
            raise _RefusedAddress(reason)
        return socket.socket(family, kind, protocol)


class _RefusedAddress(OSError):
    """An address that we do not connect to, in the only form that the connector passes on."""


class _GuardedResolver(AbstractResolver):
    def __init__(self, guard: Guard, lookup: Lookup) -> None:
        self._guard, self._lookup = guard, lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family  # both; the connector tries them in turn
        addresses = await self._lookup(host)
        try:
            chosen = choose(Target(host, host, port, None), addresses, self._guard)
        except BadInput as error:
            raise _RefusedAddress(error.accepted) from error
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in chosen
        ]

    async def close(self) -> None:
        """The lookup is its maker's."""


def _refusal(error: aiohttp.ClientConnectorError) -> str | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _RefusedAddress):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return None


def _look_up(host: str) -> tuple[Address, ...]:
    infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # A scoped address (fe80::1%eth0) is link-local and refused without its scope too.
    return tuple(dict.fromkeys(ip_address(str(info[4][0]).partition("%")[0]) for info in infos))


def stamps(value: str | None) -> tuple[int | None, int | None]:
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
