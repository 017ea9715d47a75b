"""Drills that somebody spoils: each must end as anything but PASS. `bench/sabotage.py` runs them, too."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from control_groups import ControlGroup, control_group
from drilled_site import DRILL, HOSTS, DrilledSite, Ran, until
from loop_disk import loop_disk

from engines import leave_out, need

STEPPED_CLOCK = Path(__file__).with_name("stepped_clock.c")
LIMIT_S, OUT_S = 3.0, 4.0
"""Of drills whose service is out for longer than it may be: only who measures nothing says PASS."""

CHECKS = [
    {"kind": "service_outage", "requirement": "R1.11", "monitors": ["there"], "limit": "3s"},
    {"kind": "process_recovery", "requirement": "R0.5", "monitor": "processes", "limit": "10s"},
]
TOO_LONG: dict[str, Any] = {
    **{name: DRILL[name] for name in ("preconditions", "baseline", "window", "monitors")},
    "drill": "too-long",
    "title": "A web process is away for longer than it may be",
    "fault": {"injector": "kill", "target": {"service": "web", "choose": "first"}},
    "checks": CHECKS,
}
"""Honestly measured it is a FAIL when the service comes back after `OUT_S`."""
HOLDS: dict[str, Any] = {
    **{name: DRILL[name] for name in ("preconditions", "baseline", "window")},
    "monitors": DRILL["monitors"][:1],
    "title": "A host is kept busy",
    "checks": DRILL["checks"][:1],
}
"""A fault that stands for a while and hurts nobody: PASS unless it is spoiled."""


def pattern_matches_nothing(site: DrilledSite) -> Ran:
    """The profile is a pattern of no process."""
    for host in HOSTS:
        site.permit(host, profiles={"web": {"command_line": "no such program"}})
    return site.run(site.write_drill(DRILL))


def host_refuses(site: DrilledSite) -> Ran:
    """node.yaml permits no kill."""
    for host in HOSTS:
        site.permit(host, injectors=["node_cpu"])
    return site.run(site.write_drill(DRILL))


def signal_not_permitted(site: DrilledSite) -> Ran:
    """Another user runs the tool; the services are root's. The site must lie where that user may go."""
    if os.geteuid() != 0:
        need("root")
    with opened(site.root):
        site.before = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        # Or it could not read an interpreter below /root.
        site.before += ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
        site.without = ["COVERAGE"]
        return site.run(site.write_drill(DRILL))


def wrong_host(site: DrilledSite) -> Ran:
    """The site takes n2's node.yaml for the one of n1: the fault would hit n2, and n1 be called well."""
    given = yaml.safe_load((site.state / "site.yaml").read_text())
    given["hosts"]["n1"]["config"] = str(site.node("n2"))
    (site.state / "site.yaml").write_text(yaml.safe_dump(given))
    fault = {"injector": "kill", "target": {"service": "web", "choose": "first"}}
    return site.run(site.write_drill(DRILL, fault=fault))


def zero_cores(site: DrilledSite) -> Ran:
    """A quota leaves the stressors no processor that they could fill."""
    with limited("cpu", lambda group: group.limit_cpus(0.9)) as group:
        site.before = group.prefix()
        fault = {"injector": "cpu", "target": {"host": "n1"}, "hold": "2s"}
        return site.run(site.write_drill(HOLDS, drill="busy", fault=fault))


def full_disk(site: DrilledSite) -> Ran:
    """No room for the file that keeps the disk busy."""
    with real_disk(site.root / "n1" / "small") as folder:
        (folder / "filler").write_bytes(b"\0" * (50 << 20))
        return site.run(site.write_drill(HOLDS, drill="writes", fault=writing(folder)))


def disk_fills_later(site: DrilledSite) -> Ran:
    """The disk fills after the effect was proven: the writer gives way, long before the end of its hold."""
    with real_disk(site.root / "n1" / "small") as folder:

        def fill(_: subprocess.Popen[str]) -> None:
            (folder / "filler").write_bytes(b"\0" * (50 << 20))

        fault = writing(folder) | {"hold": "4s"}
        return site.run(
            site.write_drill(HOLDS, drill="writes", fault=fault), during=after("EffectSeen", site, fill)
        )


def no_disk(site: DrilledSite) -> Ran:
    """The folder lies in memory: nobody can say that a disk was busy."""
    with small_disk(site.root / "n1" / "small") as folder:
        return site.run(site.write_drill(HOLDS, drill="writes", fault=writing(folder)))


def no_room_for_the_history(site: DrilledSite) -> Ran:
    """The disk on which the tool writes what it sees is full from the fault on."""
    site.returns_after("n1", OUT_S)
    with small_disk(site.runs) as folder:

        def fill(_: subprocess.Popen[str]) -> None:
            with suppress(OSError), (folder / "filler").open("wb") as file:
                while file.write(b"\0" * 4096):
                    file.flush()

        return site.run(site.write_drill(TOO_LONG), during=after("Injecting", site, fill))


