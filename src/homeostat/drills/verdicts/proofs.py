"""Rows of the proofs: preconditions, effect, undo, monitors, window, dependants, holders. Pure.

Every run must prove the first five, whether its drill asks for it or not. A proof that is missing is an
ERROR and never a FAIL: nothing is known of the system then, good or bad. A fault on a disk that nobody
depends on proves nothing, however clean the run was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from homeostat.drills import model
from homeostat.drills.actions import PowerOffFault, duration_text, hold_ms
from homeostat.drills.records import facts
from homeostat.drills.records.evidence import RunEvidence
from homeostat.drills.verdicts.judgement import RowReason, VerdictRow
from homeostat.monitors.verdicts import Verdict

_NS_PER_MS = 1_000_000
_DEFAULTS = {"effect": "R0.3", "undo": "R0.8", "monitors": "R0.6", "window": "R0.4"}
_Kind = Literal["effect", "undo", "monitors", "window"]


def proof_rows(evidence: RunEvidence) -> Iterator[VerdictRow]:
    """Aborts and failures of ours, preconditions, effect, undo, monitors, window."""
    for aborted in evidence.all(facts.Aborted):
        yield _row("R0.7", f"ended by {aborted.by}", Verdict.ABORTED, RowReason.ABORTED, aborted.why)
    for broke in evidence.all(facts.Broke):
        yield _row("R0.7", broke.where, Verdict.ERROR, RowReason.BROKE, broke.what)
    yield from _preconditions(evidence)
    yield _effect(evidence)
    yield _undo(evidence)
    yield _monitors(evidence)
    yield _window(evidence)


def _row(requirement: str, what: str, verdict: Verdict, why: RowReason, detail: str = "") -> VerdictRow:
    return VerdictRow(requirement=requirement, what=what, result=verdict, why=why, detail=detail)


def _requirement(evidence: RunEvidence, kind: _Kind) -> str:
    named = (
        each.requirement
        for each in evidence.plan.drill.checks
        if isinstance(each, model.Proof) and each.kind == kind
    )
    return next(named, _DEFAULTS[kind])


def _preconditions(evidence: RunEvidence) -> Iterator[VerdictRow]:
    seen = {each.number: each for each in evidence.before(facts.PreconditionSeen, facts.Injected)}
    for number, precondition in enumerate(evidence.plan.drill.preconditions):
        what, found = _words(precondition), seen.get(number)
        if found is None:
            yield _row(precondition.requirement, what, Verdict.ERROR, RowReason.NOT_LOOKED)
        elif found.held:
            yield _row(precondition.requirement, what, Verdict.PASS, RowReason.HELD, found.seen)
        else:
            yield _row(precondition.requirement, what, Verdict.ERROR, RowReason.NOT_HELD, found.seen)


def _words(precondition: model.Precondition) -> str:
    match precondition:
        case model.Redundancy():
            return f"at least {precondition.at_least} back ends of {precondition.service}"
        case model.FreeSpace():
            return f"at least {precondition.at_least_gib:g} GiB free"
        case model.NoOpenFaults():
            return "no open faults"


def _effect(evidence: RunEvidence) -> VerdictRow:
    """Seen after the injection; of a fault that lasts, again when it had lasted as long as it should."""
    requirement, what = _requirement(evidence, "effect"), "the fault had its effect"
    early = len(evidence.before(facts.EffectSeen, facts.Injected))
    injected, seen = evidence.last(facts.Injected), evidence.all(facts.EffectSeen)[early:]
    if injected is None:
        return _row(requirement, what, Verdict.ERROR, RowReason.NOT_INJECTED)
    if not injected.hit:
        return _row(requirement, what, Verdict.ERROR, RowReason.NOTHING_HIT)
    if not seen:
        return _row(requirement, what, Verdict.ERROR, RowReason.NOT_LOOKED)
    detail = "; ".join(each.seen for each in seen)
    if not all(each.proven for each in seen):
        return _row(requirement, what, Verdict.ERROR, RowReason.NO_EFFECT, detail)
    fault = evidence.plan.drill.fault
    # A host may well be switched on again by others: that is recovery.
    lasting_ms = 0.0 if isinstance(fault, PowerOffFault) else hold_ms(fault)
    seen_ns = evidence.at_ns(facts.EffectSeen) or 0
    if lasting_ms and seen_ns < injected.before_ns + round(lasting_ms * _NS_PER_MS):
        detail = f"whether it was still there after {duration_text(lasting_ms)}"
        return _row(requirement, what, Verdict.ERROR, RowReason.NOT_LOOKED, detail)
    return _row(requirement, what, Verdict.PASS, RowReason.PROVEN, f"{', '.join(injected.hit)}: {detail}")


def _undo(evidence: RunEvidence) -> VerdictRow:
    """Asked for as soon as the injection was begun: half a fault is one, too."""
    requirement, what = _requirement(evidence, "undo"), "the fault is gone"
    begun_ns, undone_ns = evidence.at_ns(facts.Injecting), evidence.at_ns(facts.Undone)
    if evidence.last(facts.Injected) is not None:
        begun_ns = evidence.at_ns(facts.Injected)
    if begun_ns is None:
        return _row(requirement, what, Verdict.ERROR, RowReason.NOT_INJECTED)
    undone = evidence.last(facts.Undone)
    if undone is None or undone_ns is None or undone_ns < begun_ns:
        return _row(requirement, what, Verdict.ERROR, RowReason.NOT_LOOKED)
    if not undone.proven:
        return _row(requirement, what, Verdict.ERROR, RowReason.NOT_UNDONE, undone.seen)
    return _row(requirement, what, Verdict.PASS, RowReason.PROVEN, undone.seen)


def _monitors(evidence: RunEvidence) -> VerdictRow:
    """Each from before the fault to the end of the window."""
    what = "every monitor was alive"
    injected, ended = evidence.last(facts.Injected), evidence.last(facts.WindowEnded)
    lost = {each.monitor: each.why for each in evidence.all(facts.MonitorLost)}
    wrong = []
    for monitor in evidence.plan.drill.monitors:
        entry = next((each for each in evidence.entries if isinstance(each.fact, facts.MonitorEnded)
                      and each.fact.monitor == monitor.id), None)  # fmt: skip
        ready = evidence.ready(monitor.id)
        if monitor.id in lost:
            wrong.append(f"{monitor.id}: {lost[monitor.id]}")
        elif ready is None or (injected is not None and ready.since_ns > injected.before_ns):
            wrong.append(f"{monitor.id}: no baseline before the fault")
        elif entry is None or ended is None or entry.at_ns < ended.until_ns:
            wrong.append(f"{monitor.id}: did not say that it was there to the end")
    requirement = _requirement(evidence, "monitors")
    if wrong:
        return _row(requirement, what, Verdict.ERROR, RowReason.MONITOR_MISSING, "; ".join(wrong))
    count = f"{len(evidence.plan.drill.monitors)} monitors"
    return _row(requirement, what, Verdict.PASS, RowReason.MONITORS_ALIVE, count)


def _window(evidence: RunEvidence) -> VerdictRow:
    """Felt, ended, undone, and settled after the last of these."""
    requirement, what = _requirement(evidence, "window"), "measured for long enough"
    injected, ended = evidence.last(facts.Injected), evidence.last(facts.WindowEnded)
    window = evidence.plan.drill.window
    if injected is None:
        return _row(requirement, what, Verdict.ERROR, RowReason.NOT_INJECTED)
    if ended is None:
        return _row(requirement, what, Verdict.ERROR, RowReason.NO_WINDOW_END)
    hold_ns = round(hold_ms(evidence.plan.drill.fault) * _NS_PER_MS)
    undone_ns = evidence.at_ns(facts.Undone)
    felt_ns = round(window.effect_within_ms * _NS_PER_MS)
    over_ns = [injected.after_ns + max(felt_ns, hold_ns), undone_ns or 0, *_recoveries(evidence)]
    if undone_ns is not None and undone_ns < injected.before_ns + hold_ns:
        return _row(requirement, what, Verdict.ERROR, RowReason.FAULT_SHORT)
    short_ms = (max(over_ns) - ended.until_ns) / _NS_PER_MS + window.settle_ms
    if short_ms > 0:
        detail = f"{short_ms:.0f} ms more were needed"
        return _row(requirement, what, Verdict.INCONCLUSIVE, RowReason.WINDOW_SHORT, detail)
    detail = f"{(ended.until_ns - injected.before_ns) / _NS_PER_MS:.0f} ms after the fault"
    return _row(requirement, what, Verdict.PASS, RowReason.WINDOW_COMPLETE, detail)


def _recoveries(evidence: RunEvidence) -> Iterator[int]:
    for name in model.deciding_monitors(evidence.plan.drill):
        outage = evidence.outage(name)
        yield from (each.until_ns for each in (outage.episodes if outage else ()) if each.until_ns)


def dependant_row(evidence: RunEvidence, check: model.Dependant) -> VerdictRow:
    """INCONCLUSIVE when nobody's data lay there: to pass would say something of a disk that is not used."""
    seen = evidence.before(facts.DependantsSeen, facts.Injected)
    what = "the disk that was hit has a dependant"
    if not seen:
        return _row(check.requirement, what, Verdict.ERROR, RowReason.NOT_LOOKED)
    last = seen[-1]
    if last.on_it:
        detail = f"{last.device}: {', '.join(last.on_it)}"
        return _row(check.requirement, what, Verdict.PASS, RowReason.DEPENDANT, detail)
    beside = f"not on it: {', '.join(last.beside)}" if last.beside else "no data is known on this host"
    detail = f"{last.device}; {beside}"
    return _row(check.requirement, what, Verdict.INCONCLUSIVE, RowReason.NO_DEPENDANT, detail)


