"""A host of the lab as one thing that can be switched off and on.

Off is a file: `up` starts nothing of a host while it is there. Switching off writes the file first and then
ends every process of the host by identity, at once, until none is found; so nothing can come back in between.
What is not here: telling the server. It has to find out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from homeostat.contracts.nouns import HostId
from homeostat.kernel.errors import GiveUp, NotFound
from homeostat.kernel.files import write_private
from homeostat.kernel.processes import Identity
from homeostat.lab.leftovers import MARK, Ended, end_all, in_pid_files, keepers, with_environment
from homeostat.lab.plan import BALANCER_PROFILE, EDGES, HOSTS
from homeostat.lab.settings import StateDirectory

HOST_MARK = "HOMEOSTAT_LAB_HOST"
"""Environment variable of a host's node and machine process, and of what they start."""


def is_on(state: StateDirectory, host: HostId) -> Callable[[], bool]:
    """Whether the host is switched on; a question that the supervisor may ask at any time."""
    file = state.off_file(host)
    return lambda: not file.exists()


def of_lab(directory: Path, name: str) -> tuple[StateDirectory, HostId]:
    """The lab in a directory and one of its hosts; NotFound otherwise."""
    state = StateDirectory(directory.absolute())
    if not state.lab_file.exists():
        raise NotFound(f"{state.root} holds no lab; start one with `homeostat up --dir {state.root}`")
    if name in EDGES:
        file = state.ready_file(HostId(name), BALANCER_PROFILE)
        raise NotFound(f"{name} has no power switch; end its balancer by the pid in {file}")
    if name not in HOSTS:
        raise NotFound(f"the lab has no host {name!r}; it has {', '.join(HOSTS)}")
    return state, HostId(name)


def processes(state: StateDirectory, host: HostId) -> set[Identity]:
    """Everything of one host that lives: node, machine, what they started, services, guests, undo keeper."""
    mine, here = f"{HOST_MARK}={host}".encode(), f"{MARK}={state.root}".encode()
    scratch = f"HA_RSCTMP={state.host(host)}/".encode()
    by_environment = with_environment(
        lambda entries: (
            (mine in entries and here in entries) or any(entry.startswith(scratch) for entry in entries)
        )
    )
    return by_environment | in_pid_files(state.host(host)) | keepers(state.host(host))


def switch_off(state: StateDirectory, host: HostId) -> list[Ended]:
    """As if the power failed. Returns what was ended; GiveUp when something would not end."""
    write_private(state.off_file(host), b"off\n")
    find = partial(processes, state, host)
    ended = end_all(find, grace_s=0.0)
    left = find()
    if left:
        raise GiveUp(f"host {host}: pids {', '.join(str(each.pid) for each in left)} do not end")
    return ended


def switch_on(state: StateDirectory, host: HostId) -> bool:
    """Let the running `up` start the host again; whether it was off."""
    was_off = state.off_file(host).exists()
    state.off_file(host).unlink(missing_ok=True)
    return was_off
