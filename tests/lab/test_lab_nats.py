"""The NATS of a lab: who hears whom across the accounts, and how many connections a password is worth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from homeostat.contracts.nouns import HostId
from homeostat.kernel.bus import Bus, BusSettings
from homeostat.kernel.errors import RetryLater
from homeostat.lab.preparation import nats_config
from real_parts import NatsServer, eventually

HOSTS = (HostId("n1"), HostId("n2"))
PASSWORDS = {"server": "server-secret", "n1": "n1-secret", "n2": "n2-secret"}


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    made = NatsServer(tmp_path)
    text = nats_config(made.port, PASSWORDS, HOSTS)
    made.write("\n".join(line for line in text.splitlines() if not line.startswith("listen:")))
    made.start()
    yield made.url
    made.kill()


@asynccontextmanager
async def connected(url: str, user: str) -> AsyncIterator[Bus]:
    bus = Bus(BusSettings(url, user, PASSWORDS[user], "test"))
    running = asyncio.create_task(bus.run())
    try:
        yield bus
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_nodes_and_server_hear_each_other_and_no_node_another(url: str) -> None:
    heard: dict[str, list[tuple[str, bytes]]] = {"server": [], "n1": [], "n2": []}
    async with AsyncExitStack() as stack:
        buses = {name: await stack.enter_async_context(connected(url, name)) for name in PASSWORDS}
        await eventually(lambda: all(each.connected for each in buses.values()), what="all are connected")
        for name, pattern in (("server", "node.>"), ("n1", "to.n1.>"), ("n2", "to.n2.>")):
            await buses[name].subscribe(pattern, lambda *said, name=name: heard[name].append(said))
        assert await buses["n1"].publish("node.n1.heartbeat", b"1")
        assert await buses["n2"].publish("node.n1.heartbeat", b"forged")
        assert await buses["n2"].publish("node.n2.heartbeat", b"2")
        assert await buses["server"].publish("to.n1.x", b"3")
        await eventually(lambda: len(heard["server"]) == 2 and len(heard["n1"]) == 1, what="all was heard")
    assert sorted(heard["server"]) == [("node.n1.heartbeat", b"1"), ("node.n2.heartbeat", b"2")]
    assert (heard["n1"], heard["n2"]) == ([("to.n1.x", b"3")], [])


@pytest.mark.seed("order NATS connections of one account are limited and take nobody else's")
async def test_the_password_of_a_node_takes_no_place_of_the_others(url: str) -> None:
    async with AsyncExitStack() as stack:
        many = [await stack.enter_async_context(connected(url, "n1")) for _ in range(10)]
        await eventually(lambda: sum(each.connected for each in many) >= 4, what="four of them are in")
        for name in ("server", "n2"):
            other = await stack.enter_async_context(connected(url, name))
            await eventually(lambda: other.connected, what=f"{name} is in")  # noqa: B023
        with suppress(RetryLater):
            await many[-1].flush()
        assert sum(each.connected for each in many) == 4
