"""One page over all runs: what each said and why, slow checks beside fast ones, the command alone.

Pure: reports and their contexts in, Markdown out. Nothing is judged here; an unknown figure is a dash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from testbed.campaign import PLAIN, SLOW, Case, is_enough
from testbed.records import Record, verdicts_of

Row = Mapping[str, Any]
_DASH = "–"
_OF_USERS = ("service", "user", "balancer")
_SAMPLED = ("tcp", "http")
EFFECT, UNDO = "the fault had its effect", "the fault is gone"
"""What two rows of every report are called."""

_OPERATIONS = ("after the fault",)
_BESIDES = ("the address of", "has a dependant")
"""What only some drills prove: that the address moved, that somebody's data is on the disk that was hit."""


def page(cases: Sequence[Case], records: Sequence[Record], folder: str) -> str:
    """The whole page. `folder`: where the reports are, beside the page."""
    by_case = {case.id: [each for each in records if each.case == case.id] for case in cases}
    parts = [_HEAD.format(folder=folder), *_deviations(records)]
    parts += ["\n## Verdicts\n\n", *_summary(cases, by_case)]
    parts += ["\n## Each run\n\n", _RUN_WORDS, *_runs(cases, by_case, folder)]
    parts += ["\n## Slow checks beside fast ones\n\n", *_slow_beside_fast(by_case)]
    parts += ["\n## What the command alone would have said\n\n", _ALONE_WORDS, *_alone(cases, by_case)]
    return "".join(parts)


def span(given_ms: float | None) -> str:
    """`412 ms`, `4.97 s`."""
    if given_ms is None:
        return _DASH
    return f"{given_ms:.0f} ms" if abs(given_ms) < 1_000 else f"{given_ms / 1_000:.2f} s"


def bounds(row: Row | None) -> str:
    """`[0 ms, 31 ms]`; an outage that had not ended says so."""
    if row is None or row["lower_ms"] is None:
        return _DASH
    if row["upper_ms"] is None:
        return f"at least {span(row['lower_ms'])}"
    return f"[{span(row['lower_ms'])}, {span(row['upper_ms'])}]"


def outages(report: Row) -> list[Row]:
    """The binding rows of what users see, the worst first."""
    kinds = {
        each["monitor"]
        for each in report["layers"]
        if each["kind"] in _SAMPLED and each["layer"] in _OF_USERS
    }
    found = [row for row in report["rows"] if row["binding"] and row["monitor"] in kinds]
    return sorted(found, key=_worst_first)


def _worst_first(row: Row) -> float:
    return -(row["upper_ms"] if row["upper_ms"] is not None else float("inf"))


def processes(report: Row) -> Row | None:
    """How long the processes were gone."""
    watches = {each["monitor"] for each in report["layers"] if each["kind"] == "process"}
    return next((row for row in report["rows"] if row["binding"] and row["monitor"] in watches), None)


def answers_again(report: Row) -> str:
    """When Node1 itself answered again, after the fault."""
    there = [each for each in report["layers"] if each["layer"] == "backend"]
    if not there:
        return _DASH
    out = [each for each in there if each["episodes"]]
    if not out:
        return "never silent"
    ends = [each["back_ms"] for each in out]
    return "not seen" if None in ends else f"after {span(max(ends))}"


def proof(report: Row, what: str) -> str:
    """What the row that proves the effect, or the undo, says."""
    found = [row for row in report["rows"] if row["what"] == what]
    return found[0]["result"] if found else _DASH


def told_of(report: Row, what: Sequence[str]) -> str:
    """The result and the detail of the binding rows whose name has one of these words."""
    rows = [row for row in report["rows"] if row["binding"] and any(word in row["what"] for word in what)]
    return "; ".join(f"{row['result']} {row['detail'] or row['sentence']}" for row in rows) or _DASH


def lateness(report: Row) -> str:
    """The worst of every prober."""
    seen = [each["lateness_ms"] for each in report["layers"] if each["lateness_ms"] is not None]
    return span(max(seen)) if seen else _DASH


def _summary(cases: Sequence[Case], by_case: Mapping[str, Sequence[Record]]) -> Iterator[str]:
    yield _header("case", "cloud", "runs", "attempts", "verdicts", "has to say", "worst outage", "remark")
    for case in cases:
        records = by_case[case.id]
        counted = {key: said for key, said in verdicts_of(records).items() if is_enough(case, said)}
        final = [said[-1] for said in counted.values()]
        told = ", ".join(f"{final.count(each)} x {each}" for each in sorted(set(final))) or "not run"
        worst = min(
            (row for each in records for row in outages(each.report)[:1]), key=_worst_first, default=None
        )
        yield _line(
            case.drill,
            case.variant.name,
            str(len(counted)),
            str(len(records)),
            told,
            " or ".join(sorted(case.expected)),
            bounds(worst),
            case.about,
        )


_RUN_COLUMNS = (
    *("run", "verdict", "service outage", "literal", "p99 before", "p99 during", "process gone for"),
    *("Node1 answers", "effect", "undo", "operations", "besides", "load", "prober late by", "because"),
)


