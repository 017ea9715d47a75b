"""Questions to a node: each is begun once, however often it comes; and not at all when it is not for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import MESSAGE_BYTES_MAX, NodeRequest, NodeResponse, decode, encode
from homeostat.fleet.responder import (
    CONCURRENT_REQUESTS_MAX,
    RESPONSE_CACHE_BYTES_MAX,
    NodeEnd,
    RequestResponder,
)
from homeostat.fleet.rpc import Respond, RpcCall
from homeostat.kernel.bus import OnMessage
from homeostat.kernel.errors import BadInput, NotAllowed, StoreFull
from real_parts import eventually

NOW_NS = 1_000


class Wire:
    """A bus of one subscriber: what was said on it is kept, and may get lost."""

    def __init__(self) -> None:
        self.connected = True
        self.loses = False
        self.said: list[NodeResponse] = []
        self.hears: list[OnMessage] = []

    def on_reconnect(self, told: Callable[[], None]) -> None: ...

    async def subscribe(self, pattern: str, hear: OnMessage) -> None:
        assert pattern == "to.n1.asked"
        self.hears.append(hear)

    async def publish(self, subject: str, body: bytes) -> bool:
        assert subject == "node.n1.answered"
        if not self.loses:
            self.said.append(decode(NodeResponse, body))
        return True

    async def flush(self, timeout_s: float = 1.0) -> bool:
        return True

    def ask(self, question: str, life: str = "", until_ns: int = 0, epoch: int = 3, **words: Any) -> None:
        for hear in self.hears:
            hear("to.n1.asked", encode(NodeRequest(question, epoch, words, life, until_ns)))

    async def answer(self, number: int = 1) -> NodeResponse:
        """The answer of this number, once it is there."""
        await eventually(lambda: len(self.said) >= number, what=f"{number} answers, not {self.said}")
        return self.said[number - 1]


class Frozen:
    """A clock that stands."""

    def wall_ns(self) -> int:
        return NOW_NS

    def mono_ns(self) -> int:
        return NOW_NS


class Work:
    """Counts what was done; `go` lets it end."""

    def __init__(self) -> None:
        self.done: list[Mapping[str, Any]] = []
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, call: RpcCall) -> Any:
        words = call.arguments
        self.done.append(words)
        await self.go.wait()
        if "error" in words:
            raise {
                "bad": BadInput("field", 2**70, "something small"),
                "not": NotAllowed("n1: off"),
                "bug": ZeroDivisionError("by zero"),
            }[words["error"]]
        return words.get("echo", "done")


@asynccontextmanager
async def answering(work: Respond) -> AsyncIterator[Wire]:
    wire = Wire()

    async def heeded(epoch: int) -> bool:
        if epoch == 99:
            raise StoreFull("no room")
        return epoch >= 3

    questions = RequestResponder(NodeEnd(HostId("n1"), "life-1", heeded, Frozen()), work, wire)
    await questions.listen()
    running = asyncio.create_task(questions.run())
    try:
        yield wire
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.seed("order an answer that is lost is asked for again, and nothing is broken twice")
async def test_a_lost_answer_comes_again_and_nothing_is_done_again() -> None:
    work = Work()
    async with answering(work) as wire:
        wire.loses = True
        wire.ask("q-1", echo=1)
        await eventually(lambda: work.done)
        wire.ask("q-flush", echo=0)
        await eventually(lambda: len(work.done) == 2)
        wire.loses = False
        wire.ask("q-1", echo=1)
        said = await wire.answer()
        assert (said.question, said.answer, said.life, said.at_ns) == ("q-1", 1, "life-1", NOW_NS)
        assert len(work.done) == 2


async def test_one_that_is_worked_on_is_taken_and_not_begun_again() -> None:
    work = Work()
    work.go.clear()
    async with answering(work) as wire:
        wire.ask("q-1")
        await eventually(lambda: work.done)
        wire.ask("q-1")
        assert (await wire.answer()).taken
        work.go.set()
        assert (await wire.answer(2)).answer == "done"
        assert len(work.done) == 1


async def test_who_is_not_meant_does_not_begin_it() -> None:
    work = Work()
    async with answering(work) as wire:
        wire.ask("q-1", life="life-0")
        wire.ask("q-2", until_ns=NOW_NS - 1)
        wire.ask("q-3", life="life-1", until_ns=NOW_NS)
        said = {each.question: each for each in [await wire.answer(number) for number in (1, 2, 3)]}
        for question, words in (("q-1", "started again since"), ("q-2", "came too late")):
            refusal = said[question].refusal
            assert refusal is not None and refusal.kind == "GiveUp" and words in refusal.message
        assert said["q-3"].answer == "done" and len(work.done) == 1


async def test_a_deposed_server_and_nonsense_are_not_answered() -> None:
    work = Work()
    async with answering(work) as wire:
        wire.ask("q-1", epoch=2)
        wire.ask("q-2", epoch=99)
        for hear in wire.hears:
            hear("to.n1.asked", b"nonsense")
        wire.ask("q-3")
        assert (await wire.answer()).question == "q-3" and len(work.done) == 1


async def test_errors_keep_their_kind_and_a_bug_ends_nothing() -> None:
    work = Work()
    async with answering(work) as wire:
        wire.ask("q-bug", error="bug")
        wire.ask("q-bad", error="bad")
        wire.ask("q-not", error="not")
        wire.ask("q-good", echo=1.5)
        said = {each.question: each for each in [await wire.answer(number) for number in (1, 2, 3, 4)]}
        bug, bad, refused = (said[f"q-{name}"].refusal for name in ("bug", "bad", "not"))
        assert bug is not None and bug.kind == "GiveUp" and "by zero" in bug.message
        assert bad is not None and (bad.kind, bad.field, bad.value) == ("BadInput", "field", str(2**70))
        assert refused is not None and (refused.kind, refused.message) == ("NotAllowed", "n1: off")
        assert said["q-good"].answer == 1.5


async def test_an_answer_that_cannot_be_carried_is_said_to() -> None:
    async def large(call: RpcCall) -> Any:
        return object() if call.arguments else "x" * MESSAGE_BYTES_MAX

    async with answering(large) as wire:
        wire.ask("q-1")
        wire.ask("q-2", no="json")
        said = {each.question: each.refusal for each in [await wire.answer(1), await wire.answer(2)]}
        first, second = said["q-1"], said["q-2"]
        assert first is not None and "are carried" in first.message
        assert second is not None and "no JSON" in second.message


async def test_more_than_can_be_worked_on_come_later() -> None:
    work = Work()
    work.go.clear()
    async with answering(work) as wire:
        for number in range(CONCURRENT_REQUESTS_MAX + 1):
            wire.ask(f"q-{number}")
        said = await wire.answer()
        assert said.refusal is not None and said.refusal.kind == "RetryLater"
        work.go.set()
        wire.ask(said.question)
        await wire.answer(CONCURRENT_REQUESTS_MAX + 2)
        assert len(work.done) == CONCURRENT_REQUESTS_MAX + 1, "what was refused was not remembered"


async def test_the_oldest_answers_are_forgotten() -> None:
    work = Work()
    async with answering(work) as wire:
        half = "x" * (MESSAGE_BYTES_MAX // 2)
        count = 2 + 2 * RESPONSE_CACHE_BYTES_MAX // MESSAGE_BYTES_MAX
        for number in range(count):
            wire.ask(f"q-{number}", echo=half)
            await wire.answer(number + 1)
        wire.ask(f"q-{count - 1}", echo=half)
        await wire.answer(count + 1)
        assert len(work.done) == count
