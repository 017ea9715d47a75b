"""Processes of a lab that nobody watches any more: found by what they carry, ended by identity.

Four sources, because each can miss one: children.json (what an `up` started), pid files below hosts/ (what
the nodes' agents started), the environment (every child inherits our mark, and what an OCF agent starts
with a clean environment still has the agent's scratch directory in it), and the command lines of undo
keepers, which whoever drills has started.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from homeostat.kernel.errors import CorruptState
from homeostat.kernel.files import read_json, write_json
from homeostat.kernel.processes import Identity, identify, is_alive, send_signal

MARK = "HOMEOSTAT_LAB"
"""Environment variable of every process of a lab; its value is the state directory."""
_ROUNDS = 20
_KEEPER = "node_keeper"


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that had to be ended."""

    identity: Identity
    command: str
    killed: bool
    at_ns: int


def write_children(path: Path, children: Mapping[str, Identity]) -> None:
    """Record who runs now. Pids mean nothing after a reboot, so the boot is recorded too."""
    recorded = {name: {"pid": it.pid, "start_ticks": it.start_ticks} for name, it in children.items()}
    write_json(path, {"version": 1, "boot": _boot_id(), "children": recorded})


def read_children(path: Path) -> dict[str, Identity]:
    """Who was recorded in this boot of the machine; CorruptState when the file makes no sense."""
    document = read_json(path)
    if document is None:
        return {}
    try:
        if document["boot"] != _boot_id():
            return {}
        return {
            str(name): Identity(int(each["pid"]), int(each["start_ticks"]))
            for name, each in document["children"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptState(f"{path}: not a list of children ({error!r}); move it away") from error


def in_pid_files(root: Path) -> set[Identity]:
    """The living processes that pid files below `root` name. A file holds "pid start_ticks"."""
    found = set()
    for path in root.rglob("*.pid"):
        try:
            pid, start_ticks = path.read_text().split()[:2]
            identity = Identity(int(pid), int(start_ticks))
        except (OSError, ValueError):
            continue
        if is_alive(identity):
            found.add(identity)
    return found


def marked(root: Path) -> set[Identity]:
    """The living processes whose environment says that they are of this lab, but us and our ancestors."""
    mark, scratch = f"{MARK}={root}".encode(), f"HA_RSCTMP={root}/".encode()
    return with_environment(
        lambda entries: mark in entries or any(entry.startswith(scratch) for entry in entries)
    )


def keepers(root: Path) -> set[Identity]:
    """The living undo keepers, and their guards, whose state folder lies below `root`."""
    below, found = f"{root}/", set()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(Path(word).name == _KEEPER for word in words) and any(
            option == "--state" and folder.startswith(below) for option, folder in pairwise(words)
        ):
            identity = identify(int(process.name))
            if identity is not None:
                found.add(identity)
    return found


def with_environment(wanted: Callable[[list[bytes]], bool]) -> set[Identity]:
    """The living processes with such an environment (`NAME=value` each), but us and our ancestors."""
    spared = _self_and_ancestors()
    found = set()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) in spared:
            continue
        try:
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if wanted(environment.split(b"\0")):
            identity = identify(int(process.name))
            if identity is not None:
                found.add(identity)
    return found


def end_all(find: Callable[[], set[Identity]], *, grace_s: float) -> list[Ended]:
    """End what `find` finds until it finds nothing: SIGTERM, after `grace_s` SIGKILL; newcomers SIGKILL."""
    ended: dict[Identity, Ended] = {}
    for _ in range(_ROUNDS):
        found = find()
        if not found:
            break
        commands = {each: _command(each.pid) for each in found}
        if grace_s > 0:
            for each in found:
                send_signal(each, signal.SIGTERM)
            await_end(found, grace_s)
        for each in found:
            at_ns = time.time_ns()
            killed = send_signal(each, signal.SIGKILL)
            ended[each] = Ended(each, commands[each], killed, at_ns)
        await_end(found, 2.0)
        grace_s = 0.0
    return list(ended.values())


def await_end(identities: set[Identity], deadline_s: float) -> bool:
    """Whether all of them were gone within `deadline_s`."""
    until = time.monotonic() + deadline_s
    while any(is_alive(each) for each in identities):
        if time.monotonic() >= until:
            return False
        time.sleep(0.01)
    return True


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return "gone"
    text = b" ".join(words).decode(errors="replace")
    return text if len(text) <= 100 else text[:97] + "..."


def _self_and_ancestors() -> set[int]:
    spared, pid = set(), os.getpid()
    while pid > 0 and pid not in spared:
        spared.add(pid)
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        pid = int(stat.rpartition(")")[2].split()[1])
    return spared


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
