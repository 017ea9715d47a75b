"""One owner of a file or a directory: a lock that the kernel takes back however its holder ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from homeostat.kernel.errors import AlreadyRunning, GiveUp


@contextmanager
def only_owner(path: Path, taken: str = "{path}: held by process {pid}; stop it") -> Iterator[None]:
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
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
