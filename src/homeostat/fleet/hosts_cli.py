"""homeostat host, homeostat arm: which hosts live, what people say about them, and which rooms may act."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homeostat.kernel.client import Client, segment
from homeostat.kernel.errors import BadInput
from homeostat.kernel.terminal import errors_in_one_line, show_json, show_record, show_table, when

commands = typer.Typer(help="Hosts: alive, dead, fenced, held.", no_args_is_help=True)
Directory = Annotated[Path | None, typer.Option("--dir", help="State directory of `homeostat up`.")]
AsJson = Annotated[bool, typer.Option("--json", help="The API's answer, for machines.")]
Host = Annotated[str, typer.Argument()]


@commands.command("ls")
def ls(directory: Directory = None, as_json: AsJson = False) -> None:
    """List the hosts. Example: homeostat host ls"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", "/hosts")
    if as_json:
        show_json(answer)
        return
    rows = [
        {**row, "down": when(row["down_at"]), "marked": when(row["marked_at"])} for row in answer["items"]
    ]
    columns = ("host", "state", "agent", "down", "marked", "probe", "doubt", "fenced", "held")
    show_table(columns, rows, "no host that you may read")


@commands.command("fenced")
def fenced(
    host: Host,
    receipt: Annotated[str, typer.Option(help="How you know that nothing runs there.")],
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Confirm that nothing runs on a dead host. Example: homeostat host fenced n2 --receipt unplugged"""
    with errors_in_one_line():
        answer = Client.find(directory).call("POST", f"/hosts/{segment(host)}/fenced", {"receipt": receipt})
    if as_json:
        show_json(answer)
    else:
        show_record(answer)


@commands.command("hold")
def hold(
    host: Host,
    off: Annotated[bool, typer.Option("--off", help="Harm may be done to it again.")] = False,
    reason: Annotated[str, typer.Option(help="Why.")] = "a person asked",
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Ask that no harm be done to a host. Example: homeostat host hold n2 --reason disks"""
    with errors_in_one_line():
        body = {"held": not off, "reason": reason}
        answer = Client.find(directory).call("PUT", f"/hosts/{segment(host)}/hold", body)
    if as_json:
        show_json(answer)
    else:
        show_record(answer)


def arm(
    room: Annotated[
        str | None,
        typer.Argument(help="The room that may act: faults, resources; all are shown when absent."),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="It may only observe.")] = False,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Let a room do harm (faults: fence, resources: start guests elsewhere), or observe; alone: which may.

    Example: homeostat arm faults
    """
    if room is None:
        _show_rooms(off, directory, as_json)
        return
    with errors_in_one_line():
        answer = Client.find(directory).call("PUT", f"/arming/{segment(room)}", {"armed": not off})
    if as_json:
        show_json(answer)
    else:
        print(f"{room} is {'armed: it acts' if answer['armed'] else 'not armed: it only observes'}")


def _show_rooms(off: bool, directory: Path | None, as_json: bool) -> None:
    with errors_in_one_line():
        if off:
            raise BadInput("ROOM", None, "a room beside --off: faults, resources")
        answer = Client.find(directory).call("GET", "/arming")
    if as_json:
        show_json(answer)
        return
    words = {True: "armed: it acts", False: "not armed: it only observes"}
    rows = [{"room": row["room"], "state": words[row["armed"]]} for row in answer["items"]]
    show_table(("room", "state"), rows, "no room does harm")
