"""Answers on the wire that are not what aiohttp's server would send, and TLS."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvloop

from engines import needs
from homeostat.notices.http_connection import HEAD_BYTES_MAX, tls
from homeostat.notices.targets import Address, AddressGuard
from homeostat.notices.webhook import WebhookTransport
from homeostat.ports import NoWebhookReply, WebhookReply, WebhookRequest, WebhookResult
from notices_parts import LOOPBACK, QUICK

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"
LAB = AddressGuard(LOOPBACK)
PATIENT = QUICK.model_copy(update={"connect_timeout_s": 10.0, "total_timeout_s": 20.0})
"""No deadline is what is tested here, and the machine may be busy."""


async def here(_host: str) -> tuple[Address, ...]:
    return (ip_address("127.0.0.1"),)


class Wire:
    """Reads one request after the other and answers each with the same bytes; `closes` then."""

    def __init__(self, answer: bytes, *, closes: bool = False) -> None:
        self.answer, self.closes = answer, closes
        self.requests: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                writer.write(self.answer)
                await writer.drain()
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(wire: Wire, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    server = await asyncio.start_server(wire, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def ask(wire: Wire, times: int = 1, path: str = "/hook") -> list[WebhookResult]:
    made = WebhookTransport(LAB, here, PATIENT)
    async with serving(wire) as port:
        try:
            return [
                await made.post(WebhookRequest(f"http://127.0.0.1:{port}{path}", {"K": "v"}, b"{}"))
                for _ in range(times)
            ]
        finally:
            await made.close()


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (OK, WebhookReply(200, None, "OK")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", WebhookReply(204)),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\n\r\n" + OK,
            WebhookReply(200, None, "OK"),
        ),
        (
            b"HTTP/1.1 503 No\r\nRETRY-AFTER: 7\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nnot\r\n4\r\n now\r\n0\r\n\r\n",
            WebhookReply(503, 7.0, "not now"),
        ),
    ],
)
async def test_an_answer_is_read_and_its_connection_used_again(answer: bytes, reply: WebhookReply) -> None:
    wire = Wire(answer)
    assert await ask(wire, 3) == [reply] * 3
    assert wire.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nOK",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nOK",
        b"HTTP/1.1 200 OK\r\n\r\nOK",  # as long as the connection
        OK + OK,  # one more than was asked for
        OK + b"and more",
    ],
)
async def test_a_connection_that_cannot_be_trusted_again_is_not_used_again(answer: bytes) -> None:
    wire = Wire(answer, closes=b"Content-Length" not in answer)
    assert await ask(wire, 2) == [WebhookReply(200, None, "OK")] * 2
    assert wire.connections == 2


async def test_one_that_was_closed_while_nobody_used_it_costs_nobody_an_attempt() -> None:
    wire = Wire(OK, closes=True)
    made = WebhookTransport(LAB, here, PATIENT)
    async with serving(wire) as port:
        for _ in range(3):
            assert await made.post(WebhookRequest(f"http://127.0.0.1:{port}", {}, b"{}")) == WebhookReply(
                200, None, "OK"
            )
            async with asyncio.timeout(5):
                while any(each.usable for place in made._places.values() for each in place.idle):  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
        await made.close()
    assert wire.connections == 3


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nX: " + b"x" * HEAD_BYTES_MAX, b"HTTP/1.1 2\r\n\r\n", b"\x16\x03\x01\x02" * 9],
)
async def test_what_is_no_answer_or_has_no_end_is_none(answer: bytes) -> None:
    (reply,) = await ask(Wire(answer))
    assert isinstance(reply, NoWebhookReply) and "broke" in reply.reason


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("", b"POST / "),
        ("?a=b", b"POST /?a=b "),
        ("/x/y?z=%20", b"POST /x/y?z=%20 "),
        ("/a?b=/c", b"POST /a?b=/c "),
    ],
)
async def test_the_request_is_what_the_url_says(path: str, line: bytes) -> None:
    wire = Wire(OK)
    await ask(wire, 1, path)
    assert wire.requests[0].startswith(line + b"HTTP/1.1\r\nHost: 127.0.0.1:")
    assert wire.requests[0].endswith(b"\r\nK: v\r\nContent-Length: 2\r\n\r\n{}")


def test_it_runs_on_the_loop_of_the_server() -> None:
    wire = Wire(OK)
    assert uvloop.run(ask(wire, 2)) == [WebhookReply(200, None, "OK")] * 2
    assert wire.connections == 1


async def test_a_header_is_never_two() -> None:
    wire = Wire(OK)
    made = WebhookTransport(LAB, here, PATIENT)
    async with serving(wire) as port:
        for value in ("a\r\nX: b", "a\nX: b", "a\r", "a\0"):
            reply = await made.post(WebhookRequest(f"http://127.0.0.1:{port}", {"K": value}, b"{}"))
            assert isinstance(reply, NoWebhookReply) and "line break" in reply.reason
        await made.close()
    assert wire.connections == 0


async def test_the_second_address_is_tried_when_the_first_refuses() -> None:
    async def two(_host: str) -> tuple[Address, ...]:
        return (ip_address("127.0.0.77"), ip_address("127.0.0.1"))

    made = WebhookTransport(LAB, two, PATIENT)
    async with serving(Wire(OK)) as port:
        assert await made.post(WebhookRequest(f"http://two.example:{port}", {}, b"{}")) == WebhookReply(
            200, None, "OK"
        )
        await made.close()


@needs("openssl")
async def test_https_trusts_the_machines_authorities_and_only_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made_by = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=x",
        "-addext",
        "subjectAltName=DNS:hooks.example",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    await asyncio.to_thread(subprocess.run, made_by, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    wire = Wire(OK)

    async def post(name: str, port: int) -> WebhookResult:
        tls.cache_clear()
        made = WebhookTransport(LAB, here, PATIENT)
        try:
            return await made.post(WebhookRequest(f"https://{name}:{port}/", {}, b"{}"))
        finally:
            await made.close()

    try:
        async with serving(wire, context) as port:
            stranger = await post("hooks.example", port)
            assert isinstance(stranger, NoWebhookReply) and "CERTIFICATE_VERIFY_FAILED" in stranger.reason
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            assert await post("hooks.example", port) == WebhookReply(200, None, "OK")
            other = await post("other.example", port)
            assert isinstance(other, NoWebhookReply) and "CERTIFICATE_VERIFY_FAILED" in other.reason
    finally:
        tls.cache_clear()
    assert len(wire.requests) == 1
