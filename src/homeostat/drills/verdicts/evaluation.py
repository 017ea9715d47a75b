"""Evaluates frozen evidence to rows and a verdict. Pure functions, so an old run can be judged again.

Every measured check of the drill is a row, and every proof is one, whether the drill asks for it or not:
what was looked at before, that the fault hit and had its effect, that it is gone, that the monitors were
there, that the window was long enough. What is not known is never good.

An outage belongs to the deepest layer that was out at the same time: a user's call needs the balancer and
the back ends, too. A monitor asks with one token for the whole run; when that is revoked, every answer is
401 from then on, however well the service is: such an episode is counted for no verdict about the service.

`verify` judges the files of a recorded run again and compares the verdict with the one that was written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

from homeostat.drills import model
from homeostat.drills.actions import duration_text
from homeostat.drills.records import facts
from homeostat.drills.records.evidence import RunEvidence, read_evidence
from homeostat.drills.records.history import VERDICT, FolderCheck, check_folder
from homeostat.drills.verdicts.judgement import (
    RowReason,
    RunJudgement,
    VerdictRow,
    judged,
    judgement_record,
    operation_rows,
)
from homeostat.drills.verdicts.proofs import dependant_row, holder_row, proof_rows
from homeostat.kernel.files import read_json
from homeostat.monitors.outage import FAILED, Episode, Outage
from homeostat.monitors.verdicts import (
    BASELINE_SAMPLES_MIN,
    Verdict,
    VerdictReason,
    compared,
    decide,
    decide_process,
)

_DEPTH = {layer: depth for depth, layer in enumerate(model.Layer)}


def deepest_layer(evidence: RunEvidence, monitor: str) -> str | None:
    """The layer to name for a monitor's longest episode; None when it had none."""
    outage = evidence.outage(monitor)
    longest = None if outage is None else outage.longest
    if longest is None:
        return None
    found = evidence.monitor(monitor).layer
    for each in evidence.plan.drill.monitors:
        if each.kind == "process" or _DEPTH[each.layer] >= _DEPTH[found]:
            continue
        other = evidence.outage(each.id)
        if other is not None and any(_together(longest, episode) for episode in other.episodes):
            found = each.layer
    return found.value


def _together(one: Episode, other: Episode) -> bool:
    """Whether both may have been out at one moment."""
    one_ends = float("inf") if one.until_ns is None else one.until_ns
    other_ends = float("inf") if other.until_ns is None else other.until_ns
    return one.after_ns < other_ends and other.after_ns < one_ends


HTTP_UNAUTHORIZED = 401


def refused_answers(evidence: RunEvidence, outage: Outage, check: model.ServiceOutage, name: str) -> int:
    """So many answers are all that this monitor's outage consists of; 0 when it is one of the service.

    It is one of the service, too, when another episode than those breaks the limit.
    """
    if not evidence.monitor(name).token:
        return 0
    counts = {each: _refused(evidence, name, each) for each in outage.episodes}
    others = (each for each, count in counts.items() if not count)
    if any(each.upper_ms is None or each.upper_ms >= check.limit_ms for each in others):
        return 0
    return sum(counts.values())


def _refused(evidence: RunEvidence, name: str, episode: Episode) -> int:
    """How many answers of 401 it has, when it has no other failure."""
    end_ns = episode.until_ns
    failed = [
        each.status
        for each in evidence.samples.get(name, ())
        if each.answer in FAILED
        and each.done_ns >= episode.first_bad_ns
        and (end_ns is None or each.sent_ns <= end_ns)
    ]
    return len(failed) if failed and all(each == HTTP_UNAUTHORIZED for each in failed) else 0


_NS_PER_MS = 1_000_000
_Limited = model.ServiceOutage | model.ProcessRecovery | model.Noticed
_MEASURED = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL)


def judge(evidence: RunEvidence) -> RunJudgement:
    return judged([*proof_rows(evidence), *_measured(evidence), *operation_rows(evidence)])


def _measured(evidence: RunEvidence) -> Iterator[VerdictRow]:
    for out in evidence.plan.left_out:
        yield from _left_out(out)
    for check in evidence.plan.drill.checks:
        match check:
            case model.ServiceOutage():
                for name in check.monitors:
                    yield _weighed(_service(evidence, check, name), check.weight, evidence)
            case model.ProcessRecovery():
                yield _weighed(_process(evidence, check), check.weight, evidence)
            case model.Noticed():
                yield _weighed(_noticed(evidence, check), check.weight, evidence)
            case model.Dependant():
                yield dependant_row(evidence, check)
            case model.HolderMoved():
                yield _weighed(holder_row(evidence, check), check.weight, evidence)
            case model.OperationsDone() | model.Proof():
                continue
            case _:
                assert_never(check)


