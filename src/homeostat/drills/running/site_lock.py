"""One drill at a time from one state directory, with or without a server; and the file that halts them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from homeostat.kernel.errors import AlreadyRunning

LOCK, HALTED = "lock", "halted"


@contextmanager
def only_drill(folder: Path, who: str) -> Iterator[None]:
    """Hold the lock of this folder of runs. AlreadyRunning names who has it. The kernel lets go with us."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 200).decode(errors="replace").strip() or "somebody"
            raise AlreadyRunning(
                f"{folder}: {holder} runs here; one drill at a time (`homeostat drill halt` ends it)"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{who}, pid {os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def halted(folder: Path) -> str | None:
    """Who halted drills here and why; None when they may run."""
    try:
        return (folder / HALTED).read_text().strip() or "somebody"
    except FileNotFoundError:
        return None


def halt(folder: Path, words: str) -> None:
    """No drill begins here, and the one that runs ends and undoes, until `resume`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / HALTED).write_text(words + "\n")


def resume(folder: Path) -> bool:
    """Let drills run again; whether they had been halted."""
    was = halted(folder) is not None
    with suppress(FileNotFoundError):
        (folder / HALTED).unlink()
    return was
