"""Who holds the address of a service: the host that has it, or whose process listens there. Looks only.

Python3.9: it is shipped to hosts.
"""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Set, Tuple

from homeostat.drills.injectors.node_matching import processes_of
from homeostat.drills.injectors.permitted import Permitted
from homeostat.kernel.errors import BadInput, NotAllowed

_LISTEN = "0A"


def holds(host: Permitted, profile: str, how: str, address: Tuple[str, int]) -> bool:
    """Whether this host holds the endpoint with this host name and port. `listens`: a process of the profile
    does, on its port; `address`: the host has its address. BadInput, NotAllowed.
    """
    if how == "listens":
        return any(listens(process.pid, address[1]) for process in processes_of(host, profile))
    if how == "address":
        return any(has_address(each) for each in _addresses(address[0]))
    raise BadInput("holder", how, "listens or address")


def listens(pid: int, port: int) -> bool:
    """Whether a process has a listening TCP socket on that port, in its own network namespace. NotAllowed."""
    wanted = set()
    for table in ("tcp", "tcp6"):
        wanted |= _listening(Path(f"/proc/{pid}/net/{table}"), port)
    try:
        return any(_target(each) in wanted for each in Path(f"/proc/{pid}/fd").iterdir())
    except PermissionError as error:
        raise NotAllowed(f"no permission to see the sockets of process {pid}; run as root") from error
    except OSError:
        return False  # it is gone


def has_address(address: str) -> bool:
    """Whether an interface here has that address."""
    wanted = ipaddress.ip_address(address)
    if wanted.version == 6:
        try:
            lines = Path("/proc/net/if_inet6").read_text().splitlines()
        except OSError:
            return False
        return any(int(line.split()[0], 16) == int(wanted) for line in lines)
    words = Path("/proc/net/fib_trie").read_text().split("|--")
    return any(each.split()[0] == str(wanted) and "/32 host LOCAL" in each for each in words[1:])


def _addresses(name: str) -> Set[str]:
    try:
        return {str(each[4][0]) for each in socket.getaddrinfo(name, None)}
    except OSError as error:
        raise BadInput("endpoint", name, f"a name that this host can resolve ({error})") from error


def _listening(table: Path, port: int) -> Set[str]:
    try:
        lines = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return set()
    at = f":{port:04X}"
    return {f"socket:[{words[9]}]" for words in lines if words[3] == _LISTEN and words[1].endswith(at)}


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""
