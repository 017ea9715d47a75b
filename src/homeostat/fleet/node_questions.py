"""A node's answers to questions of the server: each is answered, and acted on once, however often it comes.

What is asked and what is done is not known here. Messages may be lost, so who asks does so again under the
same name: a question that was answered gets the same answer, one that is worked on is said to be taken.
Invariants: within one life of the node process a question is begun once; one that names another life, or
whose time is over, is never begun; a deposed server is not answered.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import (
    MESSAGE_BYTES_MAX,
    Answered,
    Asked,
    Refusal,
    Subjects,
    decode,
    encode,
)
from homeostat.kernel.bus import Messages
from homeostat.kernel.clock import Clock, SystemClock
from homeostat.kernel.errors import (
    BadInput,
    BusUnavailable,
    GiveUp,
    HomeostatError,
    RetryLater,
    StoreFull,
    StoreUnavailable,
)

AT_ONCE_MAX = 16
"""Questions that are worked on; what comes on top is told to come later."""
HEARD_MAX = 200
REMEMBERED_BYTES_MAX = 4 * 1024 * 1024
"""Of answers, the oldest forgotten first: thousands of them, where one is asked for again within seconds."""

Answer = Callable[[Mapping[str, Any]], Awaitable[Any]]
"""What JSON can hold, or an error of the kernel's tree."""

_log = structlog.get_logger("questions")


@dataclass(frozen=True, slots=True)
class Answering:
    """Who answers: a host, this life of its node process, and what finds the answers.

    `heeded` says whether a server with this epoch may ask.
    """

    host: HostId
    life: str
    answer: Answer
    heeded: Callable[[int], Awaitable[bool]]


class NodeQuestions:
    """Of one node. `run` is a task of its own; used from one event loop."""

    def __init__(self, answering: Answering, bus: Messages, clock: Clock | None = None) -> None:
        self._who, self._bus = answering, bus
        self._clock: Clock = clock or SystemClock()
        self._subjects = Subjects(answering.host)
        self._heard: deque[bytes] = deque(maxlen=HEARD_MAX)
        self._hears = asyncio.Event()
        self._working: set[str] = set()
        self._remembered: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    async def listen(self) -> None:
        """Subscribe. To be called once."""
        try:
            await self._bus.subscribe(self._subjects.asked, self._on_message)
        except BusUnavailable as error:
            _log.warning("will listen after the next reconnect", reason=str(error))

    async def run(self) -> None:
        """Answer for ever, several at once."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._hears.wait()
                self._hears.clear()
                while self._heard:
                    asked = await self._understood(self._heard.popleft())
                    if asked is not None:
                        self._working.add(asked.question)
                        group.create_task(self._work(asked), name=f"question {asked.question}")

    def _on_message(self, _subject: str, body: bytes) -> None:
        self._heard.append(body)
        self._hears.set()

    async def _understood(self, body: bytes) -> Asked | None:
        """The question when it is to be begun now; all others have been answered, or are dropped."""
        try:
            asked = decode(Asked, body)
            if not await self._who.heeded(asked.epoch):
                return None
        except (BadInput, StoreFull, StoreUnavailable) as error:
            _log.warning("a question was dropped", reason=str(error))
            return None
        known = self._remembered.get(asked.question)
        if known is not None:
            await self._bus.publish(self._subjects.answered, known)
        elif asked.question in self._working:
            await self._say(self._answered(asked, taken=True))
        elif (why := self._unbegun(asked)) is not None:
            await self._say(self._answered(asked, refusal=refusal_of(why)))
        else:
            return asked
        return None

    def _unbegun(self, asked: Asked) -> HomeostatError | None:
        """Why it is not begun."""
        host = self._who.host
        if asked.life and asked.life != self._who.life:
            return GiveUp(
                f"{host}: its node process was started again since; what was asked of the one before is not "
                "done by this one"
            )
        if asked.until_ns and self._clock.mono_ns() > asked.until_ns:
            return GiveUp(f"{host}: it came too late to its node process, and was not done")
        if len(self._working) >= AT_ONCE_MAX:
            return RetryLater(f"{host}: its node process works on {AT_ONCE_MAX} questions; ask again later")
        return None

    async def _work(self, asked: Asked) -> None:
        try:
            said = self._answered(asked, answer=await self._who.answer(asked.words))
        except HomeostatError as error:
            said = self._answered(asked, refusal=refusal_of(error))
        except Exception as error:  # one bad question must not end the answers to all others
            _log.error("a question met an error that is not the asker's", exc_info=error)
            said = self._answered(asked, refusal=refusal_of(GiveUp(f"{self._who.host}: {error!r}")))
        finally:
            self._working.discard(asked.question)
        await self._say(said, remembered=True)

    async def _say(self, said: Answered, *, remembered: bool = False) -> None:
        try:
            body = encode(said)
        except TypeError as error:
            body = encode(self._instead(said, f"what it answers is no JSON: {error}"))
        if len(body) > MESSAGE_BYTES_MAX:
            words = f"its answer has {len(body)} bytes; at most {MESSAGE_BYTES_MAX} are carried"
            body = encode(self._instead(said, words))
        if remembered:
            self._remember(said.question, body)
        await self._bus.publish(self._subjects.answered, body)

    def _instead(self, said: Answered, why: str) -> Answered:
        refusal = refusal_of(GiveUp(f"{said.host}: {why}"))
        return Answered(said.host, said.question, said.life, said.at_ns, refusal=refusal)

    def _remember(self, question: str, body: bytes) -> None:
        self._remembered[question] = body
        self._bytes += len(body)
        while self._bytes > REMEMBERED_BYTES_MAX:
            self._bytes -= len(self._remembered.popitem(last=False)[1])

    def _answered(
        self, asked: Asked, *, taken: bool = False, answer: Any = None, refusal: Refusal | None = None
    ) -> Answered:
        who, at_ns = self._who, self._clock.mono_ns()
        return Answered(who.host, asked.question, who.life, at_ns, taken, answer, refusal)


def refusal_of(error: HomeostatError) -> Refusal:
    """An error as it travels."""
    if isinstance(error, BadInput):
        value = None if error.value is None else _plain(str(error.value))
        return Refusal(
            type(error).__name__, _plain(str(error)), _plain(error.field), value, _plain(error.accepted)
        )
    return Refusal(type(error).__name__, _plain(str(error)))


def _plain(text: str) -> str:
    return text.encode(errors="replace").decode().replace("\x00", "")
