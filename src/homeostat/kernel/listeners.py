"""The HTTP listeners of one server: each with an address, an application, and rules for who may call.

It knows no protocol and no route. A foreign protocol gets a listener and an application of its own; a fault
in one never reaches the other's socket. Invariants: all are opened together or none is; who calls from an
address that is not allowed is cut off before a byte of his is read; on a listener without authentication no
token and no cookie counts: its callers may hand in observations where a route asks for `AnyCaller`, and
nothing else; connections and the time that a request may take are limited, so that who opens many and says
nothing keeps out himself and nobody else.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, ClassVar

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from homeostat.kernel.connections import (
    LATE,
    ConnectionCount,
    ConnectionLimits,
    ConnectionRefusal,
    unread_bytes,
)
from homeostat.kernel.errors import AlreadyRunning
from homeostat.kernel.http import CONNECTION, LISTENER_WITHOUT_AUTHENTICATION, refusal_answer

BACKLOG = 2048
"""Connections that wait to be accepted; uvicorn's own number."""
_CREDENTIALS = frozenset({b"authorization", b"cookie", b"proxy-authorization"})

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Authentication(Enum):
    """Where callers of a listener are known from."""

    TOKENS = "tokens"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class HttpListener:
    """One address to listen on. `name` is the setting that it comes from, such as `api`.

    `allowed_networks`: callers come from there only. Empty: with tokens from anywhere, without
    authentication from this machine only.
    """

    name: str
    host: str
    port: int
    authentication: Authentication = Authentication.TOKENS
    allowed_networks: tuple[Network, ...] = ()

    def admits(self, address: str) -> bool:
        """Whether a caller from this address may speak at all."""
        if not self.allowed_networks and self.authentication is Authentication.TOKENS:
            return True
        try:
            caller = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(caller, "ipv4_mapped", None)
        caller = caller if mapped is None else mapped
        if not self.allowed_networks:
            return caller.is_loopback
        return any(caller in network for network in self.allowed_networks)


@dataclass(frozen=True, slots=True)
class OpenListener:
    """A listener whose socket is ours. Clients that connect wait until `serve` runs."""

    listener: HttpListener
    socket: socket.socket

    async def serve(self, app: ASGIApp, limits: ConnectionLimits | None = None) -> None:
        """Serve until cancelled; it may be called again afterwards."""
        listener = self.listener
        config = uvicorn.Config(
            app
            if listener.authentication is Authentication.TOKENS
            else WithoutCredentials(app, listener.name),
            http=_protocol_of(listener, ConnectionCount(limits or ConnectionLimits())),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
        )
        server, accepting = _HttpServer(config), self.socket.dup()
        try:
            await server.serve(sockets=[accepting])
        finally:
            # uvicorn does not when it is cancelled: the next one of ours would share the callers with it.
            for each in getattr(server, "servers", ()):
                each.close()
            accepting.close()


def open_listeners(listeners: Iterable[HttpListener]) -> list[OpenListener]:
    """The sockets of all of them, or none: AlreadyRunning names the setting whose address is taken."""
    with ExitStack() as opened:
        found = []
        for listener in listeners:
            found.append(OpenListener(listener, _bound(listener)))
            opened.callback(found[-1].socket.close)
        opened.pop_all()
    return found


class WithoutCredentials:
    """An application whose requests have no token and no cookie, and say that nobody was asked for any."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        self._app, self._name = app, name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = [each for each in scope["headers"] if each[0].lower() not in _CREDENTIALS]
            scope = {**scope, "headers": headers, LISTENER_WITHOUT_AUTHENTICATION: self._name}
        await self._app(scope, receive, send)


class _HttpServer(uvicorn.Server):
    """uvicorn inside our own loop: signals are the composition root's."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


class _Stage(Enum):
    """Where a connection stands with its latest request."""

    HEAD = auto()
    BODY = auto()
    ANSWER = auto()
    IDLE = auto()


_REFUSED_MAX = 64
"""Connections that are over a limit and may wait for their request, so that they can be told; further ones
are cut off."""


