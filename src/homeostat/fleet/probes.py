"""Outside probes of hosts, whatever their agents say: ICMP or TCP, each under a deadline.

Not the place that concludes anything: `fleet.suspicion` does. Every ICMP target has an identifier of its
own and every probe a sequence number, and its socket hears only its target: replies to others are never
taken for an answer, however many hosts share this process (source: OPNFV Doctor's sample monitor, which
did). The schedule is open-loop: a probe that waits delays no other, so a dead host is probed as often as a
living one.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog
from icmplib import ICMPLibError, ICMPRequest
from icmplib.exceptions import SocketPermissionError
from icmplib.sockets import AsyncSocket, ICMPSocket, ICMPv4Socket, ICMPv6Socket

from homeostat.contracts.nouns import HostId
from homeostat.fleet.settings import FleetSettings, HostSettings
from homeostat.fleet.suspicion import Probed
from homeostat.kernel.clock import Clock

log = structlog.get_logger("monitors")

Probe = Callable[[int, float], Awaitable[str]]
"""Given the sequence number and seconds to wait: empty when the host answered, else why not. Never raises
for what the network does."""

_NO_LINGER = struct.pack("ii", 1, 0)
_SEQUENCES = 1 << 16
_STALE_PROBES = 5
_STALE_MIN_S = 1.0


class TcpProbe:
    """A connection to a port of the host itself, closed as soon as it stands."""

    def __init__(self, address: str, port: int, refused_means: Literal["alive", "dead"]) -> None:
        self._address, self._port, self._refused_means = address, port, refused_means

    async def __call__(self, _sequence: int, wait_s: float) -> str:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(wait_s):
                found = await loop.getaddrinfo(self._address, self._port, type=socket.SOCK_STREAM)
                family, kind, protocol, _, target = found[0]
                with socket.socket(family, kind, protocol) as connection:
                    connection.setblocking(False)
                    # A reset instead of an orderly end: thousands of connections in TIME_WAIT say nothing.
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                    await loop.sock_connect(connection, target)
        except TimeoutError:
            return f"tcp {self._address}:{self._port} does not answer within {wait_s:g} s"
        except ConnectionRefusedError:
            return "" if self._refused_means == "alive" else f"tcp {self._address}:{self._port} refuses"
        except OSError as error:
            return f"tcp {self._address}:{self._port}: {error.strerror or error}"
        return ""


class IcmpProbe:
    """An echo request. `privileged` is what `icmp_permitted` found."""

    def __init__(self, address: str, identifier: int, *, privileged: bool) -> None:
        self._address, self._identifier, self._privileged = address, identifier, privileged

    async def __call__(self, sequence: int, wait_s: float) -> str:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(wait_s):
                family, _, _, _, target = (await loop.getaddrinfo(self._address, 0))[0]
                address = str(target[0])
                kind = ICMPv6Socket if family == socket.AF_INET6 else ICMPv4Socket
                with AsyncSocket(kind(privileged=self._privileged)) as way:
                    # A connected socket hears its target only; the kernel drops what others say.
                    way.sock.connect(target)
                    request = ICMPRequest(address, self._identifier, sequence % _SEQUENCES)
                    way.send(request)
                    reply = await way.receive(request, wait_s)
                    reply.raise_for_status()
        except TimeoutError:
            return f"icmp {self._address} does not answer within {wait_s:g} s"
        except ICMPLibError as error:
            return f"icmp {self._address}: {' '.join(str(error).split())}"
        except OSError as error:
            return f"icmp {self._address}: {error.strerror or error}"
        return ""


def icmp_permitted(
    makes: Callable[[bool], ICMPSocket] = lambda privileged: ICMPv4Socket(privileged=privileged),
) -> tuple[bool | None, str]:
    """Whether ICMP needs `privileged` sockets here; None and one line when neither kind is permitted."""
    for privileged in (False, True):
        try:
            makes(privileged).close()
        except SocketPermissionError:
            continue
        except ICMPLibError as error:
            return (
                None,
                f"ICMP cannot be used: {' '.join(str(error).split())}; TCP is used where a port is known",
            )
        return privileged, ""
    return None, (
        "ICMP is not permitted to this process: give it CAP_NET_RAW or widen net.ipv4.ping_group_range; "
        "TCP is used where fleet.hosts.tcp_port is set"
    )


@dataclass(frozen=True, slots=True)
class HostProbe:
    """What is probed, and how."""

    host: HostId
    probe: Probe


def host_probes(hosts: Sequence[HostSettings]) -> tuple[tuple[HostProbe, ...], Mapping[HostId, str]]:
    """The probes of these hosts; and why others have none, by host."""
    permitted: bool | None = None
    refusal = ""
    if any(each.probe != "tcp" for each in hosts):
        permitted, refusal = icmp_permitted()
        if refusal:
            log.warning(refusal)
    first_identifier = os.getpid()
    found: list[HostProbe] = []
    unprobed: dict[HostId, str] = {}
    for number, each in enumerate(hosts):
        host = HostId(each.host)
        if each.probe != "tcp" and permitted is not None:
            identifier = (first_identifier + number) % _SEQUENCES
            found.append(HostProbe(host, IcmpProbe(each.address, identifier, privileged=permitted)))
        elif each.probe != "icmp" and each.tcp_port is not None:
            found.append(HostProbe(host, TcpProbe(each.address, each.tcp_port, each.refused_means)))
        else:
            unprobed[host] = refusal
    return tuple(found), unprobed


class OutsideProbes:
    """Probes every target for ever. `latest` is read by others on the same loop."""

    def __init__(
        self,
        probed: Sequence[HostProbe],
        settings: FleetSettings,
        clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._targets, self._clock, self._chance = tuple(probed), clock, chance
        self._interval_s, self._wait_s = settings.probe_interval_s, settings.probe_timeout_s
        self.latest: dict[HostId, Probed] = {}
        self._newest: dict[HostId, int] = {}

    @property
    def stale_s(self) -> float:
        """A result older than this says that probing itself is broken."""
        return max(_STALE_MIN_S, _STALE_PROBES * (self._interval_s + self._wait_s))

    async def run(self) -> None:
        """Until cancelled. Each target has its own phase, so that they do not all start at once."""
        async with asyncio.TaskGroup() as group:
            for target in self._targets:
                group.create_task(self._keep_probing(group, target), name=f"probe {target.host}")
            await asyncio.Event().wait()

    async def _keep_probing(self, group: asyncio.TaskGroup, target: HostProbe) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._chance() * self._interval_s
        sequence = 0
        while True:
            await asyncio.sleep(due_s - loop.time())
            sequence += 1
            group.create_task(self._once(target, sequence))
            due_s += self._interval_s
            # After a stall of ours: go on from now; the probes that were missed would all say the same.
            due_s = max(due_s, loop.time())

    async def _once(self, target: HostProbe, sequence: int) -> None:
        began_ns, began_mono_ns = self._clock.wall_ns(), self._clock.mono_ns()
        reason = await target.probe(sequence, self._wait_s)
        if sequence < self._newest.get(target.host, 0):
            return  # a later probe has answered already
        self._newest[target.host] = sequence
        before = self.latest.get(target.host)
        self.latest[target.host] = update_probed(
            before, reason, (began_ns, began_mono_ns, self._clock.mono_ns())
        )


def update_probed(before: Probed | None, reason: str, moments: tuple[int, int, int]) -> Probed:
    """What is known after one more result. `moments`: begun (wall, monotonic) and ended (monotonic)."""
    began_ns, began_mono_ns, ended_mono_ns = moments
    if not reason:
        answers = 1 if before is None else before.answers + 1
        return Probed(ended_mono_ns, answers=answers, answered_mono_ns=ended_mono_ns)
    if before is None or before.failures == 0:
        answered_ns = 0 if before is None else before.answered_mono_ns
        return Probed(ended_mono_ns, 1, 0, reason, began_ns, began_mono_ns, answered_ns)
    return Probed(
        ended_mono_ns,
        before.failures + 1,
        0,
        reason,
        before.first_failed_ns,
        before.first_failed_mono_ns,
        before.answered_mono_ns,
    )
