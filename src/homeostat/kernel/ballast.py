"""The ballast: a file that holds room on the disk, given back when the disk is full.

Released, it leaves the database and the logs enough room to end in order; while it is gone the store is
read-only. It is made again when twice its size is free, so that the store does not swing between the two.
"""

from __future__ import annotations

import os
from pathlib import Path

SIZE_BYTES = 64 * 1024 * 1024


class Ballast:
    """One file of `size_bytes` at `path`, really allocated."""

    def __init__(self, path: Path, size_bytes: int = SIZE_BYTES) -> None:
        self.path, self.size_bytes = path, size_bytes

    @property
    def is_held(self) -> bool:
        """Whether the whole file is there."""
        try:
            return self.path.stat().st_size == self.size_bytes
        except FileNotFoundError:
            return False

    @property
    def free_bytes(self) -> int:
        """What an ordinary user may still write on that disk."""
        disk = os.statvfs(self.path.parent)
        return disk.f_bavail * disk.f_frsize

    def create(self) -> bool:
        """Have the ballast; False when less than twice its size is free. Nothing to do when it is there."""
        if self.is_held:
            return True
        self.release()  # a stump that a crash left
        if self.free_bytes <= 2 * self.size_bytes:
            return False
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.posix_fallocate(handle, 0, self.size_bytes)
        except OSError:
            self.release()
            return False
        finally:
            os.close(handle)
        return True

    def release(self) -> bool:
        """Give the room back; False when there was nothing to give."""
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        return True