def _left_out(out: facts.LeftOut) -> Iterator[VerdictRow]:
    """What would have decided, too. Others of the same check do, or the drill were refused at this site."""
    for requirement in out.decided:
        yield VerdictRow(
            requirement=requirement,
            what=f"outage of {out.monitor}",
            result=Verdict.INCONCLUSIVE,
            why=RowReason.MONITOR_LEFT_OUT,
            weight=model.Weight.INFORMATIVE,
            binding=False,
            detail=out.why,
        )


def _weighed(row: VerdictRow, weight: model.Weight, evidence: RunEvidence) -> VerdictRow:
    binding = weight is model.Weight.BINDING or (weight is model.Weight.STEP and evidence.plan.strict_steps)
    return replace(row, weight=weight, binding=binding)


def _lost(evidence: RunEvidence, monitor: str) -> bool:
    return any(each.monitor == monitor for each in evidence.all(facts.MonitorLost))


def _service(evidence: RunEvidence, check: model.ServiceOutage, name: str) -> VerdictRow:
    """One monitor against one limit. An outage that the tool itself ended was not recovered from."""
    what = f"outage of {name} {check.operator} {duration_text(check.limit_ms)}"
    outage = evidence.outage(name)
    if outage is None:
        return _unmeasured(evidence, check, what, name)
    monitor, cli = evidence.monitor(name), None
    needed = model.baseline_samples(evidence.plan.drill, monitor)
    if monitor.kind == "cli":
        cli = evidence.published(name, check.limit_ms)
    decision = decide(
        outage,
        check.limit_ms,
        check.operator,
        monitor_lost=_lost(evidence, name),
        baseline_min=min(needed, BASELINE_SAMPLES_MIN),
    )
    row = replace(
        _row(check, what, name, decision.verdict, decision.reason),
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
        layer=deepest_layer(evidence, name),
    )
    if decision.verdict in _MEASURED and outage.baseline_samples < needed:
        return replace(row, result=Verdict.ERROR, why=RowReason.BASELINE_SHORT)
    if decision.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        refused = refused_answers(evidence, outage, check, name)
        if refused:
            detail = f"{refused} answers, each of status 401"
            return replace(row, result=Verdict.ERROR, why=RowReason.TOKEN_REFUSED, detail=detail)
    if decision.verdict in _MEASURED and _tool_ended(evidence, outage):
        return replace(row, result=Verdict.FAIL, why=RowReason.TOOL_RESTARTED)
    return row


def _tool_ended(evidence: RunEvidence, outage: Outage) -> bool:
    restarts = [each.at_ns for each in evidence.entries if isinstance(each.fact, facts.ToolRestarted)]
    ends = [each.until_ns for each in outage.episodes]
    return any(end is None or end >= restart for restart in restarts for end in ends)


def _process(evidence: RunEvidence, check: model.ProcessRecovery) -> VerdictRow:
    """As many as before, of new identity, stable; and not because the tool started them."""
    what = f"{check.monitor} back {check.operator} {duration_text(check.limit_ms)}"
    outage = evidence.process(check.monitor)
    if outage is None:
        return _unmeasured(evidence, check, what, check.monitor)
    lost = _lost(evidence, check.monitor)
    decision = decide_process(outage, check.limit_ms, check.operator, monitor_lost=lost)
    restarted = evidence.all(facts.ToolRestarted)
    row = replace(
        _row(check, what, check.monitor, decision.verdict, decision.reason),
        lower_ms=outage.lower_ms,
        upper_ms=outage.upper_ms,
        censored=outage.upper_ms is None,
        samples=len(evidence.sightings.get(check.monitor, ())),
        detail=f"{outage.state.value}: {len(outage.before)} before, {len(outage.died)} died, "
        f"{len(outage.recovered)} new and stable, {outage.restarts} restarts that did not last",
    )
    if restarted and decision.verdict in _MEASURED:
        detail = ", ".join(each.what for each in restarted)
        return replace(row, result=Verdict.FAIL, detail=detail, why=RowReason.TOOL_RESTARTED)
    return row


