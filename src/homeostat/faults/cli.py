"""homeostat fault, homeostat explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from homeostat.kernel.client import Client, segment
from homeostat.kernel.terminal import errors_in_one_line, show_json, show_record, show_table, when

commands = typer.Typer(help="What is wrong, and what was.", no_args_is_help=True)
Directory = Annotated[Path | None, typer.Option("--dir", help="State directory of `homeostat up`.")]
AsJson = Annotated[bool, typer.Option("--json", help="The API's answer, for machines.")]


@commands.command("ls")
def ls(
    state: Annotated[str | None, typer.Option(help="open, clearing or cleared; all when absent.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 100,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """List faults, newest first. Example: homeostat fault ls --state open"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", "/faults", state=state, limit=limit)
    if as_json:
        show_json(answer)
        return
    columns = ("id", "kind", "about", "owner", "state", "raised", "outage", "reason")
    show_table(columns, [_for_people(row) for row in answer["items"]], "no fault that you may read")


@commands.command("show")
def show(
    fault: Annotated[str, typer.Argument()], directory: Directory = None, as_json: AsJson = False
) -> None:
    """Show one fault. Example: homeostat fault show f-0123456789ab"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", f"/faults/{segment(fault)}")
    if as_json:
        show_json(answer)
    else:
        show_record(_for_people(answer))


def explain(
    id: Annotated[str, typer.Argument(help="A fault, an action, or an event's number.")],
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Why: the chain of causes, one sentence an event. Example: homeostat explain f-0123456789ab"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", f"/explain/{segment(id)}")
    if as_json:
        show_json(answer)
        return
    rows = [{**row, "at": when(row["at"]), "after": f"{row['after_ms']:g} ms"} for row in answer["items"]]
    show_table(("seq", "cause", "at", "after", "by", "what"), rows, "nothing is known")


def _for_people(fault: dict[str, Any]) -> dict[str, Any]:
    outage = fault.pop("outage_ms")
    times = {name: when(fault.pop(f"{name}_at")) for name in ("raised", "cleared")}
    return {**fault, **times, "outage": "" if outage is None else f"{outage:.0f} ms"}
