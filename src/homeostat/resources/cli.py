"""homeostat resource: what the nodes run."""

from __future__ import annotations

from typing import Annotated

import typer

from homeostat.kernel.cli import AsJson, Directory, ask, show_answer, show_items
from homeostat.kernel.terminal import local_time

commands = typer.Typer(help="OCF resources and the state they are in.", no_args_is_help=True)


@commands.command("ls")
def ls(directory: Directory = None, as_json: AsJson = False) -> None:
    """List the resources. Example: homeostat resource ls"""
    columns = ("id", "host", "generation", "kind", "owner", "agent", "state", "pid", "since", "reason")
    answer = ask(directory, "GET", "resources")
    show_items(
        answer, as_json, columns, "No resources.", lambda row: row | {"since": local_time(row["since_at"])}
    )


@commands.command("show")
def show(
    resource: Annotated[str, typer.Argument()], directory: Directory = None, as_json: AsJson = False
) -> None:
    """Show one resource. Example: homeostat resource show web-n1"""
    answer = ask(directory, "GET", "resources", resource)
    show_answer(answer, as_json, lambda row: row | {"since_at": local_time(row["since_at"])})
