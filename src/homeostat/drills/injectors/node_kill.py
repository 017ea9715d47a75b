"""Kill a whole set of processes, known by their identities. A balancer is killed by its profile.

Nothing is put back: that the service comes back by itself is what is measured. The bracket of stamps on
CLOCK_BOOTTIME is where its outage begins.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

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

__all__ = ["inject", "plan", "probe", "prove", "undo", "verify_undone"]


@dataclass(frozen=True)
class KillTarget:
    """Which processes, and how."""

    processes: ProcessTarget
    signal: str
    gone_within_s: float


def probe(fault: Fault) -> Section:
    """Whether the processes are there and may be signalled."""
    missing = missing_permission(matched(fault, _target(fault).processes))
    return {"able": not missing, "missing": missing}


def plan(fault: Fault) -> Section:
    """The match list."""
    found = matched(fault, _target(fault).processes)
    refuse_unpermitted(found)
    return {
        "does": f"{_target(fault).signal} to {len(found)} processes",
        "matched": shown(found),
        "undo": ["nothing: coming back is what is measured"],
    }


def inject(fault: Fault) -> Section:
    """Signal exactly the planned processes, between two stamps."""
    target = _target(fault)
    found = still(fault, target.processes)
    number = signal.Signals[target.signal]
    with keepers_words():
        why = "coming back is what is measured"
        keeper.arm(fault.keeper, fault.id, fault.order.deadline_s, os.getpid(), [keeper.step_nothing(why)])
        before_ns = keeper.now_ns()
        # The youngest first: a worker rather than the master at whose end it goes by itself.
        hit = [keeper.send(each, number) for each in sorted(found, key=lambda each: -each.start_ticks)]
        after_ns = keeper.now_ns()
        keeper.injected(fault.keeper, fault.id)
    return {"before_ns": before_ns, "after_ns": after_ns, "signalled": sum(hit), "of": len(hit)}


def prove(fault: Fault) -> Section:
    """Those identities are gone. `gone_by_ns` is when that was first seen, not when it happened.

    All were there right before the first signal; one that was gone before its own went with the others.
    """
    target, injected = _target(fault), fault.section("inject")
    found = [process_of(each) for each in fault.section("plan")["matched"]]
    keeper.within(target.gone_within_s, lambda: not any(map(keeper.lives, found)))
    left = [each.pid for each in found if keeper.lives(each)]
    return {
        "proven": not left and injected["signalled"] > 0,
        "gone_by_ns": None if left else keeper.now_ns(),
        "left": left,
    }


def _target(fault: Fault) -> KillTarget:
    words = fault.target
    number = words.one_of("signal", ("SIGKILL", "SIGTERM"), "SIGKILL")
    within_s = words.number("gone_within_s", 5.0, 0.1, 60)
    return KillTarget(process_target(words), number, within_s)
