"""The machine on which the undo keeper runs: clock, boot id, exact processes, and the state folder on its
disk.

It knows no fault and no step.

Invariants. A process is touched only by pid *and* start ticks *and* boot id, through a pidfd: a pid that is
used again is another process. Time is CLOCK_BOOTTIME: a step of the wall clock changes nothing. A reader of
a file sees it whole or not at all. What was written durably survives a power loss: file and folder are
synced before the call returns. The name of a fault is never a path.

Files of the folder: `faults/<id>.json` is the ledger of one fault; `<id>.renewed` the moment of its last
renewal; `<id>.undo` asks for the undo now; `halted` undoes everything and refuses new faults;
`outcomes/<id>.json` is the result of the undo. `doorbell` wakes the keeper, `keeper.json` is its sign of
life, `keeper.lock` its claim to the folder. `programs.json` holds what this host permits to be run for other
hosts.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

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
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def stat_of(pid: int) -> Optional[Tuple[str, int]]:
    """State letter and start ticks; None when there is no such process.

    As bytes: the kernel cuts a name also in the middle of a character. `kernel.processes` does the same; the
    keeper runs without it.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0].decode("ascii"), int(fields[19])


def identify(pid: int) -> Optional[Process]:
    """The living process that has this pid now; None when there is none, or a zombie."""
    found = stat_of(pid)
    return None if found is None or found[0] in "ZX" else Process(pid, found[1], boot_id())


def lives(process: Process) -> bool:
    return identify(process.pid) == process


def process_in(words: Dict[str, Any]) -> Process:
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


Ledger = Dict[str, Any]

_FAULT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")


class KeeperError(Exception):
    """One line: what is wrong, and the remedy."""


class KeeperRefusal(KeeperError):
    """This host takes no faults now."""


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path: Path, value: object, durable: bool = True) -> None:
    """Whole or not at all; durable means that it survives a power loss from here on."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(value, file)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def read(path: Path) -> Optional[Dict[str, Any]]:
    """The object in the file; None when there is none; ValueError when it cannot be read."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


class Folder:
    """The state folder of one keeper."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100  resolve() would follow links
        self.faults, self.outcomes = self.root / "faults", self.root / "outcomes"
        self.lock, self.life = self.root / "keeper.lock", self.root / "keeper.json"
        self.bell = self.root / "doorbell"
        self.halted, self.log = self.root / "halted", self.root / "keeper.log"
        self.programs = self.root / "programs.json"

    def make(self) -> None:
        for folder in (self.root, self.faults, self.outcomes):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self.bell, 0o600)

    def ledger(self, fault: str) -> Path:
        if not _FAULT.match(fault):
            raise KeeperError(f"fault: {fault!r} is no name; letters, digits, - and _, at most 63")
        return self.faults / f"{fault}.json"

    def mark(self, fault: str, what: str) -> Path:
        return self.ledger(fault).with_suffix(f".{what}")

    def outcome(self, fault: str) -> Path:
        return self.outcomes / self.ledger(fault).name

    def open_faults(self) -> List[str]:
        """Every fault with a ledger, the oldest name first."""
        return sorted(path.stem for path in self.faults.glob("*.json")) if self.faults.is_dir() else []

    def ring(self) -> None:
        with contextlib.suppress(OSError):
            handle = os.open(self.bell, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(handle, b"!")
            finally:
                os.close(handle)
