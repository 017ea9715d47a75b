"""Answers the orders of a drill about its own host: keeper state, addresses that it holds, services to start.

The holder is the host that has the address, or whose process listens there; finding it only looks. A service
is started by its profile, with the program `restart-PROFILE` of the host's own file; that is no fault and
has no undo. Standard library only, python3.9: it is shipped to hosts.
"""

from __future__ import annotations

import ipaddress
import socket
import subprocess
from pathlib import Path
from typing import Any, Callable, Mapping, Set, Tuple
from urllib.parse import urlsplit

from homeostat.drills.shipped.injectors.matching import processes_of
from homeostat.drills.shipped.injectors.record import heal_fault, keeper_errors
from homeostat.drills.shipped.keeper import machine, orders
from homeostat.drills.shipped.permissions import HostPermissions
from homeostat.kernel.errors import BadInput, GiveUp, NotAllowed

_LISTEN = "0A"
_PORTS = {"http": 80, "https": 443}


def answer_order(
    order: str, given: Mapping[str, Any], root: Path, permitted: Callable[[], HostPermissions]
) -> Any:
    """The answer to one order that is no verb of a fault; `root` is the state folder of the undo keeper.

    What undoes is answered whatever the host permits now, and so does not ask for it.
    """
    if order == "clock":
        return machine.now_ns()
    if order == "holds":
        return holds(permitted(), given["profile"], given["how"], address_of(given["endpoint"]))
    if order == "restart":
        return restart(permitted(), given["profile"])
    if order == "status":
        return orders.status(root)
    if order == "heal":
        return [heal_fault(root, fault) for fault in machine.Folder(root).open_faults()]
    if order == "renew":
        with keeper_errors():
            return orders.renew(root, given["fault"])
    raise BadInput("ask", order, "clock, holds, restart, status, heal or renew")


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a URL; of http without one 80, of https 443. ValueError without a port otherwise."""
    parts = urlsplit(url)
    port = parts.port or _PORTS.get(parts.scheme)
    if not parts.hostname or port is None:
        raise ValueError(f"{url}: it must say host and port")
    return parts.hostname, port


def holds(host: HostPermissions, profile: str, how: str, address: Tuple[str, int]) -> bool:
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


def restart(host: HostPermissions, profile: str) -> str:
    """The name of the program that was run, to its end. NotAllowed without one; GiveUp when it fails."""
    name = f"restart-{profile}"
    program = host.programs.get(name)
    if not host.enabled or program is None:
        raise NotAllowed(f"its {host.file} has no drills.programs.{name}; start it there")
    argv = [word.replace("{host}", host.host) for word in program.argv]
    try:
        # A session of its own: what it starts outlives us.
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            timeout=program.timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise GiveUp(f"{argv[0]}: no end within {program.timeout_s:g} s") from None
    except OSError as error:
        raise GiveUp(f"{argv[0]}: cannot be run ({error.strerror})") from error
    if done.returncode != 0:
        raise GiveUp(f"{argv[0]}: it ended with {done.returncode}")
    return name
