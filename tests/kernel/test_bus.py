"""The bus against a real NATS server that is killed, frozen, and changes its mind about us."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from homeostat.kernel.bus import Bus, BusSettings
from homeostat.kernel.errors import BadInput, BusUnavailable
from real_parts import NatsServer, accounts, eventually, free_port


def settings(nats: NatsServer, user: str, ping_interval_s: float = 0.5) -> BusSettings:
    return BusSettings(nats.url, user, f"{user}-secret", name=user, ping_interval_s=ping_interval_s)


@asynccontextmanager
async def connected(nats: NatsServer, user: str, ping_interval_s: float = 0.5) -> AsyncIterator[Bus]:
    bus = await Bus.connect(settings(nats, user, ping_interval_s))
    try:
        yield bus
    finally:
        await bus.close()


async def test_what_one_publishes_the_other_hears(nats: NatsServer) -> None:
    heard: list[tuple[str, bytes]] = []
    async with connected(nats, "server") as server, connected(nats, "n1") as node:
        await server.subscribe("node.>", lambda subject, body: heard.append((subject, body)))
        assert await node.publish("node.n1.heartbeat", b"1")
        await eventually(lambda: heard)
    assert heard == [("node.n1.heartbeat", b"1")]


async def test_a_subscription_stands_when_subscribe_returns(nats: NatsServer) -> None:
    """With nats-py alone it may not: its flush overtakes the subscription on the way to the server."""
    heard: list[str] = []
    async with connected(nats, "server") as server, connected(nats, "n1") as node:
        for number in range(200):
            await server.subscribe(f"node.n1.x{number}", lambda subject, _: heard.append(subject))
            await node.publish(f"node.n1.x{number}", b"")
            await node.flush()
        await eventually(lambda: len(heard) == 200, 3)


async def test_a_node_cannot_publish_or_hear_as_another(nats: NatsServer) -> None:
    heard: list[str] = []
    foreign: list[str] = []
    async with connected(nats, "server") as server, connected(nats, "n1") as node:
        await server.subscribe("node.>", lambda subject, _: heard.append(subject))
        await node.subscribe("to.n2.>", lambda subject, _: foreign.append(subject))
        await node.subscribe("to.n1.>", lambda subject, _: foreign.append(subject))
        await node.publish("node.n2.heartbeat", b"I am n2")
        await node.publish("to.n1.acknowledged", b"I am the server")
        await node.publish("node.n1.heartbeat", b"I am n1")
        await eventually(lambda: heard)
        await server.publish("to.n2.acknowledged", b"for n2 only")
        await server.publish("to.n1.acknowledged", b"for n1")
        await eventually(lambda: foreign)
        assert node.connected
    assert heard == ["node.n1.heartbeat"]
    assert foreign == ["to.n1.acknowledged"]


async def test_no_nats_is_one_clear_line(capfd: pytest.CaptureFixture[str]) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    with pytest.raises(BusUnavailable, match=rf"^NATS at {url} .* within 0.5 s: .*start it") as caught:
        await Bus.connect(BusSettings(url, "n1", "top-secret"), wait_s=0.5)
    shown = "".join(capfd.readouterr())
    assert "\n" not in str(caught.value)
    assert "Traceback" not in shown
    assert "top-secret" not in shown + str(caught.value) + repr(BusSettings(url, "n1", "top-secret"))


async def test_a_wrong_password_is_named_as_the_reason(nats: NatsServer) -> None:
    with pytest.raises(BusUnavailable, match=r"user 'n1' .*'Authorization Violation'"):
        await Bus.connect(BusSettings(nats.url, "n1", "wrong"), wait_s=0.5)


@pytest.mark.parametrize("url", ["http://127.0.0.1:4222", "127.0.0.1", "nats://"])
async def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BadInput, match=r"nats\.url"):
        Bus(BusSettings(url))


async def test_a_killed_nats_is_noticed_and_everything_stands_again(nats: NatsServer) -> None:
    heard: list[bytes] = []
    told: list[bool] = []
    async with connected(nats, "server") as server, connected(nats, "n1") as node:
        await server.subscribe("node.>", lambda _, body: heard.append(body))
        node.on_reconnect(lambda: told.append(node.connected))
        before_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        assert node.last_break_ns is None
        nats.kill()
        await eventually(lambda: not node.connected and not server.connected, 1.0)
        assert not await node.publish("node.n1.heartbeat", b"stale")
        assert not await node.flush()
        nats.start()
        await eventually(lambda: node.connected and server.connected, 3.0)
        assert node.last_break_ns is not None and node.last_break_ns >= before_ns
        assert await node.publish("node.n1.heartbeat", b"fresh")
        await eventually(lambda: heard)
    assert heard == [b"fresh"], "what was published while away must not pile up"
    assert told == [True]


async def test_a_frozen_nats_is_noticed_by_pings(nats: NatsServer) -> None:
    async with connected(nats, "n1", ping_interval_s=0.1) as node:
        nats.send(signal.SIGSTOP)
        try:
            await eventually(lambda: not node.connected)
            assert not await node.publish("node.n1.heartbeat", b"")
        finally:
            nats.send(signal.SIGCONT)
        await eventually(lambda: node.connected)


async def test_publishing_to_a_frozen_nats_never_waits(nats: NatsServer) -> None:
    async with connected(nats, "n1", ping_interval_s=30) as node:
        nats.send(signal.SIGSTOP)
        try:
            taken = []
            async with asyncio.timeout(25):  # who waits does so until the ping of 30 s
                for _ in range(100):
                    taken.append(await node.publish("node.n1.levels", bytes(500_000)))
                    await asyncio.sleep(0)
            assert not taken[-1]
        finally:
            nats.send(signal.SIGCONT)


async def test_a_client_that_nats_throws_out_for_good_comes_back(nats: NatsServer) -> None:
    """nats-py closes itself for ever on an authorization error; a changed password must be survivable."""
    async with connected(nats, "n1") as node:
        nats.write(accounts("n2"))
        nats.send(signal.SIGHUP)
        await eventually(lambda: not node.connected)
        nats.write(accounts("n1", "n2"))
        nats.send(signal.SIGHUP)
        await eventually(lambda: node.connected)


async def test_who_is_stopped_while_an_answer_arrives_ends(nats: NatsServer) -> None:
    """A flush must not keep the cancellation to itself, whenever it comes."""
    async with connected(nats, "n1") as node:

        async def flush_for_ever() -> None:
            while await node.flush():
                pass
            await asyncio.Event().wait()

        for turn in range(300):
            await node.wait_connected(5)
            task = asyncio.create_task(flush_for_ever())
            for _ in range(turn % 30):
                await asyncio.sleep(0)
            if turn % 3:
                time.sleep(0.0005)  # noqa: ASYNC251 - the answer is there together with the cancellation
            task.cancel()
            _, waiting = await asyncio.wait({task}, timeout=5)
            assert not waiting, f"turn {turn}: it goes on"
            assert task.cancelled()


async def test_a_callback_that_fails_harms_nobody(nats: NatsServer) -> None:
    heard: list[bytes] = []

    def hear(_: str, body: bytes) -> None:
        if body == b"bad":
            raise ValueError(body)
        heard.append(body)

    async with connected(nats, "server") as server, connected(nats, "n1") as node:
        await server.subscribe("node.>", hear)
        for body in (b"bad", b"good"):
            await node.publish("node.n1.heartbeat", body)
        await eventually(lambda: heard)
        assert server.connected


async def test_what_does_not_fit_is_dropped_and_the_connection_stays(nats: NatsServer) -> None:
    async with connected(nats, "n1") as node:
        assert not await node.publish("node.n1.levels", bytes(2_000_000))
        assert await node.flush()


async def test_a_server_that_takes_nobody_is_asked_less_and_less_often() -> None:
    """Five hundred nodes that knock without a pause keep a NATS server from coming back."""
    knocks_s: list[float] = []

    async def slam(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        knocks_s.append(time.monotonic())
        writer.close()

    door = await asyncio.start_server(slam, "127.0.0.1", 0)
    bus = Bus(BusSettings(f"nats://127.0.0.1:{door.sockets[0].getsockname()[1]}"))
    knocking = asyncio.create_task(bus.run())
    try:
        await eventually(lambda: len(knocks_s) >= 5, 30)
    finally:
        knocking.cancel()
        await asyncio.gather(knocking, return_exceptions=True)
        door.close()
    # 0.05 + 0.1 + 0.2 + 0.4 s: a busy machine makes it longer, never shorter.
    assert knocks_s[4] - knocks_s[0] >= 0.7
