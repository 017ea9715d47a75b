"""The commands `homeostat lab kill-host` and `start-host`: switch hosts of the embedded lab off and on.

Homeostat has to find out by itself. Only the time of it is sent to the server afterwards, for the timeline.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homeostat.kernel.cli import AsJson, Directory
from homeostat.kernel.client import Client, state_dir
from homeostat.kernel.clock import iso
from homeostat.kernel.errors import HomeostatError
from homeostat.kernel.terminal import errors_in_one_line, show_json

commands = typer.Typer(help="Machines of the embedded lab.", no_args_is_help=True)
Host = Annotated[str, typer.Argument(help="n1, n2 or n3.")]


@commands.command("kill-host")
def kill_host(host: Host, directory: Directory = None, as_json: AsJson = False) -> None:
    """End everything of a host at once, as if its power failed. Example: homeostat lab kill-host n2"""
    from homeostat.lab.power import find_lab_host, switch_off

    with errors_in_one_line():
        state, name = find_lab_host(state_dir(directory), host)
        ended = switch_off(state, name)
    killed_at = iso(min(each.at_ns for each in ended)) if ended else None
    stamped = killed_at is not None and _say_when(directory, name, killed_at)
    if as_json:
        pids = [each.identity.pid for each in ended]
        show_json({"host": name, "ended": pids, "killed_at": killed_at, "stamped": stamped})
        return
    print(f"{name} is off: {len(ended)} processes ended; `homeostat lab start-host {name}` switches it on")
    if killed_at is not None and not stamped:
        print("the server did not record the time: checkpoint 0 of the timeline will be unknown")


def _say_when(directory: Path | None, host: str, killed_at: str) -> bool:
    """Whether the server took the stamp. It may be down: that is no reason not to kill a host."""
    body = {"what": "lab kill-host", "injected_at": killed_at}
    try:
        Client.find(directory).call("POST", f"/hosts/{host}/injections", body)
    except HomeostatError:
        return False
    return True


@commands.command("start-host")
def start_host(host: Host, directory: Directory = None, as_json: AsJson = False) -> None:
    """Switch a host on again; the running `up` starts it. Example: homeostat lab start-host n2"""
    from homeostat.lab.power import find_lab_host, switch_on

    with errors_in_one_line():
        state, name = find_lab_host(state_dir(directory), host)
        was_off = switch_on(state, name)
    if as_json:
        show_json({"host": name, "was_off": was_off})
    else:
        print(f"{name} starts" if was_off else f"{name} was not off")
