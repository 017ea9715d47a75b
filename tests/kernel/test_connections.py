"""Connections and streams over a limit: who is refused, who has to go, and who never has to."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from homeostat.kernel.access import Caller, Role
from homeostat.kernel.connections import (
    ConnectionCount,
    ConnectionLimits,
    ConnectionRefusal,
    StreamCount,
    connections_within,
    network_of,
)
from homeostat.kernel.errors import RetryLater
from homeostat.kernel.http import note_authenticated
from homeostat.kernel.listeners import HttpListener, OpenListener, open_listeners
from real_parts import eventually, free_port

GREAT = bytes(2**24)
"""More than the buffers of a socket take."""
HEAD = b"POST /known HTTP/1.1\r\nHost: x\r\nContent-Length: "


class Counted:
    """A connection of which only the count knows."""

    def __init__(self, address: str = "192.0.2.1", *, may_go: bool = True, unread: int = 0) -> None:
        self.address, self.may_go, self.unread_bytes = address, may_go, unread
        self.said: list[int] = []

    def put_out(self, refusal: ConnectionRefusal) -> None:
        self.said.append(refusal.status)


def refused(count: ConnectionCount, connection: Counted) -> int:
    """The status of the refusal; 0 when it is let in."""
    found = count.enter(connection)
    return 0 if found is None else found.status


def test_the_oldest_half_open_one_of_an_address_makes_room_for_the_next() -> None:
    count = ConnectionCount(ConnectionLimits(in_all=10, per_address=3, strangers=8))
    first, second, third, fourth = (Counted() for _ in range(4))
    assert [refused(count, each) for each in (first, second, third, fourth)] == [0] * 4
    assert [each.said for each in (first, second, third, fourth)] == [[503], [], [], []]
    assert (len(count), count.strangers) == (3, 3)


def test_one_whose_request_waits_to_be_read_goes_later_than_one_that_says_nothing() -> None:
    count = ConnectionCount(ConnectionLimits(per_address=2))
    speaks, silent = Counted(unread=40), Counted()
    assert [refused(count, each) for each in (speaks, silent, Counted())] == [0] * 3
    assert (speaks.said, silent.said) == ([], [503])


def test_who_is_known_or_being_answered_is_never_put_out() -> None:
    count = ConnectionCount(ConnectionLimits(in_all=10, per_address=2))
    known, answered = Counted(), Counted(may_go=False)
    assert [refused(count, each) for each in (known, answered)] == [0, 0]
    count.authenticated(known)
    assert refused(count, Counted()) == 429
    assert refused(count, Counted("192.0.2.2")) == 0
    assert (known.said, answered.said, len(count)) == ([], [], 3)
    count.leave(known)
    assert refused(count, Counted()) == 0


def test_strangers_of_the_busiest_address_make_room_for_those_of_others() -> None:
    count = ConnectionCount(ConnectionLimits(in_all=100, per_address=50, strangers=10))
    many = [Counted("192.0.2.1") for _ in range(9)]
    lone = Counted("192.0.2.2")
    for each in (lone, *many):
        assert refused(count, each) == 0
    assert [refused(count, Counted(f"192.0.2.{number}")) for number in range(3, 9)] == [0] * 6
    assert lone.said == []
    assert sum(bool(each.said) for each in many) == 6
    assert count.strangers == 10


def test_without_room_in_all_nobody_is_let_in() -> None:
    count = ConnectionCount(ConnectionLimits(in_all=2, per_address=2, strangers=2))
    for number in (1, 2):
        known = Counted(f"192.0.2.{number}")
        assert refused(count, known) == 0
        count.authenticated(known)
    assert refused(count, Counted("192.0.2.3")) == 503


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_one_machine_counts_as_one_address(address: str, network: str) -> None:
    assert network_of(address) == network


def test_streams_are_counted_by_token_and_by_project() -> None:
    count = StreamCount(per_token=2, per_project=3)
    one, other = Caller("a", Role.VIEWER, "blue"), Caller("b", Role.VIEWER, "blue")
    places = [count.enter(one), count.enter(one), count.enter(other)]
    with pytest.raises(RetryLater, match=r"token a has 2 streams open already, api\.streams_per_token"):
        count.enter(one)
    with pytest.raises(
        RetryLater, match=r"project blue has 3 streams open already, api\.streams_per_project"
    ):
        count.enter(other)
    count.enter(Caller("c", Role.VIEWER, "green"))
    places[0].leave()
    places[0].leave()  # again: nothing
    count.enter(other)
    with pytest.raises(RetryLater):
        count.enter(one)


def test_descriptors_are_left_for_everything_else() -> None:
    """In a process of its own, which may open 300 files."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300));"
        "from homeostat.kernel.connections import connections_within as within;"
        "print(within(1000, 200), within(10, 200), within(1000, 2000));"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    (many, few, none), limits = (tuple(map(int, line.split())) for line in said.splitlines())
    assert 50 < many < 100
    assert (few, none) == (10, 1)
    assert limits == (300, 300), "the soft limit was raised"
    assert connections_within(5, 0) == 5


