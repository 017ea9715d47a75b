"""homeostat drill runs and homeostat drill trends: what the server's database knows of drills that ran."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from homeostat.kernel.client import Client
from homeostat.kernel.terminal import errors_in_one_line, show_json, show_table, when

AsJson = Annotated[bool, typer.Option("--json", help="The API's answer, for machines.")]
Directory = Annotated[Path | None, typer.Option("--dir", help="State directory of `homeostat up`.")]
_BLOCKS = "▁▂▃▄▅▆▇█"
_DRAWN = 40


def runs(
    drill: Annotated[str | None, typer.Option(help="Only of this drill.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, newest first.")] = 50,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """List the runs in the server's database, newest first. Example: homeostat drill runs --limit 5"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", "/drills/runs", drill=drill, limit=limit)
    if as_json:
        show_json(answer)
        return
    halt = answer["halt"]
    if halt is not None:
        by = "" if halt["by"] is None else f" by {halt['by']}: {halt['why']}"
        print(f"drills are halted since {when(halt['at'])}{by}")
    columns = ("run", "drill", "verdict", "site", "hosts", "by", "began")
    show_table(columns, [_for_people(row) for row in answer["items"]], "no drill that you may read ran")


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    shown = {**row, "hosts": ", ".join(row["hosts"]), "began": when(row["began_at"])}
    return shown | {"verdict": row["verdict"] or row["state"]}


def trends(
    drill: Annotated[str | None, typer.Argument(help="One drill; all of them when absent.")] = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """The outage bounds of drills over time, and what all runs prove. Example: homeostat drill trends"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", "/drills/trends", drill=drill)
    if as_json:
        show_json(answer)
        return
    if not answer["items"]:
        print("no run with a report that you may read")
    for number, trend in enumerate(answer["items"]):
        if number:
            print()
        for line in trend_lines(trend):
            print(line)


def trend_lines(trend: dict[str, Any]) -> list[str]:
    """One series as text: a bar a run, as high as its upper bound is of the limit; then the newest runs."""
    from homeostat.drills.reports.words import span

    row = trend["what"] + ("" if trend["monitor"] is None else f" ({trend['monitor']})")
    lines = [f"{trend['drill']}: {row}, {trend['requirement']}, limit {span(trend['limit_ms'])}"]
    points = trend["points"]
    lines.append(f"  {sparkline(points, trend['limit_ms'])}  oldest to newest; █ is the limit or more")
    for point in points[-10:]:
        lines.append(
            f"  {when(point['began_at'])}  {point['verdict']:<12}  {_bounds(point):<22}  {point['run']}"
        )
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


def _bounds(point: dict[str, Any]) -> str:
    from homeostat.drills.reports.words import span

    if point["lower_ms"] is None:
        return "not measured"
    if point["upper_ms"] is None:
        return f"at least {span(point['lower_ms'])}"
    return f"[{span(point['lower_ms'])}, {span(point['upper_ms'])}]"