class _LimitedProtocol(HttpToolsProtocol):
    """One connection: refused, counted, and under a deadline until its request is there."""

    listener: ClassVar[HttpListener]
    count: ClassVar[ConnectionCount]
    refused: ClassVar[set[_LimitedProtocol]]

    address = ""
    _counted = False
    _cut_off = False
    _refusal: ConnectionRefusal | None = None
    _is_stranger = True
    _stage = _Stage.HEAD
    _untaken_since_s: float | None = None
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer: Any = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        if not self.listener.admits(self.address):
            self._cut_off = True
            transport.abort()
            return
        self._refusal = self.count.enter(self)
        self._counted = self._refusal is None
        if not self._counted and len(self.refused) >= _REFUSED_MAX:
            self._cut_off = True
            transport.abort()
            return
        if not self._counted:
            self.refused.add(self)
        self._arm(self.count.limits.header_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self.refused.discard(self)
        if self._counted:
            self._counted = False
            self.count.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._cut_off:
            return
        if self._refusal is not None:
            self._say(self._refusal)
            return
        super().data_received(data)
        if self._stage is _Stage.IDLE and self._deadline is None and self.timeout_keep_alive_task is None:
            self._arm(self.count.limits.header_s)  # something that is not the beginning of a request

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[CONNECTION] = self  # type: ignore[literal-required]
        self._stage = _Stage.HEAD
        if self._deadline is None:
            self._arm(self.count.limits.header_s)

    def on_headers_complete(self) -> None:
        self._stage = _Stage.BODY
        self._arm(self.count.limits.request_s)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._stage = _Stage.ANSWER
        if not self.flow.write_paused:
            self._untaken_since_s = None
        if self._is_stranger:
            self._arm(self.count.limits.request_s)
        else:
            self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        # With requests in the pipeline the next answer begins at once, under the deadline that runs.
        if self._stage is _Stage.ANSWER and not self.pipeline:
            self._stage = _Stage.IDLE
            self._disarm()
        if not self.flow.write_paused:
            self._untaken_since_s = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._untaken_since_s = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._untaken_since_s = None
        super().resume_writing()

    def authenticated(self) -> None:
        """Somebody who is known speaks here: it is no stranger any more."""
        if self._is_stranger and self._counted:
            self._is_stranger = False
            self.count.authenticated(self)
            if self._stage is _Stage.ANSWER:
                self._disarm()

    @property
    def may_go(self) -> bool:
        if not self.transport.get_write_buffer_size():
            return self._stage is not _Stage.ANSWER
        since_s = self._untaken_since_s
        return since_s is not None and self.loop.time() - since_s >= self.count.limits.stalled_s

    @property
    def unread_bytes(self) -> int:
        found: Any = self.transport.get_extra_info("socket")
        return 0 if found is None else unread_bytes(found.fileno())

    def put_out(self, refusal: ConnectionRefusal) -> None:
        self._counted = False  # who calls has counted already
        self._say(refusal)

    def _say(self, refusal: ConnectionRefusal) -> None:
        self._cut_off = True
        self._disarm()
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # closed in order, its socket would wait for who reads nothing, uncounted
        elif not self.transport.is_closing():
            self.transport.write(refusal_answer(refusal.status, refusal.message))
            self.transport.close()

    def _arm(self, within_s: float) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(within_s, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if self._stage is _Stage.ANSWER:  # it does not take its answer
            self._cut_off = True
            self.transport.abort()
        else:
            self._say(self._refusal or LATE)


def _protocol_of(listener: HttpListener, count: ConnectionCount) -> type[asyncio.Protocol]:
    shared = {"listener": listener, "count": count, "refused": set()}
    return type("_ListenerProtocol", (_LimitedProtocol,), shared)


def _bound(listener: HttpListener) -> socket.socket:
    host, port = listener.host, listener.port
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(BACKLOG)  # now: two that only bind may both believe that the port is theirs
    except OSError as error:
        made.close()
        raise AlreadyRunning(
            f"{listener.name}.port: {host}:{port} is taken ({error.strerror}); stop what uses it, or set"
            " another"
        ) from error
    return made
