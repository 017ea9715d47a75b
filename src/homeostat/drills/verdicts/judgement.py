"""Rows and the verdict that follows from them. Pure.

Only proven is PASS. The verdict is the worst of the binding rows; ABORTED is worse than ERROR, which is worse
than FAIL: of a run whose proofs are missing nobody knows what failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from homeostat.drills.model import Operator, Weight
from homeostat.kernel.records import row_of
from homeostat.monitors.verdicts import Reason, Verdict

EXIT_CODES = {
    Verdict.PASS: 0,
    Verdict.FAIL: 10,
    Verdict.INCONCLUSIVE: 11,
    Verdict.ERROR: 12,
    Verdict.ABORTED: 13,
}
_WORST_FIRST = (Verdict.ABORTED, Verdict.ERROR, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)


class Why(StrEnum):
    """Why a row that is no measurement ended as it did; the value is the sentence for people."""

    PROVEN = "proven"
    HELD = "it held before the fault"
    NOT_HELD = "it did not hold, so the drill would have proven nothing"
    NOT_LOOKED = "nobody looked, so nothing is known"
    NOTHING_HIT = "the fault found nothing to hit"
    NOT_INJECTED = "the fault was never injected"
    NO_EFFECT = "it is not proven that the fault had its effect"
    NOT_UNDONE = "it is not proven that the fault is gone"
    MONITORS_ALIVE = "every monitor was there from the baseline to the end"
    MONITOR_MISSING = "a monitor was not there all the time, or did not say that it was"
    WINDOW_COMPLETE = "long enough for the fault to be felt, to end and to settle"
    WINDOW_SHORT = "not long enough for the fault to be felt, to end and to settle"
    FAULT_SHORT = "the fault was gone before it had lasted as long as the drill asks"
    NO_WINDOW_END = "the run did not reach the end of its window"
    TOKEN_REFUSED = (
        "every answer of the outage was 401: the token was refused, which is no proof of an outage"
    )
    BASELINE_SHORT = "a shorter baseline than the drill asks for"
    TOOL_RESTARTED = "the drill itself started it, which is no recovery"
    OPERATIONS_DONE = "all carried out in order and without error"
    NO_OPERATIONS = "0 operations specified: nothing is shown by this"
    LEFT_OUT = "left out: it is optional, and the cloud has no such service"
    MONITOR_LEFT_OUT = "left out: it is optional, and this site cannot have it, so nothing is known of it"
    OPERATION_FAILED = "an operation failed"
    OPERATION_LATE = "an operation was not done within its deadline"
    OPERATIONS_NOT_RUN = "not all operations were carried out"
    OPERATIONS_OUT_OF_ORDER = "the operations were not carried out in the given order"
    OPERATED_TOO_EARLY = "operated before the fault could be felt or before it was over: it shows nothing"
    OPERATED_TOO_LATE = "not all was done before the fault was undone: it shows nothing of the fault"
    DEPENDANT = "data of something that is monitored, or that it uses, lies on the disk that was hit"
    NO_DEPENDANT = (
        "no dependant: nothing monitored has its data on the disk that was hit, so it shows nothing"
    )
    HOLDER_MOVED = "another host held the address then"
    HOLDER_STAYED = "no other host held the address"
    HOLDER_UNKNOWN = "not exactly one host said that it held the address"
    NOT_NOTICED = "our own fault manager raised nothing for it"
    NOT_LISTENED = "nobody listened to our own fault manager"
    ABORTED = "it was ended before its end"
    BROKE = "something of ours failed"


@dataclass(frozen=True, slots=True)
class Row:
    """One requirement and what became of it. In ms; `censored`: it had not ended, `upper_ms` is None."""

    requirement: str
    what: str
    result: Verdict
    why: Why | Reason
    weight: Weight = Weight.BINDING
    binding: bool = True
    monitor: str | None = None
    limit_ms: float | None = None
    operator: Operator | None = None
    lower_ms: float | None = None
    upper_ms: float | None = None
    censored: bool = False
    literal_ms: float | None = None
    """First to last failure, as the source document reckons; for comparison only."""
    literal_result: Verdict | None = None
    """Of a client's calls: what the published loop over the same ones would have said."""
    total_lower_ms: float | None = None
    total_upper_ms: float | None = None
    episodes: int | None = None
    samples: int | None = None
    lateness_ms: float | None = None
    latency_before_p99_ms: float | None = None
    latency_during_p99_ms: float | None = None
    layer: str | None = None
    """The deepest layer that was out at the same time."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a run ends with. `because`: the requirement and sentence of each row that made it so."""

    verdict: Verdict
    rows: tuple[Row, ...]
    because: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]


def judged(rows: Iterable[Row]) -> Judgement:
    """The verdict over these rows; without a binding one there is nothing to pass."""
    every = tuple(rows)
    results = {row.result for row in every if row.binding}
    verdict = next((each for each in _WORST_FIRST if each in results), Verdict.ERROR)
    telling = [row for row in every if row.binding and row.result is verdict and verdict is not Verdict.PASS]
    because = tuple(f"{row.requirement} {row.what}: {row.why.value}" for row in telling)
    return Judgement(verdict, every, because or (() if results else ("nothing was checked",)))


def judgement_record(judgement: Judgement) -> dict[str, Any]:
    """verdict.json."""
    return {
        "verdict": judgement.verdict.value,
        "exit_code": judgement.exit_code,
        "because": list(judgement.because),
        "rows": [row_record(row) for row in judgement.rows],
    }


def row_record(row: Row) -> dict[str, Any]:
    """One row of verdict.json and of reports: the reason by name, and as a sentence."""
    record = row_of(row)
    del record["why"]
    return record | {"reason": row.why.name, "sentence": row.why.value}