def _noticed(evidence: RunEvidence, check: model.Noticed) -> VerdictRow:
    """How late our own fault manager was. Its silence counts only when somebody listened."""
    what = f"noticed by Homeostat {check.operator} {duration_text(check.limit_ms)}"
    injected, ended = evidence.last(facts.Injected), evidence.last(facts.WindowEnded)
    if injected is None or ended is None:
        return _unmeasured(evidence, check, what, None)
    # What was raised before the fault began was raised for something else.
    told = [each for each in evidence.all(facts.FaultNoticed) if each.by_ns >= injected.before_ns]
    first = min(told, key=lambda each: each.by_ns, default=None)
    row = _row(check, what, None, Verdict.ERROR, RowReason.NOT_LISTENED)
    if first is not None:
        lower_ms = max(0, first.after_ns - injected.after_ns) / _NS_PER_MS
        upper_ms = max(0, first.by_ns - injected.before_ns) / _NS_PER_MS
        return _bounded(row, check, lower_ms, upper_ms, f"{first.kind} {first.fault}")
    listening_ns = evidence.at_ns(facts.ListeningForFaults)
    if listening_ns is None or listening_ns > injected.before_ns:
        return row
    silent_ms = (ended.until_ns - injected.after_ns) / _NS_PER_MS
    bounded = _bounded(row, check, max(0.0, silent_ms), None, "")
    return replace(bounded, why=RowReason.NOT_NOTICED)


def _bounded(
    row: VerdictRow, check: model.Noticed, lower_ms: float, upper_ms: float | None, detail: str
) -> VerdictRow:
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


def _unmeasured(evidence: RunEvidence, check: _Limited, what: str, monitor: str | None) -> VerdictRow:
    """Nothing to measure with: which of the brackets is missing."""
    why = RowReason.MONITOR_MISSING
    if evidence.last(facts.Injected) is None:
        why = RowReason.NOT_INJECTED
    elif evidence.last(facts.WindowEnded) is None:
        why = RowReason.NO_WINDOW_END
    return _row(check, what, monitor, Verdict.ERROR, why)


def _row(
    check: _Limited, what: str, monitor: str | None, result: Verdict, why: RowReason | VerdictReason
) -> VerdictRow:
    return VerdictRow(
        check.requirement,
        what,
        result,
        why,
        monitor=monitor,
        limit_ms=check.limit_ms,
        operator=check.operator,
    )


@dataclass(frozen=True, slots=True)
class VerifiedRun:
    """`recorded`: what was said then, None when the run ended before. `differences`: one line each."""

    evidence: RunEvidence
    files: FolderCheck
    judgement: RunJudgement
    recorded: Verdict | None
    differences: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Nothing was changed, and the evidence still says what was said then."""
        return self.recorded is not None and not self.files.changes and not self.differences


def verify(folder: Path) -> VerifiedRun:
    """Recompute a verdict from the files alone. NotFound, or CorruptState for what cannot be read."""
    files = check_folder(folder)
    evidence = read_evidence(folder)
    judgement = judge(evidence)
    record = read_json(folder / VERDICT)  # none when the run ended before
    recorded, differences = None, []
    if record is not None and record.get("verdict") in Verdict.__members__:
        recorded = Verdict(record["verdict"])
        now = judgement_record(judgement)
        if recorded is not judgement.verdict:
            differences.append(f"the verdict was {recorded}, the evidence says {judgement.verdict}")
        if record.get("rows") != now["rows"]:
            differences += _rows(record.get("rows"), now["rows"])
    elif record is not None:
        differences.append(f"verdict.json: {record.get('verdict')!r} is no verdict")
    return VerifiedRun(evidence, files, judgement, recorded, tuple(differences))


def _rows(then: object, now: list[dict[str, object]]) -> list[str]:
    """What is said otherwise, a line a row."""
    if not isinstance(then, list) or len(then) != len(now):
        count = len(then) if isinstance(then, list) else "no"
        return [f"there were {count} rows, the evidence gives {len(now)}"]
    found = []
    for number, (old, new) in enumerate(zip(then, now, strict=True), start=1):
        fields = sorted(name for name in new if not isinstance(old, dict) or old.get(name) != new[name])
        if fields:
            found.append(f"row {number}, {new['requirement']} {new['what']}: {', '.join(fields)} differ")
    return found
