"""The commands `homeostat drill check|ls|show|verify|report|runs|trends`, and `homeostat node halt|resume`.

They look at drills before they run, and at past runs; none breaks anything. `verify` and `report` read the
folder of a run alone; `runs` and `trends` ask the server's database; `halt` and `resume` stop drills on this
host, without server, NATS or node process. The commands that run a drill are in `run_cli`. Everything heavy
is imported within the commands.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homeostat.kernel.cli import AsJson, Directory, ask
from homeostat.kernel.client import state_dir
from homeostat.kernel.errors import BadInput, CorruptState, GiveUp
from homeostat.kernel.terminal import BAD_INPUT, BROKEN, errors_in_one_line, local_time, show_json, show_table

if TYPE_CHECKING:
    from homeostat.drills.model import Drill, Suite
    from homeostat.drills.reports.model import DrillReport
    from homeostat.drills.verdicts.evaluation import VerifiedRun

commands = typer.Typer(
    help="Drills: inject a fault, measure the outage, undo the fault, give a verdict.",
    epilog="Exit codes of a run and its report: 0 PASS · 10 FAIL · 11 INCONCLUSIVE · 12 ERROR · 13 ABORTED.",
    no_args_is_help=True,
)
Folder = Annotated[Path | None, typer.Option("--drills", help="A folder with drills of your own.")]
RunArgument = Annotated[str, typer.Argument(help="The run's folder, or its id.")]


class ReportFormat(StrEnum):
    """How a report is said."""

    CONSOLE = "console"
    JSON = "json"
    JUNIT = "junit"
    HTML = "html"


@commands.command("check")
def check(
    files: Annotated[list[Path], typer.Argument(help="Drill or suite files.")],
    as_json: AsJson = False,
) -> None:
    """Read drill files; say everything that is wrong by line. Example: homeostat drill check mine.yaml"""
    from dataclasses import asdict

    from homeostat.drills.language.parser import parse, text_of

    with errors_in_one_line():
        read = [(path, parse(text_of(path), str(path))) for path in files]
    problems = [problem for _, each in read for problem in each.problems]
    if as_json:
        show_json({"ok": not problems, "problems": [asdict(problem) for problem in problems]})
    else:
        for problem in problems:
            typer.echo(str(problem), err=True)
        for path, each in read:
            if each.found is not None:
                print(f"{path}: OK ({each.found.id})")
    if problems:
        raise typer.Exit(BAD_INPUT)


@commands.command("ls")
def ls(drills: Folder = None, as_json: AsJson = False) -> None:
    """List the drills and suites. Example: homeostat drill ls"""
    from homeostat.drills.language.catalogue import read_catalogue
    from homeostat.drills.model import Drill

    with errors_in_one_line():
        found = read_catalogue(drills).items
    rows = [
        {
            "id": each.found.id,
            "kind": "drill" if isinstance(each.found, Drill) else "suite",
            "title": each.found.title,
            "breaks": each.found.fault.injector if isinstance(each.found, Drill) else None,
            "file": str(each.file),
        }
        for each in found
    ]
    if as_json:
        show_json({"items": rows})
    else:
        show_table(("id", "kind", "breaks", "title"), rows, "No drills.")


@commands.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A drill or a suite, by its id or an alias.")],
    drills: Folder = None,
    shuffle: Annotated[bool, typer.Option(help="Show a suite in the order of --seed.")] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same order.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Show one drill with every default, or a suite's order. Example: homeostat drill show service-down"""
    from homeostat.drills.language.catalogue import read_catalogue
    from homeostat.drills.model import Suite

    with errors_in_one_line():
        found = read_catalogue(drills).any(name).found
        if shuffle and not isinstance(found, Suite):
            raise BadInput("--shuffle", name, "a suite")
    record = _record(found, seed if shuffle else None)
    if as_json:
        show_json(record)
        return
    import yaml

    print(yaml.safe_dump(record, sort_keys=False, allow_unicode=True), end="")


def _record(found: Drill | Suite, seed: int | None) -> dict[str, object]:
    from homeostat.drills.language.catalogue import ordered_drills
    from homeostat.drills.language.parser import record_of
    from homeostat.drills.model import Suite

    drills = {"drills": list(ordered_drills(found, seed))} if isinstance(found, Suite) else {}
    return record_of(found) | drills


