"""homeostat drill: look at drills before they run, and at runs after they did. Running is `run_cli`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from homeostat.kernel.client import state_dir
from homeostat.kernel.errors import BadInput, CorruptState
from homeostat.kernel.terminal import BAD_INPUT, errors_in_one_line, show_json, show_table

if TYPE_CHECKING:
    from homeostat.drills.model import Drill, Suite
    from homeostat.drills.reports.model import DrillReport
    from homeostat.drills.verdicts.verification import Verified

commands = typer.Typer(
    help="What is broken on purpose, and what that proved.",
    epilog="Exit codes of a run and its report: 0 PASS · 10 FAIL · 11 INCONCLUSIVE · 12 ERROR · 13 ABORTED.",
    no_args_is_help=True,
)
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
Folder = Annotated[Path | None, typer.Option("--drills", help="A folder with drills of your own.")]
Directory = Annotated[
    Path | None, typer.Option("--dir", help="State directory; runs lie in drills/ below it.")
]
RunArgument = Annotated[str, typer.Argument(help="The run's folder, or its id.")]


class Format(StrEnum):
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

    from homeostat.drills.language.reading import parse, text_of

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
                print(f"{path}: good, {each.found.id}")
    if problems:
        raise typer.Exit(BAD_INPUT)


@commands.command("ls")
def ls(drills: Folder = None, as_json: AsJson = False) -> None:
    """List the drills and suites that there are. Example: homeostat drill ls"""
    from homeostat.drills.language.catalogue import catalogue
    from homeostat.drills.model import Drill

    with errors_in_one_line():
        found = catalogue(drills).items
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
        show_table(("id", "kind", "breaks", "title"), rows, "there are no drills")


@commands.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A drill or a suite, by id or by a name it has elsewhere.")],
    drills: Folder = None,
    shuffle: Annotated[bool, typer.Option(help="A suite in the order of --seed.")] = False,
    seed: Annotated[int, typer.Option(help="The same seed, the same order.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Show one drill with every default, or a suite's order. Example: homeostat drill show service-down"""
    from homeostat.drills.language.catalogue import catalogue
    from homeostat.drills.model import Suite

    with errors_in_one_line():
        found = catalogue(drills).any(name).found
        if shuffle and not isinstance(found, Suite):
            raise BadInput("--shuffle", name, "a suite")
    record = _record(found, seed if shuffle else None)
    if as_json:
        show_json(record)
        return
    import yaml

    print(yaml.safe_dump(record, sort_keys=False, allow_unicode=True), end="")


def _record(found: Drill | Suite, seed: int | None) -> dict[str, object]:
    from homeostat.drills.language.catalogue import order
    from homeostat.drills.language.reading import drill_record, suite_record
    from homeostat.drills.model import Suite

    if isinstance(found, Suite):
        return suite_record(found) | {"drills": list(order(found, seed))}
    return drill_record(found)


@commands.command("verify")
def verify(run: RunArgument, directory: Directory = None, as_json: AsJson = False) -> None:
    """Recompute an old verdict from its files alone; exits with the verdict's own code.

    12 when a file was changed since, or when the evidence says something else than was recorded.

    Example: homeostat drill verify r-20261121-0001
    """
    with errors_in_one_line():
        report = _report(_folder(run, directory))
    told = report.verification
    if as_json:
        show_json({"run": report.run, "verdict": report.verdict.value, **told.model_dump(mode="json")})
    else:
        recorded = told.recorded.value if told.recorded else "nothing: the run ended before its verdict"
        print(f"recorded    {recorded}\nrecomputed  {told.recomputed.value}")
        for line in (*told.changes, *told.differences):
            print(f"  {line}")
        print("sound" if told.sound else "NOT SOUND")
        if told.sound and not told.closed:
            print("the clean-up did not end")
    raise typer.Exit(report.exit_code)


@commands.command("report")
def report(
    runs: Annotated[list[str], typer.Argument(help="Folders or ids of runs; several say more together.")],
    form: Annotated[Format, typer.Option("--format", "-f", help="How it is said.")] = Format.CONSOLE,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file instead of the terminal.")] = None,
    directory: Directory = None,
) -> None:
    """Report one run or several; exits with the code of the worst verdict.

    Example: homeostat drill report r-20261121-0001 -f html -o report.html
    """
    with errors_in_one_line():
        reports = [_report(_folder(run, directory)) for run in runs]
        _say(reports, form, out)
    raise typer.Exit(max(each.exit_code for each in reports))


def _say(reports: list[DrillReport], form: Format, out: Path | None) -> None:
    text = _text(reports, form)
    if text is None and out is not None:
        raise BadInput("--out", str(out), "a --format that is a file: json, junit or html")
    if text is None:
        on_console(reports)
    elif out is None:
        print(text, end="")
    else:
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise BadInput("--out", str(out), f"it cannot be written: {error.strerror}") from None


def _text(reports: list[DrillReport], form: Format) -> str | None:
    match form:
        case Format.CONSOLE:
            return None
        case Format.JSON:
            import json

            records = [each.model_dump(mode="json") for each in reports]
            return (
                json.dumps(records[0] if len(records) == 1 else records, indent=2, ensure_ascii=False) + "\n"
            )
        case Format.JUNIT:
            from homeostat.drills.reports.junit import junit

            return junit(reports)
        case Format.HTML:
            from homeostat.drills.reports.html import html
            from homeostat.drills.reports.together import repeats_of

            return html(reports, repeats_of(reports))


def on_console(reports: list[DrillReport]) -> None:
    """One after the other, then what several of one drill say together."""
    from homeostat.drills.reports.console import show as show_report
    from homeostat.drills.reports.together import repeats_of
    from homeostat.drills.verdicts.repeats import statement

    for each in reports:
        show_report(each)
    for together in repeats_of(reports):
        print(f"{together.drill}, {together.what}: {statement(together)}")


def _report(folder: Path) -> DrillReport:
    from homeostat.drills.records.history import read_cleanup
    from homeostat.drills.reports.model import report_of
    from homeostat.drills.verdicts.verification import verify as verified

    try:
        found: Verified = verified(folder)
        return report_of(found, read_cleanup(folder))
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptState(f"{folder}: cannot be read ({error})") from None


def _folder(run: str, directory: Path | None) -> Path:
    given = Path(run)
    return given if given.is_dir() else state_dir(directory) / "drills" / run
