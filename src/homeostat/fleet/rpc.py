"""Requests between the server that leads and the nodes, in both directions, over NATS core.

The meaning of a request is not known here: a component registers what responds under a name in a `VerbTable`.
Messages may be lost, so who asks repeats a request under the same id: one that was answered gets the same
response, one that is worked on is said to be taken. Errors of the kernel's tree travel by name.

Invariants: within one life of the answering process a request is begun once (what must hold beyond that life
is committed by who responds, under the request's id); one whose time is over, or that names another
incarnation, is never begun; nobody heeds a server with a lower epoch than one seen before; a response counts
only for the host on whose subject it came; every queue and cache has a bound in bytes.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import structlog

from homeostat.contracts import wire
from homeostat.contracts.nouns import HostId
from homeostat.kernel import errors
from homeostat.kernel.bus import Messages

WAITING_MAX = 256
"""Requests that wait for a response, on the side that asks."""
REPEAT_S = 0.5
"""Without a response for so long, a node asks the leader again."""

R = TypeVar("R", wire.NodeResponse, wire.LeaderResponse)

Heeds = Callable[[int], Awaitable[bool]]
"""True when a server with this epoch is listened to. StoreFull, StoreUnavailable."""

_log = structlog.get_logger("rpc")


@dataclass(frozen=True, slots=True)
class RpcCall:
    """One request on the side that answers. `host` is its node: the one that asks, or that is asked.

    `incarnation` is a life of the node process: of who asks; or, on the node, for whom it is (empty: whoever
    is there). After `until_ns`, on the clock of the answering side, it is not begun; 0: whenever it comes.
    `work_s` is how long it may be worked on, None: as long as it takes.
    """

    host: HostId
    request: str
    verb: str
    arguments: Mapping[str, Any]
    incarnation: str = ""
    until_ns: int = 0
    work_s: float | None = None


Respond = Callable[[RpcCall], Awaitable[Any]]
"""What JSON can hold, or an error of the kernel's tree."""


class VerbTable:
    """What responds to which verb. A name is `component.verb`, or `component` for all verbs of it."""

    def __init__(self, undotted: str = "") -> None:
        """`undotted` is the component that verbs without a dot belong to, as version 0.1 wrote them."""
        self._undotted = undotted
        self._responders: dict[str, Respond] = {}

    def add(self, name: str, respond: Respond) -> None:
        """Register. ValueError when the name is taken: two components that answer the same are a bug."""
        if name in self._responders:
            raise ValueError(f"two respond to {name}")
        self._responders[name] = respond

    async def respond(self, call: RpcCall) -> Any:
        """The answer of who is registered. BadInput for a verb that nobody has."""
        component, dot, _ = call.verb.partition(".")
        found = self._responders.get(call.verb) or self._responders.get(component if dot else self._undotted)
        if found is None:
            known = ", ".join(sorted(self._responders)) or "nothing: no component answers here"
            raise errors.BadInput("verb", call.verb, f"accepted here: {known}")
        return await found(call)


@dataclass(slots=True)
class _PendingRequest(Generic[R]):
    """Who waits for one response. `taken`: the last word of who works on it."""

    answered: asyncio.Future[R]
    taken: R | None = None


