"""A host of this machine by its transport: verbs as processes, their errors, the keeper, who holds what."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from broken_host import BrokenHost, state, until

from homeostat.drills.transports.local import LocalTransport
from homeostat.drills.transports.port import Verb
from homeostat.kernel.errors import BadInput, GiveUp, NotAllowed, NotFound

LISTENER = """
import socket
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
input()
"""


@pytest.fixture
def transport(host: BrokenHost, tmp_path: Path) -> LocalTransport:
    return LocalTransport("n1", host.config, tmp_path / "orders")


def order(injector: str, **target: Any) -> dict[str, Any]:
    return {"fault": "f-1", "injector": injector, "deadline_s": 30.0, "target": target}


async def test_a_fault_from_its_plan_to_its_undo(host: BrokenHost, transport: LocalTransport) -> None:
    victim = host.victim("transported")
    host.permit(profiles={"it": {"command_line": "transported 600"}})
    record = order("node_freeze", profile="it")
    forward: tuple[Verb, ...] = ("probe", "plan", "inject", "prove")
    back: tuple[Verb, ...] = ("undo", "verify_undone")
    for verb in forward:
        record = await transport.verb(verb, record)
    assert record["prove"]["proven"] and state(victim) == "T"
    assert (await transport.status())["open"] == ["f-1"]
    await transport.renew("f-1")
    assert [each["undone"] for each in await transport.heal()] == [True]
    for verb in back:
        record = await transport.verb(verb, record)
    assert record["verify_undone"]["undone"] and state(victim) != "T"
    with pytest.raises(GiveUp):
        await transport.renew("f-1")
    assert await transport.heal() == []


@pytest.mark.parametrize(
    ("permitted", "target", "error"),
    [
        ({}, {"command_line": "nobody at all"}, NotFound),
        ({"enabled": False}, {"command_line": "nobody at all"}, NotAllowed),
        ({"injectors": ["node_cpu"]}, {"command_line": "nobody at all"}, NotAllowed),
        ({}, {"profile": "unheard-of"}, GiveUp),
    ],
)
async def test_errors_are_what_the_host_means(
    host: BrokenHost,
    transport: LocalTransport,
    permitted: dict[str, Any],
    target: dict[str, Any],
    error: type[Exception],
) -> None:
    host.permit(**permitted)
    with pytest.raises(error):
        await transport.verb("plan", order("node_kill", **target))


async def test_the_file_of_another_host_is_refused(host: BrokenHost, tmp_path: Path) -> None:
    other = LocalTransport("n2", host.config, tmp_path / "orders")
    with pytest.raises(BadInput, match=r"hosts\.n2\.config"):
        await other.verb("probe", order("node_cpu"))


async def test_who_listens_holds_the_address(host: BrokenHost, transport: LocalTransport) -> None:
    listener = host.start(sys.executable, "-c", LISTENER, "held", stdout=-1)
    other = host.victim("beside")
    assert listener.stdout is not None
    port = int(until(listener.stdout.readline, "the port"))
    host.permit(profiles={"held": {"command_line": ".* held"}, "beside": {"command_line": "beside 600"}})
    endpoint = f"tcp://127.0.0.1:{port}"
    assert await transport.holds("held", "listens", endpoint)
    assert not await transport.holds("beside", "listens", endpoint)
    assert other.poll() is None
    with socket.create_server(("127.0.0.1", 0)) as mine:
        assert not await transport.holds("held", "listens", f"tcp://127.0.0.1:{mine.getsockname()[1]}")


async def test_a_host_holds_its_own_addresses_only(transport: LocalTransport) -> None:
    assert await transport.holds("haproxy", "address", "http://127.0.0.1:80")
    assert not await transport.holds("haproxy", "address", "http://203.0.113.7:80")
    with pytest.raises(BadInput):
        await transport.holds("haproxy", "guessed", "http://127.0.0.1:80")
