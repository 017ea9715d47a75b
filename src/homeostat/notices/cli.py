"""homeostat subscription: who is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from homeostat.kernel.client import Client, segment
from homeostat.kernel.terminal import errors_in_one_line, show_json, show_record, show_table, when

commands = typer.Typer(help="Who is told of faults, and where.", no_args_is_help=True)
Directory = Annotated[Path | None, typer.Option("--dir", help="State directory of `homeostat up`.")]
AsJson = Annotated[bool, typer.Option("--json", help="The API's answer, for machines.")]
Name = Annotated[str, typer.Argument(help="Lower-case letters, digits and dashes, 63 at most.")]


@commands.command("ls")
def ls(directory: Directory = None, as_json: AsJson = False) -> None:
    """List the subscriptions. Example: homeostat subscription ls"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", "/subscriptions")
    if as_json:
        show_json(answer)
        return
    rows = [_for_people(row) for row in answer["items"]]
    show_table(
        ("name", "project", "url", "kinds", "minimum_severity", "key_id", "created"), rows, "nobody is told"
    )


@commands.command("show")
def show(name: Name, directory: Directory = None, as_json: AsJson = False) -> None:
    """Show one subscription. Example: homeostat subscription show on-call"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", f"/subscriptions/{segment(name)}")
    if as_json:
        show_json(answer)
    else:
        show_record(_for_people(answer))


@commands.command("create")
def create(
    name: Name,
    url: Annotated[str, typer.Option(help="Where to POST; within notices.allowed_networks.")],
    project: Annotated[str | None, typer.Option(help="Whose faults; yours when absent.")] = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Subscribe a webhook. The secret that signs its notices is shown once, here.

    Example: homeostat subscription create pager --url https://pager.example/hook --project blue
    """
    body = {"name": name, "url": url} | ({} if project is None else {"project": project})
    with errors_in_one_line():
        answer = Client.find(directory).call("POST", "/subscriptions", body)
    if as_json:
        show_json(answer)
    else:
        show_record(_for_people(answer))


@commands.command("rm")
def rm(name: Name, directory: Directory = None) -> None:
    """Remove a subscription. Example: homeostat subscription rm pager"""
    with errors_in_one_line():
        Client.find(directory).call("DELETE", f"/subscriptions/{segment(name)}")
    print(f"{name} is not told any more")


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    shown = {**row, "kinds": ", ".join(row.get("kinds") or ()) or "all"}
    shown["created"] = when(shown.pop("created_at"))
    return shown
