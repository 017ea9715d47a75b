"""Keep processors busy: one worker pinned to each that we may use.

Which they are says the scheduler (affinity, cpuset) and the cgroup's quota, never `physical id` of
/proc/cpuinfo. Proven from /proc/stat, a core at a time.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Optional, Tuple

from homeostat.drills import node_keeper as keeper
from homeostat.drills.injectors.cpu_share import allowed_cpus, busy_share, cpu_times, quota_cpus
from homeostat.drills.injectors.node_matching import process_of
from homeostat.drills.injectors.record import Fault, Section, keepers_words, undo, verify_undone
from homeostat.drills.injectors.workers import cpu_ticks, let_go, start_workers
from homeostat.kernel.errors import BadInput

__all__ = ["inject", "plan", "probe", "prove", "undo", "verify_undone"]

FULL = 0.95


@dataclass(frozen=True)
class CpuTarget:
    """Which processors; all that are allowed when nothing is said."""

    cpus: Optional[Tuple[int, ...]]
    window_s: float
    """How long /proc/stat is watched."""


def probe(fault: Fault) -> Section:
    """The processors that may be used, and whether a quota forbids to fill those that are wanted."""
    try:
        cpus = _wanted(fault)
    except BadInput as error:
        return {"able": False, "missing": [str(error)], **_facts()}
    return {"able": True, "missing": [], "cpus": list(cpus), **_facts()}


def plan(fault: Fault) -> Section:
    """The processors, one worker each. BadInput when none may be used or a quota forbids to fill them."""
    cpus = _wanted(fault)
    return {
        "does": f"one pinned worker on each of {len(cpus)} processors",
        "cpus": list(cpus),
        "undo": ["SIGKILL to each worker, if it is still the same process"],
        **_facts(),
    }


def inject(fault: Fault) -> Section:
    """Start the workers, put their identities on disk, let them go."""
    cpus = fault.section("plan")["cpus"]
    if tuple(cpus) != _wanted(fault):
        raise BadInput("plan.cpus", cpus, "the processors that may be used have changed; plan again")
    with keepers_words():
        keeper.arm(fault.keeper, fault.id, fault.order.deadline_s, os.getpid())
        workers = start_workers(fault, [["--core", str(cpu)] for cpu in cpus])
        before_ns = keeper.now_ns()
        let_go(workers)
        after_ns = keeper.now_ns()
        keeper.injected(fault.keeper, fault.id)
    named = zip(cpus, workers)
    return {
        "before_ns": before_ns,
        "after_ns": after_ns,
        "workers": [{"cpu": cpu, **worker.identity._asdict()} for cpu, worker in named],
    }


def prove(fault: Fault) -> Section:
    """Every wanted processor was at least 95 % busy for the window, and its worker worked all along."""
    workers = fault.section("inject")["workers"]
    window_s = _target(fault).window_s
    processes = {worker["cpu"]: process_of(worker) for worker in workers}
    alive = {cpu: process for cpu, process in processes.items() if keeper.lives(process)}
    if len(alive) < len(processes):
        dead = sorted(processes.keys() - alive.keys())
        return {"proven": False, "reason": f"the workers of the processors {dead} are gone", "cores": []}
    times, ticks = cpu_times(), {cpu: cpu_ticks(process) for cpu, process in alive.items()}
    time.sleep(window_s)  # the window that is measured; nothing is waited for
    after = cpu_times()
    cores = []
    for cpu, process in alive.items():
        lives = keeper.lives(process)
        own_s = (cpu_ticks(process) - ticks[cpu]) / os.sysconf("SC_CLK_TCK") if lives else 0.0
        share = busy_share(times[cpu], after[cpu])
        full = lives and own_s > 0 and share >= FULL
        cores.append({"cpu": cpu, "busy": round(share, 4), "worker_s": own_s, "full": full})
    return {"proven": all(core["full"] for core in cores), "window_s": window_s, "cores": cores}


def _target(fault: Fault) -> CpuTarget:
    words = fault.target
    target = CpuTarget(words.wholes("cpus"), words.number("window_s", 1.0, 0.2, 60))
    words.end()
    return target


def _facts() -> Section:
    return {"allowed": list(allowed_cpus()), "quota_cpus": quota_cpus()}


def _wanted(fault: Fault) -> tuple[int, ...]:
    """The processors to fill. BadInput when there is none, one is not allowed, or a quota is in the way."""
    allowed, quota, asked = allowed_cpus(), quota_cpus(), _target(fault).cpus
    wanted = allowed if asked is None else tuple(sorted(set(asked)))
    if not wanted:
        raise BadInput(
            "target.cpus", list(wanted), "at least one processor; with none nothing would be stressed"
        )
    if outside := [cpu for cpu in wanted if cpu not in allowed]:
        raise BadInput("target.cpus", outside, f"processors that this process may use: {list(allowed)}")
    if quota is not None and quota < len(wanted) * FULL:
        raise BadInput(
            "target.cpus",
            list(wanted),
            f"the cgroup's quota is {quota:g} processors; name fewer, or lift the quota",
        )
    return wanted
