"""The transport against real servers that behave badly."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network

import pytest
from aiohttp import web

from homeostat.kernel.errors import BadInput
from homeostat.notices.http_connection import NameLookup, open_socket
from homeostat.notices.targets import Address, AddressGuard
from homeostat.notices.webhook import SystemLookup, TargetCheck, WebhookTransport, consumer_timestamps
from homeostat.ports import NoWebhookReply, WebhookRefused, WebhookReply, WebhookRequest, WebhookResult
from notices_parts import LOOPBACK, QUICK, Behave, consumer, dead_url

HEADERS = {"Idempotency-Key": "k", "Homeostat-Signature": "s"}
LAB = AddressGuard(LOOPBACK)


async def nowhere(host: str) -> tuple[Address, ...]:
    raise OSError(f"{host} is not known")


@asynccontextmanager
async def transport(
    guard: AddressGuard = LAB, lookup: NameLookup = nowhere
) -> AsyncIterator[WebhookTransport]:
    made = WebhookTransport(guard, lookup, QUICK)
    yield made
    await made.close()


async def post(url: str, guard: AddressGuard = LAB, lookup: NameLookup = nowhere) -> WebhookResult:
    async with transport(guard, lookup) as made:
        return await made.post(WebhookRequest(url, HEADERS, b"{}"))


async def test_a_connection_is_used_again() -> None:
    peers = set()

    async def behave(request: web.Request, _number: int) -> web.Response:
        peers.add(request.transport.get_extra_info("peername") if request.transport else None)
        return web.Response(status=202, text="thanks")

    async with consumer(behave) as there, transport() as made:
        for _ in range(3):
            assert await made.post(WebhookRequest(there.url, HEADERS, b"{}")) == WebhookReply(
                202, None, "thanks"
            )
    assert len(peers) == 1


async def test_a_redirect_is_not_followed() -> None:
    async with consumer() as secret:

        async def behave(_request: web.Request, _number: int) -> web.Response:
            return web.Response(status=307, headers={"Location": secret.url})

        async with consumer(behave) as there:
            assert await post(there.url) == WebhookReply(307)
        assert secret.heard == []


@pytest.mark.parametrize(("value", "read"), [("7", 7.0), ("-1", None), ("soon", None), ("9" * 100, None)])
async def test_retry_after_is_read(value: str, read: float | None) -> None:
    async def behave(_request: web.Request, _number: int) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": value})

    async with consumer(behave) as there:
        assert await post(there.url) == WebhookReply(429, read)


async def test_retry_after_may_be_a_date() -> None:
    async def behave(_request: web.Request, _number: int) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": "Fri, 31 Dec 2199 23:59:59 GMT"})

    async with consumer(behave) as there:
        reply = await post(there.url)
    assert isinstance(reply, WebhookReply) and (reply.retry_after_s or 0) > 1e9


async def endless(request: web.Request, _number: int) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b"x" * 65_536)


async def dripping(request: web.Request, _number: int) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    await answer.write(b"slow")
    await asyncio.Event().wait()
    return answer


@pytest.mark.parametrize("behave", [endless, dripping])
async def test_the_status_counts_whatever_its_body_does(behave: Behave) -> None:
    async with consumer(behave) as there, asyncio.timeout(5):
        reply = await post(there.url)
    assert isinstance(reply, WebhookReply)
    assert reply.status == 200 and len(reply.said) <= 200


async def hanging(_request: web.Request, _number: int) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


async def closing(request: web.Request, _number: int) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(("behave", "says"), [(hanging, "in time"), (closing, "broke")])
async def test_no_answer(behave: Behave, says: str) -> None:
    async with consumer(behave) as there:
        reply = await post(there.url)
    assert isinstance(reply, NoWebhookReply) and says in reply.reason


async def test_nobody_listens() -> None:
    reply = await post(dead_url())
    assert isinstance(reply, NoWebhookReply) and "no connection" in reply.reason


async def test_what_speaks_no_http() -> None:
    async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 smtp ready\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        reply = await post(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert isinstance(reply, NoWebhookReply)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://169.254.169.254/latest/meta-data/"])
async def test_a_refused_address_gets_no_connection(url: str) -> None:
    reply = await post(url, AddressGuard())
    assert isinstance(reply, WebhookRefused)


async def test_a_name_goes_to_the_address_that_was_judged_and_to_no_other() -> None:
    asked = []

    async def rebinding(host: str) -> tuple[Address, ...]:
        asked.append(host)
        return (ip_address("127.0.0.1"),) if len(asked) == 1 else (ip_address("127.0.0.9"),)

    only = AddressGuard((ip_network("127.0.0.1/32"),))
    async with consumer() as there:
        url = there.url.replace("127.0.0.1", "hooks.example.com")
        assert isinstance(await post(url, only, rebinding), WebhookReply)
        reply = await post(url, only, rebinding)
    assert isinstance(reply, WebhookRefused) and "127.0.0.9 is outside" in reply.reason
    assert asked == ["hooks.example.com"] * 2
    assert len(there.heard) == 1


async def test_of_several_addresses_only_an_allowed_one_is_used() -> None:
    async def mixed(_host: str) -> tuple[Address, ...]:
        return tuple(ip_address(each) for each in ("169.254.169.254", "::1", "127.0.0.1"))

    async with consumer() as there:
        url = there.url.replace("127.0.0.1", "hooks.example.com")
        assert isinstance(await post(url, LAB, mixed), WebhookReply)


async def test_a_name_that_is_not_known() -> None:
    reply = await post("http://hooks.example.com/")
    assert isinstance(reply, NoWebhookReply) and "hooks.example.com" in reply.reason


async def test_a_slow_lookup_ends_with_the_deadline() -> None:
    async def silent(_host: str) -> tuple[Address, ...]:
        await asyncio.Event().wait()
        return ()

    async with asyncio.timeout(3):
        assert isinstance(await post("http://hooks.example.com/", LAB, silent), NoWebhookReply)
        with pytest.raises(BadInput, match="has none"):
            await TargetCheck(LAB, silent, 0.05)("http://hooks.example.com/")


async def test_the_check_of_a_new_subscription_looks_names_up() -> None:
    lookup = SystemLookup()
    try:
        assert (await TargetCheck(LAB, lookup, 5.0)("http://localhost:8080/")).host == "localhost"
        with pytest.raises(BadInput, match="not a public address"):
            await TargetCheck(AddressGuard(), lookup, 5.0)("http://localhost:8080/")
        with pytest.raises(BadInput, match="has none"):
            await TargetCheck(AddressGuard(), nowhere, 5.0)("http://hooks.example.com/")
    finally:
        lookup.close()


async def test_one_name_is_looked_up_once_at_a_time() -> None:
    lookup = SystemLookup()
    try:
        found = await asyncio.gather(*(lookup("localhost") for _ in range(100)))
        assert len(lookup._threads._threads) == 1
        assert all(ip_address("127.0.0.1") in each for each in found)
        assert lookup._going_on == {}
    finally:
        lookup.close()


async def test_the_text_of_the_url_is_checked_at_each_send() -> None:
    async with consumer() as there:
        reply = await post(there.url.replace("http://", "http://user:hunter2@"))
    assert isinstance(reply, WebhookRefused) and "hunter2" not in reply.reason
    assert there.heard == []


def test_the_last_look_is_at_the_address_of_the_socket() -> None:
    for address in ("127.0.0.1", "169.254.169.254", "::1", "fe80::1%2"):
        with pytest.raises(OSError, match="is "):
            open_socket(AddressGuard(), (socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 80)))
    public = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("93.184.216.34", 80))
    open_socket(AddressGuard(), public).close()


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ("received=5,handled=7", (5, 7)),
        ("received=5, handled=5", (5, 5)),
        ("received=7,handled=5", (None, None)),
        ("received=-5,handled=7", (None, None)),
        ("handled=7", (None, None)),
        ("received=5,handled=" + "7" * 20, (None, None)),
        ("yesterday", (None, None)),
        (None, (None, None)),
    ],
)
def test_a_consumer_may_say_when_it_was_told(said: str | None, understood: tuple[int, int]) -> None:
    assert consumer_timestamps(said) == understood
