"""homeostat drill run | suite run | halt | resume | heal: what breaks things, and what ends and undoes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homeostat.drills.cli import AsJson, Directory, Folder, on_console
from homeostat.kernel.client import state_dir
from homeostat.kernel.errors import BadInput
from homeostat.kernel.terminal import (
    BROKEN,
    ERROR_PREFIX,
    NOT_ALLOWED,
    NOT_NOW,
    errors_in_one_line,
    show_json,
    show_table,
)

if TYPE_CHECKING:
    from homeostat.drills.loop import Wanted
    from homeostat.drills.reports.model import DrillReport
    from homeostat.drills.running.announcing import ServerAnnouncing
    from homeostat.drills.site import Site

SiteFile = Annotated[
    Path | None, typer.Option("--site", help="The site. [default: site.yaml in the state directory]")
]
Seed = Annotated[int, typer.Option("--seed", help="The same seed, the same hosts and the same order.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say exactly what would be hit; touch nothing.")]
StrictSteps = Annotated[
    bool, typer.Option("--strict-steps", help="Limits that a document names only in a step decide, too.")
]
suite = typer.Typer(help="Several drills in order, and one report.", no_args_is_help=True)


def add_to(commands: typer.Typer) -> None:
    """The verbs of this module on `homeostat drill`."""
    commands.command("run")(run)
    commands.command("halt")(halt)
    commands.command("resume")(resume)
    commands.command("heal")(heal)
    commands.add_typer(suite, name="suite")


def run(  # noqa: PLR0913  one parameter an option
    drills: Annotated[list[str], typer.Argument(metavar="ID...", help="Drills, in this order.")],
    site: SiteFile = None,
    seed: Seed = 0,
    each: Annotated[bool, typer.Option("--each", help="One run for each host of the service.")] = False,
    dry_run: DryRun = False,
    strict_steps: StrictSteps = False,
    repeat: Annotated[int, typer.Option(min=1, max=1000, help="So many runs, each with the next seed.")] = 1,
    own: Folder = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Break something on purpose, measure what it costs, undo it, and say what is proven.

    Ctrl-C undoes at once (ABORTED). Exits with the code of the worst verdict. With --dry-run: 0 when it would
    run, 5 when a host does not permit it, 3 when something else is in the way.

    Example: homeostat drill run service-down
    """
    from homeostat.drills.language.catalogue import catalogue
    from homeostat.drills.loop import Wanted
    from homeostat.drills.model import Drill

    with errors_in_one_line():
        known = catalogue(own)
        found = [known.drill(name).found for name in drills]
        chosen = tuple(drill for drill in found if isinstance(drill, Drill))
        wanted = Wanted(chosen, seed, each, repeat, strict_steps)
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
    """Run a suite: each drill with its own set-up, once all has been well. A failure does not end it.

    Example: homeostat drill suite run lab --shuffle --seed 7
    """
    from homeostat.drills.language.catalogue import catalogue, order
    from homeostat.drills.loop import Wanted
    from homeostat.drills.model import Drill, Suite

    with errors_in_one_line():
        known = catalogue(own)
        found = known.suite(name).found
        assert isinstance(found, Suite)
        named = [known.drill(each).found for each in order(found, seed if shuffle else None)]
        drills = tuple(each for each in named if isinstance(each, Drill))
        wanted = Wanted(drills, seed, strict_steps=strict_steps, suite=found.id, quiesce=found.quiesce)
        _go(wanted, site, directory, dry_run=dry_run, as_json=as_json)


def halt(
    why: Annotated[str, typer.Option(help="Said to whom it stops.")] = "halted by hand",
    site: SiteFile = None,
    directory: Directory = None,
) -> None:
    """End the drill that runs here, undo it, and let none begin until `homeostat drill resume`.

    Also told to the site's server, when it has one. Without any of it: `homeostat node halt` on a host.

    Example: homeostat drill halt
    """
    import asyncio

    from homeostat.drills.running import site_lock

    with errors_in_one_line():
        runs = _runs(directory)
        site_lock.halt(runs, f"drills are halted: {why}")
        print(f"{runs}: halted; a drill that runs from here ends and undoes")
        if (server := _server(site, directory)) is not None:
            asyncio.run(server.halt(why))
            print("the server of the site halts them, too")