def holder_row(evidence: RunEvidence, check: model.HolderMoved) -> VerdictRow:
    """One host said so before and every other one no; later another one said so, and the first one no.

    Two hosts may claim an address at once, so the silence of one that had it is no proof that it went.
    """
    seen = [each for each in evidence.all(facts.HolderSeen) if each.service == check.service]
    before = [each for each in seen if each.when == "before"]
    later = [each for each in seen if each.when != "before"]
    verdict, why = Verdict.ERROR, RowReason.NOT_LOOKED
    if before and later:
        held = before[-1].hosts
        if len(held) != 1:
            verdict, why = Verdict.ERROR, RowReason.HOLDER_UNKNOWN
        elif before[-1].silent:
            verdict, why = Verdict.INCONCLUSIVE, RowReason.HOLDER_UNKNOWN
        elif any(_elsewhere(each, held[0]) for each in later):
            verdict, why = Verdict.PASS, RowReason.HOLDER_MOVED
        elif any(each.hosts != held and (each.hosts or each.silent) for each in later):
            verdict, why = Verdict.INCONCLUSIVE, RowReason.HOLDER_UNKNOWN
        else:
            verdict, why = Verdict.FAIL, RowReason.HOLDER_STAYED
    what, detail = f"the address of {check.service} moved", ", ".join(map(_holder_text, seen))
    return _row(check.requirement, what, verdict, why, detail)


def _elsewhere(seen: facts.HolderSeen, held: str) -> bool:
    """Exactly one host, and it is known that the old holder has it not: it said no, or is proven to be off
    (the one whom the drill switched off is not asked, so it is not silent)."""
    return len(seen.hosts) == 1 and seen.hosts[0] != held and held not in seen.silent


def _holder_text(seen: facts.HolderSeen) -> str:
    silent = f" ({', '.join(seen.silent)} could not be asked)" if seen.silent else ""
    return f"{seen.when} the fault: {', '.join(seen.hosts) or 'nobody'}{silent}"
