"""The fault of a host whose runner looks at nothing: it cannot start, is frozen, or its first look hangs.

The node process speaks, so the host is well; what runs there may be dead, and nobody would see it. For
administrators; what runs there is shown as unknown meanwhile. It ends when its runner has looked at
everything. Pure.
"""

from __future__ import annotations

from homeostat.contracts.nouns import FaultKind, ResourceState, node_subject, runner_subject
from homeostat.contracts.wire import Heartbeat
from homeostat.faults.inspection import update_fault
from homeostat.faults.lifecycle import Observed
from homeostat.ingest.entry import Decision, IngestState, Moment

LOOK_PATIENCE_S = 20.0
"""A runner that starts has so long for its first look at everything: the usual timeout of a monitor action.
Larger: what died unseen is shown as it was for longer. Smaller: every slow start of a host is a fault."""


def concerns_runner(world: IngestState, beat: Heartbeat) -> bool:
    """Whether there is something to decide: almost never."""
    return beat.looked is False or beat.host in world.topology.unlooked or _is_open(world, beat)


def on_runner(world: IngestState, beat: Heartbeat, now: Moment) -> Decision:
    """A node says that nobody looks at what runs there, or, after that, that it is looked at again.

    A node that was started again has the whole patience, but for a fault that is open already.
    """
    decision, topology, host = Decision(now.base), world.topology, beat.host
    is_open, blind_s = _is_open(world, beat), 0.0
    if beat.looked is False:
        known = topology.unlooked.get(host)
        if known is None or known[0] != beat.incarnation:
            known = topology.unlooked[host] = (beat.incarnation, now.mono_ns)
        blind_s = (now.mono_ns - known[1]) / 1e9
        if is_open or blind_s >= LOOK_PATIENCE_S:
            topology.blind.add(host)
        if is_open or blind_s < LOOK_PATIENCE_S:
            return decision
    else:
        topology.unlooked.pop(host, None)
        topology.blind.discard(host)
        if not is_open:
            return decision
    about = runner_subject(host)
    nobody = f"its runner has not looked at what runs there for {blind_s:.0f} s; see the log of its node"
    seen = Observed(
        about=about,
        state=ResourceState.DOWN if beat.looked is False else ResourceState.UP,
        kind=FaultKind.RUNNER_SILENT,
        reason=nobody if beat.looked is False else "its runner looks at everything again",
        at_ns=now.wall_ns,
        mono_ns=now.mono_ns,
        server_ns=now.mono_ns,
        origin=node_subject(host),
        evidence=f"{about}/{beat.incarnation}/{now.wall_ns}",
    )
    update_fault(world, decision, now.clear_after_s, seen)
    return decision


def _is_open(world: IngestState, beat: Heartbeat) -> bool:
    fault = world.faults.get(runner_subject(beat.host))
    return fault is not None and fault.up_ns is None
