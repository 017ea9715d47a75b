"""A timeline as text: the blueprint's picture, its cost table, and two timelines side by side. Pure.

Works on the API's answer or a saved copy of it, and on the standard library alone: the command line draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

_MARGIN = 4
_COLUMNS = 60
_TICK = 5

View = Mapping[str, Any]


def draw(view: View) -> str:
    """Picture, costs, and who was told, under each other."""
    parts = [
        f"{view['fault']}: {view['kind']} of {view['about']}, consumer: {view['consumer'] or 'none'}",
        "",
        *picture(view),
        "",
        *cost_table(view["costs"]),
        "",
        *_checkpoints(view),
        "",
        *_people(view),
    ]
    return "\n".join(line.rstrip() for line in parts) + "\n"


def picture(view: View) -> list[str]:
    """The blueprint's picture, drawn to scale; what is not known has a `?` and no place of its own."""
    points = view["checkpoints"]
    path = [each for each in points if each["ms"] is not None and not each["beside"]]
    known = [each["ms"] for each in points if each["ms"] is not None]
    first_ms, unit_ms = min(known), _unit_ms(max(known) - min(known))
    columns = {
        each["id"]: round((each["ms"] - first_ms) / unit_ms) for each in points if each["ms"] is not None
    }
    width = max(columns.values())
    marks = [columns[each["id"]] for each in path]
    lines = [_at(0, "start", {}, -2) + " " * max(1, width - 6) + "end", _ruler(width, unit_ms)]
    lines.append(_over({column: "+" for column in columns.values()}))
    before: int | None = None
    for each in points:
        column = columns.get(each["id"])
        on_path = column is not None and not each["beside"]
        if on_path and before is not None and column is not None:
            lines.append(_arrow(before, column, marks))
        text = f"{each['id']}-{each['name']}" + (
            " ?" if column is None else " (beside)" if each["beside"] else ""
        )
        lines.append(_at(before or 0 if column is None else column, text, _bars(marks), -2))
        if on_path:
            before = column
    lines.append(_bands(view["spans"], columns, marks))
    lines.append(_over(_bars((marks[0], max(marks)))))
    lines.append(_doctor(marks, view["total_ms"]))
    return lines


def cost_table(costs: Sequence[View]) -> list[str]:
    """Components by what they took, most first."""
    head = ("Component", "Time cost", "Percentage")
    rows = [
        (each["component"], f"{each['ms']:.3f} ms", f"{each['percent']:.1f} %")
        for each in sorted(costs, key=lambda cost: -cost["ms"])
    ]
    return _grid(head, rows)


def compare(left: View, right: View) -> list[dict[str, Any]]:
    """For each band of either timeline what both took and the difference, the largest first."""
    sums = [{each["component"]: each["ms"] for each in view["costs"]} for view in (left, right)]
    names = dict.fromkeys([*sums[0], *sums[1]])
    rows: list[dict[str, Any]] = []
    for name in names:
        a, b = sums[0].get(name), sums[1].get(name)
        rows.append(
            {"component": name, "a_ms": a, "b_ms": b, "difference_ms": round((b or 0.0) - (a or 0.0), 3)}
        )
    rows.sort(key=lambda row: -abs(row["difference_ms"]))
    totals = [view["total_ms"] for view in (left, right)]
    whole = None if None in totals else round(totals[1] - totals[0], 3)
    return [*rows, {"component": "total", "a_ms": totals[0], "b_ms": totals[1], "difference_ms": whole}]


def comparison_table(left: View, right: View) -> list[str]:
    """`compare` for people: a plus is time that the second one took more."""
    rows = [
        (row["component"], _shown(row["a_ms"]), _shown(row["b_ms"]), _shown(row["difference_ms"], sign="+"))
        for row in compare(left, right)
    ]
    return _grid(("Component", str(left["fault"]), str(right["fault"]), "Difference"), rows)


def _unit_ms(span_ms: float) -> float:
    """What one column is worth: 1, 2 or 5 times a power of ten, so that all of it fits."""
    if span_ms <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(span_ms / _COLUMNS))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * _COLUMNS >= span_ms)


def _ruler(width: int, unit_ms: float) -> str:
    line = ""
    for tick in range(0, width + 1, _TICK):
        line = line.ljust(tick, "-") + str(tick)
    return " " * _MARGIN + line.ljust(width + 3, "-") + f"> (x {unit_ms:g} ms)"


def _bars(columns: Sequence[int]) -> dict[int, str]:
    return {column: "|" for column in columns}


