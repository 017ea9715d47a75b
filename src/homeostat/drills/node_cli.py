"""homeostat node halt | resume: stop breaking things on this host, without server, NATS or node process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from homeostat.kernel.client import state_dir
from homeostat.kernel.errors import BadInput, GiveUp
from homeostat.kernel.terminal import BROKEN, errors_in_one_line, show_json, show_table

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="node.yaml. [default: every host of the lab in --dir]")
]
Directory = Annotated[Path | None, typer.Option("--dir", help="State directory of `homeostat up`.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]


def halt(config: Config = None, directory: Directory = None, as_json: AsJson = False) -> None:
    """Undo everything that is broken on purpose, now, and refuse new faults until `homeostat node resume`.

    Talks to the undo keeper of this host alone. Exits 1 when something is not undone yet.

    Example: homeostat node halt --config /etc/homeostat/node.yaml
    """
    from homeostat.drills import node_keeper as keeper

    rows: list[dict[str, Any]] = []
    with errors_in_one_line():
        for host, folder in _keepers(config, directory):
            try:
                rows += [{"host": host, **outcome} for outcome in keeper.halt(folder)]
            except (keeper.KeeperError, OSError) as error:
                raise GiveUp(f"{host}: {error}") from error
    if as_json:
        show_json({"items": rows})
    else:
        shown = [{**row, "failed": "; ".join(_failed(row))} for row in rows]
        show_table(("host", "fault", "undone", "failed"), shown, "nothing was broken; new faults are refused")
    if not all(row["undone"] for row in rows):
        raise typer.Exit(BROKEN)


def resume(config: Config = None, directory: Directory = None) -> None:
    """Let faults in again after `homeostat node halt`.

    Example: homeostat node resume --config /etc/homeostat/node.yaml
    """
    from homeostat.drills import node_keeper as keeper

    with errors_in_one_line():
        for host, folder in _keepers(config, directory):
            was = keeper.resume(folder)
            print(f"{host}: " + ("faults are let in again" if was else "was not halted"))


def _keepers(config: Path | None, directory: Path | None) -> list[tuple[str, Path]]:
    from homeostat.drills.node_settings import read_drilled_node

    root = state_dir(directory)
    files = [config] if config is not None else sorted(root.glob("hosts/*/node.yaml"))
    if not files:
        raise BadInput("--dir", str(root), "a lab with hosts; or name a node.yaml by --config")
    return [(node.host, node.keeper) for node in map(read_drilled_node, files)]


def _failed(row: dict[str, Any]) -> list[str]:
    return [str(step["reason"]) for step in row["steps"] if step["result"] == "failed"]