def dead_monitor(site: DrilledSite) -> Ran:
    """A monitor is killed between the fault and the end of the window."""

    def kill(tool: subprocess.Popen[str]) -> None:
        os.kill(monitor_of(tool, "monitors.node.sampler"), signal.SIGKILL)

    return site.run(site.write_drill(DRILL), during=after("Injected", site, kill))


def frozen_prober(site: DrilledSite) -> Ran:
    """The prober stands still for as long as the service is out, and sees nothing of it."""
    site.returns_after("n1", OUT_S)

    def freeze(tool: subprocess.Popen[str]) -> None:
        stopped = [monitor_of(tool, f"{name}.monitor.json") for name in ("web", "there")]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        end_s = time.monotonic() + OUT_S + 1
        while time.monotonic() < end_s and tool.poll() is None:
            time.sleep(0.05)
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    return site.run(site.write_drill(TOO_LONG), during=after("Injecting", site, freeze))


def clock_step(site: DrilledSite, seconds: int = -60) -> Ran:
    """The wall clock of the tool and of all it starts is set back by a minute while the service is out."""
    site.returns_after("n1", OUT_S)
    with stepping(site):
        return site.run(
            site.write_drill(TOO_LONG), during=after("Injected", site, lambda _: step(site, seconds))
        )


@contextmanager
def stepping(site: DrilledSite) -> Iterator[None]:
    """The tool and what it starts read a wall clock that `step` sets. The machine's own stays as it is."""
    compiler, library = shutil.which("cc"), site.root / "stepped_clock.so"
    if compiler is None:
        leave_out("cc")
    argv = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(STEPPED_CLOCK)]
    subprocess.run(argv, check=True)
    (site.root / "wall-clock").write_bytes(bytes(8))
    site.env = {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(site.root / "wall-clock")}
    yield


def step(site: DrilledSite, seconds: int) -> None:
    """Set the wall clock of `stepping` so many seconds off."""
    with (site.root / "wall-clock").open("r+b", buffering=0) as file:
        file.write(struct.pack("q", seconds))


EIGHT: Mapping[str, Callable[[DrilledSite], Ran]] = {
    "pattern matches nothing": pattern_matches_nothing,
    "permission denied": host_refuses,
    "wrong host": wrong_host,
    "zero cores": zero_cores,
    "full disk": full_disk,
    "dead monitor": dead_monitor,
    "frozen prober": frozen_prober,
    "clock step of 60 s": clock_step,
}
MORE: Mapping[str, Callable[[DrilledSite], Ran]] = {
    "signal not permitted": signal_not_permitted,
    "disk full during the fault": disk_fills_later,
    "no disk below the folder": no_disk,
    "no room for the history": no_room_for_the_history,
}


def after(
    fact: str, site: DrilledSite, act: Callable[[subprocess.Popen[str]], None]
) -> Callable[[subprocess.Popen[str]], None]:
    """Do something as soon as a fact of the run is on disk; nothing when the tool ends before."""

    def do(tool: subprocess.Popen[str]) -> None:
        until(lambda: site.facts(fact) or tool.poll() is not None, fact, 60)
        if tool.poll() is None:
            act(tool)

    return do


def monitor_of(tool: subprocess.Popen[str], word: str) -> int:
    """The pid of a monitor process that the tool has started."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == tool.pid and word in words:
                return int(path.name)
    raise AssertionError(f"no {word} of {tool.pid}")


def writing(folder: Path) -> dict[str, Any]:
    """A disk fault in that folder."""
    target = {"host": "n1"}
    room = {"folder": str(folder), "file_mib_max": 8, "free_gib_floor": 0.03}
    return {"injector": "disk", "target": target, "hold": "2s", **room}


@contextmanager
def small_disk(point: Path) -> Iterator[Path]:
    """A filesystem of 64 MiB in memory."""
    point.mkdir(parents=True, exist_ok=True)
    need("mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "hd", str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


@contextmanager
def real_disk(point: Path) -> Iterator[Path]:
    """A filesystem of 64 MiB with a device of its own."""
    with loop_disk(point) as found:
        if found is None:
            leave_out("loop-disk")
        yield found


@contextmanager
def limited(controller: str, limit: Callable[[ControlGroup], None]) -> Iterator[ControlGroup]:
    """A control group with a limit."""
    with control_group(controller) as group:
        if group is None:
            leave_out("control-group", why=controller)
        limit(group)
        yield group


@contextmanager
def opened(root: Path) -> Iterator[None]:
    """Everybody may write there."""
    for path in (root, *root.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    for above in root.parents:
        if not above.stat().st_mode & 0o001:
            leave_out("open-folder", why=f"{above} is closed to others")
    yield
