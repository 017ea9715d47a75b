"""The inspector: turns what a node observed into faults, journal events and pending notices. Pure.

Every function takes the state, one observation and the time, and returns a decision; the caller adopts it
and commits it. Source of the roles: OPNFV Doctor (monitor, inspector, notifier).
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from homeostat.contracts.events.faults import FaultInhibited
from homeostat.contracts.events.resources import GuestFound, ResourceDown, ResourceUp
from homeostat.contracts.faults import Fault, FaultState
from homeostat.contracts.nouns import (
    FaultKind,
    HostId,
    ResourceId,
    ResourceState,
    node_subject,
    resource_subject,
)
from homeostat.contracts.wire import Finish, ResourceStatus, ResourceTransition
from homeostat.faults import model
from homeostat.faults.guest_recovery import look_at_guests, note_guest
from homeostat.faults.lifecycle import (
    Observed,
    clear_fault,
    hold_fault,
    raise_fault,
    supersede_fault,
)
from homeostat.fleet.model import Resource, Topology
from homeostat.ingest.entry import Decision, IngestState
from homeostat.kernel.journal import EventIndex, NewEvent, Seq


def guest_found(topology: Topology, host: HostId, level: ResourceStatus) -> GuestFound | None:
    """That a node has a guest under a later assignment than the rows knew."""
    row = topology.resources.get(level.resource)
    if level.generation <= (0 if row is None else row.generation):
        return None
    return GuestFound(level.resource, level.owner, "" if row is None else row.host, host, level.generation)


WRONG = frozenset({ResourceState.DOWN, ResourceState.FAILED})
UNSETTLED = WRONG | {ResourceState.STARTING}
SETTLE_NS = 30 * 10**9
"""The fault of a host stays so much longer than its hold, while things on it are still being started."""


def on_transition(
    world: IngestState,
    host: HostId,
    boot: str,
    seen: tuple[ResourceTransition, int],
    place: tuple[int, float],
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
    if row.generation:
        note_guest(world, row, None if before is None else before.state, (transition, server_ns))
    fault = world.faults.get(resource_subject(level.resource))
    mono_ns = transition.mono_ns or None
    patience_s = _patience_s(world, fault, clear_after_s)
    anew = (
        fault is None
        or model.effect_of(fault, level.state, mono_ns, patience_s) is model.FaultEffect.CLEAR_AND_RAISE
    )
    trace = evidence if fault is None or anew else fault.trace
    if (later := guest_found(world.topology, host, level)) is not None:
        about = resource_subject(level.resource)
        decision.add(NewEvent(later, about, level.at_ns, node_subject(host), trace))
    cause: Seq | EventIndex | None = None
    if transition.finished is not None:
        cause = _finish(world, decision, host, (level, transition.finished), trace)
    cause = _level_event(world, decision, host, level, (trace, cause)) or cause
    update_fault(world, decision, clear_after_s, _as_seen(host, transition, server_ns, evidence, cause))
    if transition.intended is not None:
        about = resource_subject(level.resource)
        decision.intend(transition.intended, (about, level.at_ns, node_subject(host), trace, cause))
    return decision


def on_drift(
    world: IngestState, host: HostId, boot: str, level: ResourceStatus, place: tuple[int, float]
) -> Decision:
    """A resync shows a level that no transition told of: those were lost for good."""
    # The stamp is unknown, hence the moment on the server's clock is too: zero means "long ago".
    return on_transition(world, host, boot, (ResourceTransition(level=level, mono_ns=0), 0), place)


def on_tick(
    world: IngestState, now_ns: int, wall_ns: int, place: int, recovered_wait_s: float = 0.0
) -> Decision:
    """Clear what has been right for long enough, and tell of guests that run elsewhere."""
    decision = Decision(place)
    for fault in world.faults.values():
        if fault.kind is FaultKind.HOST_DOWN:
            fault = look_at_guests(world, decision, fault, (wall_ns, now_ns), recovered_wait_s)
        if not model.is_over(fault, now_ns) or _is_settling(world, fault, now_ns):
            continue
        if fault.kind in HEARD_KINDS and not _is_heard(world, fault):
            continue
        reason = model.FaultEffect.CLEAR.value
        if fault.kind is FaultKind.HOST_DOWN:
            # What is still wrong is told before the host is told as back: it never looks right between.
            wrong = _raise_what_remains(world, decision, fault)
            fault = replace(fault, remaining=model.encode_affected(wrong))
            reason = model.REMAINS if wrong else reason
        clear_fault(decision, fault, reason, fault.up_ns or wall_ns)
    return decision


HEARD_KINDS = frozenset({FaultKind.RESOURCE_DOWN, FaultKind.AGENT_LOST})


def _is_heard(world: IngestState, fault: Fault) -> bool:
    """Whether this server heard the node of such a fault at the end of its hold or later.

    A host may have died since its node said that all is right, and nobody has missed it yet.
    """
    row = world.topology.resources.get(ResourceId(fault.about.partition("/")[2]))
    is_resource = row is not None and fault.kind is FaultKind.RESOURCE_DOWN
    host = row.host if row is not None and is_resource else HostId(fault.host)
    if host not in world.topology.nodes:
        return True  # nobody will ever speak of it
    life = world.lives.get(host)
    return life is not None and life.last_ns >= (fault.hold_until_ns or 0)


def _is_settling(world: IngestState, fault: Fault, now_ns: int) -> bool:
    """A host is back, but what runs there is not known yet or still being started: all of it is one story.

    Rows are of before its death until its node has looked at everything, however long that takes. The last
    word of it must be from after the hold.
    """
    if fault.kind is not FaultKind.HOST_DOWN:
        return False
    reported_ns = world.reported.get(HostId(fault.about.partition("/")[2]))
    if reported_ns is None or reported_ns < (fault.hold_until_ns or 0):
        return True  # a host that has fallen silent again was not right for all of that time
    if now_ns >= (fault.hold_until_ns or 0) + SETTLE_NS:
        return False
    rows = world.topology.resources.values()
    return any(row.state in UNSETTLED and node_subject(row.host) == fault.about for row in rows)


def _raise_what_remains(world: IngestState, decision: Decision, host_fault: Fault) -> list[Resource]:
    """The host is back, but what was told with it is not: from now on that is a fault of its own."""
    wrong = []
    for row in world.topology.resources.values():
        about = resource_subject(row.id)
        if node_subject(row.host) != host_fault.about or row.state not in UNSETTLED:
            continue
        wrong.append(row)
        if about in world.faults:
            continue
        seen = Observed(
            about=about,
            state=ResourceState.DOWN,
            kind=FaultKind.RESOURCE_DOWN,
            owner=row.owner,
            reason=f"{row.reason}; its host is back",
            at_ns=row.since_ns,
            server_ns=0,
            origin=node_subject(row.host),
            evidence=f"{host_fault.id}/{row.id}/{row.seq}",
            cause=host_fault.raised_seq,
        )
        raise_fault(decision, seen, world, follows=(host_fault.id,))
    return wrong


def update_fault(world: IngestState, decision: Decision, clear_after_s: float, seen: Observed) -> None:
    """Let the fault of one subject follow what was seen of it."""
    fault = decision.fault_about(seen.about, world)
    clear_after_s = _patience_s(world, fault, clear_after_s)
    verdict = model.effect_of(fault, seen.state, seen.mono_ns, clear_after_s)
    if verdict in (model.FaultEffect.RAISE, model.FaultEffect.CLEAR_AND_RAISE):
        by = decision.fault_about(seen.origin, world)
        why = model.inhibition(seen.kind, by)
        if why is not None:
            assert by is not None
            if fault is not None:  # it is wrong again, so it is not told as right
                supersede_fault(decision, fault, by, seen.at_ns)
            _inhibit(world, decision, seen, (by, why))
            return
    match verdict:
        case model.FaultEffect.NOTHING | model.FaultEffect.KEEP:
            return
        case model.FaultEffect.RAISE:
            raise_fault(decision, seen, world)
        case model.FaultEffect.CLEAR_AND_RAISE:
            assert fault is not None
            clear_fault(decision, fault, verdict.value, fault.up_ns or seen.at_ns)
            raise_fault(decision, seen, world)
        case model.FaultEffect.HOLD:
            assert fault is not None
            decision.changed.append(hold_fault(fault, seen, clear_after_s))
        case model.FaultEffect.REOPEN:
            assert fault is not None
            decision.changed.append(
                replace(
                    fault,
                    state=FaultState.OPEN,
                    up_ns=None,
                    up_mono_ns=None,
                    bad_mono_ns=None,
                    up_seq=None,
                    hold_until_ns=None,
                )
            )
        case model.FaultEffect.WITHDRAW:
            assert fault is not None
            held = hold_fault(fault, seen, 0) if fault.up_ns is None else fault
            clear_fault(decision, held, verdict.value, seen.at_ns)
        case model.FaultEffect.CLEAR:
            assert fault is not None
            clear_fault(decision, fault, verdict.value, fault.up_ns or seen.at_ns)
        case _:
            assert_never(verdict)


def _patience_s(world: IngestState, fault: Fault | None, clear_after_s: float) -> float:
    """How long a subject must be right before its fault is over."""
    return (
        clear_after_s if fault is None or not fault.flaps else max(clear_after_s, world.flap_limits.window_s)
    )


def _inhibit(
    world: IngestState, decision: Decision, seen: Observed, reason: tuple[Fault, model.Inhibition]
) -> None:
    """Write down why it is no fault of its own, once for each time that it went wrong."""
    by, why = reason
    before = world.topology.resources.get(ResourceId(seen.about.partition("/")[2]))
    if before is None or before.state not in WRONG:
        event = FaultInhibited(seen.about, seen.kind, seen.owner, by.id, why.value)
        decision.add(NewEvent(event, seen.about, seen.at_ns, "faults", by.trace, seen.cause))


def _as_seen(
    host: HostId,
    transition: ResourceTransition,
    server_ns: int,
    evidence: str,
    cause: Seq | EventIndex | None,
) -> Observed:
    level = transition.level
    return Observed(
        about=resource_subject(level.resource),
        state=level.state,
        kind=FaultKind.RESOURCE_DOWN,
        owner=level.owner,
        reason=level.reason,
        at_ns=level.at_ns,
        mono_ns=transition.mono_ns or None,
        before_mono_ns=transition.before_mono_ns or None,
        server_ns=server_ns,
        origin=f"node/{host}",
        evidence=evidence,
        cause=cause,
    )


def _level_event(
    world: IngestState,
    decision: Decision,
    host: HostId,
    level: ResourceStatus,
    place: tuple[str, Seq | EventIndex | None],
) -> EventIndex | None:
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
        NewEvent(event, resource_subject(level.resource), level.at_ns, f"node/{host}", trace, cause)
    )


def _finish(
    world: IngestState, decision: Decision, host: HostId, what: tuple[ResourceStatus, Finish], trace: str
) -> Seq | EventIndex | None:
    """Close an act. One that nobody intended here is left out: the journal has its end already."""
    level, finish = what
    action = world.topology.actions.get(finish.action)
    if action is None:
        return None
    place = (level.at_ns, f"node/{host}", trace)
    return decision.finish(action, finish.outcome, finish.took_ms, finish.reason, place)
