"""Connects to a webhook, and only to the addresses that `targets` chose. No HTTP.

Invariants: a name is looked up for each new connection, and that connection goes to an address of that very
answer; every socket's address is judged right before it connects. No proxy is ever asked.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import TypeVar

from homeostat.kernel.errors import BadInput
from homeostat.notices.targets import Address, Guard, Target, choose

Lookup = Callable[[str], Awaitable[tuple[Address, ...]]]
"""The addresses of a name; OSError when there is none."""

Where = tuple[int, int, int, str, tuple[str | int, ...]]
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


def open_socket(guard: Guard, info: Where) -> socket.socket:
    """The last look before a connect: whatever came here as an address is judged once more."""
    family, kind, protocol, _, place = info
    reason = guard.judge(ip_address(str(place[0]).partition("%")[0]), int(place[1]))
    if reason is not None:
        raise RefusedAddress(reason)
    return socket.socket(family, kind, protocol)


async def connect(
    target: Target,
    addresses: Sequence[Address],
    opened: Callable[[Where], socket.socket],
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


async def addresses_of(target: Target, lookup: Lookup, guard: Guard) -> tuple[Address, ...]:
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
    target: Target, addresses: Sequence[Address], opened: Callable[[Where], socket.socket]
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


async def _connected(address: Address, port: int, opened: Callable[[Where], socket.socket]) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    made = opened((family, socket.SOCK_STREAM, 0, "", (str(address), port)))
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (str(address), port))
    except BaseException:
        made.close()
        raise
    return made
