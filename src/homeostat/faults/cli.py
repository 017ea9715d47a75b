"""homeostat fault, homeostat explain, homeostat timeline."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from homeostat.faults.timeline_text import compare, comparison_table, draw
from homeostat.kernel.client import Client, segment
from homeostat.kernel.errors import BadInput
from homeostat.kernel.moments import ago_or_at
from homeostat.kernel.terminal import errors_in_one_line, show_json, show_record, show_table, when

_WHAT = "A fault, or two to compare; a saved JSON file stands for its fault."
commands = typer.Typer(help="What is wrong, and what was.", no_args_is_help=True)
Directory = Annotated[Path | None, typer.Option("--dir", help="State directory of `homeostat up`.")]
AsJson = Annotated[bool, typer.Option("--json", help="The API's answer, for machines.")]


@commands.command("ls")
def ls(  # noqa: PLR0913 - a query has this many fields
    state: Annotated[str | None, typer.Option(help="open, clearing or cleared; all when absent.")] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="host_down, resource_down ...; may be repeated.")
    ] = None,
    resource: Annotated[str | None, typer.Option(help="What it is about, or suffers from it.")] = None,
    minimum_severity: Annotated[str | None, typer.Option(help="critical, major, minor or warning.")] = None,
    since: Annotated[str | None, typer.Option(help="Raised since: a time, or 2h for two hours ago.")] = None,
    until: Annotated[str | None, typer.Option(help="Raised before that.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 100,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """List faults, newest first. Example: homeostat fault ls --state open --since 2h"""
    with errors_in_one_line():
        answer = Client.find(directory).call(
            "GET",
            "/faults",
            state=state,
            limit=limit,
            kind=kind or None,
            resource=resource,
            minimum_severity=minimum_severity,
            raised_from=_time("--since", since),
            raised_until=_time("--until", until),
        )
    if as_json:
        show_json(answer)
        return
    columns = ("id", "kind", "about", "owner", "state", "raised", "outage", "drill", "reason")
    show_table(columns, [_for_people(row) for row in answer["items"]], "no fault that you may read")


@commands.command("show")
def show(
    fault: Annotated[str, typer.Argument()], directory: Directory = None, as_json: AsJson = False
) -> None:
    """Show one fault. Example: homeostat fault show f-0123456789ab"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", f"/faults/{segment(fault)}")
    if as_json:
        show_json(answer)
    else:
        show_record(_for_people(answer))


def explain(
    id: Annotated[str, typer.Argument(help="A fault, an action, a resource, or an event's number.")],
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Why: the chain of causes, one sentence an event. Example: homeostat explain f-0123456789ab"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", f"/explain/{segment(id)}")
    if as_json:
        show_json(answer)
        return
    rows = [{**row, "at": when(row["at"]), "after": f"{row['after_ms']:g} ms"} for row in answer["items"]]
    show_table(("seq", "cause", "at", "after", "by", "what"), rows, "nothing is known")
    for run in answer["drills"]:
        print(f"broken on purpose by the drill {run}: homeostat drill runs")


def timeline(
    what: Annotated[list[str], typer.Argument(metavar="FAULT | compare A B", help=_WHAT)],
    consumer: Annotated[str | None, typer.Option(help="Whose way; default: who was told last.")] = None,
    poc: Annotated[bool, typer.Option("--poc", help="Number the checkpoints T00 .. T09.")] = False,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Where the time went from the failure to those told; `compare A B`: what differs between two.

    Example: homeostat timeline f-0123456789ab --json > before.json; homeostat timeline compare before.json
    f-ba9876543210
    """
    with errors_in_one_line():
        views = [_view(word, directory, consumer, poc) for word in _wanted(what)]
    if len(views) == 2:
        rows = {"a": views[0]["fault"], "b": views[1]["fault"], "items": compare(*views)}
        show_json(rows) if as_json else print("\n".join(comparison_table(*views)))
    elif as_json:
        show_json(views[0])
    else:
        print(draw(views[0]), end="")


def _time(option: str, text: str | None) -> str | None:
    return None if text is None else ago_or_at(option, text, datetime.now(UTC)).isoformat()


def _wanted(words: list[str]) -> list[str]:
    match words:
        case ["compare", left, right]:
            return [left, right]
        case [one] if one != "compare":
            return [one]
        case _:
            raise BadInput("timeline", " ".join(words), "FAULT, or: compare A B")


def _view(word: str, directory: Path | None, consumer: str | None, poc: bool) -> dict[str, Any]:
    """The API's answer for a fault, or one that was saved in a file."""
    path = Path(word)
    if not path.is_file():
        if path.suffix == ".json" or "/" in word:
            raise BadInput("timeline", word, "a fault's id, or a file that is there")
        numbering = "poc" if poc else None
        route = f"/faults/{segment(word)}/timeline"
        answer = Client.find(directory).call("GET", route, numbering=numbering, consumer=consumer)
        return dict(answer)
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(
            "timeline", word, f"a file that `homeostat timeline FAULT --json` made ({error})"
        ) from None
    if not isinstance(found, dict) or not {"fault", "checkpoints", "costs", "total_ms"} <= found.keys():
        raise BadInput("timeline", word, "a file that `homeostat timeline FAULT --json` made")
    return found


def _for_people(fault: dict[str, Any]) -> dict[str, Any]:
    outage = fault.pop("outage_ms")
    affected = fault.pop("affected")
    times = {name: when(fault.pop(f"{name}_at")) for name in ("raised", "cleared")}
    return {
        **fault,
        **times,
        "outage": "" if outage is None else f"{outage:.0f} ms",
        "affected": ", ".join(each["subject"].partition("/")[2] for each in affected),
    }
