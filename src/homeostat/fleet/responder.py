"""The answering side of requests between the server that leads and the nodes, in both directions.

What answers a verb is registered by its component in a `VerbTable` (`fleet.rpc`); how a request is asked is
there too. Invariants: within one life of the answering process a request is begun once (what must hold beyond
that life is committed by who responds, under the request's id); one whose time is over, or that names another
incarnation, is never begun; every queue and cache has a bound in bytes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from homeostat.contracts import wire
from homeostat.contracts.nouns import HostId
from homeostat.fleet.rpc import Heeds, Respond, RpcCall, carried_error, request_failure
from homeostat.kernel import errors
from homeostat.kernel.bus import Messages
from homeostat.kernel.clock import Clock, SystemClock

CONCURRENT_REQUESTS_MAX = 16
"""Of one host that are worked on; what comes on top is to come later."""
CONCURRENT_IN_ALL_MAX = 512
"""Of all hosts together."""
INBOX_BYTES_MAX = 4 * 1024 * 1024
"""Of messages that wait to be read. What comes on top is dropped, and asked again."""
RESPONSE_CACHE_BYTES_MAX = 4 * 1024 * 1024
"""Of responses, the oldest forgotten first: thousands, and one is asked for again within seconds."""

_log = structlog.get_logger("rpc")


@dataclass(frozen=True, slots=True)
class RpcReply:
    """What is said to a request: that it is worked on (`taken`), its answer, or why it has none."""

    taken: bool = False
    answer: Any = None
    refusal: wire.RequestFailure | None = None


class ResponderEnd(Protocol):
    """One direction: how a request is read, what keeps it from being begun, where its response goes."""

    @property
    def pattern(self) -> str: ...

    @property
    def begins_again(self) -> bool:
        """Whether a request that ended with a RetryLater is begun again when it is asked again."""

    async def read(self, subject: str, body: bytes) -> RpcCall | None:
        """The request, None when who asks is not heeded. BadInput, StoreFull, StoreUnavailable."""

    def unbegun(self, call: RpcCall) -> errors.HomeostatError | None:
        """Why it is not begun."""

    def response(self, call: RpcCall, reply: RpcReply) -> tuple[str, object]:
        """The subject and the message."""


@dataclass(frozen=True, slots=True)
class NodeEnd:
    """A node answers the server. `life` is this incarnation of its process."""

    host: HostId
    life: str
    heeded: Heeds
    clock: Clock = field(default_factory=SystemClock)
    begins_again = False  # a drill's verb may have begun to break something

    @property
    def pattern(self) -> str:
        return wire.Subjects(self.host).asked

    async def read(self, _subject: str, body: bytes) -> RpcCall | None:
        asked = wire.decode(wire.NodeRequest, body)
        if not await self.heeded(asked.epoch):
            return None
        verb = str(asked.words.get("ask", ""))
        return RpcCall(self.host, asked.question, verb, asked.words, asked.life, asked.until_ns)

    def unbegun(self, call: RpcCall) -> errors.HomeostatError | None:
        if call.incarnation and call.incarnation != self.life:
            return errors.GiveUp(
                f"{self.host}: its node process was started again since; what was asked of the one before is "
                "not done by this one"
            )
        if call.until_ns and self.clock.mono_ns() > call.until_ns:
            return errors.GiveUp(f"{self.host}: it came too late to its node process, and was not done")
        return None

    def response(self, call: RpcCall, reply: RpcReply) -> tuple[str, object]:
        at_ns = self.clock.mono_ns()
        said = wire.NodeResponse(
            self.host, call.request, self.life, at_ns, reply.taken, reply.answer, reply.refusal
        )
        return wire.Subjects(self.host).answered, said


@dataclass(frozen=True, slots=True)
class LeaderEnd:
    """The leader of this term answers the nodes."""

    epoch: int
    clock: Clock = field(default_factory=SystemClock)
    begins_again = True  # who responds commits under the request's id

    @property
    def pattern(self) -> str:
        return "node.*.requests"

    async def read(self, subject: str, body: bytes) -> RpcCall | None:
        asked = wire.decode(wire.LeaderRequest, body)
        if asked.host != subject.split(".")[1]:
            raise errors.BadInput("LeaderRequest.host", asked.host, f"it came in on {subject}")
        until_ns = self.clock.mono_ns() + round(asked.wait_s * 1e9)
        return RpcCall(
            asked.host, asked.request, asked.verb, asked.arguments, asked.incarnation, until_ns, asked.wait_s
        )

    def unbegun(self, call: RpcCall) -> errors.HomeostatError | None:
        late = self.clock.mono_ns() > call.until_ns
        return errors.RetryLater(f"{call.verb}: nobody waits for it any more") if late else None

    def response(self, call: RpcCall, reply: RpcReply) -> tuple[str, object]:
        said = wire.LeaderResponse(call.request, self.epoch, reply.taken, reply.answer, reply.refusal)
        return wire.Subjects(call.host).responses, said


class RequestResponder:
    """The answering side of one direction. `run` is a task of its own; used from one event loop."""

    def __init__(self, end: ResponderEnd, respond: Respond, bus: Messages) -> None:
        self._end, self._respond, self._bus = end, respond, bus
        self._inbox: deque[tuple[str, bytes]] = deque()
        self._inbox_bytes = 0
        self._arrived = asyncio.Event()
        self._working: dict[HostId, set[str]] = {}
        self._answered: OrderedDict[tuple[HostId, str], bytes] = OrderedDict()
        self._answered_bytes = 0

    async def listen(self) -> None:
        """Subscribe. To be called once."""
        try:
            await self._bus.subscribe(self._end.pattern, self._on_message)
        except errors.BusUnavailable as error:
            _log.warning("not subscribed to NATS; tried again after the next reconnect", reason=str(error))

    async def run(self) -> None:
        """Answer for ever, several at once."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._inbox:
                    subject, body = self._inbox.popleft()
                    self._inbox_bytes -= len(body)
                    call = await self._understood(subject, body)
                    if call is not None:
                        self._working.setdefault(call.host, set()).add(call.request)
                        group.create_task(self._work(call), name=f"request {call.request}")

    def _on_message(self, subject: str, body: bytes) -> None:
        if self._inbox_bytes + len(body) > INBOX_BYTES_MAX:
            _log.warning("a request was dropped: too many wait to be read", subject=subject)
            return
        self._inbox.append((subject, body))
        self._inbox_bytes += len(body)
        self._arrived.set()

    async def _understood(self, subject: str, body: bytes) -> RpcCall | None:
        """The request when it is to be begun now; all others have been answered, or are dropped."""
        try:
            call = await self._end.read(subject, body)
        except (errors.BadInput, errors.StoreFull, errors.StoreUnavailable) as error:
            _log.warning("a request was dropped", subject=subject, reason=str(error))
            return None
        if call is None:
            return None
        known = self._answered.get((call.host, call.request))
        if known is not None:
            await self._bus.publish(self._end.response(call, RpcReply())[0], known)
        elif call.request in self._working.get(call.host, ()):
            await self._say(call, RpcReply(taken=True))
        elif (why := self._end.unbegun(call) or self._too_many(call)) is not None:
            await self._say(call, RpcReply(refusal=request_failure(why)))
        else:
            return call
        return None

    def _too_many(self, call: RpcCall) -> errors.HomeostatError | None:
        if len(self._working.get(call.host, ())) >= CONCURRENT_REQUESTS_MAX:
            return errors.RetryLater(
                f"{call.host}: {CONCURRENT_REQUESTS_MAX} requests are worked on; ask again later"
            )
        if sum(map(len, self._working.values())) >= CONCURRENT_IN_ALL_MAX:
            return errors.RetryLater(
                f"{CONCURRENT_IN_ALL_MAX} requests of all hosts are worked on; ask again later"
            )
        return None

    async def _work(self, call: RpcCall) -> None:
        answer, refusal = None, None
        try:
            async with asyncio.timeout(call.work_s):
                answer = await self._respond(call)
        except TimeoutError:
            refusal = wire.RequestFailure(
                "RetryLater", f"{call.verb}: not done within {call.work_s} s; ask again"
            )
        except errors.Deposed as error:  # the leader of today answers
            _log.warning("a request is not answered", request=call.request, reason=str(error))
            return
        except errors.HomeostatError as error:
            refusal = request_failure(error)
        except Exception as error:  # one bad request must not end the answers to all others
            _log.error("internal error in a request", exc_info=error)
            refusal = request_failure(errors.GiveUp(f"{call.host}: {error!r}"))
        finally:
            working = self._working[call.host]
            working.discard(call.request)
            if not working:
                del self._working[call.host]
        await self._say(call, RpcReply(answer=answer, refusal=refusal), remembered=True)

    async def _say(self, call: RpcCall, reply: RpcReply, *, remembered: bool = False) -> None:
        subject, said = self._end.response(call, reply)
        try:
            body = wire.encode(said)
        except TypeError as error:
            body = self._instead(call, f"what it answers is no JSON: {error}")
        if len(body) > wire.MESSAGE_BYTES_MAX:
            body = self._instead(
                call, f"its answer has {len(body)} bytes; at most {wire.MESSAGE_BYTES_MAX} are carried"
            )
        passing = reply.refusal is not None and isinstance(carried_error(reply.refusal), errors.RetryLater)
        if remembered and not (self._end.begins_again and passing):
            self._remember((call.host, call.request), body)
        await self._bus.publish(subject, body)

    def _instead(self, call: RpcCall, why: str) -> bytes:
        refusal = request_failure(errors.GiveUp(f"{call.host}: {why}"))
        return wire.encode(self._end.response(call, RpcReply(refusal=refusal))[1])

    def _remember(self, key: tuple[HostId, str], body: bytes) -> None:
        self._answered[key] = body
        self._answered_bytes += len(body)
        while self._answered_bytes > RESPONSE_CACHE_BYTES_MAX:
            self._answered_bytes -= len(self._answered.popitem(last=False)[1])
