"""The commands `homeostat node`, `homeostat host` and `homeostat arm`.

Hosts and their node processes, their fencing receipts and holds, and the armed components.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homeostat.kernel.cli import Answer, AsJson, Directory, ask, show_answer, show_items
from homeostat.kernel.errors import BadInput
from homeostat.kernel.terminal import errors_in_one_line, local_time, show_json

node_commands = typer.Typer(help="Hosts and their node processes.", no_args_is_help=True)


@node_commands.command("ls")
def ls_nodes(directory: Directory = None, as_json: AsJson = False) -> None:
    """List the nodes. Example: homeostat node ls --json"""
    columns = ("host", "agent", "resources", "observations", "joined")

    def in_a_row(row: Answer) -> Answer:
        return row | {"resources": len(row["resources"]), "joined": local_time(row["joined_at"])}

    show_items(ask(directory, "GET", "nodes"), as_json, columns, "No nodes.", in_a_row)


@node_commands.command("show")
def show_node(
    host: Annotated[str, typer.Argument()], directory: Directory = None, as_json: AsJson = False
) -> None:
    """Show one node. Example: homeostat node show n1"""
    answer = ask(directory, "GET", "nodes", host)
    show_answer(answer, as_json, lambda row: row | {"joined_at": local_time(row["joined_at"])})


host_commands = typer.Typer(help="Hosts: alive, dead, fenced, held.", no_args_is_help=True)
Host = Annotated[str, typer.Argument()]


@host_commands.command("ls")
def ls_hosts(directory: Directory = None, as_json: AsJson = False) -> None:
    """List the hosts. Example: homeostat host ls"""
    said = ("host", "state", "agent", "witness", "down", "marked", "probe", "doubt", "store")
    columns = (*said, "fenced", "held")
    show_items(ask(directory, "GET", "hosts"), as_json, columns, "No hosts.", _host_row)


@host_commands.command("show")
def show_host(host: Host, directory: Directory = None, as_json: AsJson = False) -> None:
    """Show one host: its state, processors, memory (MiB), disk (GiB) and architecture.

    All hosts of a lab share one machine, and each says what that has. Example: homeostat host show n1
    """
    answer = ask(directory, "GET", "hosts", host)
    times = ("down_at", "marked_at", "error_at")
    show_answer(answer, as_json, lambda row: row | {name: local_time(row[name]) for name in times})


def _host_row(row: Answer) -> Answer:
    return {**row, "down": local_time(row["down_at"]), "marked": local_time(row["marked_at"])}


@host_commands.command("fenced")
def fenced(
    host: Host,
    receipt: Annotated[str, typer.Option(help="How you know that nothing runs there.")],
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Confirm that a dead host is really off: you looked, Homeostat does not. Its guests may start elsewhere.

    Example: homeostat host fenced n2 --receipt unplugged
    """
    show_answer(ask(directory, "POST", "hosts", host, "fenced", body={"receipt": receipt}), as_json)


@host_commands.command("hold")
def hold(
    host: Host,
    off: Annotated[bool, typer.Option("--off", help="Allow fencing again.")] = False,
    reason: Annotated[str, typer.Option(help="Why.")] = "a person asked",
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Put a host on hold: it is not fenced, and its guests do not start elsewhere, even when it dies.

    Example: homeostat host hold n2 --reason disks
    """
    body = {"held": not off, "reason": reason}
    show_answer(ask(directory, "PUT", "hosts", host, "hold", body=body), as_json)


@host_commands.command("forget")
def forget(host: Host, directory: Directory = None) -> None:
    """Remove a host for good: its row, what was fixed to it, and their faults. Refused while it lives.

    Example: homeostat host forget n9
    """
    ask(directory, "DELETE", "hosts", host)
    print(f"Host {host} removed; it joins anew if its node speaks again.")


@host_commands.command("confirm")
def confirm_claim(
    host: Host,
    guest: Annotated[str, typer.Argument(help="The guest that its node claims.")],
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Confirm that a guest runs on this host, as its node claims and the database does not say.

    For a database that was restored from an older copy: look first that the guest runs nowhere else.
    Example: homeostat host confirm n2 guest-n1-a
    """
    show_answer(ask(directory, "POST", "hosts", host, "claims", guest), as_json)


def arm(
    component: Annotated[
        str | None,
        typer.Argument(help="The component that may act, such as recovery; all are shown when absent."),
    ] = None,
    off: Annotated[
        bool, typer.Option("--off", help="Only observe: decide and journal, but do not act.")
    ] = False,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Let a component take disruptive actions (recovery: fence hosts, start their guests elsewhere).

    Without a component, show which may. Example: homeostat arm recovery
    """
    if component is None:
        _show_components(off, directory, as_json)
        return
    answer = ask(directory, "PUT", "arming", component, body={"armed": not off})
    if as_json:
        show_json(answer)
    else:
        print(f"{answer['component']} is {_WORDS[answer['armed']]}")


_WORDS = {True: "armed: it acts", False: "not armed: it only observes"}


def _show_components(off: bool, directory: Path | None, as_json: bool) -> None:
    with errors_in_one_line():
        if off:
            raise BadInput("COMPONENT", None, "a component beside --off, such as recovery")
    empty = "no component takes disruptive actions"
    answer = ask(directory, "GET", "arming")
    show_items(
        answer, as_json, ("component", "state"), empty, lambda row: row | {"state": _WORDS[row["armed"]]}
    )