def resume(site: SiteFile = None, directory: Directory = None) -> None:
    """Let drills run again after `homeostat drill halt`. Example: homeostat drill resume"""
    import asyncio

    from homeostat.drills.running import site_lock

    with errors_in_one_line():
        was = site_lock.resume(_runs(directory))
        print("drills may run again" if was else "drills were not halted here")
        if (server := _server(site, directory)) is not None:
            asyncio.run(server.resume())
            print("the server of the site lets them in again")


def heal(site: SiteFile = None, directory: Directory = None, as_json: AsJson = False) -> None:
    """Undo what dead tools left on the hosts; close their runs as ABORTED, at the site's server, too.

    Exits 1 when not everything is done: it says what is left, and may be run again.

    Example: homeostat drill heal
    """
    import asyncio
    from dataclasses import asdict

    from homeostat.drills.leftovers.healing import heal as healed
    from homeostat.drills.loop import opened
    from homeostat.drills.progress import OnStderr

    async def all_of_it() -> list[dict[str, Any]]:
        with OnStderr() as progress:
            async with opened(found, runs, progress, even_halted=True) as parts:
                progress.say(f"asking {len(found.hosts)} hosts")
                return [asdict(each) for each in await healed(parts)]

    with errors_in_one_line():
        found, runs = _site(site, directory), _runs(directory)
        rows = asyncio.run(all_of_it())
    if as_json:
        show_json({"items": rows})
    else:
        show_table(("what", "host", "ok", "seen"), rows, "nothing was left")
    if not all(row["ok"] for row in rows):
        raise typer.Exit(BROKEN)


def _go(wanted: Wanted, site: Path | None, directory: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Run what is wanted, say what came of it, and exit with the worst verdict."""
    import asyncio

    from homeostat.drills.loop import exit_code, looked_at, opened, planned, run_all
    from homeostat.drills.progress import OnStderr

    found, runs = _site(site, directory), _runs(directory)

    async def all_of_it() -> list[DrillReport]:
        with OnStderr() as progress:
            async with opened(found, runs, progress) as parts:
                return await run_all(parts, wanted)

    async def looked() -> list[dict[str, Any]]:
        with OnStderr() as progress:
            async with looked_at(found, runs, progress) as parts:
                return await planned(parts, wanted)

    if dry_run:
        plans = asyncio.run(looked())
        _show_plans(plans, as_json=as_json)
        raise typer.Exit(_refused(plans))
    reports = asyncio.run(all_of_it())
    code = exit_code(reports)
    if as_json:
        records = [each.model_dump(mode="json") for each in reports]
        show_json(records[0] if len(records) == 1 else records)
    else:
        on_console(reports)
        if len(reports) > 1:
            rows = [{**each.model_dump(mode="json"), "hosts": ", ".join(each.victims)} for each in reports]
            show_table(("verdict", "drill", "hosts", "run"), rows, "")
    raise typer.Exit(code)


def _show_plans(plans: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        show_json({"items": plans})
        return
    import yaml

    print(yaml.safe_dump(plans, sort_keys=False, allow_unicode=True), end="")
    print("# nothing was touched")


def _refused(plans: list[dict[str, Any]]) -> int:
    """Say what would keep each of them from running, and the exit code of that: 0 when nothing would."""
    code = 0
    for plan in plans:
        for why in plan["refused"]:
            typer.echo(f"{ERROR_PREFIX}{plan['drill']} on {plan['victim']} would not run: {why}", err=True)
            code = max(code, NOT_NOW)
        code = code if plan["permitted"] else NOT_ALLOWED
    return code


def _runs(directory: Path | None) -> Path:
    return state_dir(directory) / "drills"


def _site(given: Path | None, directory: Path | None) -> Site:
    from homeostat.drills.site import read_site

    path = given or state_dir(directory) / "site.yaml"
    if given is None and not path.exists():
        raise BadInput("--site", None, f"a site file; there is none at {path} (`homeostat up` writes one)")
    return read_site(path)


def _server(site: Path | None, directory: Path | None) -> ServerAnnouncing | None:
    """The site's server, when there is a site with one."""
    from homeostat.drills.running.announcing import announcing_to

    if site is None and not (state_dir(directory) / "site.yaml").exists():
        return None
    server = _site(site, directory).server
    return announcing_to(server.url, server.token_file) if server else None
