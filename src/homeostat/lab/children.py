"""One child process of the supervisor: its specification, its start, its output and its log.

A child has its own session (Ctrl-C reaches only us) and dies with us, even when we are killed. Knows nothing
of what its children are for.

Processes of a lab that outlived their supervisor: how they are found, and ended by identity.

Four sources, because each can miss one: children.json (what an `up` started), pid files below hosts/ (what
the nodes' agents started), the environment (every child inherits our mark, and what an OCF agent starts with
a clean environment still has the agent's scratch directory in it), and the command lines of undo keepers,
which whoever drills has started. A process is its pid and start time, never the pid alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from homeostat.kernel.errors import CorruptState
from homeostat.kernel.files import read_json, write_json
from homeostat.kernel.processes import Identity, die_with_parent, identify, is_alive, read_stat, send_signal

LOG_BYTES_MAX = 8 * 1024 * 1024
_BACKOFF_FIRST_S, _BACKOFF_MAX_S = 0.1, 5.0
LONG_LIFE_S = 10.0
_LINE_BYTES_MAX = 16 * 1024


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What a child is. `ready` is asked about the child's pid until it says yes; it must answer at once.

    `after` names children that must have been ready before this one starts for the first time. `once`: its
    end with 0 is its success, another code ends the whole. `shown_as`: its standard output is shown line by
    line after this prefix. Children of a lower `stop_wave` are stopped first. `wanted` must answer at once;
    while it says no, the child is not started again when it has ended.
    """

    name: str
    argv: tuple[str, ...]
    ready: Callable[[int], bool] = lambda _pid: True
    env: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    once: bool = False
    shown_as: str | None = None
    ready_within_s: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_deadline_s: float = 5.0
    stop_wave: int = 0
    wanted: Callable[[], bool] = lambda: True


def backoff_s(deaths_in_a_row: int) -> float:
    """How long to wait before the next start: 0.1 s after the first death, doubled up to 5 s."""
    return float(min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2 ** min(deaths_in_a_row - 1, 16)))


def rotate_log(path: Path, *, bytes_max: int = LOG_BYTES_MAX) -> None:
    """Keep at most `bytes_max` of a log beside the one before; works under a writer that appends."""
    try:
        if path.stat().st_size < bytes_max:
            return
    except FileNotFoundError:
        return
    # Without room for the copy the log is cut all the same: that makes room.
    with suppress(OSError), path.open("rb") as full, open(path.with_name(path.name + ".1"), "wb") as older:
        while chunk := full.read(1 << 20):
            older.write(chunk)
    os.truncate(path, 0)


def last_lines(path: Path, count: int) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []


