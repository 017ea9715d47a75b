"""The lab's ports on loopback: chosen free once, kept in lab.json, so that URLs stay the same.

A kept port that somebody else has taken is never replaced silently: people and scripts know the old one.
New ports lie below the kernel's ephemeral range, where no outgoing connection can take them.
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


def settle_ports(
    path: Path, preferred: Mapping[str, int], *, ours: Callable[[int], bool], renew: bool
) -> dict[str, int]:
    """The ports of the lab by field; `path` holds them afterwards.

    `ours` says whether a pid belongs to this lab: a service that outlived an `up` keeps its port.
    AlreadyRunning names a port that is taken, unless `renew` asks for another one.
    """
    document = read_json(path)
    kept = {} if document is None else _kept(path, document)
    ports: dict[str, int] = {}
    for field, wanted in preferred.items():
        port = kept.get(field)
        if port is None:
            ports[field] = _choose(wanted, taken=set(ports.values()) | set(kept.values()))
        elif is_free(port) or _is_ours(owner := port_owner(port), ours):
            ports[field] = port
        elif renew:
            ports[field] = _choose(wanted, taken=set(ports.values()) | set(kept.values()))
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


def _is_ours(owner: PortOwner, ours: Callable[[int], bool]) -> bool:
    return owner.pid is not None and ours(owner.pid)


def _choose(wanted: int, *, taken: set[int]) -> int:
    for at in range(_TRIES):
        port = wanted if at == 0 else random.randrange(*_RANGE)
        if port not in taken and is_free(port):
            return port
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
