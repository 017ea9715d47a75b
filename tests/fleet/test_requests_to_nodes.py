"""Requests of the server on their way to a node: whose answer counts, what is said when none comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import NodeRequest, NodeResponse, decode, encode
from homeostat.fleet.rpc import WAITING_MAX, NodeRpc
from homeostat.kernel.bus import OnMessage
from homeostat.kernel.errors import BadInput, BusUnavailable, RetryLater
from real_parts import eventually

N1 = HostId("n1")
LONG_S = 30.0


class Wire:
    """A bus with a node at its other end, which says what the test lets it say."""

    def __init__(self) -> None:
        self.connected = True
        self.asked: list[tuple[str, NodeRequest]] = []
        self.answers: list[tuple[str, bytes]] = []
        self._hear: OnMessage | None = None

    def on_reconnect(self, told: Callable[[], None]) -> None: ...

    async def subscribe(self, pattern: str, hear: OnMessage) -> None:
        assert pattern == "node.*.answered"
        self._hear = hear

    async def publish(self, subject: str, body: bytes) -> bool:
        if not self.connected:
            return False
        self.asked.append((subject, decode(NodeRequest, body)))
        for answer in self.answers:
            asyncio.get_running_loop().call_soon(self.say, *answer)
        return True

    def say(self, subject: str, body: bytes) -> None:
        assert self._hear is not None
        self._hear(subject, body)

    async def flush(self, timeout_s: float = 1.0) -> bool:
        return True


def said(answer: str = "", host: str = "n1", question: str = "q-1", *, taken: bool = False) -> bytes:
    return encode(NodeResponse(HostId(host), question, "life-1", 7, taken, answer))


@pytest.fixture
async def ends() -> tuple[Wire, NodeRpc]:
    wire = Wire()
    relaying = NodeRpc(wire, epoch=4)
    await relaying.listen()
    return wire, relaying


def question(**words: object) -> NodeRequest:
    return NodeRequest("q-1", 4, dict(words))


async def test_only_the_host_itself_answers(ends: tuple[Wire, NodeRpc]) -> None:
    wire, relaying = ends
    wire.answers = [
        ("node.n2.answered", said("forged", host="n1")),
        ("node.n2.answered", said("another's", host="n2")),
        ("node.n1.answered", said("of another question", question="q-2")),
        ("node.n1.answered", b"nonsense"),
        ("node.n1.answered", said(taken=True)),
        ("node.n1.answered", said("right")),
        ("node.n1.answered", said("too late")),
    ]
    found = await relaying.ask(N1, question(), LONG_S)
    assert found is not None and found.answer == "right"
    assert [subject for subject, _ in wire.asked] == ["to.n1.asked"]


async def test_two_who_ask_the_same_both_hear_it(ends: tuple[Wire, NodeRpc]) -> None:
    wire, relaying = ends
    both = [asyncio.create_task(relaying.ask(N1, question(), LONG_S)) for _ in range(2)]
    await eventually(lambda: len(wire.asked) == 2)
    wire.say("node.n1.answered", said("for both"))
    assert [each and each.answer for each in await asyncio.gather(*both)] == ["for both"] * 2


async def test_without_an_answer_it_is_said_whether_somebody_works_on_it(
    ends: tuple[Wire, NodeRpc],
) -> None:
    wire, relaying = ends
    assert await relaying.ask(N1, question(), 0.01) is None
    wire.answers = [("node.n1.answered", said(taken=True))]
    found = await relaying.ask(N1, question(), 0.01)
    assert found is not None and found.taken


async def test_what_cannot_be_carried_is_refused(ends: tuple[Wire, NodeRpc]) -> None:
    wire, relaying = ends
    for words in ({"number": 2**70}, {"text": "\ud800"}, {"long": "x" * 600_000}):
        with pytest.raises(BadInput, match="words"):
            await relaying.ask(N1, question(**words), LONG_S)
    wire.connected = False
    with pytest.raises(BusUnavailable, match="n1 was not asked"):
        await relaying.ask(N1, question(), LONG_S)
    wire.connected = True
    waiting = [asyncio.create_task(relaying.ask(N1, question(), LONG_S)) for _ in range(WAITING_MAX)]
    await eventually(lambda: len(wire.asked) == WAITING_MAX)
    with pytest.raises(RetryLater, match="wait for responses"):
        await relaying.ask(N1, question(), LONG_S)
    wire.say("node.n1.answered", said("at last"))
    await asyncio.gather(*waiting)
    wire.answers = [("node.n1.answered", said("again"))]
    found = await relaying.ask(N1, question(), LONG_S)
    assert found is not None and found.answer == "again", "nobody waits any more"
