"""homeostat node: hosts and their node processes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homeostat.kernel.client import Client, segment
from homeostat.kernel.terminal import errors_in_one_line, show_json, show_record, show_table, when

commands = typer.Typer(help="Hosts and their node processes.", no_args_is_help=True)
Directory = Annotated[Path | None, typer.Option("--dir", help="State directory of `homeostat up`.")]
AsJson = Annotated[bool, typer.Option("--json", help="The API's answer, for machines.")]


@commands.command("ls")
def ls(directory: Directory = None, as_json: AsJson = False) -> None:
    """List the nodes. Example: homeostat node ls --json"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", "/nodes")
    if as_json:
        show_json(answer)
        return
    rows = [
        {**row, "resources": len(row["resources"]), "joined": when(row["joined_at"])}
        for row in answer["items"]
    ]
    show_table(("host", "agent", "resources", "observations", "joined"), rows, "no node that you may read")


@commands.command("show")
def show(
    host: Annotated[str, typer.Argument()], directory: Directory = None, as_json: AsJson = False
) -> None:
    """Show one node. Example: homeostat node show n1"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", f"/nodes/{segment(host)}")
    if as_json:
        show_json(answer)
    else:
        show_record({**answer, "joined_at": when(answer["joined_at"])})
