"""The commands `homeostat drill run|suite run|halt|resume|heal`: run, stop and clean up after drills."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homeostat.drills.cli import Folder, print_reports
from homeostat.kernel import terminal
from homeostat.kernel.cli import AsJson, Directory
from homeostat.kernel.client import state_dir
from homeostat.kernel.errors import BadInput

if TYPE_CHECKING:
    from homeostat.drills.reports.model import DrillReport
    from homeostat.drills.running.announcement import ServerAnnouncer
    from homeostat.drills.running.series import RunRequest
    from homeostat.drills.site import Site

SiteFile = Annotated[
    Path | None, typer.Option("--site", help="The site. [default: site.yaml in the state directory]")
]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same hosts and the same order.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show exactly what would be hit; change nothing.")]
StrictSteps = Annotated[
    bool,
    typer.Option(
        "--strict-steps",
        help="Limits that the test specification names only in a step count too.",
    ),
]
suite = typer.Typer(help="Suites: several drills in order, with one report.", no_args_is_help=True)


def run(  # noqa: PLR0913  one parameter an option
    drills: Annotated[list[str], typer.Argument(metavar="ID...", help="Drills to run, in this order.")],
    site: SiteFile = None,
    seed: Seed = 0,
    each: Annotated[bool, typer.Option("--each", help="One run for each host of the service.")] = False,
    dry_run: DryRun = False,
    strict_steps: StrictSteps = False,
    repeat: Annotated[
        int, typer.Option(min=1, max=1000, help="Number of runs, each with the next seed.")
    ] = 1,
    own: Folder = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Inject a fault on purpose, measure the outage, undo the fault, and give a verdict.

    Ctrl-C undoes at once (ABORTED). Exits with the code of the worst verdict. With --dry-run: 0 when it would
    run, 5 when a host does not permit it, 3 when something else is in the way.

    Example: homeostat drill run service-down
    """
    from homeostat.drills.language.catalogue import read_catalogue
    from homeostat.drills.model import Drill
    from homeostat.drills.running.series import RunRequest

    with terminal.errors_in_one_line():
        known = read_catalogue(own)
        found = [known.drill(name).found for name in drills]
        chosen = tuple(drill for drill in found if isinstance(drill, Drill))
        wanted = RunRequest(chosen, seed, each, repeat, strict_steps)
        _go(wanted, site, directory, dry_run=dry_run, as_json=as_json)


