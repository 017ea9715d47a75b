"""The command line: `homeostat NOUN VERB`. Each room brings its own nouns; nothing heavy is imported here."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from homeostat import __version__
from homeostat.drills.cli import commands as drill_commands
from homeostat.drills.node_cli import halt, resume
from homeostat.drills.run_cli import add_to as add_drill_runs
from homeostat.drills.runs_cli import runs, trends
from homeostat.faults.cli import commands as fault_commands
from homeostat.faults.cli import explain, timeline
from homeostat.faults.what_if_cli import commands as what_if_commands
from homeostat.fleet.cli import commands as node_commands
from homeostat.fleet.hosts_cli import arm
from homeostat.fleet.hosts_cli import commands as host_commands
from homeostat.journal_cli import commands as journal_commands
from homeostat.kernel.client import Client, state_dir
from homeostat.kernel.terminal import BROKEN, errors_in_one_line, show_json, show_table
from homeostat.lab.cli import commands as lab_commands
from homeostat.notices.cli import commands as subscription_commands
from homeostat.notices.cli import notice_commands
from homeostat.notices.silences_cli import commands as silence_commands
from homeostat.resources.cli import commands as resource_commands
from homeostat.sim.cli import check
from homeostat.web.cli import console

EXIT_CODES = (
    "Exit codes: 0 done · 1 a promise is broken (status) · 2 bad input · 3 not now (no server, port taken, "
    "already running) · 4 no such thing · 5 not allowed · 6 a file of ours is damaged · "
    "10 to 13 a drill that did not pass."
)

app = typer.Typer(
    name="homeostat",
    help="Keeps a private cloud within its set points, and drills itself to prove it.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,  # 60 ms that the start need not pay; a wrong word is told in three lines
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
run = typer.Typer(help="Run one process in the foreground.", no_args_is_help=True)
config = typer.Typer(help="Look at settings before anything runs with them.", no_args_is_help=True)
app.add_typer(run, name="run")
app.add_typer(config, name="config")
app.add_typer(node_commands, name="node")
app.add_typer(resource_commands, name="resource")
app.add_typer(fault_commands, name="fault")
app.add_typer(subscription_commands, name="subscription")
app.add_typer(silence_commands, name="silence")
app.add_typer(notice_commands, name="notice")
app.add_typer(host_commands, name="host")
app.add_typer(what_if_commands, name="what-if")
add_drill_runs(drill_commands)
app.add_typer(drill_commands, name="drill")
app.add_typer(lab_commands, name="lab")
node_commands.command("halt")(halt)
node_commands.command("resume")(resume)
drill_commands.command("runs")(runs)
drill_commands.command("trends")(trends)
app.add_typer(journal_commands, name="journal")
app.command("explain")(explain)
app.command("arm")(arm)
app.command("timeline")(timeline)
app.command("console")(console)
app.command("check")(check)

ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The settings, a YAML file.")]
AsJson = Annotated[bool, typer.Option("--json", help="The API's answer, for machines.")]
Directory = Annotated[
    Path | None, typer.Option("--dir", help="State directory. [default: HOMEOSTAT_DIR, else ./.homeostat]")
]


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
    renew_ports: Annotated[bool, typer.Option(help="Choose free ports again.")] = False,
) -> None:
    """Start everything embedded: NATS, server, SQLite, and a lab of three hosts. Ctrl-C stops all of it.

    Example: homeostat up --dir /tmp/try
    """
    from homeostat.lab.settings import UpSettings
    from homeostat.lab.up import up as supervise

    with errors_in_one_line():
        raise SystemExit(supervise(UpSettings(state_dir(directory), renew_ports)))


@run.command("server")
def run_server(config: ConfigFile) -> None:
    """Run the control plane. Example: homeostat run server --config server.yaml"""
    _become("homeostat.server", config)


@run.command("node")
def run_node(config: ConfigFile) -> None:
    """Run this host's node process. Example: homeostat run node --config node.yaml"""
    _become("homeostat.node", config)


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
    from homeostat.config_check import checked

    with errors_in_one_line():
        kind, merged = checked(file)
        if as_json:
            show_json({"kind": kind, "settings": merged})
        else:
            print(f"# {file}: good settings of a {kind}")
            _show_yaml(merged)


@app.command()
def status(directory: Directory = None, as_json: AsJson = False) -> None:
    """Every promise, its value now, and whether it is kept. Exits 1 when one is broken.

    Example: homeostat status --json
    """
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", "/status")
    if as_json:
        show_json(answer)
    else:
        rows = [
            {**row, "now": _now(row), "limit": f"{row['limit']:g} {row['unit']}"} for row in answer["items"]
        ]
        show_table(("room", "promise", "limit", "now", "standing", "detail"), rows, "no promises yet")
    if answer["standing"] == "broken":
        raise typer.Exit(BROKEN)


def _now(row: dict[str, Any]) -> str:
    return "not measured" if row["value"] is None else f"{row['value']:.3g} {row['unit']}"


def _show_yaml(settings: dict[str, Any]) -> None:
    import yaml

    print(yaml.safe_dump(settings, sort_keys=False), end="")


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
