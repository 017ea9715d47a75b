"""What became of a user's operations: informative during the fault, binding after it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from homeostat.drills.evidence import Evidence
from homeostat.drills.facts import EffectSeen, Injected, OperationDone
from homeostat.drills.judgement import Row, Why
from homeostat.drills.model import OperationsDone, ServiceOutage, Step, Weight
from homeostat.monitors.verdicts import Verdict

_NS_PER_MS = 1_000_000
_DEFAULT = "R0.7"


def operation_rows(evidence: Evidence) -> Iterator[Row]:
    """One row for those after the fault, asked for or not, and one for those during it when there are any."""
    drill = evidence.plan.drill
    asked = [each.requirement for each in drill.checks if isinstance(each, OperationsDone)]
    after, during = drill.operations.after, drill.operations.during
    for requirement in asked or ([_DEFAULT] if after else []):
        yield _after(evidence, requirement, after)
    if during:
        yield _during(evidence, (asked or [_DEFAULT])[0], during)


def _after(evidence: Evidence, requirement: str, operations: Sequence[Step]) -> Row:
    done = [each for each in evidence.all(OperationDone) if each.phase == "after"]
    verdict, why, detail = _became(evidence, operations, done)
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


def _count(operations: Sequence[Step]) -> str:
    return f"{len(operations)} operation{'' if len(operations) == 1 else 's'}"


def _became(
    evidence: Evidence, operations: Sequence[Step], done: Sequence[OperationDone]
) -> tuple[Verdict, Why, str]:
    if not operations:
        return Verdict.INCONCLUSIVE, Why.NO_OPERATIONS, ""
    names = [each.id for each in operations]
    failed = next((each for each in done if not each.ok), None)
    if failed is not None:
        return Verdict.FAIL, Why.OPERATION_FAILED, f"{failed.operation}: {failed.seen}"
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
    early = _too_early(evidence, done[0].began_ns)
    if early:
        return Verdict.ERROR, Why.OPERATED_TOO_EARLY, early
    return Verdict.PASS, Why.OPERATIONS_DONE, ", ".join(names)


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