@suite.command("run")
def suite_run(  # noqa: PLR0913  one parameter an option
    name: Annotated[str, typer.Argument(help="A suite.")],
    site: SiteFile = None,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="In the order of --seed.")] = False,
    seed: Seed = 0,
    dry_run: DryRun = False,
    strict_steps: StrictSteps = False,
    own: Folder = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Run a suite: each drill with its own set-up, after all is well again. A failed drill does not end it.

    Example: homeostat drill suite run lab --shuffle --seed 7
    """
    from homeostat.drills.language.catalogue import ordered_drills, read_catalogue
    from homeostat.drills.model import Drill, Suite
    from homeostat.drills.running.series import RunRequest

    with terminal.errors_in_one_line():
        known = read_catalogue(own)
        found = known.suite(name).found
        assert isinstance(found, Suite)
        named = [known.drill(each).found for each in ordered_drills(found, seed if shuffle else None)]
        drills = tuple(each for each in named if isinstance(each, Drill))
        wanted = RunRequest(drills, seed, strict_steps=strict_steps, suite=found.id, quiesce=found.quiesce)
        _go(wanted, site, directory, dry_run=dry_run, as_json=as_json)


def halt(
    why: Annotated[
        str, typer.Option(help="The reason, shown to everyone whose drill it stops.")
    ] = "halted by an operator",
    site: SiteFile = None,
    directory: Directory = None,
) -> None:
    """End the drill that runs here, undo it, and let none begin until `homeostat drill resume`.

    The site's server is informed too, when there is one. Without it: `homeostat node halt` on a host.

    Example: homeostat drill halt
    """
    import asyncio

    from homeostat.drills.running import cancellation as site_lock

    with terminal.errors_in_one_line():
        runs = _runs(directory)
        site_lock.halt(runs, f"drills are halted: {why}")
        print(f"{runs}: halted; a drill that runs from here ends and undoes its fault")
        if (server := _server(site, directory)) is not None:
            asyncio.run(server.halt(why))
            print("the site's server halts drills, too")


def resume(site: SiteFile = None, directory: Directory = None) -> None:
    """Let drills run again after `homeostat drill halt`. Example: homeostat drill resume"""
    import asyncio

    from homeostat.drills.running import cancellation as site_lock

    with terminal.errors_in_one_line():
        was = site_lock.resume(_runs(directory))
        print("drills resumed" if was else "drills were not halted here")
        if (server := _server(site, directory)) is not None:
            asyncio.run(server.resume())
            print("the site's server resumed drills, too")


def heal(site: SiteFile = None, directory: Directory = None, as_json: AsJson = False) -> None:
    """Undo faults that drill tools that died left on the hosts; close their runs as ABORTED.

    Exits 1 when not everything is done: it lists what is left, and can be run again.

    Example: homeostat drill heal
    """
    import asyncio
    from dataclasses import asdict

    from homeostat.drills.records.evidence import StderrProgress
    from homeostat.drills.running.leftovers import heal as healed
    from homeostat.drills.running.series import open_runs

    async def all_of_it() -> list[dict[str, Any]]:
        with StderrProgress() as progress:
            async with open_runs(found, runs, progress, even_halted=True) as parts:
                progress.say(f"asking {len(found.hosts)} hosts")
                return [asdict(each) for each in await healed(parts)]

    terminal.drop_unwritable_output("stdout", "stderr")
    with terminal.errors_in_one_line():
        found, runs = _site(site, directory), _runs(directory)
        rows = asyncio.run(all_of_it())
    if as_json:
        terminal.show_json({"items": rows})
    else:
        terminal.show_table(("what", "host", "ok", "seen"), rows, "Nothing to undo.")
    if not all(row["ok"] for row in rows):
        raise typer.Exit(terminal.BROKEN)


def _go(
    wanted: RunRequest, site: Path | None, directory: Path | None, *, dry_run: bool, as_json: bool
) -> None:
    """Run what is wanted, say what came of it, and exit with the worst verdict."""
    import asyncio

    from homeostat.drills.records.evidence import StderrProgress
    from homeostat.drills.running.series import exit_code, open_read_only, open_runs, plan_runs, run_all

    # A full disk below the log must not end a drill half-way.
    terminal.drop_unwritable_output("stdout", "stderr")
    found, runs = _site(site, directory), _runs(directory)

    async def done(opened: Any, act: Any) -> Any:
        with StderrProgress() as progress:
            async with opened(found, runs, progress) as parts:
                return await act(parts, wanted)

    if dry_run:
        plans = asyncio.run(done(open_read_only, plan_runs))
        _show_plans(plans, as_json=as_json)
        raise typer.Exit(_refused(plans))
    reports: list[DrillReport] = asyncio.run(done(open_runs, run_all))
    code = exit_code(reports)
    if as_json:
        records = [each.model_dump(mode="json") for each in reports]
        terminal.show_json(records[0] if len(records) == 1 else records)
    else:
        print_reports(reports)
        if len(reports) > 1:
            rows = [{**each.model_dump(mode="json"), "hosts": ", ".join(each.victims)} for each in reports]
            terminal.show_table(("verdict", "drill", "hosts", "run"), rows, "")
    raise typer.Exit(code)


def _show_plans(plans: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        terminal.show_json({"items": plans})
        return
    import yaml

    print(yaml.safe_dump(plans, sort_keys=False, allow_unicode=True), end="")
    print("# dry run: nothing was changed")


def _refused(plans: list[dict[str, Any]]) -> int:
    """Say what would keep each of them from running, and the exit code of that: 0 when nothing would."""
    code = 0
    for plan in plans:
        for why in plan["refused"]:
            words = f"{plan['drill']} on {plan['victim']} would not run: {why}"
            typer.echo(f"{terminal.ERROR_PREFIX}{words}", err=True)
            code = max(code, terminal.NOT_NOW)
        code = code if plan["permitted"] else terminal.NOT_ALLOWED
    return code


def _runs(directory: Path | None) -> Path:
    return state_dir(directory) / "drills"


def _site(given: Path | None, directory: Path | None) -> Site:
    from homeostat.drills.site import read_site

    path = given or state_dir(directory) / "site.yaml"
    if given is None and not path.exists():
        raise BadInput("--site", None, f"a site file; there is none at {path} (`homeostat up` writes one)")
    return read_site(path)


def _server(site: Path | None, directory: Path | None) -> ServerAnnouncer | None:
    """The site's server, when there is a site with one."""
    from homeostat.drills.running.announcement import server_announcer

    if site is None and not (state_dir(directory) / "site.yaml").exists():
        return None
    server = _site(site, directory).server
    return server_announcer(server.url, server.token_file) if server else None
