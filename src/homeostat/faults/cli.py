"""The commands homeostat fault, homeostat explain, homeostat timeline and homeostat what-if."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from homeostat.faults.timeline_text import compare, comparison_table, draw, outage_range
from homeostat.kernel.cli import Answer, AsJson, Directory, ask, show_answer, show_items
from homeostat.kernel.client import Client, path_segment
from homeostat.kernel.errors import BadInput
from homeostat.kernel.terminal import errors_in_one_line, local_time, parse_time_or_age, show_json, show_table

_WHAT = "A fault, or two to compare; a saved JSON file stands for its fault."
commands = typer.Typer(help="Faults: open and cleared.", no_args_is_help=True)


@commands.command("ls")
def ls(  # noqa: PLR0913 - a query has this many fields
    state: Annotated[str | None, typer.Option(help="open, clearing or cleared; all when absent.")] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="host_down, resource_down ...; may be repeated.")
    ] = None,
    resource: Annotated[
        str | None, typer.Option(help="A resource that has the fault or is affected by it.")
    ] = None,
    minimum_severity: Annotated[str | None, typer.Option(help="critical, major, minor or warning.")] = None,
    since: Annotated[str | None, typer.Option(help="Raised since: a time, or 2h for two hours ago.")] = None,
    until: Annotated[str | None, typer.Option(help="Raised before that.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 100,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """List faults, newest first. Example: homeostat fault ls --state open --since 2h"""
    with errors_in_one_line():
        times = {"raised_from": _time("--since", since), "raised_until": _time("--until", until)}
    asked = {"state": state, "resource": resource, "minimum_severity": minimum_severity, **times}
    answer = ask(directory, "GET", "faults", limit=limit, kind=kind or None, **asked)
    columns = ("id", "kind", "about", "owner", "state", "raised", "outage", "drill", "reason")
    show_items(answer, as_json, columns, "No faults.", _for_people)


@commands.command("show")
def show(
    fault: Annotated[str, typer.Argument()], directory: Directory = None, as_json: AsJson = False
) -> None:
    """Show one fault. Example: homeostat fault show f-0123456789ab"""
    show_answer(ask(directory, "GET", "faults", fault), as_json, _for_people)


def explain(
    id: Annotated[str, typer.Argument(help="A fault, an action, a resource, or the number of an event.")],
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Show the chain of causes, one sentence for each event. Example: homeostat explain f-0123456789ab"""
    answer = ask(directory, "GET", "explain", id)
    show_items(answer, as_json, ("seq", "cause", "at", "after", "by", "what"), "nothing is known", _explained)
    for run in () if as_json else answer["drills"]:
        print(f"broken on purpose by the drill {run}: homeostat drill runs")


def _explained(row: Answer) -> Answer:
    return {**row, "at": local_time(row["at"]), "after": f"{row['after_ms']:g} ms"}


def timeline(
    what: Annotated[list[str], typer.Argument(metavar="FAULT | compare A B", help=_WHAT)],
    consumer: Annotated[
        str | None, typer.Option(help="The consumer; default: the one that was notified last.")
    ] = None,
    poc: Annotated[bool, typer.Option("--poc", help="Number the checkpoints T00 .. T09.")] = False,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Where the time went from the failure to the consumers; `compare A B` shows the difference of two.

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
    return None if text is None else parse_time_or_age(option, text, datetime.now(UTC)).isoformat()


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
        route = f"/faults/{path_segment(word)}/timeline"
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
    upper_ms = fault.pop("outage_ms")
    lower_ms = fault.pop("outage_lower_ms", None)  # a server of an earlier version has neither
    fault.pop("outage_upper_ms", None)
    affected = fault.pop("affected")
    times = {name: local_time(fault.pop(f"{name}_at")) for name in ("raised", "cleared")}
    return {
        **fault,
        **times,
        "outage": outage_range(lower_ms, upper_ms) if times["cleared"] else "",
        "affected": ", ".join(map(_affected_text, affected)),
    }


def _affected_text(each: dict[str, Any]) -> str:
    name, back = each["subject"].partition("/")[2], each.get("recovered")
    return f"{name} (runs on {back['host']})" if back else str(name)


what_if_commands = typer.Typer(help="What would happen if; nothing is changed.", no_args_is_help=True)


@what_if_commands.command("host")
def host(
    host: Annotated[str, typer.Argument()], directory: Directory = None, as_json: AsJson = False
) -> None:
    """What would happen if this host died now. Example: homeostat what-if host n2"""
    answer = ask(directory, "GET", "what-if", "host", host)
    if as_json:
        show_json(answer)
        return
    show_table(("id", "kind", "owner"), answer["resources"], "No hosts and no resources.")
    rows = [{**row, "affected": ", ".join(row["affected"])} for row in answer["notices"]]
    show_table(
        ("subscription", "project", "transition", "affected", "silence"), rows, "No notices would be sent."
    )
    elsewhere = [{**row, "host": row["host"] or "-"} for row in answer["elsewhere"]]
    show_table(("id", "host", "reason"), elsewhere, "No guest would start on another host.")
    acts = [{**act, "allowed": "yes" if act["allowed"] else "no"} for act in answer["acts"]]
    show_table(("act", "driver", "allowed", "reason"), acts, "No actions.")
    if answer["exposed"]:
        show_table(("component", "subject", "says"), answer["exposed"], "")
