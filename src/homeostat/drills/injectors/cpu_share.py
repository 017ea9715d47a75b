"""How many processors this process may use: affinity and cgroup quotas, of both cgroup versions; and how busy
each is, from /proc/stat.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


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
    """Per processor."""
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
