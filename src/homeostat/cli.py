"""The command line: `homeostat NOUN VERB`. Each component brings its own nouns; nothing heavy is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from homeostat import __version__
from homeostat.components import COMPONENTS, cli_entries
from homeostat.contracts.component import Component
from homeostat.kernel.cli import AsJson, Directory, ask
from homeostat.kernel.client import Client, state_dir
from homeostat.kernel.terminal import BROKEN, errors_in_one_line, local_time, show_json, show_table
from homeostat.lab.cli import commands as lab_commands
from homeostat.server.journal_cli import commands as journal_commands
from homeostat.sim.cli import check

EXIT_CODES = (
    "Exit codes: 0 done · 1 a set point is broken, or the server cannot write or hear (status) · 2 bad "
    "input · 3 not now (no server, port taken, already running) · 4 no such thing · 5 not allowed · 6 a file "
    "of ours is damaged · 10 to 13 a drill that did not pass."
)

app = typer.Typer(
    name="homeostat",
    help="Keeps a private cloud within its set points, and drills itself to prove it.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,  # costs 60 ms at each start; without it an error is three lines
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
run = typer.Typer(help="Run one process in the foreground.", no_args_is_help=True)
config = typer.Typer(help="Check settings before a process runs with them.", no_args_is_help=True)
app.add_typer(run, name="run")
app.add_typer(config, name="config")
app.add_typer(lab_commands, name="lab")
app.add_typer(journal_commands, name="journal")


@app.command()
def console(directory: Directory = None, as_json: AsJson = False) -> None:
    """Print a link that opens the dashboard, once, within a minute. Example: homeostat console"""
    with errors_in_one_line():
        client = Client.find(directory)
        answer = client.call("POST", "/console-links")
    url = client.url + answer["path"]
    if as_json:
        show_json({**answer, "url": url})
    else:
        print(url)
        print(f"works once, until {local_time(answer['expires_at'])}")


app.command("check")(check)


def add_components(top: typer.Typer, components: Iterable[Component]) -> None:
    """The commands of these components, in the groups that they name."""
    groups: dict[str, typer.Typer] = {}
    for entry in cli_entries(components):
        commands, group = entry.commands.resolve(), groups[entry.under] if entry.under else top
        if isinstance(commands, typer.Typer):
            group.add_typer(commands, name=entry.name)
            groups.setdefault(entry.name, commands)
        else:
            group.command(entry.name)(commands)


add_components(app, COMPONENTS)

ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The settings, a YAML file.")]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Global options."""
    if version:
        print(f"homeostat {__version__}")
        raise typer.Exit


@app.command()
def up(
    directory: Directory = None,
    renew_ports: Annotated[bool, typer.Option(help="Choose new free ports.")] = False,
) -> None:
    """Start everything embedded: NATS, server, SQLite, and a lab of three hosts. Ctrl-C stops all of it.

    Example: homeostat up --dir /tmp/try
    """
    from homeostat.lab.plan import UpSettings
    from homeostat.lab.up import up as supervise

    with errors_in_one_line():
        raise SystemExit(supervise(UpSettings(state_dir(directory), renew_ports)))


@run.command("server")
def run_server(config: ConfigFile) -> None:
    """Run the control plane. Example: homeostat run server --config server.yaml"""
    _become("homeostat.server.main", config)


@run.command("node")
def run_node(config: ConfigFile) -> None:
    """Run this host's node process. Example: homeostat run node --config node.yaml"""
    _become("homeostat.node.main", config)


def _become(module: str, config: Path) -> NoReturn:
    """This process becomes the other: one pid, and nothing of the command line stays in memory."""
    os.execv(sys.executable, [sys.executable, "-m", module, str(config)])


@config.command("check")
def check_config(
    file: Annotated[Path, typer.Argument(help="server.yaml or node.yaml.")], as_json: AsJson = False
) -> None:
    """Print the merged settings, defaults included, secrets hidden; or the first field that is wrong.

    Example: homeostat config check server.yaml
    """
    from homeostat.server.config_check import check_file

    with errors_in_one_line():
        kind, merged, warnings = check_file(file)
        if as_json:
            show_json({"kind": kind, "settings": merged, "warnings": warnings})
        else:
            print(f"# {file}: good settings of a {kind}")
            for line in warnings:
                print(f"# warning: {line}")
            _show_yaml(merged)


@app.command()
def status(directory: Directory = None, as_json: AsJson = False) -> None:
    """Set points: target, current value, state. Exits 1 when one is broken, or when the server cannot write
    or hear.

    Example: homeostat status --json
    """
    answer = ask(directory, "GET", "status")
    if as_json:
        show_json(answer)
    else:
        rows = [_for_people(row) for row in answer["items"]]
        columns = ("set_point", "project", "target", "now", "state", "detail")
        show_table(columns, rows, "No set points.")
    if answer["standing"] == "broken" or answer.get("reason"):
        raise typer.Exit(BROKEN)


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `status`; the API's fields keep their first names."""
    unit = "" if row["unit"] in row["promise"].split() else f" {row['unit']}"
    now = "not measured" if row["value"] is None else f"{row['value']:.3g}{unit}"
    target = f"{row['limit']:g}{unit}"
    named = {"set_point": row["promise"], "state": row["standing"]}
    return named | {"project": row.get("project", ""), "target": target, "now": now, "detail": row["detail"]}


def _show_yaml(settings: dict[str, Any]) -> None:
    import yaml

    print(yaml.safe_dump(settings, sort_keys=False), end="")


def main() -> None:
    app()


if __name__ == "__main__":
    main()
