"""What lies below a path, and how busy it is: mounts, free space, /proc/diskstats."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Device:
    """A block device with counters of its own."""

    number: str
    """major:minor"""
    name: str


@dataclass(frozen=True)
class Counters:
    """Since boot."""

    writes: int
    busy_ms: int


def device_of(path: Path) -> Device | None:
    """The block device of the filesystem of a path; None for tmpfs, overlay, btrfs: they have none."""
    number = path.stat().st_dev
    wanted = (os.major(number), os.minor(number))
    for fields in _lines():
        if (int(fields[0]), int(fields[1])) == wanted:
            return Device(f"{wanted[0]}:{wanted[1]}", fields[2])
    return None


def counters_of(device: Device) -> Counters:
    """Its lines in /proc/diskstats: writes completed, milliseconds with requests in flight."""
    for fields in _lines():
        if f"{fields[0]}:{fields[1]}" == device.number:
            return Counters(int(fields[7]), int(fields[12]))
    return Counters(0, 0)


def filesystem_of(path: Path) -> str:
    """The type of the filesystem with a path, by the longest mount point above it."""
    best, kind = Path("/"), "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = Path(left.split()[4].replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, right.split()[0]
    return kind


def room_of(path: Path) -> tuple[int, int]:
    """Free and total bytes."""
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize


def _lines() -> list[list[str]]:
    return [line.split() for line in Path("/proc/diskstats").read_text().splitlines()]
