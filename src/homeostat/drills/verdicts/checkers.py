"""From frozen evidence to rows and a verdict: pure functions, so an old run can be judged again.

Every measured check of the drill is a row, and every proof is one, whether the drill asks for it or not: what
was looked at before, that the fault hit and had its effect, that it is gone, that the monitors were there,
that the window was long enough. What is not known is never good.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from homeostat.drills.model import (
    Dependant,
    HolderMoved,
    Noticed,
    OperationsDone,
    ProcessRecovery,
    Proof,
    ServiceOutage,
    Weight,
    baseline_samples,
)
from homeostat.drills.records.evidence import Evidence
from homeostat.drills.records.facts import (
    FaultNoticed,
    Injected,
    LeftOut,
    ListeningForFaults,
    MonitorLost,
    ToolRestarted,
    WindowEnded,
)
from homeostat.drills.spans import span_text
from homeostat.drills.verdicts.judgement import Judgement, Row, Why, judged
from homeostat.drills.verdicts.layers import deepest
from homeostat.drills.verdicts.operations import operation_rows
from homeostat.drills.verdicts.proofs import proof_rows
from homeostat.drills.verdicts.refusing import refusals
from homeostat.drills.verdicts.whereabouts import dependant_row, holder_row
from homeostat.monitors.outage import Outage
from homeostat.monitors.verdicts import (
    BASELINE_SAMPLES_MIN,
    Verdict,
    compared,
    decide,
    decide_process,
)

_NS_PER_MS = 1_000_000
_MEASURED = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL)


def judge(evidence: Evidence) -> Judgement:
    """The verdict of a run, and each row of it."""
    return judged([*proof_rows(evidence), *_measured(evidence), *operation_rows(evidence)])


def _measured(evidence: Evidence) -> Iterator[Row]:
    for out in evidence.plan.left_out:
        yield from _left_out(out)
    for check in evidence.plan.drill.checks:
        match check:
            case ServiceOutage():
                for name in check.monitors:
                    yield _weighed(_service(evidence, check, name), check.weight, evidence)
            case ProcessRecovery():
                yield _weighed(_process(evidence, check), check.weight, evidence)
            case Noticed():
                yield _weighed(_noticed(evidence, check), check.weight, evidence)
            case Dependant():
                yield dependant_row(evidence, check)
            case HolderMoved():
                yield _weighed(holder_row(evidence, check), check.weight, evidence)
            case OperationsDone() | Proof():
                continue
            case _:
                assert_never(check)


def _left_out(out: LeftOut) -> Iterator[Row]:
    """What would have decided, too. Others of the same check do, or the drill were refused at this site."""
    for requirement in out.decided:
        yield Row(
            requirement=requirement,
            what=f"outage of {out.monitor}",
            result=Verdict.INCONCLUSIVE,
            why=Why.MONITOR_LEFT_OUT,
            weight=Weight.INFORMATIVE,
            binding=False,
            detail=out.why,
        )


def _weighed(row: Row, weight: Weight, evidence: Evidence) -> Row:
    binding = weight is Weight.BINDING or (weight is Weight.STEP and evidence.plan.strict_steps)
    return replace(row, weight=weight, binding=binding)


def _lost(evidence: Evidence, monitor: str) -> bool:
    return any(each.monitor == monitor for each in evidence.all(MonitorLost))


def _service(evidence: Evidence, check: ServiceOutage, name: str) -> Row:
    """One monitor against one limit. An outage that the tool itself ended was not recovered from."""
    what = f"outage of {name} {check.operator} {span_text(check.limit_ms)}"
    outage = evidence.outage(name)
    if outage is None:
        return _unmeasured(evidence, check, what, name)
    monitor, cli = evidence.monitor(name), None
    needed = baseline_samples(evidence.plan.drill, monitor)
    if monitor.kind == "cli":
        cli = evidence.published(name, check.limit_ms)
    decision = decide(
        outage,
        check.limit_ms,
        check.operator,
        monitor_lost=_lost(evidence, name),
        baseline_min=min(needed, BASELINE_SAMPLES_MIN),
    )
    row = Row(
        requirement=check.requirement,
        what=what,
        result=decision.verdict,
        why=decision.reason,
        monitor=name,
        limit_ms=check.limit_ms,
        operator=check.operator,
        lower_ms=outage.lower_ms,
        upper_ms=outage.upper_ms,
        censored=outage.upper_ms is None,
        literal_ms=cli.outage_ms if cli else outage.literal_ms,
        literal_result=cli.verdict if cli else None,
        total_lower_ms=outage.total_lower_ms,
        total_upper_ms=outage.total_upper_ms,
        episodes=len(outage.episodes),
        samples=sum(outage.answers.values()),
        lateness_ms=outage.lateness_ms,
        latency_before_p99_ms=outage.before.p99_ms if outage.before else None,
        latency_during_p99_ms=outage.during.p99_ms if outage.during else None,
        layer=deepest(evidence, name),
    )
    if decision.verdict in _MEASURED and outage.baseline_samples < needed:
        return replace(row, result=Verdict.ERROR, why=Why.BASELINE_SHORT)
    if decision.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        refused = refusals(evidence, outage, check, name)
        if refused:
            detail = f"{refused} answers, each of status 401"
            return replace(row, result=Verdict.ERROR, why=Why.TOKEN_REFUSED, detail=detail)
    if decision.verdict in _MEASURED and _tool_ended(evidence, outage):
        return replace(row, result=Verdict.FAIL, why=Why.TOOL_RESTARTED)
    return row


def _tool_ended(evidence: Evidence, outage: Outage) -> bool:
    restarts = [each.at_ns for each in evidence.entries if isinstance(each.fact, ToolRestarted)]
    ends = [each.until_ns for each in outage.episodes]
    return any(end is None or end >= restart for restart in restarts for end in ends)


def _process(evidence: Evidence, check: ProcessRecovery) -> Row:
    """As many as before, of new identity, stable; and not because the tool started them."""
    what = f"{check.monitor} back {check.operator} {span_text(check.limit_ms)}"
    outage = evidence.process(check.monitor)
    if outage is None:
        return _unmeasured(evidence, check, what, check.monitor)
    lost = _lost(evidence, check.monitor)
    decision = decide_process(outage, check.limit_ms, check.operator, monitor_lost=lost)
    restarted = evidence.all(ToolRestarted)
    row = Row(
        requirement=check.requirement,
        what=what,
        result=decision.verdict,
        why=decision.reason,
        monitor=check.monitor,
        limit_ms=check.limit_ms,
        operator=check.operator,
        lower_ms=outage.lower_ms,
        upper_ms=outage.upper_ms,
        censored=outage.upper_ms is None,
        samples=len(evidence.sightings.get(check.monitor, ())),
        detail=f"{outage.state.value}: {len(outage.before)} before, {len(outage.died)} died, "
        f"{len(outage.recovered)} new and stable, {outage.restarts} restarts that did not last",
    )
    if restarted and decision.verdict in _MEASURED:
        detail = ", ".join(each.what for each in restarted)
        return replace(row, result=Verdict.FAIL, detail=detail, why=Why.TOOL_RESTARTED)
    return row


def _noticed(evidence: Evidence, check: Noticed) -> Row:
    """How late our own fault manager was. Its silence counts only when somebody listened."""
    what = f"noticed by our own fault manager {check.operator} {span_text(check.limit_ms)}"
    injected, ended = evidence.last(Injected), evidence.last(WindowEnded)
    if injected is None or ended is None:
        return _unmeasured(evidence, check, what, None)
    # What was raised before the fault began was raised for something else.
    told = [each for each in evidence.all(FaultNoticed) if each.by_ns >= injected.before_ns]
    first = min(told, key=lambda each: each.by_ns, default=None)
    row = Row(
        requirement=check.requirement,
        what=what,
        result=Verdict.ERROR,
        why=Why.NOT_LISTENED,
        limit_ms=check.limit_ms,
        operator=check.operator,
    )
    if first is not None:
        lower_ms = max(0, first.after_ns - injected.after_ns) / _NS_PER_MS
        upper_ms = max(0, first.by_ns - injected.before_ns) / _NS_PER_MS
        return _bounded(row, check, lower_ms, upper_ms, f"{first.kind} {first.fault}")
    listening_ns = evidence.at_ns(ListeningForFaults)
    if listening_ns is None or listening_ns > injected.before_ns:
        return row
    silent_ms = (ended.until_ns - injected.after_ns) / _NS_PER_MS
    bounded = _bounded(row, check, max(0.0, silent_ms), None, "")
    return replace(bounded, why=Why.NOT_NOTICED)


def _bounded(row: Row, check: Noticed, lower_ms: float, upper_ms: float | None, detail: str) -> Row:
    decision = compared(lower_ms, upper_ms, check.limit_ms, check.operator)
    return replace(
        row,
        result=decision.verdict,
        why=decision.reason,
        lower_ms=lower_ms,
        upper_ms=upper_ms,
        censored=upper_ms is None,
        detail=detail,
    )


def _unmeasured(
    evidence: Evidence, check: ServiceOutage | ProcessRecovery | Noticed, what: str, monitor: str | None
) -> Row:
    """Nothing to measure with: which of the brackets is missing."""
    why = Why.MONITOR_MISSING
    if evidence.last(Injected) is None:
        why = Why.NOT_INJECTED
    elif evidence.last(WindowEnded) is None:
        why = Why.NO_WINDOW_END
    return Row(
        requirement=check.requirement,
        what=what,
        result=Verdict.ERROR,
        why=why,
        monitor=monitor,
        limit_ms=check.limit_ms,
        operator=check.operator,
    )
