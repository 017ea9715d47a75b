"""What every run must prove, whether its drill asks for it or not. Pure.

A proof that is missing is an ERROR and never a FAIL: nothing is known of the system then, good or bad.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from homeostat.drills.fault import HostOff, hold_ms
from homeostat.drills.model import (
    FreeSpace,
    NoOpenFaults,
    Precondition,
    Proof,
    Redundancy,
    ServiceOutage,
    Weight,
)
from homeostat.drills.records.evidence import Evidence
from homeostat.drills.records.facts import (
    Aborted,
    Broke,
    EffectSeen,
    Injected,
    Injecting,
    MonitorEnded,
    MonitorLost,
    PreconditionSeen,
    Undone,
    WindowEnded,
)
from homeostat.drills.spans import span_text
from homeostat.drills.verdicts.judgement import Row, Why
from homeostat.monitors.verdicts import Verdict

_NS_PER_MS = 1_000_000
_DEFAULTS = {"effect": "R0.3", "undo": "R0.8", "monitors": "R0.6", "window": "R0.4"}
_Kind = Literal["effect", "undo", "monitors", "window"]


def proof_rows(evidence: Evidence) -> Iterator[Row]:
    """Aborts and failures of ours, preconditions, effect, undo, monitors, window."""
    for aborted in evidence.all(Aborted):
        yield _row("R0.7", f"ended by {aborted.by}", Verdict.ABORTED, Why.ABORTED, aborted.why)
    for broke in evidence.all(Broke):
        yield _row("R0.7", broke.where, Verdict.ERROR, Why.BROKE, broke.what)
    yield from _preconditions(evidence)
    yield _effect(evidence)
    yield _undo(evidence)
    yield _monitors(evidence)
    yield _window(evidence)


def _row(requirement: str, what: str, verdict: Verdict, why: Why, detail: str = "") -> Row:
    return Row(requirement=requirement, what=what, result=verdict, why=why, detail=detail)


def _requirement(evidence: Evidence, kind: _Kind) -> str:
    named = (
        each.requirement
        for each in evidence.plan.drill.checks
        if isinstance(each, Proof) and each.kind == kind
    )
    return next(named, _DEFAULTS[kind])


def _preconditions(evidence: Evidence) -> Iterator[Row]:
    seen = {each.number: each for each in evidence.before(PreconditionSeen, Injected)}
    for number, precondition in enumerate(evidence.plan.drill.preconditions):
        what, found = _words(precondition), seen.get(number)
        if found is None:
            yield _row(precondition.requirement, what, Verdict.ERROR, Why.NOT_LOOKED)
        elif found.held:
            yield _row(precondition.requirement, what, Verdict.PASS, Why.HELD, found.seen)
        else:
            yield _row(precondition.requirement, what, Verdict.ERROR, Why.NOT_HELD, found.seen)


def _words(precondition: Precondition) -> str:
    match precondition:
        case Redundancy():
            return f"at least {precondition.at_least} back ends of {precondition.service}"
        case FreeSpace():
            return f"at least {precondition.at_least_gib:g} GiB free"
        case NoOpenFaults():
            return "no open faults"


def _effect(evidence: Evidence) -> Row:
    """Seen after the injection; of a fault that lasts, again when it had lasted as long as it should."""
    requirement, what = _requirement(evidence, "effect"), "the fault had its effect"
    early = len(evidence.before(EffectSeen, Injected))
    injected, seen = evidence.last(Injected), evidence.all(EffectSeen)[early:]
    if injected is None:
        return _row(requirement, what, Verdict.ERROR, Why.NOT_INJECTED)
    if not injected.hit:
        return _row(requirement, what, Verdict.ERROR, Why.NOTHING_HIT)
    if not seen:
        return _row(requirement, what, Verdict.ERROR, Why.NOT_LOOKED)
    detail = "; ".join(each.seen for each in seen)
    if not all(each.proven for each in seen):
        return _row(requirement, what, Verdict.ERROR, Why.NO_EFFECT, detail)
    fault = evidence.plan.drill.fault
    # A host may well be switched on again by others: that is recovery.
    lasting_ms = 0.0 if isinstance(fault, HostOff) else hold_ms(fault)
    seen_ns = evidence.at_ns(EffectSeen) or 0
    if lasting_ms and seen_ns < injected.before_ns + round(lasting_ms * _NS_PER_MS):
        detail = f"whether it was still there after {span_text(lasting_ms)}"
        return _row(requirement, what, Verdict.ERROR, Why.NOT_LOOKED, detail)
    return _row(requirement, what, Verdict.PASS, Why.PROVEN, f"{', '.join(injected.hit)}: {detail}")


def _undo(evidence: Evidence) -> Row:
    """Asked for as soon as the injection was begun: half a fault is one, too."""
    requirement, what = _requirement(evidence, "undo"), "the fault is gone"
    begun_ns, undone_ns = evidence.at_ns(Injecting), evidence.at_ns(Undone)
    if evidence.last(Injected) is not None:
        begun_ns = evidence.at_ns(Injected)
    if begun_ns is None:
        return _row(requirement, what, Verdict.ERROR, Why.NOT_INJECTED)
    undone = evidence.last(Undone)
    if undone is None or undone_ns is None or undone_ns < begun_ns:
        return _row(requirement, what, Verdict.ERROR, Why.NOT_LOOKED)
    if not undone.proven:
        return _row(requirement, what, Verdict.ERROR, Why.NOT_UNDONE, undone.seen)
    return _row(requirement, what, Verdict.PASS, Why.PROVEN, undone.seen)


def _monitors(evidence: Evidence) -> Row:
    """Each from before the fault to the end of the window."""
    what = "every monitor was alive"
    injected, ended = evidence.last(Injected), evidence.last(WindowEnded)
    lost = {each.monitor: each.why for each in evidence.all(MonitorLost)}
    wrong = []
    for monitor in evidence.plan.drill.monitors:
        entry = next((each for each in evidence.entries if isinstance(each.fact, MonitorEnded)
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
        return _row(requirement, what, Verdict.ERROR, Why.MONITOR_MISSING, "; ".join(wrong))
    count = f"{len(evidence.plan.drill.monitors)} monitors"
    return _row(requirement, what, Verdict.PASS, Why.MONITORS_ALIVE, count)


def _window(evidence: Evidence) -> Row:
    """Felt, ended, undone, and settled after the last of these."""
    requirement, what = _requirement(evidence, "window"), "measured for long enough"
    injected, ended, window = evidence.last(Injected), evidence.last(WindowEnded), evidence.plan.drill.window
    if injected is None:
        return _row(requirement, what, Verdict.ERROR, Why.NOT_INJECTED)
    if ended is None:
        return _row(requirement, what, Verdict.ERROR, Why.NO_WINDOW_END)
    over_ns = [
        injected.after_ns + round(window.effect_within_ms * _NS_PER_MS),
        injected.after_ns + round(hold_ms(evidence.plan.drill.fault) * _NS_PER_MS),
        evidence.at_ns(Undone) or 0,
        *_recoveries(evidence),
    ]
    hold_ns = round(hold_ms(evidence.plan.drill.fault) * _NS_PER_MS)
    undone_ns = evidence.at_ns(Undone)
    if undone_ns is not None and undone_ns < injected.before_ns + hold_ns:
        return _row(requirement, what, Verdict.ERROR, Why.FAULT_SHORT)
    short_ms = (max(over_ns) - ended.until_ns) / _NS_PER_MS + window.settle_ms
    if short_ms > 0:
        detail = f"{short_ms:.0f} ms more were needed"
        return _row(requirement, what, Verdict.INCONCLUSIVE, Why.WINDOW_SHORT, detail)
    length_ms = (ended.until_ns - injected.before_ns) / _NS_PER_MS
    return _row(requirement, what, Verdict.PASS, Why.WINDOW_COMPLETE, f"{length_ms:.0f} ms after the fault")


def _recoveries(evidence: Evidence) -> Iterator[int]:
    for check in evidence.plan.drill.checks:
        if isinstance(check, ServiceOutage) and check.weight is Weight.BINDING:
            for name in check.monitors:
                outage = evidence.outage(name)
                yield from (each.until_ns for each in (outage.episodes if outage else ()) if each.until_ns)
