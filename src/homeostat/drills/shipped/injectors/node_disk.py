"""Injector that keeps a disk busy with large direct writes, round and round one bounded file.

The file is at most 2 GiB and a tenth of what is free, free space never falls below a floor, and the file is
removed by path *and* inode. Proven from /proc/diskstats: busy for 90 % of a window. A filesystem without a
device of its own there (tmpfs, overlay, btrfs) can be written, but nobody could say that a disk was busy: not
able, never proven.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

from homeostat.drills.shipped.injectors.record import InjectedFault, Section, keeper_errors
from homeostat.drills.shipped.injectors.workers import release_workers, start_workers
from homeostat.drills.shipped.keeper import machine, orders, steps
from homeostat.drills.shipped.permissions import FieldReader
from homeostat.kernel.errors import BadInput, NotAllowed, StoreFull


@dataclass(frozen=True)
class BlockDevice:
    """A block device with counters of its own."""

    number: str
    """major:minor"""
    name: str


@dataclass(frozen=True)
class DiskCounters:
    """Since boot."""

    writes: int
    busy_ms: int


def device_of(path: Path) -> BlockDevice | None:
    """The block device of the filesystem of a path; None for tmpfs, overlay, btrfs: they have none."""
    number = path.stat().st_dev
    wanted = (os.major(number), os.minor(number))
    for fields in _lines():
        if (int(fields[0]), int(fields[1])) == wanted:
            return BlockDevice(f"{wanted[0]}:{wanted[1]}", fields[2])
    return None


def counters_of(device: BlockDevice) -> DiskCounters:
    """Its lines in /proc/diskstats: writes completed, milliseconds with requests in flight."""
    for fields in _lines():
        if f"{fields[0]}:{fields[1]}" == device.number:
            return DiskCounters(int(fields[7]), int(fields[12]))
    return DiskCounters(0, 0)


def filesystem_of(path: Path) -> str:
    """The type of the filesystem with a path, by the longest mount point above it."""
    best, kind = Path("/"), "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = Path(left.split()[4].replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, right.split()[0]
    return kind


def space_of(path: Path) -> tuple[int, int]:
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize


def _lines() -> list[list[str]]:
    return [line.split() for line in Path("/proc/diskstats").read_text().splitlines()]


MIB = 1 << 20
LARGEST = 2048 * MIB
BUSY = 0.9
_WINDOWS = 3


@dataclass(frozen=True)
class DiskTarget:
    """Where and how much."""

    folder: Optional[Path]
    """Below the writable paths of the host's file. When it is not given: the first of them on the disk of the
    data below, or that data's own folder when it is permitted, or the first of all."""
    data: Tuple[Tuple[str, Path], ...]
    """Services and the folders of their data on this host; the first is hit when it can be."""
    size_mib: int
    floor_mib: int
    """Free space that always stays."""
    window_s: float
    """How long /proc/diskstats is watched."""


def probe(fault: InjectedFault) -> Section:
    """Whether the folder may be written, has room, and takes direct writes."""
    try:
        folder, size = _file_and_size(fault)
    except (BadInput, NotAllowed, StoreFull) as error:
        return {"able": False, "missing": [str(error)]}
    unseen = [] if device_of(folder) is not None else [_no_device(folder)]
    return {"able": not unseen, "missing": unseen, "size": size, **_below(folder)}


def _data_placement(data: Tuple[Tuple[str, Path], ...], folder: Path) -> Dict[str, Any]:
    """Of each service with data here, whether that lies on the disk of the folder."""
    number = folder.stat().st_dev
    return {
        "disk": _disk(folder),
        "data": [
            {"service": name, "path": str(path), "on_it": _device_number(path) == number}
            for name, path in data
        ],
    }


def _disk(folder: Path) -> str:
    """For people: major:minor, with the device's name where it has one, else the filesystem."""
    number, device = folder.stat().st_dev, device_of(folder)
    name = filesystem_of(folder) if device is None else device.name
    return f"{os.major(number)}:{os.minor(number)} ({name})"


def _device_number(path: Path) -> Optional[int]:
    try:
        return path.stat().st_dev
    except OSError:
        return None  # it is not there, so it is on no disk


def plan(fault: InjectedFault) -> Section:
    """The file, its size, and the device below. BadInput, NotAllowed, StoreFull."""
    folder, size = _file_and_size(fault)
    path = folder / f"homeostat-drill-{fault.id}-{secrets.token_hex(4)}"
    return {
        "does": f"direct writes round {size // MIB} MiB of {path}",
        "path": str(path),
        "size": size,
        "undo": [
            "SIGKILL to the writer, if it is still the same process",
            f"remove {path}, if it is still our file",
        ],
        **_below(folder),
        **_data_placement(_target(fault).data, folder),
    }


def inject(fault: InjectedFault) -> Section:
    """Make the file, put file and writer on disk as steps, let the writer go."""
    planned, target = fault.section("plan"), _target(fault)
    path = Path(planned["path"])
    folder, size = _file_and_size(fault)
    if path.parent != folder or planned["size"] > size:
        raise BadInput("plan.size", planned["size"], f"at most {size} bytes in {folder} by now; plan again")
    with keeper_errors():
        unknown = steps.step_remove(str(path), None)
        orders.arm(fault.keeper, fault.id, fault.order.deadline_s, os.getpid(), [unknown])
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        inode = os.fstat(handle).st_ino
        os.close(handle)
        orders.replace(fault.keeper, fault.id, unknown, steps.step_remove(str(path), inode))
        direct = _takes_direct(path)
        words = ["--file", str(path), "--inode", str(inode), "--bytes", str(planned["size"])]
        words += ["--floor", str(target.floor_mib * MIB), *(["--direct"] if direct else [])]
        workers = start_workers(fault, [words])
        before_ns = machine.now_ns()
        release_workers(workers)
        after_ns = machine.now_ns()
        orders.injected(fault.keeper, fault.id)
    writer = workers[0].identity._asdict()
    return {"before_ns": before_ns, "after_ns": after_ns, "writer": writer, "inode": inode, "direct": direct}


