"""homeostat what-if: what would be hit, before it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homeostat.kernel.client import Client
from homeostat.kernel.terminal import errors_in_one_line, show_json, show_table

commands = typer.Typer(help="What would happen; nothing does.", no_args_is_help=True)
Directory = Annotated[Path | None, typer.Option("--dir", help="State directory of `homeostat up`.")]
AsJson = Annotated[bool, typer.Option("--json", help="The API's answer, for machines.")]


@commands.command("host")
def host(
    host: Annotated[str, typer.Argument()], directory: Directory = None, as_json: AsJson = False
) -> None:
    """If this host died now. Example: homeostat what-if host n2"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", f"/what-if/host/{host}")
    if as_json:
        show_json(answer)
        return
    show_table(("id", "kind", "owner"), answer["resources"], "nothing would be hit")
    rows = [{**row, "affected": ", ".join(row["affected"])} for row in answer["notices"]]
    show_table(("subscription", "project", "transition", "affected", "silence"), rows, "nobody would be told")
    elsewhere = [{**row, "host": row["host"] or "-"} for row in answer["elsewhere"]]
    show_table(("id", "host", "reason"), elsewhere, "nothing would start elsewhere")
    acts = [{**act, "allowed": "yes" if act["allowed"] else "no"} for act in answer["acts"]]
    show_table(("act", "driver", "allowed", "reason"), acts, "nothing would be done")
