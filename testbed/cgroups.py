"""Cgroups of the testbed, in version 1 or 2, where this machine lets us make any.

They do two things: a node's CPU set, and the list of everything that lives in a node, which `down` can
trust when every record is lost. Without cgroups the testbed works, without CPU sets.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from testbed.places import CGROUP

_FILE_SYSTEM = Path("/sys/fs/cgroup")
_VERSION_1 = ("cpuset", "cpu", "memory", "blkio")
_REMOVED_WITHIN_S = 5.0


def hierarchies(file_system: Path = _FILE_SYSTEM) -> list[Path]:
    """Where a node gets a folder each: four in version 1, one in version 2, none without permission."""
    found = (
        [file_system]
        if (file_system / "cgroup.controllers").exists()
        else [file_system / name for name in _VERSION_1 if (file_system / name / "cgroup.procs").exists()]
    )
    return [each for each in found if os.access(each, os.W_OK)]


def make(node: str) -> list[Path]:
    """The node's folders, with every CPU of the machine; to be written into `cgroup.procs` of each."""
    made = []
    for hierarchy in hierarchies():
        ours = hierarchy / CGROUP
        folder = ours / node
        try:
            _delegate(hierarchy)
            ours.mkdir(exist_ok=True)
            _inherit_cpus(hierarchy, ours)
            _delegate(ours)
            folder.mkdir(exist_ok=True)
            _inherit_cpus(ours, folder)
        except OSError:
            continue  # a container often shows hierarchies that it may not write
        made.append(folder)
    return made


def _delegate(folder: Path) -> None:
    """Version 2: let folders below have CPU sets, each controller by itself for one may be missing."""
    control = folder / "cgroup.subtree_control"
    if control.exists():
        for controller in ("cpuset", "cpu", "memory", "io"):
            with suppress(OSError):
                control.write_text(f"+{controller}")


def _inherit_cpus(above: Path, folder: Path) -> None:
    """Version 1: a new folder has no CPU and no memory node, and takes no process until it has both."""
    for name in ("cpuset.mems", "cpuset.cpus"):
        if (
            folder.parent == above
            and (folder / name).exists()
            and not (above / "cgroup.controllers").exists()
        ):
            (folder / name).write_text((above / name).read_text())


def pin(node: str, cpus: Sequence[int]) -> bool:
    """Give a running node its CPU set; whether that was possible."""
    for folder in folders(node):
        file = folder / "cpuset.cpus"
        if file.exists():
            with suppress(OSError):
                file.write_text(",".join(str(cpu) for cpu in cpus))
                return True
    return False


def folders(node: str) -> list[Path]:
    """The node's folders that are there."""
    return [path for each in hierarchies() if (path := each / CGROUP / node).is_dir()]


def remaining() -> list[Path]:
    """Every folder of ours, the deepest first."""
    tops = [top for each in hierarchies() if (top := each / CGROUP).is_dir()]
    return sorted((path for top in tops for path in _with_below(top)), key=lambda path: -len(path.parts))


def _with_below(top: Path) -> Iterator[Path]:
    yield top
    for child in top.iterdir():
        if child.is_dir():
            yield from _with_below(child)


def pids(below: Sequence[Path]) -> set[int]:
    """Every process in these folders."""
    found: set[int] = set()
    for folder in below:
        with suppress(OSError):
            found |= {int(line) for line in (folder / "cgroup.procs").read_text().split()}
    return found


def remove(below: Sequence[Path]) -> None:
    """Remove empty folders, the deepest first; the kernel may need a moment after the last process."""
    until = time.monotonic() + _REMOVED_WITHIN_S
    for folder in below:
        while folder.exists():
            try:
                folder.rmdir()
            except OSError:
                if time.monotonic() > until:
                    break
                time.sleep(0.05)
