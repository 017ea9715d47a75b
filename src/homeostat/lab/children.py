"""One child of the supervisor: what it is told, how it is started, what it writes.

A child has its own session (Ctrl-C reaches only us) and dies with us, even when we are killed. Knows
nothing of what its children are for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from homeostat.kernel.processes import Identity, die_with_parent, identify

LOG_BYTES_MAX = 8 * 1024 * 1024
_BACKOFF_FIRST_S, _BACKOFF_MAX_S = 0.1, 5.0
LONG_LIFE_S = 10.0
_LINE_BYTES_MAX = 16 * 1024


def always() -> bool:
    """Wanted whatever happens."""
    return True


def at_once(_pid: int) -> bool:
    """Ready as soon as it runs."""
    return True


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
    ready: Callable[[int], bool] = at_once
    env: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    once: bool = False
    shown_as: str | None = None
    ready_within_s: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_deadline_s: float = 5.0
    stop_wave: int = 0
    wanted: Callable[[], bool] = always


def backoff_s(deaths_in_a_row: int) -> float:
    """How long to wait before the next start: 0.1 s after the first death, doubled up to 5 s."""
    return float(min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2 ** min(deaths_in_a_row - 1, 16)))


def fit_log(path: Path, *, bytes_max: int = LOG_BYTES_MAX) -> None:
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
    """The end of a log, for a person."""
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
        fit_log(self.log)
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

    def fail_to_start(self) -> None:
        """Count an attempt that did not even fork as a death."""
        self.first_start_s = self.first_start_s or time.monotonic()
        self.deaths += 1

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
        """Stop listening to what it says."""
        if self.output >= 0 and self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        self.output = -1
