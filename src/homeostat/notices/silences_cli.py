"""homeostat silence: nobody is told of this for a while."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from homeostat.kernel.client import Client, segment
from homeostat.kernel.moments import duration, moment
from homeostat.kernel.terminal import errors_in_one_line, show_json, show_record, show_table, when

commands = typer.Typer(help="What nobody is told of for a while, and why.", no_args_is_help=True)
Directory = Annotated[Path | None, typer.Option("--dir", help="State directory of `homeostat up`.")]
AsJson = Annotated[bool, typer.Option("--json", help="The API's answer, for machines.")]
Id = Annotated[str, typer.Argument(help="As `homeostat silence ls` shows it.")]


@commands.command("create")
def create(  # noqa: PLR0913 - one option a scope
    reason: Annotated[str, typer.Option(help="Why; whoever is not told can read it.")],
    lasts: Annotated[str, typer.Option("--for", help="How long: 90s, 30m, 2h, 1d.")],
    host: Annotated[str | None, typer.Option(help="The host, and what ran there.")] = None,
    zone: Annotated[str | None, typer.Option(help="Every host of fleet.hosts in this zone.")] = None,
    resource: Annotated[str | None, typer.Option(help="One service or guest.")] = None,
    kind: Annotated[str | None, typer.Option(help="A kind of fault, such as agent_lost.")] = None,
    owner: Annotated[str | None, typer.Option(help="What belongs to this project.")] = None,
    project: Annotated[str | None, typer.Option(help="Spare this project's subscriptions only.")] = None,
    begins: Annotated[str | None, typer.Option(help="From when on; now when absent.")] = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Tell nobody of faults there, for a while. All scopes that are named must fit.

    Example: homeostat silence create --host n2 --for 2h --reason "new memory"
    """
    named = {"host": host, "zone": zone, "resource": resource, "kind": kind, "owner": owner}
    with errors_in_one_line():
        begins_at = None if begins is None else moment("--begins", begins).isoformat()
        named |= {"project": project, "begins_at": begins_at}
        body: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
        body |= {"reason": reason, "for_s": duration("--for", lasts).total_seconds()}
        answer = Client.find(directory).call("POST", "/silences", body)
    if as_json:
        show_json(answer)
    else:
        show_record(_for_people(answer))


@commands.command("ls")
def ls(
    over: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """List the silences that are not over. Example: homeostat silence ls"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", "/silences", all="true" if over else "false")
    if as_json:
        show_json(answer)
        return
    rows = [_for_people(row) for row in answer["items"]]
    columns = ("id", "state", "scope", "project", "reason", "by", "ends", "kept_back")
    show_table(columns, rows, "nothing is silenced")


@commands.command("show")
def show(silence: Id, directory: Directory = None, as_json: AsJson = False) -> None:
    """Show one silence. Example: homeostat silence show s-0123456789ab"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", f"/silences/{segment(silence)}")
    if as_json:
        show_json(answer)
    else:
        show_record(_for_people(answer))


@commands.command("rm")
def rm(silence: Id, directory: Directory = None) -> None:
    """End a silence now; what it kept back and is still true is told.

    Example: homeostat silence rm s-0123456789ab
    """
    with errors_in_one_line():
        Client.find(directory).call("DELETE", f"/silences/{segment(silence)}")
    print(f"{silence} is over")


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    hidden = ("host", "zone", "resource", "kind", "owner", "begins_at", "ends_at")
    shown = {name: value for name, value in row.items() if name not in hidden}
    return shown | {"begins": when(row["begins_at"]), "ends": when(row["ends_at"])}
