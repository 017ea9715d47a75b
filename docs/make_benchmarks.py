"""Puts the figures of bench/results/*.json into benchmarks.md, between `<!-- NAME -->` and `<!-- end -->`.

Run by `make docs`. What is said about the figures is written by hand around them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE / "benchmarks.md"
RESULTS = HERE.parent / "bench" / "results"


def table(heads: list[str], rows: list[list[object]]) -> str:
    """Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def figures(result: dict[str, Any]) -> str:
    """Rows, promises, and the machine on which that was."""
    machine = result["machine"]
    load = machine.get("load", machine.get("load_before"))
    rows = [
        [
            row.get("what", row.get("who")), row.get("guests", ""), row.get("consumers", ""),
            row.get("repetitions", len(row.get("each_ms", []))), row["p50_ms"], row["p99_ms"], row["cpu_s"],
        ]
        for row in result["rows"]
    ]  # fmt: skip
    return "\n\n".join(
        [
            f"Measured {result['date'][:10]}: {machine['cores']} cores, load {load:.1f} before, one flush to the disk p50 "
            f"{machine['flush_p50_ms']} ms and p99 {machine['flush_p99_ms']} ms.",
            table(["what", "guests", "consumers", "n", "p50 ms", "p99 ms", "CPU s"], rows),
            promised(result),
        ]
    )


def spoiled(result: dict[str, Any]) -> str:
    """What became of each spoiled drill."""

    def counts(found: dict[str, int]) -> str:
        return ", ".join(f"{count} {verdict}" for verdict, count in sorted(found.items()))

    rows: list[list[object]] = [
        [each["what"], counts(each["homeostat"]), counts(each["chaos_toolkit"])] for each in result["rows"]
    ]
    passed, of = result["passed"], result["of"]
    last = [f"**{passed[who]} of {of[who]}**" for who in ("homeostat", "chaos_toolkit")]
    machine = result["machine"]
    return "\n\n".join(
        [
            f"Run of {result['date'][:10]}: {machine['cores']} cores, load {machine['load']} before, "
            f"{result['work']['repeats']} times each, {result['seconds']:.0f} s.",
            table(["spoiled by", "Homeostat", "Chaos Toolkit"], [*rows, ["**PASS**", *last]]),
        ]
    )


def promised(result: dict[str, Any]) -> str:
    """What was promised and what came of it."""
    rows = [
        [each["what"], each["target"], each["measured"], "yes" if each["met"] else "**no**"]
        for each in result["promises"]
    ]
    return table(["promise", "target", "measured", "met"], rows)


def outages(result: dict[str, Any]) -> str:
    """How well outages were measured, by whom."""
    rows: list[list[object]] = [
        [
            f"Homeostat, {name}", one["outages"], f"{one['contained']:.1%}", one["median_error_ms"],
            one["median_width_ms"], one["wrong"], f"{one['inconclusive_share']:.1%}", "",
        ]
        for name, one in result["sums"].items()
    ]  # fmt: skip
    rows += [
        [who, one["outages"], "", one["median_error_ms"], "", one["wrong"], "", one["ratio"]]
        for who in ("cli loop", "chaos toolkit")
        for one in [result["ratios"][who]]
    ]
    machine, cpu = result["machine"], result["cpu"]
    return "\n\n".join(
        [
            f"Run of {result['date'][:10]}: {machine['cores']} cores, load {machine['load']:.1f} before. CPU of a sample: "
            f"{cpu['ms_per_sample']:.2f} ms; of a probe of Chaos Toolkit: {cpu['chaos_toolkit_ms_per_probe']:.1f} ms.",
            table(
                ["", "outages", "held", "error, median ms", "width ms", "wrong", "undecided", "error / ours"],
                rows,
            ),
            promised(result),
        ]
    )


def starts(result: dict[str, Any]) -> str:
    """What a start costs."""
    rows: list[list[object]] = [
        [each["what"], each["least_ms"], each["median_ms"]] for each in result["rows"]
    ]
    machine = result["machine"]
    return "\n\n".join(
        [
            f"Run of {result['date'][:10]}: {machine['cores']} cores, load {machine['load']} before, {result['runs']} runs of each.",
            table(["command", "least, ms CPU", "median, ms CPU"], rows),
            promised(result),
        ]
    )


def healed(result: dict[str, Any]) -> str:
    """What healing costs and how good it is."""
    rows: list[list[object]] = [
        [
            each["what"], each["hosts"], each["failed"], each["leases"], each["moved"], each["repetitions"],
            each["cpu_median_s"], each["cpu_max_s"], each["wall_median_s"], round(each["memory_mb"]),
        ]
        for each in result["rows"]
    ]  # fmt: skip
    machine, quality = result["machine"], result["quality"]

    def counts(found: dict[str, int]) -> str:
        return ", ".join(f"{count} {label}" for label, count in sorted(found.items()))

    sites = len(quality["cases"])
    return "\n\n".join(
        [
            f"Run of {result['date'][:10]}: {machine['cores']} cores, load {machine['load_before']} before, one flush to the "
            f"disk p50 {machine['flush_p50_ms']} ms and p99 {machine['flush_p99_ms']} ms. Peer: {result['work']['peer']}.",
            table(
                ["", "hosts", "failed", "leases", "moved", "n", "CPU s", "CPU s, worst", "wall s", "MB"],
                rows,
            ),
            f"{sites} random sites. Labels of ours: {counts(quality['labels'])}; with {result['work']['cut_s'] * 1e3:.0f} ms: "
            f"{counts(quality['labels_cut'])}. Ours leaves fewer missing than Blazar's lawful result at "
            f"{quality['fewer_than_blazar']}, more at {quality['more_than_blazar']}; at {quality['blazar_unlawful']} Blazar's "
            "result books a host twice or over its capacity.",
            promised(result),
        ]
    )


def late(result: dict[str, Any]) -> str:
    """How late leases started."""
    rows: list[list[object]] = [
        [
            each["what"], each["starts"], each["repetitions"], each["p50_ms"], each["p99_ms"], each["max_ms"],
            each["cpu_s"],
        ]
        for each in result["rows"]
    ]  # fmt: skip
    machine = result["machine"]
    return "\n\n".join(
        [
            f"Run of {result['date'][:10]}: {machine['cores']} cores, load {machine['load_before']} before; the end hangs for "
            f"{result['work']['hang_s']} s. Peer: {result['work']['peer']}.",
            table(["", "starts", "n", "p50 ms", "p99 ms", "max ms", "CPU s"], rows),
            promised(result),
        ]
    )


SHOWN = {"sabotage": spoiled, "outage": outages, "start": starts, "heal": healed, "punctual": late}


def main() -> None:
    """Write the page."""
    page = PAGE.read_text()
    for name in sorted(set(re.findall(r"<!-- ([a-z-]+) -->\n", page)) - {"end"}):
        file = RESULTS / f"{name}.json"
        said = (
            SHOWN.get(name, figures)(json.loads(file.read_text()))
            if file.exists()
            else f"No figures: `make bench B={name}`."
        )
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda found: f"{found[1]}\n{said}\n\n{found[2]}", page, flags=re.S  # noqa: B023
        )  # fmt: skip
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
