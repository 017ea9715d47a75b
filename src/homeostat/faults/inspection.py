"""From what was seen to what is wrong, who did what about it, and who may have to be told. Pure.

Every function takes the world, one thing that was seen and the time, and returns a decision; the caller
adopts it and commits it. Source of the roles: OPNFV Doctor (monitor, inspector, notifier).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

from homeostat.contracts.events.faults import FaultCleared, FaultInhibited, FaultRaised
from homeostat.contracts.events.resources import ActionFinished, ActionIntended, ResourceDown, ResourceUp
from homeostat.contracts.nouns import (
    FaultKind,
    HostId,
    Owner,
    ResourceId,
    ResourceState,
    Severity,
    node_subject,
    resource_subject,
)
from homeostat.contracts.wire import Finish, Intent, ResourceLevel, Transition
from homeostat.faults.affected import NOBODY
from homeostat.faults.decision import Decision, Telling, World
from homeostat.faults.flapping import count_within, is_flapping, reason_of
from homeostat.faults.hysteresis import Step, is_over, step
from homeostat.faults.inhibition import Inhibition, inhibition
from homeostat.faults.model import Fault, FaultState, fault_id
from homeostat.fleet.model import Action, Resource
from homeostat.kernel.journal import Draft, Local, Seq

WRONG = frozenset({ResourceState.DOWN, ResourceState.FAILED})
UNSETTLED = WRONG | {ResourceState.STARTING}
SETTLE_NS = 30 * 10**9
"""How much longer than its hold the fault of a host stays, while things on it are still being started."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One level of one subject. `mono_ns` is the source's clock, `server_ns` the same moment on ours.

    `evidence` is unique for what was seen: it makes the id of a fault that begins with it. `affected` is who
    else suffers, as text. `decided_ns` is when the evidence was enough, if that took a while.
    """

    about: str
    state: ResourceState
    kind: FaultKind
    severity: Severity
    owner: Owner
    reason: str
    at_ns: int
    mono_ns: int | None
    server_ns: int
    origin: str
    evidence: str
    cause: Seq | Local | None
    affected: str = NOBODY
    decided_ns: int | None = None


def on_transition(
    world: World, host: HostId, boot: str, seen: tuple[Transition, int], place: tuple[int, float]
) -> Decision:
    """A node reports a change of one of its resources.

    `seen` is the transition and its moment on the server's monotonic clock; `place` is where in the entry the
    decision's events begin, and the setting `clear_after_s`.
    """
    transition, server_ns = seen
    base, clear_after_s = place
    level = transition.level
    evidence = f"{host}/{boot}/{level.seq}"
    decision = Decision(base)
    row, before = Resource.from_level(host, level), world.topology.resources.get(level.resource)
    if before is not None and before.generation > row.generation:  # fixed to its host from now on
        row = replace(row, generation=before.generation)
    decision.resources.append(row)
    fault = world.faults.get(resource_subject(level.resource))
    mono_ns = transition.mono_ns or None
    patience_s = _patience_s(world, fault, clear_after_s)
    anew = fault is None or step(fault, level.state, mono_ns, patience_s) is Step.CLEAR_AND_RAISE
    trace = evidence if fault is None or anew else fault.trace
    cause: Seq | Local | None = None
    if transition.finished is not None:
        cause = _finish(world, decision, host, (level, transition.finished), trace)
    cause = _level_event(world, decision, host, level, (trace, cause)) or cause
    follow(world, decision, clear_after_s, _as_seen(host, transition, server_ns, evidence, cause))
    if transition.intended is not None:
        _intend(decision, host, (level, transition.intended), trace, cause)
    return decision


def on_drift(
    world: World, host: HostId, boot: str, level: ResourceLevel, place: tuple[int, float]
) -> Decision:
    """A resync shows a level that no transition told of: those were lost for good."""
    # The stamp is unknown, hence the moment on the server's clock is too: zero means "long ago".
    return on_transition(world, host, boot, (Transition(level=level, mono_ns=0), 0), place)


def on_tick(world: World, now_ns: int, wall_ns: int, place: int) -> Decision:
    """Clear every fault whose subject has been right for long enough."""
    decision = Decision(place)
    for fault in world.faults.values():
        if is_over(fault, now_ns) and not _is_settling(world, fault, now_ns):
            clear(decision, fault, Step.CLEAR.value, fault.up_ns or wall_ns)
            if fault.kind is FaultKind.HOST_DOWN:
                _raise_what_remains(world, decision, fault)
    return decision


def _is_settling(world: World, fault: Fault, now_ns: int) -> bool:
    """A host is back, but what runs there is still being started: all of it is one story."""
    if fault.kind is not FaultKind.HOST_DOWN or now_ns >= (fault.hold_until_ns or 0) + SETTLE_NS:
        return False
    rows = world.topology.resources.values()
    return any(row.state in UNSETTLED and node_subject(row.host) == fault.about for row in rows)


def _raise_what_remains(world: World, decision: Decision, host_fault: Fault) -> None:
    """The host is back, but what was told with it is not: from now on that is a fault of its own."""
    for row in world.topology.resources.values():
        about = resource_subject(row.id)
        if node_subject(row.host) != host_fault.about or row.state not in WRONG or about in world.faults:
            continue
        seen = Seen(
            about=about,
            state=row.state,
            kind=FaultKind.RESOURCE_DOWN,
            severity=Severity.MAJOR,
            owner=row.owner,
            reason=f"{row.reason}; its host is back",
            at_ns=row.since_ns,
            mono_ns=None,
            server_ns=0,
            origin=node_subject(row.host),
            evidence=f"{host_fault.id}/{row.id}/{row.seq}",
            cause=host_fault.raised_seq,
        )
        _raise(decision, seen, world)


def follow(world: World, decision: Decision, clear_after_s: float, seen: Seen) -> None:
    """Let the fault of one subject follow what was seen of it."""
    fault = decision.fault_about(seen.about, world)
    clear_after_s = _patience_s(world, fault, clear_after_s)
    verdict = step(fault, seen.state, seen.mono_ns, clear_after_s)
    if verdict in (Step.RAISE, Step.CLEAR_AND_RAISE):
        by = decision.fault_about(seen.origin, world)
        why = inhibition(seen.kind, by)
        if why is not None:
            assert by is not None
            if fault is not None:
                clear(decision, fault, verdict.value, fault.up_ns or seen.at_ns)
            _inhibit(world, decision, seen, (by, why))
            return
    match verdict:
        case Step.NOTHING | Step.KEEP:
            return
        case Step.RAISE:
            _raise(decision, seen, world)
        case Step.CLEAR_AND_RAISE:
            assert fault is not None
            clear(decision, fault, verdict.value, fault.up_ns or seen.at_ns)
            _raise(decision, seen, world)
        case Step.HOLD:
            assert fault is not None
            decision.changed.append(_held(fault, seen, clear_after_s))
        case Step.REOPEN:
            assert fault is not None
            decision.changed.append(
                replace(
                    fault, state=FaultState.OPEN, up_ns=None, up_mono_ns=None, up_seq=None, hold_until_ns=None
                )
            )
        case Step.WITHDRAW:
            assert fault is not None
            held = _held(fault, seen, 0) if fault.up_ns is None else fault
            clear(decision, held, verdict.value, seen.at_ns)
        case Step.CLEAR:
            raise AssertionError("only a tick clears")
        case _:
            assert_never(verdict)


def _patience_s(world: World, fault: Fault | None, clear_after_s: float) -> float:
    """How long a subject must be right before its fault is over."""
    return (
        clear_after_s if fault is None or not fault.flaps else max(clear_after_s, world.flap_limits.window_s)
    )


def _inhibit(world: World, decision: Decision, seen: Seen, reason: tuple[Fault, Inhibition]) -> None:
    """Write down why it is no fault of its own, once for each time that it went wrong."""
    by, why = reason
    before = world.topology.resources.get(ResourceId(seen.about.partition("/")[2]))
    if before is None or before.state not in WRONG:
        event = FaultInhibited(seen.about, seen.kind, seen.owner, by.id, why.value)
        decision.add(Draft(event, seen.about, seen.at_ns, "faults", by.trace, seen.cause))


def _as_seen(
    host: HostId, transition: Transition, server_ns: int, evidence: str, cause: Seq | Local | None
) -> Seen:
    level = transition.level
    return Seen(
        about=resource_subject(level.resource),
        state=level.state,
        kind=FaultKind.RESOURCE_DOWN,
        severity=Severity.MAJOR,
        owner=level.owner,
        reason=level.reason,
        at_ns=level.at_ns,
        mono_ns=transition.mono_ns or None,
        server_ns=server_ns,
        origin=f"node/{host}",
        evidence=evidence,
        cause=cause,
    )


def _level_event(
    world: World,
    decision: Decision,
    host: HostId,
    level: ResourceLevel,
    place: tuple[str, Seq | Local | None],
) -> Local | None:
    """ResourceDown or ResourceUp when right became wrong or something became ready; None otherwise."""
    trace, cause = place
    before = world.topology.resources.get(level.resource)
    was = None if before is None else before.state
    event: ResourceDown | ResourceUp
    if level.state in WRONG and was not in WRONG:
        event = ResourceDown(
            level.resource, host, level.kind, level.owner, level.state.value, level.reason, level.at_ns
        )
    elif level.state is ResourceState.UP and was is not ResourceState.UP:
        event = ResourceUp(level.resource, host, level.kind, level.owner, level.reason, level.at_ns)
    else:
        return None
    return decision.add(
        Draft(event, resource_subject(level.resource), level.at_ns, f"node/{host}", trace, cause)
    )


def _intend(
    decision: Decision,
    host: HostId,
    what: tuple[ResourceLevel, Intent],
    trace: str,
    cause: Seq | Local | None,
) -> None:
    level, intent = what
    about, by = resource_subject(level.resource), f"node/{host}"
    event = ActionIntended(intent.action, intent.verb, by, intent.deadline_s, intent.reason)
    seq = decision.add(Draft(event, about, level.at_ns, by, trace, cause))
    decision.intended.append(
        Action(intent.action, intent.verb, about, by, intent.deadline_s, seq, level.at_ns, trace)
    )


def _finish(
    world: World, decision: Decision, host: HostId, what: tuple[ResourceLevel, Finish], trace: str
) -> Seq | Local | None:
    """Close an act. One that nobody intended here is left out: the journal has its end already."""
    level, finish = what
    action = world.topology.actions.get(finish.action)
    if action is None:
        return None
    event = ActionFinished(finish.action, finish.outcome.value, finish.took_ms, finish.reason)
    decision.finished.append(replace(action, outcome=finish.outcome.value, took_ms=finish.took_ms))
    return decision.add(Draft(event, action.about, level.at_ns, f"node/{host}", trace, action.intended_seq))


def fault_of(seen: Seen, raised_seq: Seq | Local, *, flaps: bool = False) -> Fault:
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
        affected=seen.affected,
        host=_host_of(seen),
        flaps=flaps,
    )


def _host_of(seen: Seen) -> str:
    """Where it is now: the host itself, or the one whose node speaks of it; empty for neither."""
    for subject in (seen.about, seen.origin):
        noun, _, name = subject.partition("/")
        if noun == "node":
            return name
    return ""


def _raise(decision: Decision, seen: Seen, world: World) -> None:
    limits = world.flap_limits
    earlier = count_within(world.raised_ns.get(seen.about, ()), seen.at_ns, limits)
    flaps = is_flapping(seen.kind, earlier, limits)
    if flaps:
        seen = replace(seen, reason=reason_of(seen.reason, earlier, limits))
    fault = fault_of(seen, Local(decision.base + len(decision.events)), flaps=flaps)
    event = FaultRaised(
        fault.id, fault.kind, fault.severity, fault.about, fault.owner, fault.reason, fault.raised_ns
    )
    at_ns = seen.decided_ns or seen.at_ns
    seq = decision.add(Draft(event, f"fault/{fault.id}", at_ns, "faults", fault.trace, seen.cause))
    decision.raised.append(fault)
    decision.tellings.append(Telling(fault, "raised", seq))


def _held(fault: Fault, seen: Seen, clear_after_s: float) -> Fault:
    return replace(
        fault,
        state=FaultState.CLEARING,
        up_ns=seen.at_ns,
        up_mono_ns=seen.mono_ns,
        up_seq=seen.cause,
        hold_until_ns=seen.server_ns + round(clear_after_s * 1e9),
    )


def clear(decision: Decision, fault: Fault, reason: str, at_ns: int) -> None:
    """End a fault, whatever it was about."""
    outage_ms = None
    if fault.up_mono_ns is not None and fault.raised_mono_ns is not None:
        span_ns = fault.up_mono_ns - fault.raised_mono_ns
        outage_ms = span_ns / 1e6 if span_ns >= 0 else None
    cleared = replace(
        fault, state=FaultState.CLEARED, cleared_ns=at_ns, cleared_reason=reason, outage_ms=outage_ms
    )
    event = FaultCleared(fault.id, fault.about, reason, at_ns, outage_ms)
    seq = decision.add(
        Draft(event, f"fault/{fault.id}", at_ns, "faults", fault.trace, fault.up_seq or fault.raised_seq)
    )
    decision.changed.append(cleared)
    decision.tellings.append(Telling(cleared, "cleared", seq))
