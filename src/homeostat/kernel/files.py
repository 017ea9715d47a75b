"""Files of a state directory: atomic private writes, a lock with one owner, a reserve of disk space.

State files are written whole or not at all and readable by their owner only. A lock is one that the
operating system takes back however its holder ends. The ballast is given back when the disk is full:
released, it leaves the database and the logs enough room to end in order; while it is gone the store is
read-only. It is made again when twice its size is free, so that the store does not swing between the two.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from homeostat.kernel.errors import AlreadyRunning, CorruptState, GiveUp


def write_private(path: Path, body: bytes) -> None:
    """Replace `path` atomically and durably, mode 0600; nothing when it is so already, full disk or not."""
    if _holds(path, body):
        return
    fresh = path.with_name(path.name + ".new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _holds(path: Path, body: bytes) -> bool:
    try:
        status = path.lstat()
        return stat.S_ISREG(status.st_mode) and status.st_mode & 0o777 == 0o600 and path.read_bytes() == body
    except OSError:
        return False


def append_whole(handle: int, body: bytes) -> None:
    """Append to an open file and have it on disk. OSError when the disk did not take all of it."""
    before = os.fstat(handle).st_size
    if os.write(handle, body) < len(body):
        with suppress(OSError):
            os.ftruncate(handle, before)  # half a line would spoil the next one
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fdatasync(handle)


def write_json(path: Path, value: object) -> None:
    write_private(path, orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`, None when there is no such file; CorruptState names the file and the remedy."""
    try:
        body = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise CorruptState(f"{path}: not readable as JSON ({error}); restore it or move it away") from error
    if not isinstance(value, dict):
        found = type(value).__name__
        raise CorruptState(f"{path}: holds {found} where an object belongs; restore it or move it away")
    return value


@contextmanager
def hold_lock(path: Path, taken: str = "{path}: held by process {pid}; stop it") -> Iterator[None]:
    """Hold the lock on `path`, mode 0600 with our pid in it; whoever held it before is dead.

    Its directory is made, mode 0700. AlreadyRunning with `taken`, where {path} and {pid} stand for the file
    and its holder; GiveUp when the file cannot be made. The file stays: removing it would let two processes
    lock two files of one name.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        reason = f"{path.parent}: cannot be used ({error.strerror}); choose another directory"
        raise GiveUp(reason) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(handle, 20, 0).decode(errors="replace").strip() or "unknown"
            raise AlreadyRunning(taken.format(path=path, pid=pid)) from None
        _name_holder(handle)
        yield
    finally:
        os.close(handle)


def _name_holder(handle: int) -> None:
    """Write our pid into a lock file. On a full disk the lock is ours all the same, and only nameless."""
    line = f"{os.getpid()}\n".encode()
    with suppress(OSError):
        # In place, and cut afterwards: a block that was given back first may be somebody else's then.
        os.pwrite(handle, line, 0)
        os.ftruncate(handle, len(line))


BALLAST_BYTES = 64 * 1024 * 1024


class Ballast:
    """One file of `size_bytes` at `path`, really allocated."""

    def __init__(self, path: Path, size_bytes: int = BALLAST_BYTES) -> None:
        self.path, self.size_bytes = path, size_bytes

    @property
    def is_held(self) -> bool:
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
