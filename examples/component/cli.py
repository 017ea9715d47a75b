"""The commands `homeostat note ls|leave|wipe`."""

import typer

from homeostat.kernel.client import Client
from homeostat.kernel.terminal import errors_in_one_line, show_table

commands = typer.Typer(help="Notes about hosts.", no_args_is_help=True)


@commands.command("ls")
def ls() -> None:
    """List the notes."""
    with errors_in_one_line():
        show_table(("host", "text"), Client.find(None).call("GET", "/notes")["items"], "No notes.")


@commands.command("leave")
def leave(host: str, text: str) -> None:
    """Leave a note."""
    with errors_in_one_line():
        Client.find(None).call("PUT", f"/notes/{host}", {"text": text})


@commands.command("wipe")
def wipe() -> None:
    """Wipe all notes, if the component is armed."""
    with errors_in_one_line():
        Client.find(None).call("DELETE", "/notes")