class Child:
    """The running side of one ChildSpec. `deaths` counts ends in a row, each after a short life."""

    def __init__(self, spec: ChildSpec, log: Path) -> None:
        self.spec = spec
        self.log = log
        self.identity: Identity | None = None
        self.pidfd = -1
        self.output = -1
        self.ready = False
        self.was_ready = False
        self.finished = False
        self.deaths = 0
        self.due_s: float | None = None
        self.first_start_s: float | None = None
        self._started_s = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._partial = b""

    @property
    def alive(self) -> bool:
        """Whether it runs, or has ended and nobody has looked yet."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """0 when it does not run."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Fork it. From the main thread only: PDEATHSIG follows the thread that forks."""
        rotate_log(self.log)
        shown = self.spec.shown_as is not None
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = subprocess.Popen(
                self.spec.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if shown else log,
                stderr=log,
                env={**os.environ, **self.spec.env},
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        finally:
            os.close(log)
        self._process = process
        self.pidfd = os.pidfd_open(process.pid)
        self.identity = identify(process.pid)
        if process.stdout is not None:
            self.output = process.stdout.fileno()
            os.set_blocking(self.output, False)
        self.ready, self.due_s, self._partial = False, None, b""
        self._started_s = time.monotonic()
        self.first_start_s = self.first_start_s or self._started_s

    def collect(self) -> int | None:
        """The exit status once it has ended (negative: the signal), None before; given once."""
        if self._process is None or (status := self._process.poll()) is None:
            return None
        self.close_output()
        os.close(self.pidfd)
        self.pidfd, self._process, self.identity, self.ready = -1, None, None, False
        lived_s = time.monotonic() - self._started_s
        self.deaths = 1 if lived_s >= LONG_LIFE_S else self.deaths + 1
        return status

    def read_output(self) -> list[str]:
        """What it has said since the last call: whole lines, also written to its log."""
        if self.output < 0:
            return []
        try:
            chunk = os.read(self.output, 65_536)
        except BlockingIOError:
            return []
        if not chunk:
            self.close_output()
            return []
        with suppress(OSError), open(self.log, "ab") as log:
            log.write(chunk)
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        if len(self._partial) > _LINE_BYTES_MAX:
            lines.append(self._partial)
            self._partial = b""
        return [line.decode(errors="replace") for line in lines]

    def close_output(self) -> None:
        if self.output >= 0 and self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        self.output = -1


LAB_MARK = "HOMEOSTAT_LAB"
"""Environment variable of every process of a lab; its value is the state directory."""
_ROUNDS = 20
_KEEPER = ("shipped", "keeper")


@dataclass(frozen=True, slots=True)
class EndedProcess:
    """A process that had to be ended."""

    identity: Identity
    command: str
    killed: bool
    at_ns: int


def write_children(path: Path, children: Mapping[str, Identity]) -> None:
    """Record who runs now. Pids mean nothing after a reboot, so the boot is recorded too."""
    recorded = {name: {"pid": it.pid, "start_ticks": it.start_ticks} for name, it in children.items()}
    write_json(path, {"version": 1, "boot": _boot_id(), "children": recorded})


def read_children(path: Path) -> dict[str, Identity]:
    """Who was recorded in this boot of the machine; CorruptState when the file makes no sense."""
    document = read_json(path)
    if document is None:
        return {}
    try:
        if document["boot"] != _boot_id():
            return {}
        return {
            str(name): Identity(int(each["pid"]), int(each["start_ticks"]))
            for name, each in document["children"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptState(f"{path}: not a list of children ({error!r}); move it away") from error


def processes_in_pid_files(root: Path) -> set[Identity]:
    """The living processes that pid files below `root` name. A file holds "pid start_ticks"."""
    found = set()
    for path in root.rglob("*.pid"):
        try:
            pid, start_ticks = path.read_text().split()[:2]
            identity = Identity(int(pid), int(start_ticks))
        except (OSError, ValueError):
            continue
        if is_alive(identity):
            found.add(identity)
    return found


def processes_of_lab(root: Path) -> set[Identity]:
    """The living processes whose environment says that they are of this lab, but us and our ancestors."""
    mark, scratch = f"{LAB_MARK}={root}".encode(), f"HA_RSCTMP={root}/".encode()
    return processes_with_environment(
        lambda entries: mark in entries or any(entry.startswith(scratch) for entry in entries)
    )


def undo_keepers(root: Path) -> set[Identity]:
    """The living undo keepers, and their guards, whose state folder lies below `root`."""
    below = f"{root}/"

    def is_keeper(content: bytes) -> bool:
        words = content.decode(errors="replace").split("\0")
        return any(Path(word).parts[-2:] == _KEEPER for word in words) and any(
            option == "--state" and folder.startswith(below) for option, folder in pairwise(words)
        )

    return _processes_with("cmdline", is_keeper)


def processes_with_environment(wanted: Callable[[list[bytes]], bool]) -> set[Identity]:
    """The living processes with such an environment (`NAME=value` each), but us and our ancestors."""
    spared = _self_and_ancestors()
    found = _processes_with("environ", lambda content: wanted(content.split(b"\0")))
    return {each for each in found if each.pid not in spared}


def _processes_with(file: str, wanted: Callable[[bytes], bool]) -> set[Identity]:
    found = set()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            content = (process / file).read_bytes()
        except OSError:
            continue
        if wanted(content) and (identity := identify(int(process.name))) is not None:
            found.add(identity)
    return found


def end_all(find: Callable[[], set[Identity]], *, grace_s: float) -> list[EndedProcess]:
    """End what `find` finds until it finds nothing: SIGTERM, after `grace_s` SIGKILL; newcomers SIGKILL."""
    ended: dict[Identity, EndedProcess] = {}
    for _ in range(_ROUNDS):
        found = find()
        if not found:
            break
        commands = {each: _command(each.pid) for each in found}
        if grace_s > 0:
            for each in found:
                send_signal(each, signal.SIGTERM)
            await_end(found, grace_s)
        for each in found:
            at_ns = time.time_ns()
            killed = send_signal(each, signal.SIGKILL)
            ended[each] = EndedProcess(each, commands[each], killed, at_ns)
        await_end(found, 2.0)
        grace_s = 0.0
    return list(ended.values())


def await_end(identities: set[Identity], deadline_s: float) -> bool:
    until = time.monotonic() + deadline_s
    while any(is_alive(each) for each in identities):
        if time.monotonic() >= until:
            return False
        time.sleep(0.01)
    return True


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return "gone"
    text = b" ".join(words).decode(errors="replace")
    return text if len(text) <= 100 else text[:97] + "..."


def _self_and_ancestors() -> set[int]:
    spared, pid = set(), os.getpid()
    while pid > 0 and pid not in spared:
        spared.add(pid)
        try:
            found = read_stat(pid)
        except PermissionError:
            break
        pid = 0 if found is None else found.parent
    return spared


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
