"""The machine under the keeper: its clock, its boot, and processes that are exactly the ones that were meant.

It knows no fault and no step, and writes nothing.

Invariants. A process is touched only by pid *and* start ticks *and* boot id, through a pidfd: a pid that is
used again is another process. Time is CLOCK_BOOTTIME: a step of the wall clock changes nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

_PIDFD_OPEN, _PIDFD_SEND_SIGNAL = 434, 424  # the same on every architecture but alpha


class Process(NamedTuple):
    """One process for ever: pid, start in ticks since boot, and which boot."""

    pid: int
    start_ticks: int
    boot_id: str


def now_ns() -> int:
    """CLOCK_BOOTTIME: goes on in suspend, never steps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Which boot of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def stat_of(pid: int) -> Optional[Tuple[str, int]]:
    """State letter and start ticks; None when there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[19])


def identify(pid: int) -> Optional[Process]:
    """The living process that has this pid now; None when there is none, or a zombie."""
    found = stat_of(pid)
    return None if found is None or found[0] in "ZX" else Process(pid, found[1], boot_id())


def lives(process: Process) -> bool:
    """Whether exactly this process still runs."""
    return identify(process.pid) == process


def process_in(words: Dict[str, Any]) -> Process:
    """The process that a step, a ledger or a sign of life names."""
    return Process(int(words["pid"]), int(words["start_ticks"]), str(words["boot_id"]))


def send(process: Process, number: int) -> bool:
    """Signal exactly this process; False when it is gone. A pidfd shuts out a reused pid."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.syscall(_PIDFD_OPEN, process.pid, 0)
    if handle < 0:
        return _gone_or_raise(ctypes.get_errno(), "pidfd_open")
    try:
        if not lives(process):
            return False
        if libc.syscall(_PIDFD_SEND_SIGNAL, handle, int(number), None, 0) < 0:
            return _gone_or_raise(ctypes.get_errno(), "pidfd_send_signal")
        return True
    finally:
        os.close(handle)


def _gone_or_raise(number: int, call: str) -> bool:
    if number == errno.ESRCH:
        return False
    raise OSError(number, f"{call}: {os.strerror(number)}")


def within(seconds: float, ask: Callable[[], bool]) -> bool:
    """Whether the answer becomes yes in time."""
    end_ns = now_ns() + int(seconds * 1e9)
    while not ask():
        if now_ns() > end_ns:
            return False
        time.sleep(0.01)
    return True
