"""The stream of notices: nothing missing, nothing double, whoever comes, goes and comes again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from homeostat.contracts.nouns import Owner
from homeostat.kernel.errors import RetryLater
from homeostat.kernel.journal import Seq
from homeostat.notices.api import NoticeStreams, StreamFilter
from homeostat.notices.model import Endpoint
from notices_parts import QUICK, World, consumer, picture, subscription, until, world

FEW = QUICK.model_copy(update={"streams_max": 2, "stream_heartbeat_s": 0.05, "stream_stall_s": 0.3})


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@dataclass
class Reader:
    """One listener: what it was told, in order."""

    streams: NoticeStreams
    wanted: StreamFilter
    ids: list[int] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    comments: int = 0
    task: asyncio.Task[None] | None = None

    def begin(self, after: int) -> None:
        self.task = asyncio.create_task(self._listen(after))

    async def _listen(self, after: int) -> None:
        response = self.streams.open(self.wanted, Seq(after))

        async def receive() -> dict[str, Any]:
            await asyncio.Event().wait()
            return {}

        async def send(message: Any) -> None:
            for text in message.get("body", b"").decode().split("\n\n"):
                self._hear(text)

        await response({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)

    def _hear(self, text: str) -> None:
        fields = dict(line.partition(": ")[::2] for line in text.splitlines())
        self.comments += text.startswith(":")
        if fields.get("event") == "notice":
            self.ids.append(int(fields["id"]))
            self.bodies.append(orjson.loads(fields["data"]))

    async def leave(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def yes() -> bool:
    return True


def reader(streams: NoticeStreams, owner: str | None = None, name: str | None = None) -> Reader:
    return Reader(streams, StreamFilter(None if owner is None else Owner(owner), name, yes))


def faults_of(made: Reader) -> list[str]:
    return [each["fault"]["id"] for each in made.bodies]


@pytest.mark.seed("order delivery by SSE with replay (since=); a consumer that was away misses nothing")
async def test_a_reader_that_comes_and_goes_misses_nothing_and_hears_nothing_twice(here: World) -> None:
    streams = NoticeStreams(here.readers, here.recall, FEW)
    await here.subscribe(subscription(endpoints=(Endpoint(1, ""),)))

    async def trouble() -> None:
        for number in range(150):
            await here.tell(None, picture(f"f-{number}"))
            streams.look()

    troubling = asyncio.create_task(trouble())
    listening, place = reader(streams), 0
    for stop in (10, 20, 45, 46, 90):
        listening.begin(place)
        await until(lambda n=stop: len(listening.ids) >= n)  # type: ignore[misc]
        await listening.leave()
        place = listening.ids[-1]
    await troubling
    listening.begin(place)
    await until(lambda: len(listening.ids) >= 150)
    await listening.leave()
    assert faults_of(listening) == [f"f-{number}" for number in range(150)]
    assert listening.ids == sorted(set(listening.ids))
    replayed = reader(streams)
    replayed.begin(0)
    await until(lambda: len(replayed.ids) >= 150)
    await replayed.leave()
    assert (replayed.ids, replayed.bodies) == (listening.ids, listening.bodies)


async def test_it_says_what_the_webhook_says_and_of_several_endpoints_one(here: World) -> None:
    streams = NoticeStreams(here.readers, here.recall, FEW)
    async with consumer() as one, consumer() as two, here.delivering() as delivery:
        await here.subscribe(subscription(endpoints=(Endpoint(1, one.url), Endpoint(2, two.url))))
        delivery.on_queued(streams.look)
        listening = reader(streams)
        listening.begin(0)
        await here.tell(delivery, picture())
        await here.tell(delivery, picture(cleared_ns=1_700_000_001_000_000_000, cleared_reason="it is up"))
        await here.until_none_pending()
        await until(lambda: len(listening.ids) == 2)
        await listening.leave()
    assert listening.bodies == [orjson.loads(each.body) for each in one.heard]


async def test_each_hears_its_own_project_and_its_subscription_only(here: World) -> None:
    streams = NoticeStreams(here.readers, here.recall, FEW)
    rows = [
        subscription("a"),
        subscription("b"),
        subscription("c", "bank"),
        subscription("o", "infrastructure"),
    ]
    await here.subscribe(*rows)
    await here.tell(None, picture("f-1"), picture("f-2", "bank"))
    heard = {}
    for owner, name in (
        ("shop", None),
        ("shop", "b"),
        ("bank", None),
        ("bank", "a"),
        (None, None),
        (None, "o"),
    ):
        listening = reader(streams, owner, name)
        listening.begin(0)
        await until(lambda: listening.comments >= 1)  # noqa: B023
        await listening.leave()
        heard[owner, name] = [each["notice"] for each in listening.bodies]
    assert heard["shop", None] == ["a:f-1:raised", "b:f-1:raised"]
    assert heard["shop", "b"] == ["b:f-1:raised"]
    assert heard["bank", None] == ["c:f-2:raised"]
    assert heard["bank", "a"] == []
    assert len(heard[None, None]) == 5
    assert heard[None, "o"] == ["o:f-1:raised", "o:f-2:raised"]


async def test_a_reader_that_does_not_read_is_cut_off_and_may_replay(here: World) -> None:
    streams = NoticeStreams(here.readers, here.recall, FEW)
    await here.subscribe(subscription())
    await here.tell(None, *(picture(f"f-{number}") for number in range(5)))
    response = streams.open(StreamFilter(None, None, yes), Seq(0))

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    taken = []

    async def send(message: Any) -> None:
        taken.append(message)
        if len(taken) == 4:  # the start of the answer, the place, two notices
            await asyncio.Event().wait()

    async with asyncio.timeout(5):
        await response({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
    assert len(taken) == 4
    listening = reader(streams)
    listening.begin(0)
    await until(lambda: len(listening.ids) == 5)
    await listening.leave()


async def test_there_is_a_bound_and_who_leaves_makes_room(here: World) -> None:
    streams = NoticeStreams(here.readers, here.recall, FEW)
    both = [reader(streams), reader(streams)]
    for each in both:
        each.begin(0)
    await until(lambda: all(each.comments for each in both))
    with pytest.raises(RetryLater, match="streams_max"):
        streams.open(StreamFilter(None, None, yes), Seq(0))
    for each in both:
        await each.leave()
    again = reader(streams)
    again.begin(0)
    await until(lambda: again.comments > 0)
    await again.leave()


async def test_a_stream_ends_when_its_token_does(here: World) -> None:
    streams = NoticeStreams(here.readers, here.recall, FEW)

    async def no() -> bool:
        return False

    listening = Reader(streams, StreamFilter(None, None, no))
    listening.begin(0)
    assert listening.task is not None
    await asyncio.wait_for(listening.task, 60)


async def test_what_others_are_told_puts_off_neither_the_heartbeat_nor_the_end(here: World) -> None:
    streams = NoticeStreams(here.readers, here.recall, FEW)
    revoked = asyncio.Event()

    async def until_revoked() -> bool:
        return not revoked.is_set()

    async def busy() -> None:
        while True:
            streams.look()
            await asyncio.sleep(0.005)  # far below the heartbeat

    others = asyncio.create_task(busy())
    listening = Reader(streams, StreamFilter(Owner("shop"), None, until_revoked))
    listening.begin(0)
    await until(lambda: listening.comments >= 2, deadline_s=5)
    revoked.set()
    assert listening.task is not None
    await asyncio.wait_for(listening.task, 60)
    others.cancel()
    await asyncio.gather(others, return_exceptions=True)


async def test_who_is_admitted_counts_before_anything_is_sent(here: World) -> None:
    streams = NoticeStreams(here.readers, here.recall, FEW)
    wanted = StreamFilter(None, None, yes)
    admitted = [streams.open(wanted, Seq(0)), streams.open(wanted, Seq(0))]
    with pytest.raises(RetryLater, match="streams_max"):
        streams.open(wanted, Seq(0))
    del admitted[0]  # its reader went away before the answer began
    admitted.append(streams.open(wanted, Seq(0)))
    with pytest.raises(RetryLater, match="streams_max"):
        streams.open(wanted, Seq(0))
