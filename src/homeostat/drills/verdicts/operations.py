"""What became of a user's operations: informative during the fault, binding while it is held and after it.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from homeostat.drills.cloud_operation import optional
from homeostat.drills.model import OperationsDone, ServiceOutage, Step, Weight
from homeostat.drills.records.evidence import Evidence
from homeostat.drills.records.facts import EffectSeen, Injected, OperationDone, OperationLeftOut, Undone
from homeostat.drills.verdicts.judgement import Row, Why
from homeostat.monitors.verdicts import Verdict

_NS_PER_MS = 1_000_000
_DEFAULT = "R0.7"


def operation_rows(evidence: Evidence) -> Iterator[Row]:
    """One of those after the fault, asked for or not; of set-up, extensions and canary when there are any."""
    drill = evidence.plan.drill
    asked = [each.requirement for each in drill.checks if isinstance(each, OperationsDone)]
    before, during = drill.operations.before, drill.operations.during
    after = [each for each in drill.operations.after if not optional(each)]
    extensions = [each for each in drill.operations.after if optional(each)]
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


def _before(evidence: Evidence, requirement: str, operations: Sequence[Step]) -> Row:
    """The set-up. Informative: without it nothing was begun, and that is an ERROR of its own."""
    done = [each for each in evidence.all(OperationDone) if each.phase == "before"]
    good = [each for each in done if each.ok]
    complete = len(good) == len(operations)
    row = Row(
        requirement=requirement,
        what=f"{_count(operations)} before the fault",
        result=Verdict.PASS if complete else Verdict.ERROR,
        why=Why.OPERATIONS_DONE if complete else Why.OPERATIONS_NOT_RUN,
        samples=len(done),
        detail=_first_failed(done) or ", ".join(each.operation for each in good),
    )
    return replace(row, weight=Weight.INFORMATIVE, binding=False)


def _while_held(evidence: Evidence, requirement: str, operations: Sequence[Step]) -> Row:
    """Under the fault: what began before its effect was proven or ended after it was undone is none."""
    done = [each for each in evidence.all(OperationDone) if each.phase == "while_held"]
    verdict, why, detail = _became(operations, done)
    if verdict is Verdict.PASS:
        proven_ns, undone_ns = _proven_ns(evidence), evidence.at_ns(Undone)
        if proven_ns is None or done[0].began_ns < proven_ns:
            verdict, why, detail = Verdict.ERROR, Why.OPERATED_TOO_EARLY, "before the effect was proven"
        elif undone_ns is None or done[-1].ended_ns > undone_ns:
            verdict, why, detail = Verdict.ERROR, Why.OPERATED_TOO_LATE, ""
    return Row(
        requirement=requirement,
        what=f"{_count(operations)} while the fault is held",
        result=verdict,
        why=why,
        samples=len(done),
        detail=detail,
    )


def _after(
    evidence: Evidence, requirement: str, operations: Sequence[Step], extensions: Sequence[Step]
) -> Row:
    beside = {each.id for each in extensions}
    done = [each for each in _after_done(evidence) if each.operation not in beside]
    verdict, why, detail = _became_after(evidence, operations, done)
    return Row(
        requirement=requirement,
        what=f"{_count(operations)} after the fault",
        result=verdict,
        why=why,
        binding=bool(operations),
        weight=Weight.BINDING if operations else Weight.INFORMATIVE,
        samples=len(done),
        detail=detail,
    )


def _extension(evidence: Evidence, requirement: str, operations: Sequence[Step]) -> Row:
    """What the source document does not ask for; never decides."""
    names = {each.id for each in operations}
    done = [each for each in _after_done(evidence) if each.operation in names]
    out = [each for each in evidence.all(OperationLeftOut) if each.operation in names]
    verdict, why, detail = _became_after(evidence, operations, done)
    if out:
        verdict, why, detail = Verdict.INCONCLUSIVE, Why.LEFT_OUT, f"{out[0].operation}: {out[0].why}"
    row = Row(
        requirement=requirement,
        what=f"{_count(operations)} after the fault, as an extension",
        result=verdict,
        why=why,
        samples=len(done),
        detail=detail,
    )
    return replace(row, weight=Weight.INFORMATIVE, binding=False)


def _during(evidence: Evidence, requirement: str, operations: Sequence[Step]) -> Row:
    done = [each for each in evidence.all(OperationDone) if each.phase == "during"]
    failed = [each for each in done if not each.ok]
    why, verdict = Why.OPERATIONS_DONE, Verdict.PASS
    if not done:
        why, verdict = Why.OPERATIONS_NOT_RUN, Verdict.INCONCLUSIVE
    elif failed:
        why, verdict = Why.OPERATION_FAILED, Verdict.FAIL
    return Row(
        requirement=requirement,
        what=f"{_count(operations)} during the fault",
        result=verdict,
        why=why,
        weight=Weight.INFORMATIVE,
        binding=False,
        samples=len(done),
        detail=f"{len(done) - len(failed)} of {len(done)} succeeded",
    )


def _after_done(evidence: Evidence) -> list[OperationDone]:
    return [each for each in evidence.all(OperationDone) if each.phase == "after"]


def _first_failed(done: Sequence[OperationDone]) -> str:
    failed = next((each for each in done if not each.ok), None)
    return "" if failed is None else f"{failed.operation}: {failed.seen}"


def _count(operations: Sequence[Step]) -> str:
    return f"{len(operations)} operation{'' if len(operations) == 1 else 's'}"


def _became_after(
    evidence: Evidence, operations: Sequence[Step], done: Sequence[OperationDone]
) -> tuple[Verdict, Why, str]:
    verdict, why, detail = _became(operations, done)
    if verdict is Verdict.PASS and (early := _too_early(evidence, done[0].began_ns)):
        return Verdict.ERROR, Why.OPERATED_TOO_EARLY, early
    return verdict, why, detail


def _became(operations: Sequence[Step], done: Sequence[OperationDone]) -> tuple[Verdict, Why, str]:
    if not operations:
        return Verdict.INCONCLUSIVE, Why.NO_OPERATIONS, ""
    names = [each.id for each in operations]
    if failed := _first_failed(done):
        return Verdict.FAIL, Why.OPERATION_FAILED, failed
    if len(done) < len(operations):
        missing = [name for name in names if name not in {each.operation for each in done}]
        return Verdict.ERROR, Why.OPERATIONS_NOT_RUN, ", ".join(missing)
    ends = [0, *(each.ended_ns for each in done)]
    if [each.operation for each in done] != names or any(
        each.began_ns < end for each, end in zip(done, ends, strict=False)
    ):
        return Verdict.ERROR, Why.OPERATIONS_OUT_OF_ORDER, ", ".join(each.operation for each in done)
    for operation, each in zip(operations, done, strict=True):
        if each.ended_ns - each.began_ns > operation.deadline_ms * _NS_PER_MS:
            return Verdict.FAIL, Why.OPERATION_LATE, operation.id
    return Verdict.PASS, Why.OPERATIONS_DONE, ", ".join(names)


def _proven_ns(evidence: Evidence) -> int | None:
    """When the effect was first proven; that it was still there at the end is a later fact."""
    proven = (each for each in evidence.entries if isinstance(each.fact, EffectSeen) and each.fact.proven)
    injected_ns = evidence.at_ns(Injected)
    return next(
        (each.at_ns for each in proven if injected_ns is not None and each.at_ns >= injected_ns), None
    )


def _too_early(evidence: Evidence, began_ns: int) -> str:
    """Why this moment is too early, else nothing.

    Where an outage was seen, it comes first. Where none was, a call that succeeds says something only after
    the proven fault had its time to be felt.
    """
    injected, effect_ns = evidence.last(Injected), evidence.at_ns(EffectSeen)
    if injected is None or effect_ns is None or began_ns < effect_ns:
        return "before the effect was proven"
    drill = evidence.plan.drill
    checks = [
        each for each in drill.checks if isinstance(each, ServiceOutage) and each.weight is Weight.BINDING
    ]
    watched = sorted({name for each in checks for name in each.monitors})
    outages = [outage for name in watched if (outage := evidence.outage(name)) is not None]
    episodes = [each for outage in outages for each in outage.episodes]
    if not episodes:
        felt_by_ns = injected.after_ns + drill.window.effect_within_ms * _NS_PER_MS
        return "before an effect could be felt" if began_ns < felt_by_ns else ""
    first_ns = min(each.first_bad_ns for each in episodes)
    return "before the failure was seen" if began_ns < first_ns else ""
