"""Nodes as running things: start, stop, a command inside, a look at their logs.

A node is the process tree of one `unshare`; the first process in it is PID 1 there. When that one or
`unshare` ends, the kernel ends all of it, and its mounts and loop device go with its namespaces.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from homeostat.kernel.files import read_json, write_json
from homeostat.kernel.processes import Identity, identify, is_alive, send_signal
from testbed import cgroups, fabric
from testbed.commands import last_lines, output_of
from testbed.failures import TestbedFailed
from testbed.node_files import File, first_script
from testbed.places import Places, namespace_of
from testbed.plan import Node, Plan
from testbed.supervision import LOGS

DISK = "24G"
"""Sparse. The specification of the drills wants 20 GB free on Node1."""

_STARTED_WITHIN_S = 60.0
_STOPPED_WITHIN_S = 20.0
_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Machine:
    """A running node: its `unshare`, and its PID 1 as the machine numbers it."""

    node: Node
    outer: Identity
    first: Identity

    @property
    def root(self) -> Path:
        """Its file system, seen from the machine."""
        return Path(f"/proc/{self.first.pid}/root")

    def log_of(self, program: str, count: int = 15) -> list[str]:
        """The last lines of one program's log, or of the supervisor's."""
        return last_lines(Path(f"{self.root}{LOGS}/{program}.log"), count)

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The same command as a process of this node. It ends at the latest with the node."""
        entered = ["nsenter", f"--target={self.first.pid}", "--mount", "--uts", "--ipc", "--net", "--pid"]
        environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
        return [*entered, "--root", "--", "env", "-i", "--chdir=/", *environment, "LANG=C.UTF-8", *argv]


def start_node(places: Places, plan: Plan, node: Node, files: dict[str, File]) -> Machine:
    """Start it, on the disk that it has or an empty one. TestbedFailed quotes what its first script said."""
    if (running := find_node(places, node)) is not None:
        return running
    here = places.node(node.name)
    _write_files(here / "files", files)
    disk = here / "disk.img"
    if not disk.exists():
        make_disk(disk)
    script = here / "first.sh"
    script.write_text(first_script(places, node))
    fabric.join(plan, node)
    log = here / "first.log"
    argv = ["nsenter", f"--net=/run/netns/{namespace_of(node.name)}", "unshare"]
    argv += ["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=SIGKILL"]
    argv += ["--propagation", "private", "bash", str(script)]
    with log.open("wb") as file:
        outer = subprocess.Popen(
            _joining(cgroups.make(node.name), argv),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    machine = _wait_for_first(node, outer, log)
    identities = {"outer": machine.outer, "first": machine.first}
    write_json(here / "machine.json", {name: [i.pid, i.start_ticks] for name, i in identities.items()})
    return machine


def _joining(folders: Sequence[Path], argv: Sequence[str]) -> list[str]:
    """The process joins its cgroups before it becomes the command: nothing of a node is ever outside."""
    joins = "".join(f"echo $$ > {shlex.quote(str(each / 'cgroup.procs'))}; " for each in folders)
    return ["sh", "-c", f'{joins}exec "$@"', "node", *argv]


def make_disk(disk: Path) -> None:
    """An empty file system in a sparse file."""
    disk.parent.mkdir(parents=True, exist_ok=True)
    fresh = disk.with_suffix(".partial")
    fresh.unlink(missing_ok=True)
    output_of(["truncate", "--size", DISK, str(fresh)])
    lazy = "lazy_itable_init=1,lazy_journal_init=1"
    output_of(["mkfs.ext4", "-q", "-F", "-m", "0", "-E", lazy, str(fresh)])
    fresh.rename(disk)


def _write_files(folder: Path, files: dict[str, File]) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    for path, file in files.items():
        target = folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(mode=file.mode)
        target.write_text(file.text)
        target.chmod(file.mode)


def _wait_for_first(node: Node, outer: subprocess.Popen[bytes], log: Path) -> Machine:
    """Until PID 1 has become the supervisor: from then on it can be entered."""
    until = time.monotonic() + _STARTED_WITHIN_S
    while time.monotonic() < until:
        if outer.poll() is not None:
            break
        me, first = identify(outer.pid), _only_child(outer.pid)
        if me and first and _name_of(first.pid) == "supervisord":
            return Machine(node, me, first)
        time.sleep(_EVERY_S)
    if outer.poll() is None:
        outer.kill()
        outer.wait()
    said = "".join(f"\n    {line}" for line in last_lines(log)) or "\n    (nothing)"
    raise TestbedFailed(f"{node.name}: the node did not start; its first script said:{said}")


def _only_child(pid: int) -> Identity | None:
    with suppress(OSError, IndexError):
        return identify(int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]))
    return None


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def find_node(places: Places, node: Node) -> Machine | None:
    """The node as it runs now; None when it does not."""
    found = read_json(places.node(node.name) / "machine.json")
    if found is None:
        return None
    outer, first = (Identity(*found[name]) for name in ("outer", "first"))
    return Machine(node, outer, first) if is_alive(outer) and is_alive(first) else None


def runs(places: Places, node: Node) -> bool:
    """Whether anything of the node is there, even a rest of it."""
    there = _members(cgroups.folders(node.name), [namespace_of(node.name)])
    return bool(there) or find_node(places, node) is not None


def stop_node(places: Places, node: Node, *, gently: bool) -> None:
    """End it and take it off the network; its disk stays. Gently: its programs may end first."""
    machine = find_node(places, node)
    if machine is not None:
        if gently:
            send_signal(machine.first, signal.SIGTERM)
            _wait_until_gone(machine.outer, _STOPPED_WITHIN_S)
        send_signal(machine.outer, signal.SIGKILL)
    end_all(cgroups.folders(node.name), [namespace_of(node.name)])
    fabric.leave(node)
    cgroups.remove(cgroups.folders(node.name))


def end_all(folders: Sequence[Path], namespaces: Sequence[str]) -> None:
    """Kill everything in these cgroups and networks until nothing is left. They are ours alone."""
    until = time.monotonic() + _STOPPED_WITHIN_S
    while left := _members(folders, namespaces):
        # Numbers are reused: who is still a member while we hold its handle is the one that we mean.
        handles = {pid: handle for pid in left if (handle := _handle(pid)) is not None}
        for pid in handles.keys() & _members(folders, namespaces):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handles[pid], signal.SIGKILL)
        for handle in handles.values():
            os.close(handle)
        if time.monotonic() > until:
            raise TestbedFailed(
                f"processes {sorted(left)}: they do not end after SIGKILL; look at their state"
            )
        time.sleep(_EVERY_S)
        _reap()


def _members(folders: Sequence[Path], namespaces: Sequence[str]) -> set[int]:
    return (cgroups.pids(folders) | fabric.processes_in(namespaces)) - {os.getpid()}


def _handle(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _reap() -> None:
    """Our own children among them stay zombies in their cgroup until somebody asks."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _wait_until_gone(identity: Identity, within_s: float) -> None:
    until = time.monotonic() + within_s
    while is_alive(identity) and time.monotonic() < until:
        time.sleep(_EVERY_S)


def run_inside(machine: Machine, argv: Sequence[str], *, what: str, stdin: str = "") -> str:
    """What a command prints inside a node. CommandFailed begins with the node's name."""
    return output_of(machine.inside(argv), what=f"{machine.node.name}: {what}", stdin=stdin)
