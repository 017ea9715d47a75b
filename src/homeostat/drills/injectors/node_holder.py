"""Whether this host holds a service's address: who listens on its port, or whose it is. Looks only."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path

import psutil

from homeostat.drills.injectors.node_matching import processes_of
from homeostat.drills.node_keeper import Process
from homeostat.drills.node_settings import DrilledNode
from homeostat.kernel.errors import BadInput

_LISTENS = "0A"
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def holds(node: DrilledNode, profile: str, how: str, address: tuple[str, int]) -> bool:
    """`listens` or `address`; `address` is the endpoint's host and port. BadInput."""
    if how == "listens":
        return listens(processes_of(node, profile), address[1])
    if how == "address":
        return has_address(address[0])
    raise BadInput("holder", how, "listens or address")


def listens(processes: Iterable[Process], port: int) -> bool:
    """Whether one of the processes has a listening TCP socket on the port."""
    wanted = {f"socket:[{inode}]" for inode in _listening(port)}
    return any(wanted & _open_files(each.pid) for each in processes) if wanted else False


def has_address(name: str) -> bool:
    """Whether a device of this host has the address (or one of those of the name)."""
    try:
        asked = {str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise BadInput("endpoint", name, f"a name or address that can be resolved ({error})") from None
    ours = {each.address.split("%")[0] for found in psutil.net_if_addrs().values() for each in found}
    return bool(asked & ours)


def _listening(port: int) -> set[str]:
    found = set()
    for table in _TABLES:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words[3] == _LISTENS and int(words[1].rpartition(":")[2], 16) == port:
                found.add(words[9])
    return found


def _open_files(pid: int) -> set[str]:
    try:
        return {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return set()
