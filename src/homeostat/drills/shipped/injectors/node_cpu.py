"""Injector that keeps processors busy: one worker pinned to each that we may use.

Which they are says the scheduler (affinity, cpuset) and the quota of our cgroup and those above it, of both
cgroup versions, never `physical id` of /proc/cpuinfo. Proven from /proc/stat, a core at a time: at least 95
% busy through the window; time stolen by a hypervisor is not idle.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

from homeostat.drills.shipped.injectors.record import InjectedFault, Section, keeper_errors
from homeostat.drills.shipped.injectors.workers import cpu_ticks, release_workers, start_workers
from homeostat.drills.shipped.keeper import machine, orders
from homeostat.kernel.errors import BadInput


@dataclass(frozen=True)
class CpuTime:
    """Ticks of one processor since boot. Time stolen by a hypervisor is not idle: nobody here gets it."""

    idle: int
    total: int


def allowed_cpus() -> tuple[int, ...]:
    """The processors that the scheduler may give us: affinity, which a cpuset narrows."""
    return tuple(sorted(os.sched_getaffinity(0)))


def quota_cpus(proc: Path = Path("/proc/self")) -> float | None:
    """The smallest quota of our cgroup and those above it, in processors; None when there is none."""
    return min(_quotas(proc), default=None)


def cpu_times() -> Mapping[int, CpuTime]:
    times = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name.startswith("cpu") and name != "cpu":
            counted = [int(tick) for tick in ticks[:8]]  # guest time is in user time already
            times[int(name[3:])] = CpuTime(counted[3] + counted[4], sum(counted))
    return times


def busy_share(before: CpuTime, after: CpuTime) -> float:
    """The share of the time between that was not idle, 0 to 1."""
    total = after.total - before.total
    return 0.0 if total <= 0 else 1.0 - (after.idle - before.idle) / total


def _quotas(proc: Path) -> Iterator[float]:
    paths = {}
    for line in (proc / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    for mount, kind, options in _mounts(proc):
        if kind == "cgroup2" and "" in paths:
            for folder in _upwards(mount, paths[""]):
                quota, *period = _words(folder / "cpu.max")
                if quota not in ("", "max"):
                    yield int(quota) / int(period[0])
        elif kind == "cgroup" and "cpu" in options and "cpu" in paths:
            for folder in _upwards(mount, paths["cpu"]):
                quota, *_ = _words(folder / "cpu.cfs_quota_us")
                if quota not in ("", "-1"):
                    yield int(quota) / int(_words(folder / "cpu.cfs_period_us")[0])


def _mounts(proc: Path) -> Iterator[tuple[Path, str, list[str]]]:
    for line in (proc / "mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split()
        yield Path(left.split()[4]), kind, options.split(",")


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    folder = mount / path.strip("/")
    while folder != mount and mount in folder.parents:
        yield folder
        folder = folder.parent
    yield mount


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split() or [""]
    except OSError:
        return [""]


FULL = 0.95


@dataclass(frozen=True)
class CpuTarget:
    """Which processors; all that are allowed when nothing is said."""

    cpus: Optional[Tuple[int, ...]]
    window_s: float
    """How long /proc/stat is watched."""


def probe(fault: InjectedFault) -> Section:
    """The processors that may be used, and whether a quota forbids to fill those that are wanted."""
    try:
        cpus = _wanted(fault)
    except BadInput as error:
        return {"able": False, "missing": [str(error)], **_facts()}
    return {"able": True, "missing": [], "cpus": list(cpus), **_facts()}


def plan(fault: InjectedFault) -> Section:
    """The processors, one worker each. BadInput when none may be used or a quota forbids to fill them."""
    cpus = _wanted(fault)
    return {
        "does": f"one pinned worker on each of {len(cpus)} processors",
        "cpus": list(cpus),
        "undo": ["SIGKILL to each worker, if it is still the same process"],
        **_facts(),
    }


def inject(fault: InjectedFault) -> Section:
    """Start the workers, put their identities on disk, let them go."""
    cpus = fault.section("plan")["cpus"]
    if tuple(cpus) != _wanted(fault):
        raise BadInput("plan.cpus", cpus, "the processors that may be used have changed; plan again")
    with keeper_errors():
        orders.arm(fault.keeper, fault.id, fault.order.deadline_s, os.getpid())
        workers = start_workers(fault, [["--core", str(cpu)] for cpu in cpus])
        before_ns = machine.now_ns()
        release_workers(workers)
        after_ns = machine.now_ns()
        orders.injected(fault.keeper, fault.id)
    named = zip(cpus, workers)
    return {
        "before_ns": before_ns,
        "after_ns": after_ns,
        "workers": [{"cpu": cpu, **worker.identity._asdict()} for cpu, worker in named],
    }


def prove(fault: InjectedFault) -> Section:
    """Every wanted processor was at least 95 % busy for the window, and its worker worked all along."""
    workers = fault.section("inject")["workers"]
    window_s = _target(fault).window_s
    processes = {worker["cpu"]: machine.process_in(worker) for worker in workers}
    alive = {cpu: process for cpu, process in processes.items() if machine.lives(process)}
    if len(alive) < len(processes):
        dead = sorted(processes.keys() - alive.keys())
        return {"proven": False, "reason": f"the workers of the processors {dead} are gone", "cores": []}
    times, ticks = cpu_times(), {cpu: cpu_ticks(process) for cpu, process in alive.items()}
    time.sleep(window_s)  # the window that is measured; nothing is waited for
    after = cpu_times()
    cores = []
    for cpu, process in alive.items():
        lives = machine.lives(process)
        own_s = (cpu_ticks(process) - ticks[cpu]) / os.sysconf("SC_CLK_TCK") if lives else 0.0
        share = busy_share(times[cpu], after[cpu])
        full = lives and own_s > 0 and share >= FULL
        cores.append({"cpu": cpu, "busy": round(share, 4), "worker_s": own_s, "full": full})
    return {"proven": all(core["full"] for core in cores), "window_s": window_s, "cores": cores}


def _target(fault: InjectedFault) -> CpuTarget:
    words = fault.target
    target = CpuTarget(words.wholes("cpus"), words.number("window_s", 1.0, 0.2, 60))
    words.end()
    return target


def _facts() -> Section:
    return {"allowed": list(allowed_cpus()), "quota_cpus": quota_cpus()}


def _wanted(fault: InjectedFault) -> tuple[int, ...]:
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
