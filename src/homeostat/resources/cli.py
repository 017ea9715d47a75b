"""homeostat resource: what the nodes run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homeostat.kernel.client import Client, segment
from homeostat.kernel.terminal import errors_in_one_line, show_json, show_record, show_table, when

commands = typer.Typer(help="OCF resources and the state they are in.", no_args_is_help=True)
Directory = Annotated[Path | None, typer.Option("--dir", help="State directory of `homeostat up`.")]
AsJson = Annotated[bool, typer.Option("--json", help="The API's answer, for machines.")]


@commands.command("ls")
def ls(directory: Directory = None, as_json: AsJson = False) -> None:
    """List the resources. Example: homeostat resource ls"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", "/resources")
    if as_json:
        show_json(answer)
        return
    rows = [{**row, "since": when(row["since_at"])} for row in answer["items"]]
    columns = ("id", "host", "generation", "kind", "owner", "agent", "state", "pid", "since", "reason")
    show_table(columns, rows, "no resource that you may read")


@commands.command("show")
def show(
    resource: Annotated[str, typer.Argument()], directory: Directory = None, as_json: AsJson = False
) -> None:
    """Show one resource. Example: homeostat resource show web-n1"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", f"/resources/{segment(resource)}")
    if as_json:
        show_json(answer)
    else:
        show_record({**answer, "since_at": when(answer["since_at"])})