@commands.command("verify")
def verify(run: RunArgument, directory: Directory = None, as_json: AsJson = False) -> None:
    """Recompute the verdict of a run from its files alone; exits with the code of that verdict.

    Exits 12 when a file was changed since, or when the recomputed verdict is another one.

    Example: homeostat drill verify r-20261121-0001
    """
    with errors_in_one_line():
        report = _report(_folder(run, directory))
    found = report.verification
    if as_json:
        show_json({"run": report.run, "verdict": report.verdict.value, **found.model_dump(mode="json")})
    else:
        recorded = found.recorded.value if found.recorded else "none: the run ended before its verdict"
        print(f"recorded    {recorded}\nrecomputed  {found.recomputed.value}")
        for line in (*found.changes, *found.differences):
            print(f"  {line}")
        print("evidence valid" if found.sound else "EVIDENCE NOT VALID")
        if found.sound and not found.closed:
            print("clean-up not finished: run `homeostat drill heal`")
    raise typer.Exit(report.exit_code)


@commands.command("report")
def report(
    runs: Annotated[
        list[str], typer.Argument(help="Folders or ids of runs; several are also evaluated together.")
    ],
    form: Annotated[
        ReportFormat, typer.Option("--format", "-f", help="Format of the report.")
    ] = ReportFormat.CONSOLE,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write to this file, not to the terminal.")
    ] = None,
    directory: Directory = None,
) -> None:
    """Report one run or several; exits with the code of the worst verdict.

    Example: homeostat drill report r-20261121-0001 -f html -o report.html
    """
    with errors_in_one_line():
        reports = [_report(_folder(run, directory)) for run in runs]
        _say(reports, form, out)
    raise typer.Exit(max(each.exit_code for each in reports))


def _say(reports: list[DrillReport], form: ReportFormat, out: Path | None) -> None:
    text = _text(reports, form)
    if text is None and out is not None:
        raise BadInput("--out", str(out), "a --format that is a file: json, junit or html")
    if text is None:
        print_reports(reports)
    elif out is None:
        print(text, end="")
    else:
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise BadInput("--out", str(out), f"it cannot be written: {error.strerror}") from None


def _text(reports: list[DrillReport], form: ReportFormat) -> str | None:
    match form:
        case ReportFormat.CONSOLE:
            return None
        case ReportFormat.JSON:
            import json

            records = [each.model_dump(mode="json") for each in reports]
            found = records[0] if len(records) == 1 else records
            return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
        case ReportFormat.JUNIT:
            from homeostat.drills.reports.renderings import junit_xml

            return junit_xml(reports)
        case ReportFormat.HTML:
            from homeostat.drills.reports.renderings import html_page
            from homeostat.drills.reports.trends import repeats_of

            return html_page(reports, repeats_of(reports))


def print_reports(reports: list[DrillReport]) -> None:
    """One after the other, then what several of one drill say together."""
    from homeostat.drills.reports.renderings import print_report as show_report
    from homeostat.drills.reports.trends import repeats_of, statement

    for each in reports:
        show_report(each)
    for together in repeats_of(reports):
        print(f"{together.drill}, {together.what}: {statement(together)}")


def _report(folder: Path) -> DrillReport:
    from homeostat.drills.records.history import read_cleanup
    from homeostat.drills.reports.model import report_of
    from homeostat.drills.verdicts.evaluation import verify as verified

    try:
        found: VerifiedRun = verified(folder)
        return report_of(found, read_cleanup(folder))
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptState(f"{folder}: cannot be read ({error})") from None


def _folder(run: str, directory: Path | None) -> Path:
    given = Path(run)
    return given if given.is_dir() else state_dir(directory) / "drills" / run


_BLOCKS = "▁▂▃▄▅▆▇█"
_DRAWN = 40


