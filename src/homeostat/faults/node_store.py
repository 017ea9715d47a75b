"""The fault of a node that cannot write its observation store: its disk is full, fails or is read-only. Pure.

It is about the store, beside whatever is wrong with the host or its node process, and for administrators:
what runs there is restarted all the same. It ends when the node says that it can write again.
"""

from __future__ import annotations

from collections.abc import Iterable

from homeostat.contracts.events.fleet import NodeStoreFull, NodeStoreWritable
from homeostat.contracts.faults import Fault
from homeostat.contracts.nouns import FaultKind, HostId, ResourceState, node_subject, store_subject
from homeostat.contracts.wire import Heartbeat
from homeostat.faults.inspection import update_fault
from homeostat.faults.lifecycle import Observed
from homeostat.fleet.model import Topology
from homeostat.ingest.entry import Decision, IngestState, Moment
from homeostat.kernel.journal import NewEvent


def store_changed(world: IngestState, beat: Heartbeat) -> bool:
    """True when the node says something else of its store than its fault does."""
    fault = world.faults.get(store_subject(beat.host))
    return bool(beat.store) != (fault is not None and fault.up_ns is None)


def on_store(world: IngestState, beat: Heartbeat, now: Moment) -> Decision:
    """A node begins to say that it cannot write its store, or that it can again."""
    decision = Decision(now.base)
    about, by = store_subject(beat.host), node_subject(beat.host)
    fault = world.faults.get(about)
    evidence = f"{about}/{beat.boot}/{now.wall_ns}"
    trace = evidence if fault is None else fault.trace
    event = NodeStoreFull(beat.host, beat.store) if beat.store else NodeStoreWritable(beat.host)
    because = None if fault is None else fault.raised_seq
    cause = decision.add(NewEvent(event, about, now.wall_ns, by, trace, because))
    seen = Observed(
        about=about,
        state=ResourceState.DOWN if beat.store else ResourceState.UP,
        kind=FaultKind.NODE_STORE_FULL,
        reason=beat.store or "its node can write its observation store again",
        at_ns=now.wall_ns,
        mono_ns=now.mono_ns,
        server_ns=now.mono_ns,
        evidence=evidence,
        origin=by,
        cause=cause,
    )
    update_fault(world, decision, now.clear_after_s, seen)
    return decision


def remember_full_stores(topology: Topology, faults: Iterable[Fault]) -> None:
    """Let the topology know which stores were full when the tables were written.

    A node that is silent since then does not say it again, and nobody knows what it could not write.
    """
    for fault in faults:
        host = HostId(fault.about.partition("/")[2])
        if fault.kind is FaultKind.NODE_STORE_FULL and fault.up_ns is None and host in topology.nodes:
            topology.hear_store(host, fault.reason, untold=True)
