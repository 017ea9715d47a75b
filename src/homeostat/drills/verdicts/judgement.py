"""Rows and the verdict that follows from them; and the rows of a user's operations. Pure.

Only proven is PASS. The verdict is the worst of the binding rows; ABORTED is worse than ERROR, which is worse
than FAIL: of a run whose proofs are missing nobody knows what failed. Operations are informative before and
during the fault, binding under and after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from homeostat.drills.actions import Phase, is_extension
from homeostat.drills.model import OperationsDone, Operator, Step, Weight, deciding_monitors
from homeostat.drills.records.evidence import RunEvidence
from homeostat.drills.records.facts import EffectSeen, Injected, OperationDone, OperationLeftOut, Undone
from homeostat.kernel.records import row_of
from homeostat.monitors.verdicts import Verdict, VerdictReason

EXIT_CODES = {
    Verdict.PASS: 0,
    Verdict.FAIL: 10,
    Verdict.INCONCLUSIVE: 11,
    Verdict.ERROR: 12,
    Verdict.ABORTED: 13,
}
_WORST_FIRST = (Verdict.ABORTED, Verdict.ERROR, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)


class RowReason(StrEnum):
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
    HOLDER_UNKNOWN = "no host, or more than one, reported that it holds the address"
    NOT_NOTICED = "Homeostat raised no fault for it"
    NOT_LISTENED = "nobody listened to the faults of Homeostat"
    ABORTED = "it was ended before its end"
    BROKE = "an error in Homeostat itself"


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """One requirement and what became of it. In ms; `censored`: it had not ended, `upper_ms` is None."""

    requirement: str
    what: str
    result: Verdict
    why: RowReason | VerdictReason
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
class RunJudgement:
    """What a run ends with. `because`: the requirement and sentence of each row that made it so."""

    verdict: Verdict
    rows: tuple[VerdictRow, ...]
    because: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]


def judged(rows: Iterable[VerdictRow]) -> RunJudgement:
    """The verdict over these rows; without a binding one there is nothing to pass."""
    every = tuple(rows)
    results = {row.result for row in every if row.binding}
    verdict = next((each for each in _WORST_FIRST if each in results), Verdict.ERROR)
    telling = [row for row in every if row.binding and row.result is verdict and verdict is not Verdict.PASS]
    because = tuple(f"{row.requirement} {row.what}: {row.why.value}" for row in telling)
    return RunJudgement(verdict, every, because or (() if results else ("nothing was checked",)))


def judgement_record(judgement: RunJudgement) -> dict[str, Any]:
    return {
        "verdict": judgement.verdict.value,
        "exit_code": judgement.exit_code,
        "because": list(judgement.because),
        "rows": [row_record(row) for row in judgement.rows],
    }


def row_record(row: VerdictRow) -> dict[str, Any]:
    """One row of verdict.json and of reports: the reason by name, and as a sentence."""
    record = row_of(row)
    del record["why"]
    return record | {"reason": row.why.name, "sentence": row.why.value}


_NS_PER_MS = 1_000_000
_DEFAULT = "R0.7"


def operation_rows(evidence: RunEvidence) -> Iterator[VerdictRow]:
    """One of those after the fault, asked for or not; of set-up, extensions and canary when there are any."""
    drill = evidence.plan.drill
    asked = [each.requirement for each in drill.checks if isinstance(each, OperationsDone)]
    before, during = drill.operations.before, drill.operations.during
    after = [each for each in drill.operations.after if not is_extension(each)]
    extensions = [each for each in drill.operations.after if is_extension(each)]
    first = (asked or [_DEFAULT])[0]
    if before:
        yield _before(evidence, first, before)
    for requirement in asked or [_DEFAULT]:
        if drill.operations.while_held:
            yield _while_held(evidence, requirement, drill.operations.while_held)
    for requirement in asked or ([_DEFAULT] if after or extensions else []):
        yield _after(evidence, requirement, after, extensions)
    if extensions:
        yield _extension(evidence, first, extensions)
    if during:
        yield _during(evidence, first, during)


def _before(evidence: RunEvidence, requirement: str, operations: Sequence[Step]) -> VerdictRow:
    """The set-up. Informative: without it nothing was begun, and that is an ERROR of its own."""
    done = _done(evidence, "before")
    good = [each for each in done if each.ok]
    detail = _first_failed(done) or ", ".join(each.operation for each in good)
    outcome = Verdict.ERROR, RowReason.OPERATIONS_NOT_RUN, detail
    if len(good) == len(operations):
        outcome = Verdict.PASS, RowReason.OPERATIONS_DONE, detail
    what = f"{_count(operations)} before the fault"
    return _operation_row(requirement, what, outcome, done, binding=False)


def _while_held(evidence: RunEvidence, requirement: str, operations: Sequence[Step]) -> VerdictRow:
    """Under the fault: what began before its effect was proven or ended after it was undone is none."""
    done = _done(evidence, "while_held")
    outcome = _became(operations, done)
    if outcome[0] is Verdict.PASS:
        proven_ns, undone_ns = _proven_ns(evidence), evidence.at_ns(Undone)
        if proven_ns is None or done[0].began_ns < proven_ns:
            outcome = Verdict.ERROR, RowReason.OPERATED_TOO_EARLY, "before the effect was proven"
        elif undone_ns is None or done[-1].ended_ns > undone_ns:
            outcome = Verdict.ERROR, RowReason.OPERATED_TOO_LATE, ""
    what = f"{_count(operations)} while the fault is held"
    return _operation_row(requirement, what, outcome, done)


def _after(
    evidence: RunEvidence, requirement: str, operations: Sequence[Step], extensions: Sequence[Step]
) -> VerdictRow:
    beside = {each.id for each in extensions}
    done = [each for each in _done(evidence, "after") if each.operation not in beside]
    outcome = _became_after(evidence, operations, done)
    what = f"{_count(operations)} after the fault"
    return _operation_row(requirement, what, outcome, done, binding=bool(operations))


def _extension(evidence: RunEvidence, requirement: str, operations: Sequence[Step]) -> VerdictRow:
    """What the source document does not ask for; never decides."""
    names = {each.id for each in operations}
    done = [each for each in _done(evidence, "after") if each.operation in names]
    out = [each for each in evidence.all(OperationLeftOut) if each.operation in names]
    outcome = _became_after(evidence, operations, done)
    if out:
        outcome = Verdict.INCONCLUSIVE, RowReason.LEFT_OUT, f"{out[0].operation}: {out[0].why}"
    what = f"{_count(operations)} after the fault, as an extension"
    return _operation_row(requirement, what, outcome, done, binding=False)


def _during(evidence: RunEvidence, requirement: str, operations: Sequence[Step]) -> VerdictRow:
    done = _done(evidence, "during")
    failed = [each for each in done if not each.ok]
    detail = f"{len(done) - len(failed)} of {len(done)} succeeded"
    outcome = Verdict.PASS, RowReason.OPERATIONS_DONE, detail
    if not done:
        outcome = Verdict.INCONCLUSIVE, RowReason.OPERATIONS_NOT_RUN, detail
    elif failed:
        outcome = Verdict.FAIL, RowReason.OPERATION_FAILED, detail
    what = f"{_count(operations)} during the fault"
    return _operation_row(requirement, what, outcome, done, binding=False)


def _operation_row(
    requirement: str,
    what: str,
    outcome: tuple[Verdict, RowReason, str],
    done: Sequence[OperationDone],
    *,
    binding: bool = True,
) -> VerdictRow:
    verdict, why, detail = outcome
    row = VerdictRow(requirement, what, verdict, why, samples=len(done), detail=detail)
    return row if binding else replace(row, weight=Weight.INFORMATIVE, binding=False)


def _done(evidence: RunEvidence, phase: Phase) -> list[OperationDone]:
    return [each for each in evidence.all(OperationDone) if each.phase == phase]


def _first_failed(done: Sequence[OperationDone]) -> str:
    failed = next((each for each in done if not each.ok), None)
    return "" if failed is None else f"{failed.operation}: {failed.seen}"


def _count(operations: Sequence[Step]) -> str:
    return f"{len(operations)} operation{'' if len(operations) == 1 else 's'}"


def _became_after(
    evidence: RunEvidence, operations: Sequence[Step], done: Sequence[OperationDone]
) -> tuple[Verdict, RowReason, str]:
    verdict, why, detail = _became(operations, done)
    if verdict is Verdict.PASS and (early := _too_early(evidence, done[0].began_ns)):
        return Verdict.ERROR, RowReason.OPERATED_TOO_EARLY, early
    return verdict, why, detail


def _became(operations: Sequence[Step], done: Sequence[OperationDone]) -> tuple[Verdict, RowReason, str]:
    if not operations:
        return Verdict.INCONCLUSIVE, RowReason.NO_OPERATIONS, ""
    names = [each.id for each in operations]
    if failed := _first_failed(done):
        return Verdict.FAIL, RowReason.OPERATION_FAILED, failed
    if len(done) < len(operations):
        missing = [name for name in names if name not in {each.operation for each in done}]
        return Verdict.ERROR, RowReason.OPERATIONS_NOT_RUN, ", ".join(missing)
    ends = [0, *(each.ended_ns for each in done)]
    if [each.operation for each in done] != names or any(
        each.began_ns < end for each, end in zip(done, ends, strict=False)
    ):
        return Verdict.ERROR, RowReason.OPERATIONS_OUT_OF_ORDER, ", ".join(each.operation for each in done)
    for operation, each in zip(operations, done, strict=True):
        if each.ended_ns - each.began_ns > operation.deadline_ms * _NS_PER_MS:
            return Verdict.FAIL, RowReason.OPERATION_LATE, operation.id
    return Verdict.PASS, RowReason.OPERATIONS_DONE, ", ".join(names)


def _proven_ns(evidence: RunEvidence) -> int | None:
    """When the effect was first proven; that it was still there at the end is a later fact."""
    proven = (each for each in evidence.entries if isinstance(each.fact, EffectSeen) and each.fact.proven)
    injected_ns = evidence.at_ns(Injected)
    return next(
        (each.at_ns for each in proven if injected_ns is not None and each.at_ns >= injected_ns), None
    )


def _too_early(evidence: RunEvidence, began_ns: int) -> str:
    """Why this moment is too early, else nothing.

    Where an outage was seen, it comes first. Where none was, a call that succeeds says something only after
    the proven fault had its time to be felt.
    """
    injected, effect_ns = evidence.last(Injected), evidence.at_ns(EffectSeen)
    if injected is None or effect_ns is None or began_ns < effect_ns:
        return "before the effect was proven"
    drill = evidence.plan.drill
    outages = [
        outage for name in sorted(deciding_monitors(drill)) if (outage := evidence.outage(name)) is not None
    ]
    episodes = [each for outage in outages for each in outage.episodes]
    if not episodes:
        felt_by_ns = injected.after_ns + drill.window.effect_within_ms * _NS_PER_MS
        return "before an effect could be felt" if began_ns < felt_by_ns else ""
    first_ns = min(each.first_bad_ns for each in episodes)
    return "before the failure was seen" if began_ns < first_ns else ""