def application() -> FastAPI:
    """`/known` makes the caller known and echoes, `/hold` waits for a word, the others are long."""
    app = FastAPI()
    app.state.go_on, app.state.held = asyncio.Event(), 0

    @app.post("/known")
    async def known(request: Request) -> str:
        note_authenticated(request)
        return (await request.body()).decode()

    @app.post("/hold")
    async def hold(request: Request) -> str:
        request.app.state.held += 1
        await request.app.state.go_on.wait()
        return "held"

    @app.get("/great")
    async def great() -> Response:
        return Response(GREAT)

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            while True:
                yield GREAT
                await asyncio.sleep(0)

        return StreamingResponse(pieces())

    return app


@asynccontextmanager
async def serving(app: FastAPI, limits: ConnectionLimits) -> AsyncIterator[OpenListener]:
    (opened,) = open_listeners([HttpListener("api", "127.0.0.1", free_port())])
    task = asyncio.create_task(opened.serve(app, limits))
    try:
        yield opened
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        opened.socket.close()


class Client:
    """One connection, made and closed by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> int:
        """The status of the next answer, its body read; 0: it was closed without one."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0
        lines = head.decode().lower().split("\r\n")
        length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
        await self.reader.readexactly(length)
        return int(lines[0].split()[1])

    async def is_closed(self) -> bool:
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def calling(to: OpenListener) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(to.listener.host, to.listener.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


@pytest.mark.parametrize("begun", [b"", b"POST /known HT", HEAD + b"9\r\n\r\nhalf", b"\r\n"])
async def test_a_request_that_does_not_come_is_not_waited_for(begun: bytes) -> None:
    limits = ConnectionLimits(header_s=0.1, request_s=0.1)
    async with serving(application(), limits) as opened, calling(opened) as client:
        client.say(begun)
        assert await client.answer() == 408
        assert await client.is_closed()


async def test_what_is_no_request_behind_an_answer_is_not_waited_for() -> None:
    limits = ConnectionLimits(header_s=0.1, request_s=0.1)
    async with serving(application(), limits) as opened, calling(opened) as client:
        client.say(HEAD + b"0\r\n\r\n")
        assert await client.answer() == 200
        client.say(b"\r\n")
        assert await client.answer() == 408


async def test_a_long_answer_to_somebody_who_is_known_has_no_deadline() -> None:
    app = application()

    @app.post("/known/hold")
    async def hold(request: Request) -> str:
        note_authenticated(request)
        await request.app.state.go_on.wait()
        return "held"

    limits = ConnectionLimits(header_s=5, request_s=0.1)
    async with serving(app, limits) as opened, calling(opened) as known, calling(opened) as stranger:
        known.say(HEAD.replace(b"/known", b"/known/hold") + b"0\r\n\r\n")
        stranger.say(HEAD.replace(b"/known", b"/hold") + b"0\r\n\r\n")
        assert await stranger.answer() == 0
        app.state.go_on.set()
        assert await known.answer() == 200


async def test_half_open_connections_make_room_and_who_is_answered_stays() -> None:
    app = application()
    limits = ConnectionLimits(per_address=4, header_s=60)
    async with serving(app, limits) as opened, AsyncExitStack() as stack:
        held = await stack.enter_async_context(calling(opened))
        held.say(HEAD.replace(b"/known", b"/hold") + b"0\r\n\r\n")
        await eventually(lambda: app.state.held == 1, what="it is being answered")
        silent = [await stack.enter_async_context(calling(opened)) for _ in range(40)]
        caller = await stack.enter_async_context(calling(opened))
        caller.say(HEAD + b"2\r\n\r\nhi")
        assert await caller.answer() == 200
        assert await silent[0].answer() == 503
        app.state.go_on.set()
        assert await held.answer() == 200


async def test_over_its_limit_an_address_is_told_and_the_others_are_served() -> None:
    app = application()
    limits = ConnectionLimits(per_address=2, header_s=60)
    async with serving(app, limits) as opened, AsyncExitStack() as stack:
        for _ in range(2):
            held = await stack.enter_async_context(calling(opened))
            held.say(HEAD.replace(b"/known", b"/hold") + b"0\r\n\r\n")
        await eventually(lambda: app.state.held == 2, what="both are being answered")
        more = await stack.enter_async_context(calling(opened))
        more.say(HEAD + b"2\r\n\r\nhi")
        assert await more.answer() == 429
        reader, writer = await asyncio.open_connection(
            opened.listener.host, opened.listener.port, local_addr=("127.0.0.9", 0)
        )
        other = Client(reader, writer)
        other.say(HEAD + b"2\r\n\r\nhi")
        assert await other.answer() == 200
        writer.close()
        app.state.go_on.set()


GREAT_REQUEST = b"GET /great HTTP/1.1\r\nHost: x\r\n\r\n"


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("unread", [GREAT_REQUEST.replace(b"great", b"endless"), 2 * GREAT_REQUEST])
async def test_a_stranger_who_does_not_take_his_answer_makes_room(unread: bytes) -> None:
    """And nothing of him stays behind: a socket that waits for him would be counted no more."""
    limits = ConnectionLimits(strangers=2, stalled_s=0)
    async with serving(application(), limits) as opened, AsyncExitStack() as stack:
        for _ in range(2):
            stalled = await stack.enter_async_context(calling(opened))
            stalled.writer.transport.pause_reading()  # type: ignore[attr-defined]
            stalled.say(unread)
        held = open_descriptors()
        said = []
        while 200 not in said and len(said) < 500:
            async with calling(opened) as caller:
                caller.say(HEAD + b"2\r\n\r\nhi")
                said.append(await caller.answer())
            await asyncio.sleep(0)
        assert said[-1] == 200
        await eventually(lambda: open_descriptors() < held, what="the server's socket of one is closed")


async def test_a_stranger_who_takes_his_answer_slowly_stays() -> None:
    limits = ConnectionLimits(strangers=1, stalled_s=3600)
    async with serving(application(), limits) as opened, AsyncExitStack() as stack:
        slow = await stack.enter_async_context(calling(opened))
        slow.say(GREAT_REQUEST)
        await slow.reader.readexactly(1)
        caller = await stack.enter_async_context(calling(opened))
        caller.say(HEAD + b"2\r\n\r\nhi")
        assert await caller.answer() == 503
        assert await slow.answer() == 200


async def test_a_request_behind_another_one_has_a_deadline_too() -> None:
    limits = ConnectionLimits(header_s=60, request_s=0.5)
    hold = HEAD.replace(b"/known", b"/hold") + b"0\r\n\r\n"
    async with serving(application(), limits) as opened, calling(opened) as stranger:
        stranger.say(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" + hold)
        assert await stranger.answer() == 200
        async with asyncio.timeout(10):
            assert await stranger.answer() == 0
