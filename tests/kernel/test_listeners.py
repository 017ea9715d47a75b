"""Several HTTP listeners of one process, each with its own rules for who may call and what he may do."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI

from homeostat.kernel.access import Role, hash_token, insert_token
from homeostat.kernel.access import Token as TokenRow
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.errors import AlreadyRunning
from homeostat.kernel.http import AnyCaller, Callers, CurrentCaller, make_app
from homeostat.kernel.journal import Submission
from homeostat.kernel.listeners import Authentication, HttpListener, OpenListener, open_listeners
from real_parts import free_port
from store_parts import Store

TOKEN = "hs_" + "t" * 43
ONLY_ONE = (ipaddress.ip_network("127.0.0.1/32"),)


def listener(name: str = "api", **more: object) -> HttpListener:
    return HttpListener(name, "127.0.0.1", free_port(), **more)  # type: ignore[arg-type]


def application(store: Store) -> FastAPI:
    app = make_app(Callers(store.readers, SystemClock()))

    @app.post("/change")
    async def change(caller: CurrentCaller) -> str:
        return caller.name

    @app.post("/observe")
    async def observe(caller: AnyCaller) -> str:
        return caller.name

    return app


@asynccontextmanager
async def serving(app: FastAPI, *opened: OpenListener) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each.serve(app)) for each in opened]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in opened:
            each.socket.close()


async def asked(to: OpenListener, path: str, *headers: str, source: str = "127.0.0.1") -> tuple[int, str]:
    """Status and body of a POST; 0 when the connection was cut off without an answer."""
    reader, writer = await asyncio.open_connection(to.listener.host, to.listener.port, local_addr=(source, 0))
    lines = (f"POST {path} HTTP/1.1", "Host: x", "Content-Length: 0", "Connection: close", *headers, "", "")
    try:
        writer.write("\r\n".join(lines).encode())
        answer = (await reader.read()).decode()
    except ConnectionError:
        return 0, ""
    finally:
        writer.close()
    return (int(answer.split()[1]), answer.partition("\r\n\r\n")[2]) if answer else (0, "")


async def with_token(store: Store) -> str:
    """The header of an administrator."""
    async with store.appending() as appender:
        row = TokenRow("root", hash_token(TOKEN), Role.ADMIN, "infrastructure", 1)
        await appender.append(Submission("test", changes=(insert_token(row),)))
    return f"Authorization: Bearer {TOKEN}"


async def test_each_listener_has_its_own_authentication(store: Store) -> None:
    token = await with_token(store)
    api, foreign = open_listeners([listener("api"), listener("doctor", authentication=Authentication.NONE)])
    async with serving(application(store), api, foreign):
        assert (await asked(api, "/change"))[0] == 401
        assert await asked(api, "/change", token) == (200, '"root"')
        assert (await asked(api, "/observe"))[0] == 401
        assert await asked(foreign, "/observe") == (200, '"listener/doctor"')


async def test_without_authentication_no_token_counts_and_nothing_can_be_changed(store: Store) -> None:
    token = await with_token(store)
    (foreign,) = open_listeners([listener("doctor", authentication=Authentication.NONE)])
    async with serving(application(store), foreign):
        for headers in ((), (token,), (token.replace("Authorization", "AUTHORIZATION"),)):
            status, body = await asked(foreign, "/change", *headers)
            assert status == 403
            assert "listener/doctor" in body
        assert await asked(foreign, "/observe", token) == (200, '"listener/doctor"')


async def test_who_is_not_allowed_is_cut_off_without_an_answer(store: Store) -> None:
    (opened,) = open_listeners([listener(allowed_networks=ONLY_ONE)])
    async with serving(application(store), opened):
        assert (await asked(opened, "/observe", source="127.0.0.1"))[0] == 401
        assert await asked(opened, "/observe", source="127.0.0.2") == (0, "")


@pytest.mark.parametrize(
    ("authentication", "networks", "address", "admitted"),
    [
        (Authentication.TOKENS, (), "192.0.2.7", True),
        (Authentication.NONE, (), "192.0.2.7", False),
        (Authentication.NONE, (), "127.0.0.9", True),
        (Authentication.NONE, (), "::1", True),
        (Authentication.NONE, (), "::ffff:127.0.0.1", True),
        (Authentication.NONE, (), "::ffff:192.0.2.7", False),
        (Authentication.NONE, (), "", False),
        (Authentication.NONE, ("192.0.2.0/24",), "192.0.2.7", True),
        (Authentication.NONE, ("192.0.2.0/24",), "::ffff:192.0.2.7", True),
        (Authentication.NONE, ("192.0.2.0/24",), "127.0.0.1", False),
        (Authentication.TOKENS, ("fe80::/10",), "fe80::1%eth0", True),
        (Authentication.TOKENS, ("192.0.2.0/24",), "198.51.100.1", False),
    ],
)
def test_the_addresses_that_may_call(
    authentication: Authentication, networks: tuple[str, ...], address: str, admitted: bool
) -> None:
    allowed = tuple(ipaddress.ip_network(each) for each in networks)
    one = HttpListener("x", "0.0.0.0", 1, authentication, allowed)
    assert one.admits(address) is admitted


async def test_an_address_in_use_is_refused_by_its_setting_and_none_stays_open() -> None:
    (first,) = open_listeners([listener("api")])
    other = listener("doctor")
    taken = HttpListener("blazar", first.listener.host, first.listener.port)
    with pytest.raises(AlreadyRunning, match=rf"blazar\.port: 127\.0\.0\.1:{taken.port} is taken"):
        open_listeners([other, taken])
    (again,) = open_listeners([other])
    again.socket.close()
    first.socket.close()
