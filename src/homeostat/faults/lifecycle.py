"""The beginning and the end of a fault, as events, rows and pending notices. Pure.

What is seen of a subject (`Observed`) begins a fault, holds it while its subject is right, and ends it:
cleared, or superseded when its subject stays wrong and another fault says so. When which of them is due is
decided by `inspection` and `hosts`. An outage has bounds: at its beginning the last good and the first bad
evidence, at its end the last bad and the first good.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from homeostat.contracts.events.faults import FaultCleared, FaultRaised
from homeostat.contracts.faults import Fault, FaultState
from homeostat.contracts.nouns import INFRASTRUCTURE, FaultId, FaultKind, Owner, ResourceState, Severity
from homeostat.faults import model
from homeostat.faults.model import NO_AFFECTED, fault_id
from homeostat.ingest.entry import Decision, IngestState, PendingNotice
from homeostat.kernel.journal import EventIndex, NewEvent, Seq


@dataclass(frozen=True, slots=True)
class Observed:
    """One level of one subject. `mono_ns` is the source's clock, `server_ns` the same moment on ours.

    `evidence` is unique for what was seen: it makes the id of a fault that begins with it. `affected` is who
    else suffers, as text. `decided_ns` is when the evidence was enough, if that took a while.
    `before_mono_ns` is the last evidence of the contrary, on the clock of `mono_ns`; None: nobody knows.
    """

    about: str
    state: ResourceState
    kind: FaultKind
    reason: str
    at_ns: int
    server_ns: int
    evidence: str
    severity: Severity = Severity.MAJOR
    owner: Owner = INFRASTRUCTURE
    mono_ns: int | None = None
    origin: str = "faults"
    cause: Seq | EventIndex | None = None
    affected: str = NO_AFFECTED
    decided_ns: int | None = None
    before_mono_ns: int | None = None


def new_fault(seen: Observed, raised_seq: Seq | EventIndex, *, flaps: bool = False) -> Fault:
    """The fault that begins with what was seen."""
    return Fault(
        id=fault_id(seen.about, seen.evidence),
        kind=seen.kind,
        severity=seen.severity,
        about=seen.about,
        owner=seen.owner,
        reason=seen.reason,
        state=FaultState.OPEN,
        raised_seq=raised_seq,
        trace=seen.evidence,
        raised_ns=seen.at_ns,
        raised_mono_ns=seen.mono_ns,
        good_mono_ns=seen.before_mono_ns,
        affected=seen.affected,
        host=host_of(seen),
        flaps=flaps,
    )


def host_of(seen: Observed) -> str:
    """Where it is now: the host itself, or the one whose node speaks of it; empty for neither."""
    for subject in (seen.about, seen.origin):
        noun, _, name = subject.partition("/")
        if noun == "node":
            return name
    return ""


def raise_fault(
    decision: Decision, seen: Observed, world: IngestState, follows: tuple[FaultId, ...] = ()
) -> Fault:
    """Begin a fault with what was seen, and tell of it; whoever heard of those that it follows, too."""
    limits = world.flap_limits
    earlier = model.count_within(world.raised_ns.get(seen.about, ()), seen.at_ns, limits)
    flaps = model.is_flapping(seen.kind, earlier, limits)
    if flaps:
        seen = replace(seen, reason=model.flapping_reason(seen.reason, earlier, limits))
    fault = new_fault(seen, EventIndex(decision.base + len(decision.events)), flaps=flaps)
    event = FaultRaised(
        fault.id, fault.kind, fault.severity, fault.about, fault.owner, fault.reason, fault.raised_ns
    )
    at_ns = seen.decided_ns or seen.at_ns
    place = (f"fault/{fault.id}", at_ns, "faults", fault.trace, seen.cause)
    seq = decision.add(NewEvent(event, *place, key=f"raised/{fault.id}"))
    decision.raised.append(fault)
    decision.tellings.append(PendingNotice(fault, "raised", seq, follows=follows))
    return fault


def _is_one_clock(fault: Fault, seen: Observed) -> bool:
    """Whether both ends are by the same clock: a node's, or the server's."""
    return fault.kind is not FaultKind.RESOURCE_DOWN or host_of(seen) == fault.host


def hold_fault(fault: Fault, seen: Observed, clear_after_s: float) -> Fault:
    """The same, right since it was seen so, and over when it stays so for that long."""
    return replace(
        fault,
        state=FaultState.CLEARING,
        up_ns=seen.at_ns,
        up_mono_ns=seen.mono_ns if _is_one_clock(fault, seen) else None,
        bad_mono_ns=seen.before_mono_ns,
        up_seq=seen.cause,
        hold_until_ns=seen.server_ns + round(clear_after_s * 1e9),
    )


def supersede_fault(decision: Decision, fault: Fault, by: Fault, at_ns: int) -> None:
    """End a fault whose subject stays wrong, since `by` says it from now on: its outage ends where that
    begins.

    The outage of what its own node watched is not known: nobody's clock saw both ends.
    """
    bounds = model.UNKNOWN_OUTAGE
    if (
        fault.kind is FaultKind.AGENT_LOST
        and fault.raised_mono_ns is not None
        and by.raised_mono_ns is not None
    ):
        bounds = model.bounds_between(  # both by the server's clock
            (fault.good_mono_ns, fault.raised_mono_ns), (by.good_mono_ns, by.raised_mono_ns)
        )
    _end_fault(decision, replace(fault, superseded_by=by.id), (model.SUPERSEDED, at_ns), bounds)


def clear_fault(decision: Decision, fault: Fault, reason: str, at_ns: int) -> None:
    """End a fault whose subject is right again, at a wall time."""
    _end_fault(decision, fault, (reason, at_ns), model.outage_bounds(fault))


def _end_fault(decision: Decision, fault: Fault, why: tuple[str, int], bounds: model.OutageBounds) -> None:
    """`why`: the reason and the wall time. Whoever was told of the fault is told that it is over."""
    reason, at_ns = why
    over = replace(
        fault,
        state=FaultState.CLEARED,
        cleared_ns=at_ns,
        cleared_reason=reason,
        outage_ms=bounds.upper_ms,
        outage_lower_ms=bounds.lower_ms,
    )
    event = FaultCleared(
        over.id, over.about, reason, at_ns, over.outage_ms, over.outage_lower_ms, over.superseded_by
    )
    place = (f"fault/{fault.id}", at_ns, "faults", fault.trace, fault.up_seq or fault.raised_seq)
    seq = decision.add(NewEvent(event, *place, key=f"cleared/{fault.id}"))
    decision.changed.append(over)
    transition = "superseded" if over.superseded_by else "cleared"
    decision.tellings.append(PendingNotice(over, transition, seq))