def runs(
    drill: Annotated[str | None, typer.Option(help="Only runs of this drill.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, newest first.")] = 50,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """List the runs in the server's database, newest first. Example: homeostat drill runs --limit 5"""
    answer = ask(directory, "GET", "drills", "runs", drill=drill, limit=limit)
    if as_json:
        show_json(answer)
        return
    halt = answer["halt"]
    if halt is not None:
        by = "" if halt["by"] is None else f" by {halt['by']}: {halt['why']}"
        print(f"drills are halted since {local_time(halt['at'])}{by}")
    columns = ("run", "drill", "verdict", "site", "hosts", "by", "began")
    show_table(columns, [_for_people(row) for row in answer["items"]], "No runs.")


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    shown = {**row, "hosts": ", ".join(row["hosts"]), "began": local_time(row["began_at"])}
    return shown | {"verdict": row["verdict"] or row["state"]}


def trends(
    drill: Annotated[str | None, typer.Argument(help="One drill; without it, all.")] = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """The outage bounds of drills over time, and what all runs prove. Example: homeostat drill trends"""
    answer = ask(directory, "GET", "drills", "trends", drill=drill)
    if as_json:
        show_json(answer)
        return
    if not answer["items"]:
        print("No run has a report.")
    for number, trend in enumerate(answer["items"]):
        if number:
            print()
        for line in trend_lines(trend):
            print(line)


def trend_lines(trend: dict[str, Any]) -> list[str]:
    """One series as text: a bar a run, as high as its upper bound is of the limit; then the newest runs."""
    from homeostat.drills.reports.renderings import interval, span

    row = trend["what"] + ("" if trend["monitor"] is None else f" ({trend['monitor']})")
    lines = [f"{trend['drill']}: {row}, {trend['requirement']}, limit {span(trend['limit_ms'])}"]
    points = trend["points"]
    lines.append(f"  {sparkline(points, trend['limit_ms'])}  oldest to newest; █ is the limit or more")
    for point in points[-10:]:
        began = local_time(point["began_at"])
        outage = interval(point["lower_ms"], point["upper_ms"], "not measured")
        lines.append(f"  {began}  {point['verdict']:<12}  {outage:<22}  {point['run']}")
    if len(points) > 10:
        lines.append(f"  and {len(points) - 10} older: --json has them")
    if trend["statement"]:
        lines.append(f"  {trend['statement']}")
    return lines


def sparkline(points: list[dict[str, Any]], limit_ms: float) -> str:
    """The newest runs' upper bounds against the limit. `·`: nothing was measured."""

    def block(point: dict[str, Any]) -> str:
        if point["lower_ms"] is None:
            return "·"
        if point["upper_ms"] is None or point["upper_ms"] >= limit_ms:
            return _BLOCKS[-1]
        return _BLOCKS[max(0, int(point["upper_ms"] / limit_ms * (len(_BLOCKS) - 1)))]

    return "".join(map(block, points[-_DRAWN:]))


Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="node.yaml. [default: every host of the lab in --dir]")
]


def halt_node(config: Config = None, directory: Directory = None, as_json: AsJson = False) -> None:
    """Emergency stop of drills on this host: undo their faults now, refuse new ones until `node resume`.

    Talks to the undo keeper of this host alone. Exits 1 when something is not undone yet.

    Example: homeostat node halt --config /etc/homeostat/node.yaml
    """
    from homeostat.drills.shipped.keeper import machine, orders

    rows: list[dict[str, Any]] = []
    with errors_in_one_line():
        for host, folder in _keepers(config, directory):
            try:
                rows += [{"host": host, **outcome} for outcome in orders.halt(folder)]
            except (machine.KeeperError, OSError) as error:
                raise GiveUp(f"{host}: {error}") from error
    if as_json:
        show_json({"items": rows})
    else:
        shown = [{**row, "failed": "; ".join(_failed(row))} for row in rows]
        nothing = "no drill fault was to be undone; new ones are refused"
        show_table(("host", "fault", "undone", "failed"), shown, nothing)
    if not all(row["undone"] for row in rows):
        raise typer.Exit(BROKEN)


def resume_node(config: Config = None, directory: Directory = None) -> None:
    """Permit drills on this host again, after `homeostat node halt`.

    Example: homeostat node resume --config /etc/homeostat/node.yaml
    """
    from homeostat.drills.shipped.keeper import orders

    with errors_in_one_line():
        for host, folder in _keepers(config, directory):
            was = orders.resume(folder)
            print(f"{host}: " + ("drills may inject faults again" if was else "was not halted"))


def _keepers(config: Path | None, directory: Path | None) -> list[tuple[str, Path]]:
    from homeostat.drills.node.settings import read_drilled_node

    root = state_dir(directory)
    files = [config] if config is not None else sorted(root.glob("hosts/*/node.yaml"))
    if not files:
        raise BadInput("--dir", str(root), "a lab with hosts; or name a node.yaml by --config")
    return [(node.host, node.keeper) for node in map(read_drilled_node, files)]


def _failed(row: dict[str, Any]) -> list[str]:
    return [str(step["reason"]) for step in row["steps"] if step["result"] == "failed"]
