"""`python -m testbed`: a real OpenStack on this machine, and what drills on it show. As root."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from homeostat.kernel.terminal import errors_in_one_line
from testbed import readiness
from testbed.campaign import chosen
from testbed.evidence import Wanted, gather, smoke
from testbed.machines import find_node, runs
from testbed.places import DEFAULT_STATE, Places
from testbed.plan import NODES, Checks, node_named
from testbed.teardown import leftovers, take_down
from testbed.up import Wishes, bring_up, is_up, only_one, progress, running_plan, switch

commands = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
node_commands = typer.Typer(help="One node of the running cloud.", no_args_is_help=True)
commands.add_typer(node_commands, name="node")

EVIDENCE = Path("docs/evidence/opnfv-ha")
Network = Annotated[str, typer.Option(help="First three parts of the /24 of the nodes.")]
Deadline = Annotated[float, typer.Option(help="For each wait: APIs, programs behind them.")]
State = Annotated[Path, typer.Option("--state", help="Cache and the running cloud.")]
Name = Annotated[str, typer.Argument(help=", ".join(each.name for each in NODES))]


@commands.command()
def up(  # noqa: PLR0913 - one parameter an option
    state: State = DEFAULT_STATE,
    network: Network = "10.77.0",
    database_on: Annotated[str, typer.Option(help="On whose disk MariaDB is: infra or ctl1.")] = "infra",
    vip_on: Annotated[str, typer.Option(help="Which controller has the common address first.")] = "ctl1",
    checks: Annotated[Checks, typer.Option(help="How soon the balancer sees a dead service.")] = Checks.fast,
    not_restarted: Annotated[
        list[str] | None, typer.Option(help="A service of ctl1 that nobody starts again; may be repeated.")
    ] = None,
    deadline_s: Deadline = 600.0,
) -> None:
    """Start the cloud. The first time everything is prepared, in some minutes; later it takes one or two."""
    wishes = Wishes(network, database_on, vip_on, checks, tuple(not_restarted or ()), deadline_s)
    places, say = Places(state.absolute()), progress()
    with errors_in_one_line(), only_one(places):
        plan = bring_up(places, wishes, say)
        say(f"the cloud is up at {plan.vip}; how to reach it: {places.access}")


@commands.command()
def down(state: State = DEFAULT_STATE) -> None:
    """End the cloud and remove everything but the cache, also of an `up` that was killed."""
    places, say = Places(state.absolute()), progress()
    with errors_in_one_line(), only_one(places):
        take_down(places)
        say("nothing of the testbed is left but its cache")


@commands.command()
def status(state: State = DEFAULT_STATE) -> None:
    """What runs and what is in rotation, as JSON. Exit 1 when the cloud is not up."""
    places = Places(state.absolute())
    with errors_in_one_line():
        up_now = is_up(places)
        seen = readiness.backends(running_plan(places)) if places.record.exists() else []
        machines = {each.name: find_node(places, each) for each in NODES}
        value = {
            "up": up_now and not readiness.missing_apis(seen),
            "nodes": {name: found.first.pid if found else None for name, found in machines.items()},
            "apis": {f"{each.service}@{each.node}": each.said for each in seen},
            "on_this_machine": asdict(leftovers(places)),
        }
    print(json.dumps(value, indent=2))
    raise typer.Exit(0 if value["up"] else 1)


@commands.command("evidence")
def evidence(  # noqa: PLR0913 - one parameter an option
    runs: Annotated[int, typer.Option(min=1, help="Of each case; one that did not decide is repeated.")] = 3,
    only: Annotated[list[str] | None, typer.Option(help="A case; may be repeated. [default: all]")] = None,
    to: Annotated[Path, typer.Option(help="Folder of reports; the page is beside it.")] = EVIDENCE,
    state: State = DEFAULT_STATE,
    network: Network = "10.77.0",
    deadline_s: Deadline = 600.0,
) -> None:
    """Run the cases on each variant of the cloud and write the reports. Begun again, it goes on.

    Exit 1 when something did not go as it has to.
    """
    say = progress()
    with errors_in_one_line():
        wanted = Wanted(chosen(only or ()), runs, to.absolute(), network, deadline_s)
        troubles = gather(Places(state.absolute()), wanted, say)
    for each in troubles:
        say(f"NOT AS IT HAS TO BE: {each}")
    say(f"the page is {wanted.page}")
    raise typer.Exit(1 if troubles else 0)


@commands.command("smoke")
def smoke_test(
    state: State = DEFAULT_STATE, network: Network = "10.77.0", deadline_s: Deadline = 600.0
) -> None:
    """Bring the cloud up, kill keystone on Node1 once, want PASS, and take it down. Exit 1 without PASS."""
    say = progress()
    with errors_in_one_line():
        report = smoke(Places(state.absolute()), network, deadline_s, say).report
    say(f"{report['drill']}: {report['verdict']} {'; '.join(report['because'])}")
    raise typer.Exit(0 if report["verdict"] == "PASS" else 1)


@node_commands.command("off")
def off(name: Name, state: State = DEFAULT_STATE) -> None:
    """Switch a node off at once, as if its power failed. Its disk stays."""
    places = Places(state.absolute())
    with errors_in_one_line(), only_one(places):
        switch(places, name, on=False)


@node_commands.command("on")
def on(name: Name, state: State = DEFAULT_STATE) -> None:
    """Start a node that is off, on its old disk."""
    places = Places(state.absolute())
    with errors_in_one_line(), only_one(places):
        switch(places, name, on=True)


@node_commands.command("state")
def node_state(name: Name, state: State = DEFAULT_STATE) -> None:
    """Print `on` or `off`; `off` only when nothing of the node runs."""
    with errors_in_one_line():
        node = node_named(name)
        print("on" if runs(Places(state.absolute()), node) else "off")


if __name__ == "__main__":
    commands()