def prove(fault: InjectedFault) -> Section:
    """The writer wrote all through a window, and the device was busy for 90 % of it.

    A busy machine may keep the writer waiting for a moment: up to three windows are watched, one is enough.
    """
    found = _watched(fault)
    for number in range(2, _WINDOWS + 1):
        if found["proven"] or "busy" not in found:
            break
        found = _watched(fault) | {"window": number}
    return found


def _watched(fault: InjectedFault) -> Section:
    planned, injected = fault.section("plan"), fault.section("inject")
    writer, window_s = machine.process_in(injected["writer"]), _target(fault).window_s
    device = device_of(Path(planned["path"]).parent)
    machine.within(2.0, lambda: (_written(writer.pid) or 0) > 0 or not machine.lives(writer))
    began_ns, written = machine.now_ns(), _written(writer.pid)
    counters = None if device is None else counters_of(device)
    time.sleep(window_s)  # the window that is measured; nothing is waited for
    took_s, now = (machine.now_ns() - began_ns) / 1e9, _written(writer.pid)
    if not machine.lives(writer) or written is None or now is None:
        return {
            "proven": False,
            "reason": "the writer is gone: no room, or no permission",
            "window_s": took_s,
        }
    own = {"written_bytes": now - written, "direct": injected["direct"], "window_s": round(took_s, 3)}
    if device is None or counters is None:
        return own | {
            "proven": False,
            "reason": _no_device(Path(planned["path"]).parent),
            "proves_not": "that a disk was busy, only that the writer wrote",
        }
    after = counters_of(device)
    share = (after.busy_ms - counters.busy_ms) / (took_s * 1000)
    return own | {
        "proven": now > written and share >= BUSY and after.writes > counters.writes,
        "device": device.name,
        "busy": round(share, 4),
        "writes": after.writes - counters.writes,
        "proves": f"{device.name} had requests in flight for {share:.0%} of the window",
        "proves_not": "anything of a disk behind a virtual device: its host knows that",
    }


def _target(fault: InjectedFault) -> DiskTarget:
    words = fault.target
    data = words.words("data") or FieldReader({})
    target = DiskTarget(
        words.path("folder"),
        tuple((name, Path(data.needed(name, r"/.*"))) for name in data.names()),
        words.whole("size_mib", 2048, 1),
        words.whole("floor_mib", 1024, 0),
        words.number("window_s", 1.0, 0.2, 60),
    )
    words.end()
    return target


def _file_and_size(fault: InjectedFault) -> tuple[Path, int]:
    """The folder and the size of the file. NotAllowed, BadInput, StoreFull."""
    target = _target(fault)
    permitted = [each.resolve() for each in fault.node.writable_paths]
    given = target.folder or _on_the_disk_of(target.data, permitted) or next(iter(permitted), None)
    if given is None:
        raise NotAllowed(f"{fault.node.host}: drills.writable_paths of its {fault.node.file} names no folder")
    try:
        folder = given.resolve(strict=True)
    except OSError as error:
        raise BadInput("target.folder", str(given), f"a folder that is there ({error.strerror})") from error
    if not any(folder.is_relative_to(each) for each in permitted):
        paths = ", ".join(map(str, permitted)) or "none"
        raise NotAllowed(f"target.folder: {folder} is not below drills.writable_paths of this node: {paths}")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise NotAllowed(f"target.folder: {folder} is no folder that user {os.geteuid()} may write")
    free, _ = space_of(folder)
    size = min(LARGEST, free // 10, target.size_mib * MIB)
    if size < MIB or free - size < target.floor_mib * MIB:
        raise StoreFull(
            f"{folder}: {free // MIB} MiB free; "
            f"a tenth of it and the floor of {target.floor_mib} MiB do not fit"
        )
    return folder, size


def _on_the_disk_of(data: Tuple[Tuple[str, Path], ...], permitted: Sequence[Path]) -> Optional[Path]:
    """Where the first data that can be hit is hit: beside it rather than in the midst of it."""
    for _, path in data:
        number = _device_number(path)
        if number is None:
            continue
        for folder in permitted:
            if _device_number(folder) == number:
                return folder
        if any(path.resolve().is_relative_to(folder) for folder in permitted):
            return path
    return None


def _no_device(folder: Path) -> str:
    kind = filesystem_of(folder)
    return f"a folder on a disk: {folder} is {kind}, with no device in /proc/diskstats to prove it by"


def _below(folder: Path) -> Section:
    device = device_of(folder)
    return {
        "free_bytes": space_of(folder)[0],
        "filesystem": filesystem_of(folder),
        "device": None if device is None else device.name,
        "device_number": None if device is None else device.number,
    }


def _takes_direct(path: Path) -> bool:
    """Whether this filesystem takes O_DIRECT; else the writes are synchronous."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_NOFOLLOW))
    except OSError:
        return False
    return True


def _written(pid: int) -> int | None:
    """Bytes that a process has handed to write(), None when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))