def _over(marks: Mapping[int, str]) -> str:
    line = [" "] * (max(marks, default=0) + 1)
    for column, mark in marks.items():
        line[column] = mark
    return " " * _MARGIN + "".join(line)


def _at(column: int, text: str, marks: Mapping[int, str], shift: int) -> str:
    """The text over the marks; what it hides is hidden."""
    line = _over(marks)
    begin = _MARGIN + column + shift
    return line.ljust(begin)[:begin] + text + line[begin + len(text) :]


def _arrow(begin: int, end: int, marks: Sequence[int]) -> str:
    if end < begin:
        begin, end, body = end, begin, "<" + "-" * (begin - end - 2)
    else:
        body = "-" * (end - begin - 2) + ">"
    arrow = "+" if end == begin else "++" if end == begin + 1 else f"+{body}+"
    return _at(begin, arrow, _bars(marks), 0)


def _bands(spans: Sequence[View], columns: Mapping[str, int], marks: Sequence[int]) -> str:
    """The name of each band between its ends, where there is room for it."""
    runs = [
        (list(run), "+".join(bands)) for bands, run in groupby(spans, key=lambda span: tuple(span["bands"]))
    ]
    line = _over(_bars((marks[0], *(columns[run[-1]["end"]] for run, _ in runs))))
    for run, name in runs:
        begin, end = sorted((columns[run[0]["begin"]], columns[run[-1]["end"]]))
        room = end - begin - 1
        if len(name) <= room:
            at = _MARGIN + begin + 1
            line = line[:at] + name.center(room) + line[at + room :]
    return line


def _doctor(marks: Sequence[int], total_ms: float | None) -> str:
    if total_ms is None:
        return _over({marks[0]: "+"}) + " no consumer"
    begin, end = marks[0], max(marks)
    inner = "doctor".center(max(6, end - begin - 3), "-")
    return _at(begin, f"+<{inner}>+ {total_ms:.3f} ms", {}, 0)


def _checkpoints(view: View) -> list[str]:
    width = max(len(each["name"]) for each in view["checkpoints"])
    return [
        f"{each['id']:>3}  {each['name']:<{width}}  {_shown(each['ms']):>12}  {_place(each)}{each['what']}"
        for each in view["checkpoints"]
    ]


def _place(point: View) -> str:
    return "" if point["clock"] is None else f"[{point['clock']}] "


def _people(view: View) -> list[str]:
    lines = []
    for each in view["told"]:
        tries = f", {each['attempts']} tries" if each["attempts"] > 1 else ""
        why = f": {each['reason']}" if each["reason"] else ""
        received = each["received_ms"]
        after = "" if received is None else f" {received:.3f} ms after checkpoint 1"
        lines.append(f"{each['subscription']} {each['state']}{after}{tries}{why}")
    if view.get("waited_ms"):  # a copy that was saved by an older version has none
        waited = f"{view['waited_ms']:.3f} ms before checkpoint 1"
        lines.append(f"first failed evidence {waited}: node process and probes must both fail")
    if view["resolved_ms"] is not None:
        lines.append(f"right again {view['resolved_ms']:.3f} ms after checkpoint 1")
        lines.append(f"outage: {outage_range(view.get('outage_lower_ms'), view.get('outage_upper_ms'))}")
    if view.get("superseded_by"):
        lines.append(f"superseded by {view['superseded_by']}, which says that it is still wrong")
    mixed = [f"{span['begin']}-{span['end']}" for span in view["spans"] if span["clocks_differ"]]
    if mixed:
        lines.append(f"stamped by two clocks, their difference included: {', '.join(mixed)}")
    return lines


def _shown(ms: float | None, sign: str = "") -> str:
    return "?" if ms is None else f"{ms:{sign}.3f} ms"


def _grid(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    rule = "+".join(["", *("-" * width for width in widths), ""])
    table = [rule, _row(head, widths), rule.replace("-", "=")]
    for row in rows:
        table += [_row(row, widths), rule]
    return table


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "|" + "|".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + "|"


def outage_range(lower_ms: float | None, upper_ms: float | None) -> str:
    """The bounds of an outage for people: `812-1040 ms`, `?` where nobody knows."""
    if lower_ms is None and upper_ms is None:
        return "?"
    low, high = ("?" if each is None else f"{each:.0f}" for each in (lower_ms, upper_ms))
    return f"{low} ms" if low == high else f"{low}-{high} ms"
