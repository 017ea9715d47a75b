"""Outside probes against real sockets: who answers, who refuses, who is silent, and nobody for another."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from icmplib.exceptions import SocketPermissionError
from icmplib.sockets import ICMPSocket, ICMPv4Socket

from engines import need, needs
from homeostat.contracts.nouns import HostId
from homeostat.fleet.probes import (
    HostProbe,
    IcmpProbe,
    OutsideProbes,
    TcpProbe,
    host_probes,
    icmp_permitted,
    update_probed,
)
from homeostat.fleet.settings import FleetSettings, HostSettings
from homeostat.kernel.clock import SystemClock

DARK = "203.0.113.1"
"""TEST-NET-3 (RFC 5737): nobody is there."""
PRIVILEGED, _ = icmp_permitted()


@contextmanager
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def mute() -> Iterator[int]:
    """A port whose queue is full: what connects is not answered."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            yield port


async def until(check: Callable[[], bool]) -> None:
    """Wait for a condition, 20 s at most."""
    async with asyncio.timeout(20):
        while not check():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def free_port() -> int:
    with listening() as port:
        return port


async def test_a_port_that_listens_answers() -> None:
    with listening() as port:
        assert await TcpProbe("127.0.0.1", port, "dead")(1, 1.0) == ""


async def test_a_refusal_says_what_the_settings_say_it_says() -> None:
    port = free_port()
    assert "refuses" in await TcpProbe("127.0.0.1", port, "dead")(1, 1.0)
    assert await TcpProbe("127.0.0.1", port, "alive")(1, 1.0) == ""


async def test_silence_ends_at_the_deadline() -> None:
    with mute() as port:
        assert "does not answer within 0.1 s" in await TcpProbe("127.0.0.1", port, "dead")(1, 0.1)


async def test_a_name_that_does_not_exist_is_a_reason_not_an_error() -> None:
    assert await TcpProbe("no-such-host.invalid", 22, "alive")(1, 5.0)


@needs("icmp")
@pytest.mark.seed("002 many monitored hosts in one process: a dead one is found beside a living one")
async def test_a_living_host_does_not_answer_for_a_dead_one() -> None:
    assert PRIVILEGED is not None
    living = IcmpProbe("127.0.0.1", 4711, privileged=PRIVILEGED)
    # The same identifier on purpose: the socket must not hear what others are told.
    dead = IcmpProbe(DARK, 4711, privileged=PRIVILEGED)
    answers = await asyncio.gather(*(probe(7, 2.0) for probe in (living, dead, living, dead)))
    assert [bool(each) for each in answers] == [False, True, False, True]


def test_a_process_without_permission_is_told_in_one_line_what_to_do() -> None:
    def refused(privileged: bool) -> ICMPSocket:
        raise SocketPermissionError(privileged)

    privileged, why = icmp_permitted(refused)
    assert privileged is None
    assert "CAP_NET_RAW" in why
    assert "\n" not in why


def test_raw_sockets_are_used_where_only_they_are_permitted() -> None:
    made = []

    def only_raw(privileged: bool) -> ICMPSocket:
        made.append(privileged)
        if not privileged:
            raise SocketPermissionError(privileged)
        return ICMPv4Socket(privileged=PRIVILEGED is True)

    need("icmp")
    assert icmp_permitted(only_raw) == (True, "")
    assert made == [False, True]


def test_a_host_is_probed_as_its_settings_say() -> None:
    hosts = [
        HostSettings(host="a", address=DARK, tcp_port=22, probe="tcp"),
        HostSettings(host="b", address=DARK),
    ]
    found, unprobed = host_probes(hosts)
    assert isinstance(found[0].probe, TcpProbe)
    assert {each.host for each in found} | set(unprobed) == {"a", "b"}


async def test_failures_are_counted_in_a_row_with_the_moment_of_the_first() -> None:
    first = update_probed(None, "no", (10, 20, 30))
    second = update_probed(first, "still no", (11, 21, 31))
    assert (second.failures, second.first_failed_ns, second.first_failed_mono_ns) == (2, 10, 20)
    assert second.reason == "still no"
    again = update_probed(second, "", (12, 22, 32))
    assert (again.failures, again.answers, again.first_failed_ns) == (0, 1, 0)


async def test_the_schedule_is_open_loop_and_a_dead_host_delays_nobody() -> None:
    began: dict[str, int] = {"dead": 0, "alive": 0}

    async def dead(_sequence: int, wait_s: float) -> str:
        began["dead"] += 1
        await asyncio.sleep(wait_s)
        return "nothing"

    async def alive(_sequence: int, _wait_s: float) -> str:
        began["alive"] += 1
        return ""

    settings = FleetSettings(probe_interval_s=0.02, probe_timeout_s=0.2)
    outside = OutsideProbes(
        [HostProbe(HostId("d"), dead), HostProbe(HostId("a"), alive)], settings, SystemClock()
    )
    running = asyncio.create_task(outside.run())
    try:
        await until(lambda: HostId("d") in outside.latest and outside.latest[HostId("d")].failures >= 5)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert outside.latest[HostId("a")].answers > 5
    assert began["dead"] > outside.latest[HostId("d")].failures + 1, "new probes begin while old ones wait"


async def test_a_late_answer_of_an_old_probe_does_not_hide_a_newer_one() -> None:
    first = asyncio.Event()

    async def probe(sequence: int, _wait_s: float) -> str:
        if sequence == 1:
            await first.wait()
            return ""
        return "nothing"

    settings = FleetSettings(probe_interval_s=0.01)
    outside = OutsideProbes([HostProbe(HostId("a"), probe)], settings, SystemClock())
    running = asyncio.create_task(outside.run())
    try:
        await until(lambda: HostId("a") in outside.latest)
        first.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert outside.latest[HostId("a")].failures > 0
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