def _runs(cases: Sequence[Case], by_case: Mapping[str, Sequence[Record]], folder: str) -> Iterator[str]:
    for case in cases:
        if by_case[case.id]:
            yield f"\n### {case.drill}, {case.variant.name}\n\n"
            yield _header(*_RUN_COLUMNS)
            yield from (_run(each, folder) for each in by_case[case.id])


def _run(record: Record, folder: str) -> str:
    report, context = record.report, record.context
    worst = next(iter(outages(report)), None)
    name = f"{record.run}.{record.attempt}"
    link = f"[{name}]({folder}/{record.case}/{name}.html) ([json]({folder}/{record.case}/{name}.json))"
    cells = (
        f"{bounds(worst)} {worst['monitor']}" if worst else _DASH,
        span(worst["literal_ms"] if worst else None),
        *latencies(report),
        bounds(processes(report)),
        answers_again(report),
        proof(report, EFFECT),
        proof(report, UNDO),
        told_of(report, _OPERATIONS),
        told_of(report, _BESIDES),
        f"{context['load_before']} to {context['load_after']}, {context['cpu_busy']:.0%} busy",
        lateness(report),
        "; ".join(report["because"]),
    )
    return _line(link, report["verdict"], *cells)


def latencies(report: Row) -> tuple[str, str]:
    """The greatest 99th percentile of what users see, before and during."""
    rows = outages(report)
    return tuple(  # type: ignore[return-value]
        span(max((row[name] for row in rows if row[name] is not None), default=None))
        for name in ("latency_before_p99_ms", "latency_during_p99_ms")
    )


def _slow_beside_fast(by_case: Mapping[str, Sequence[Record]]) -> Iterator[str]:
    yield _header("case", "monitor", "fast: outages", "fast: p99 during", "slow: outages", "slow: p99 during")
    for drill in ("keystone-down", "nova-api-down"):
        fast, slow = (
            [each.report for each in by_case.get(Case(drill, variant).id, ())] for variant in (PLAIN, SLOW)
        )
        for monitor in sorted({row["monitor"] for report in (*fast, *slow) for row in outages(report)}):
            yield _line(drill, monitor, *_of_monitor(fast, monitor), *_of_monitor(slow, monitor))


def _of_monitor(reports: Sequence[Row], monitor: str) -> tuple[str, str]:
    rows = [row for report in reports for row in outages(report) if row["monitor"] == monitor]
    during = [span(row["latency_during_p99_ms"]) for row in rows]
    return "; ".join(bounds(row) for row in rows) or _DASH, "; ".join(during) or _DASH


def _alone(cases: Sequence[Case], by_case: Mapping[str, Sequence[Record]]) -> Iterator[str]:
    yield _header(
        "case", "cloud", "run", "command alone", "its first to last", "its calls", "its bounds", "ours"
    )
    for case in cases:
        for record in by_case[case.id]:
            for row in by_command(record.report):
                yield _line(
                    case.drill,
                    case.variant.name,
                    f"{record.run}.{record.attempt}",
                    row["literal_result"] or _DASH,
                    span(row["literal_ms"]),
                    str(row["samples"] if row["samples"] is not None else _DASH),
                    bounds(row),
                    f"{record.report['verdict']} {bounds(next(iter(outages(record.report)), None))}",
                )


def by_command(report: Row) -> list[Row]:
    """The rows of the monitors that run the command of the document in a loop."""
    commands = {each["monitor"] for each in report["layers"] if each["kind"] == "cli"}
    return [row for row in report["rows"] if row["monitor"] in commands]


def _deviations(records: Iterable[Record]) -> Iterator[str]:
    said = {words: None for each in records for words in each.report.get("deviations", ())}
    if said:
        yield "\nWhat differs from the document and from a real cloud, as each report says it:\n\n"
        yield from (f"* {words}\n" for words in said)


def _line(*cells: str) -> str:
    return f"| {' | '.join(each.replace('|', '/') for each in cells)} |\n"


def _header(*names: str) -> str:
    return f"{_line(*names)}|{'---|' * len(names)}\n"


_HEAD = """# The eight cases of OPNFV on a real OpenStack

Command, as root: `python -m testbed evidence`. It brings up each variant of [the testbed](../testbed.md),
runs `homeostat drill run` on it, writes each report into [{folder}]({folder}/), and this page after each run.
Begun again, it runs what is left.

A run that decided is never repeated. One that did not (INCONCLUSIVE, or an ERROR: a proof was missing) is,
at most twice; all of them are kept, shown and counted as attempts. Beside each report, `.context.json` has
the load of the machine and the SHA-256 of every file of the run, raw samples among them; those themselves are
not kept here.
"""
_RUN_WORDS = """The worst of the monitors that decide is shown with its name; a page has all of them. Bounds
hold the true outage. `literal` is first to last failure, as the document reckons; it decides nothing.
Load: the machine's, which carries the cloud and the probers alike.
"""
_ALONE_WORDS = """The document's own monitor, `openstack ... list` in a closed loop, on the same runs: out
from the beginning of its first failed call to the end of its last, FAIL when that is above the limit. Beside
it what the run said.

"""
