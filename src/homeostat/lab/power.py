"""The power of the lab's hosts: `python -m homeostat.lab.power --dir D {off|on|state|fence} HOST`.

Off is a file: `up` starts nothing of a host while it is there. Switching off writes the file first and then
ends every process of the host by identity, at once, until none is found; so nothing can come back in between.
`state` prints `on` or `off`; between the two, while the host is switched off and something of it still lives,
`going off`. Nobody remembers who switched: a fence and a drill use the same switch. The server learns
nothing: it has to find out. `fence` is the command of its fencing driver: exit 0 and one line are the receipt
that the host is off and nothing of it lives.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from homeostat.contracts.nouns import HostId
from homeostat.kernel.errors import GiveUp, HomeostatError, NotFound
from homeostat.kernel.files import write_private
from homeostat.kernel.processes import Identity
from homeostat.lab.children import (
    LAB_MARK,
    EndedProcess,
    end_all,
    processes_in_pid_files,
    processes_with_environment,
    undo_keepers,
)
from homeostat.lab.plan import BALANCER_PROFILE, EDGES, HOSTS, StateDirectory

HOST_MARK = "HOMEOSTAT_LAB_HOST"
"""Environment variable of a host's node and machine process, and of what they start."""


def is_on(state: StateDirectory, host: HostId) -> Callable[[], bool]:
    """Whether the host is switched on; a question that the supervisor may ask at any time."""
    file = state.off_file(host)
    return lambda: not file.exists()


def find_lab_host(directory: Path, name: str) -> tuple[StateDirectory, HostId]:
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


def processes_of_host(state: StateDirectory, host: HostId) -> set[Identity]:
    """Everything of one host that lives: node, machine, what they started, services, guests, undo keeper."""
    mine, here = f"{HOST_MARK}={host}".encode(), f"{LAB_MARK}={state.root}".encode()
    scratch = f"HA_RSCTMP={state.host(host)}/".encode()
    by_environment = processes_with_environment(
        lambda entries: (
            (mine in entries and here in entries) or any(entry.startswith(scratch) for entry in entries)
        )
    )
    return by_environment | processes_in_pid_files(state.host(host)) | undo_keepers(state.host(host))


def switch_off(state: StateDirectory, host: HostId) -> list[EndedProcess]:
    """As if the power failed. Returns what was ended; GiveUp when something would not end."""
    write_private(state.off_file(host), b"off\n")
    find = partial(processes_of_host, state, host)
    ended = end_all(find, grace_s=0.0)
    left = find()
    if left:
        raise GiveUp(f"host {host}: processes {', '.join(str(each.pid) for each in left)} cannot be ended")
    return ended


def switch_on(state: StateDirectory, host: HostId) -> bool:
    """Let the running `up` start the host again; whether it was off."""
    was_off = state.off_file(host).exists()
    state.off_file(host).unlink(missing_ok=True)
    return was_off


def main() -> None:
    parser = argparse.ArgumentParser(prog="homeostat.lab.power", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("verb", choices=("off", "on", "state", "fence"))
    parser.add_argument("host")
    given = parser.parse_args()
    try:
        state, host = find_lab_host(given.dir, given.host)
        ended = switch_off(state, host) if given.verb in ("off", "fence") else []
        if given.verb == "on":
            switch_on(state, host)
        if given.verb == "fence":
            print(f"host {host} is off: {len(ended)} processes had to be ended, none lives")
        else:
            rest = "going off" if processes_of_host(state, host) else "off"
            print("on" if is_on(state, host)() else rest)
    except HomeostatError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
