"""homeostat lab: what one does to the machines of the embedded lab. Homeostat itself is told nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homeostat.kernel.client import state_dir
from homeostat.kernel.terminal import errors_in_one_line, show_json

commands = typer.Typer(help="Machines of the embedded lab.", no_args_is_help=True)
Directory = Annotated[Path | None, typer.Option("--dir", help="State directory of `homeostat up`.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
Host = Annotated[str, typer.Argument(help="n1, n2 or n3.")]


@commands.command("kill-host")
def kill_host(host: Host, directory: Directory = None, as_json: AsJson = False) -> None:
    """End everything of a host at once, as if its power failed. Example: homeostat lab kill-host n2"""
    from homeostat.lab.machines import of_lab, switch_off

    with errors_in_one_line():
        state, name = of_lab(state_dir(directory), host)
        ended = switch_off(state, name)
    if as_json:
        show_json({"host": name, "ended": [each.identity.pid for each in ended]})
    else:
        print(f"{name} is off: {len(ended)} processes ended; `homeostat lab start-host {name}` lets it live")


@commands.command("start-host")
def start_host(host: Host, directory: Directory = None, as_json: AsJson = False) -> None:
    """Switch a host on again; the running `up` starts it. Example: homeostat lab start-host n2"""
    from homeostat.lab.machines import of_lab, switch_on

    with errors_in_one_line():
        state, name = of_lab(state_dir(directory), host)
        was_off = switch_on(state, name)
    if as_json:
        show_json({"host": name, "was_off": was_off})
    else:
        print(f"{name} starts" if was_off else f"{name} was not off")