class _PendingRequests(Generic[R]):
    """All that wait, by key. Two may wait for the same."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], list[_PendingRequest[R]]] = {}
        self._count = 0

    @asynccontextmanager
    async def one(self, key: tuple[str, str]) -> AsyncIterator[_PendingRequest[R]]:
        """Wait for `key` in this block. RetryLater when too many wait."""
        if self._count >= WAITING_MAX:
            raise errors.RetryLater(f"{WAITING_MAX} requests wait for responses; ask again later")
        pending = _PendingRequest[R](asyncio.get_running_loop().create_future())
        others = self._waiting.setdefault(key, [])
        others.append(pending)
        self._count += 1
        try:
            yield pending
        finally:
            self._count -= 1
            others.remove(pending)
            if not others:
                self._waiting.pop(key, None)

    def resolve(self, key: tuple[str, str], said: R) -> None:
        for pending in self._waiting.get(key, ()):
            if said.taken:
                pending.taken = said
            elif not pending.answered.done():
                pending.answered.set_result(said)


@dataclass(slots=True)
class NodeRpc:
    """The server's requests to nodes. One for a server that leads; used from one event loop.

    It keeps nothing and sends nothing twice: a caller that waited in vain sends the request again under the
    same name, and the node does no request twice.
    """

    bus: Messages
    epoch: int
    _pending: _PendingRequests[wire.NodeResponse] = field(default_factory=_PendingRequests)

    async def listen(self) -> None:
        """Hear what nodes answer."""
        await self.bus.subscribe("node.*.answered", self._on_answered)

    async def ask(self, host: HostId, asked: wire.NodeRequest, within_s: float) -> wire.NodeResponse | None:
        """What came of it, or that it is worked on; None when the node said nothing in time.

        BadInput for what is too long or no JSON, RetryLater.
        """
        body = _carried("words", asked)
        async with self._pending.one((host, asked.question)) as pending:
            if not await self.bus.publish(wire.Subjects(host).asked, body):
                raise errors.BusUnavailable(f"NATS is not connected; {host} was not asked")
            try:
                async with asyncio.timeout(within_s):
                    return await pending.answered
            except TimeoutError:
                return pending.taken

    def _on_answered(self, subject: str, body: bytes) -> None:
        try:
            said = wire.decode(wire.NodeResponse, body)
            if said.host != subject.split(".")[1]:
                raise errors.BadInput("NodeResponse.host", said.host, f"it came in on {subject}")
        except errors.BadInput as error:
            _log.warning("an answer was refused", subject=subject, error=str(error))
            return
        self._pending.resolve((said.host, said.question), said)


@dataclass(slots=True)
class LeaderRpc:
    """A node's requests to the leader. Used from one event loop."""

    host: HostId
    incarnation: str
    bus: Messages
    heeded: Heeds
    repeat_s: float = REPEAT_S
    _pending: _PendingRequests[wire.LeaderResponse] = field(default_factory=_PendingRequests)

    async def listen(self) -> None:
        """Hear what the leader answers. To be called once."""
        try:
            await self.bus.subscribe(wire.Subjects(self.host).responses, self._on_response)
        except errors.BusUnavailable as error:
            _log.warning("not subscribed to NATS; tried again after the next reconnect", reason=str(error))

    async def ask(self, verb: str, arguments: Mapping[str, Any], within_s: float, request: str = "") -> Any:
        """The answer, asked for again until it comes. The error that the leader names; BadInput for what is
        too long or no JSON; RetryLater when nobody answered within `within_s`.

        `request` names it for ever: who was started again asks under the same name for the same answer.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        name = request or uuid.uuid4().hex
        while (left_s := until_s - loop.time()) > 0:
            asked = wire.LeaderRequest(self.host, name, self.incarnation, verb, dict(arguments), left_s)
            said = await self._once(asked, min(left_s, self.repeat_s))
            if said is None:
                continue
            if not await self.heeded(said.epoch):
                await asyncio.sleep(self.repeat_s)  # or the two would keep each other busy
                continue
            if said.refusal is None:
                return said.answer
            raise carried_error(said.refusal)
        raise errors.RetryLater(f"{verb}: no leading server answered {self.host} within {within_s:g} s")

    async def _once(self, asked: wire.LeaderRequest, wait_s: float) -> wire.LeaderResponse | None:
        body = _carried("arguments", asked)
        async with self._pending.one((asked.host, asked.request)) as pending:
            await self.bus.publish(wire.Subjects(self.host).requests, body)
            try:
                async with asyncio.timeout(wait_s):
                    return await pending.answered
            except TimeoutError:
                return None

    def _on_response(self, subject: str, body: bytes) -> None:
        try:
            said = wire.decode(wire.LeaderResponse, body)
        except errors.BadInput as error:
            _log.warning("a response was refused", subject=subject, error=str(error))
            return
        self._pending.resolve((self.host, said.request), said)


def _carried(what: str, message: object) -> bytes:
    try:
        body = wire.encode(message)
    except TypeError as error:
        raise errors.BadInput(what, None, f"what JSON and 64 bits can hold ({error})") from None
    if len(body) > wire.MESSAGE_BYTES_MAX:
        raise errors.BadInput(what, f"{len(body)} bytes", f"at most {wire.MESSAGE_BYTES_MAX} are carried")
    return body


def request_failure(error: errors.HomeostatError) -> wire.RequestFailure:
    if isinstance(error, errors.BadInput):
        value = None if error.value is None else _plain(str(error.value))
        return wire.RequestFailure(
            type(error).__name__, _plain(str(error)), _plain(error.field), value, _plain(error.accepted)
        )
    return wire.RequestFailure(type(error).__name__, _plain(str(error)))


def carried_error(said: wire.RequestFailure) -> errors.HomeostatError:
    """The kernel's error that the other side named; GiveUp for a name that this version does not know."""
    kind = getattr(errors, said.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, errors.HomeostatError)):
        return errors.GiveUp(said.message)
    if issubclass(kind, errors.BadInput):
        return kind(said.field or "request", said.value, said.accepted or said.message)
    return kind(said.message)


def _plain(text: str) -> str:
    return text.encode(errors="replace").decode().replace("\x00", "")
