"""The lab's ports on loopback: chosen free once, kept in lab.json, so that URLs stay the same.

A kept port that somebody else has taken is never replaced silently: people and scripts know the old one.
New ports lie below the kernel's ephemeral range, where no outgoing connection can take them. From the choice
on, a claim keeps other labs away.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from homeostat.kernel.errors import AlreadyRunning, CorruptState, GiveUp
from homeostat.kernel.files import read_json, write_json
from homeostat.lab.plan import LOOPBACK

_RANGE = (20_000, 32_000)
_TRIES = 200


@dataclass(frozen=True, slots=True)
class PortOwner:
    """Who listens on a port, as far as we may know."""

    pid: int | None
    program: str | None

    def __str__(self) -> str:
        if self.pid is None:
            return "another process"
        return f"pid {self.pid} ({self.program or 'unknown'})"


class Claims:
    """Ports that this process has spoken for. The kernel takes them back however the process ends."""

    # Names of abstract sockets: one of a name in a network namespace, just as ports are.

    def __init__(self) -> None:
        self._held: dict[int, socket.socket] = {}

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._held.values():
            each.close()
        self._held.clear()

    def take(self, port: int) -> bool:
        """Whether the port is ours to use now; False while another lab has it."""
        if port in self._held:
            return True
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0homeostat lab port {port}")
        except OSError:
            claim.close()
            return False
        self._held[port] = claim
        return True

    def release(self, port: int) -> None:
        """Somebody else may have it."""
        if (claim := self._held.pop(port, None)) is not None:
            claim.close()


def settle_ports(
    path: Path, preferred: Mapping[str, int], claims: Claims, *, ours: Callable[[int], bool], renew: bool
) -> dict[str, int]:
    """The ports of the lab by field; `path` holds them afterwards and `claims` as long as it is open.

    `ours` says whether a pid belongs to this lab: a service that outlived an `up` keeps its port.
    AlreadyRunning names a port that is taken, unless `renew` asks for another one.
    """
    document = read_json(path)
    kept = {} if document is None else _kept(path, document)
    ports: dict[str, int] = {}
    for field, wanted in preferred.items():
        port = kept.get(field)
        others = set(ports.values()) | set(kept.values())
        if port is None:
            ports[field] = _choose(wanted, claims, taken=others)
            continue
        owner = _owner_in_the_way(port, claims, ours)
        if owner is None:
            ports[field] = port
        elif renew:
            ports[field] = _choose(wanted, claims, taken=others)
        else:
            raise AlreadyRunning(
                f"ports.{field}: {port} on {LOOPBACK} is taken by {owner}; "
                "stop it, or let `homeostat up --renew-ports` pick another port"
            )
    fresh = {"version": 1, "ports": ports}
    if fresh != document:
        write_json(path, fresh)
    return ports


def is_free(port: int) -> bool:
    """Whether somebody could listen on this port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def port_owner(port: int) -> PortOwner:
    """Who listens on `port`; another user's process stays unnamed."""
    import psutil  # only when something is wrong: it takes longer to load than all else here

    for each in psutil.net_connections(kind="tcp"):
        if each.status != psutil.CONN_LISTEN or not each.laddr:
            continue
        if each.laddr.port == port and each.pid is not None:
            try:
                return PortOwner(each.pid, psutil.Process(each.pid).name())
            except psutil.Error:
                return PortOwner(each.pid, None)
    return PortOwner(None, None)


def listens(pid: int, port: int) -> bool:
    """Whether this very process listens on `port`: that somebody answers there would not say who."""
    import psutil

    try:
        found = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return False
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in found)


def _owner_in_the_way(port: int, claims: Claims, ours: Callable[[int], bool]) -> str | None:
    """Who keeps us from a port of ours; None: nobody does, and it is claimed."""
    if not claims.take(port):
        return "another `homeostat up`"
    if is_free(port):
        return None
    owner = port_owner(port)
    if owner.pid is not None and ours(owner.pid):
        return None
    claims.release(port)
    return str(owner)


def _choose(wanted: int, claims: Claims, *, taken: set[int]) -> int:
    for at in range(_TRIES):
        port = wanted if at == 0 else random.randrange(*_RANGE)
        if port in taken or not claims.take(port):
            continue
        if is_free(port):
            return port
        claims.release(port)
    raise GiveUp(
        f"no free port on {LOOPBACK} between {_RANGE[0]} and {_RANGE[1]}; stop something that listens"
    )


def _kept(path: Path, document: Mapping[str, Any]) -> dict[str, int]:
    ports = document.get("ports")
    if document.get("version") != 1 or not isinstance(ports, dict):
        raise CorruptState(f"{path}: not the ports of a lab (version 1); restore it or move it away")
    for field, port in ports.items():
        if type(port) is not int or not 0 < port < 65_536:
            raise CorruptState(
                f"{path}: ports.{field} is no port (1-65535); restore the file or move it away"
            )
    return ports
