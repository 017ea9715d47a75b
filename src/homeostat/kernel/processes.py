"""Processes by identity: a pid alone may be somebody else tomorrow, a pid with its start time is not.

Nothing is ever ended by name. Children that must not outlive their parent carry PDEATHSIG; services and
guests never do, and are found again by their identity.
Standard library only, python3.9: it is shipped to hosts.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Identity:
    """One process for ever. `start_ticks` is field 22 of /proc/<pid>/stat, in clock ticks since boot."""

    pid: int
    start_ticks: int


@dataclass(frozen=True)
class ProcessStat:
    """The fields of /proc/<pid>/stat that are needed here; times in clock ticks, the start since boot."""

    state: str
    parent: int
    cpu_ticks: int
    start_ticks: int


def parse_stat(line: bytes) -> ProcessStat:
    """The fields behind the name of the process.

    The kernel cuts a name at 15 bytes, also in the middle of a character, and it may hold blanks and
    parentheses: it is never decoded, and ends at the last parenthesis.
    """
    fields = line.rpartition(b")")[2].split()
    return ProcessStat(
        fields[0].decode("ascii"), int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[19])
    )


def read_stat(pid: int) -> ProcessStat | None:
    """The stat of a process, also of a zombie; None when there is no such process.

    PermissionError on a machine that hides the processes of others.
    """
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return None


def identify(pid: int) -> Identity | None:
    """The identity of a living process, None when it is gone or a zombie."""
    found = read_stat(pid)
    return None if found is None or found.state in "ZX" else Identity(pid, found.start_ticks)


def is_alive(identity: Identity) -> bool:
    return identify(identity.pid) == identity


def send_signal(identity: Identity, number: signal.Signals) -> bool:
    """Signal exactly this process; False when it is gone. A pidfd closes the race with a reused pid."""
    try:
        handle = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(identity):
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def die_with_parent(
    number: signal.Signals = signal.SIGKILL, parent: Optional[int] = None
) -> Callable[[], None]:
    """A `preexec_fn`: the child gets `number` when its parent's thread ends, even by kill -9.

    A child that calls it for itself says which `parent` it was started by.
    """
    parent = os.getpid() if parent is None else parent

    def prepare() -> None:
        if _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
            os._exit(126)
        if os.getppid() != parent:
            os._exit(126)

    return prepare
