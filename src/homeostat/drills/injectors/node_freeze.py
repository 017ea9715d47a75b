"""Stop a whole set of processes, known by their identities, where they stand; they go on at the undo."""

from __future__ import annotations

import os
import signal

from homeostat.drills import node_keeper as keeper
from homeostat.drills.injectors.node_matching import (
    ProcessTarget,
    matched,
    missing_permission,
    process_of,
    process_target,
    refuse_unpermitted,
    shown,
    still,
)
from homeostat.drills.injectors.record import Fault, Section, keepers_words, undo, verify_undone
from homeostat.drills.node_keeper import Process
from homeostat.kernel.errors import NotAllowed

__all__ = ["inject", "plan", "probe", "prove", "undo", "verify_undone"]


def probe(fault: Fault) -> Section:
    """Whether the processes are there and may be signalled."""
    missing = missing_permission(matched(fault, _target(fault)))
    return {"able": not missing, "missing": missing}


def plan(fault: Fault) -> Section:
    """The match list. NotAllowed for what somebody else has stopped: the undo would let it go on."""
    found = matched(fault, _target(fault))
    refuse_unpermitted(found)
    if stopped := [each.pid for each in found if _stopped(each)]:
        raise NotAllowed(f"process {stopped[0]} is stopped already, by somebody else; let it go on first")
    return {
        "does": f"SIGSTOP to {len(found)} processes",
        "matched": shown(found),
        "undo": [f"SIGCONT to {each.pid}, if it is still the same process" for each in found],
    }


def inject(fault: Fault) -> Section:
    """Stop exactly the planned processes, between two stamps."""
    found = still(fault, _target(fault))
    with keepers_words():
        steps = [keeper.step_cont(each) for each in found]
        keeper.arm(fault.keeper, fault.id, fault.order.deadline_s, os.getpid(), steps)
        before_ns = keeper.now_ns()
        hit = [keeper.send(each, signal.SIGSTOP) for each in found]
        after_ns = keeper.now_ns()
        keeper.injected(fault.keeper, fault.id)
    return {"before_ns": before_ns, "after_ns": after_ns, "signalled": sum(hit), "of": len(hit)}


def prove(fault: Fault) -> Section:
    """All of those identities are in state T. `gone`: those that exist no more."""
    found = [process_of(each) for each in fault.section("plan")["matched"]]
    fault.section("inject")
    keeper.within(2.0, lambda: all(map(_stopped, found)))
    running = [each for each in found if not _stopped(each)]
    gone = [each.pid for each in running if not keeper.lives(each)]
    pids = [each.pid for each in running]
    return {"proven": not running, "not_stopped": pids, "gone": gone, "at_ns": keeper.now_ns()}


def _stopped(process: Process) -> bool:
    found = keeper.stat_of(process.pid)
    return found is not None and found[0] == "T" and keeper.lives(process)


def _target(fault: Fault) -> ProcessTarget:
    return process_target(fault.target)
