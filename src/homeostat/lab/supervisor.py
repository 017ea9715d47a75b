"""Keeps a list of child processes running until it is asked to stop, and reports to the terminal.

Knows nothing of what the children are for. One thread, one poll loop: the children's pidfds, their output,
and signals. Forks only from the main thread. SIGINT, SIGTERM and SIGHUP ask it to stop; the second one kills
everything at once.

Writing to the terminal must never stop the supervisor, since a person may have paused it: lines wait in a
bounded buffer until the terminal takes them; when it does not, the oldest are dropped and counted. A reader
that went away is not an error.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from homeostat.kernel.processes import Identity, send_signal
from homeostat.kernel.terminal import CANNOT_SUCCEED, ERROR_PREFIX
from homeostat.lab.children import Child, ChildSpec, backoff_s, last_lines, rotate_log
from homeostat.lab.disk import DiskWatch, retry_s

_LINES_MAX = 1000
_CHUNK_BYTES = select.PIPE_BUF


class TerminalOutput:
    """One output file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()
        self._dropped = 0
        self._open = True
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def say(self, line: str) -> None:
        """Show one line now, or as soon as the terminal takes it."""
        body = line.encode(errors="backslashreplace") + b"\n"
        if len(self._lines) >= _LINES_MAX:
            self._lines.popleft()
            self._dropped += 1
        self._lines.append(body)
        self.flush()

    def flush(self) -> None:
        """Write what can be written without waiting."""
        while self._open and (self._lines or self._dropped) and self._writable():
            if self._dropped:
                self._lines.appendleft(f"... {self._dropped} lines not shown\n".encode())
                self._dropped = 0
            line = self._lines.popleft()
            try:
                written = os.write(self._descriptor, line[:_CHUNK_BYTES])
            except BlockingIOError:
                self._lines.appendleft(line)
                return
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    self._lines.appendleft(line)  # there may be room later
                else:
                    self._open = False
                return
            if written < len(line):
                self._lines.appendleft(line[written:])

    @property
    def waiting(self) -> bool:
        return self._open and bool(self._lines)

    def _writable(self) -> bool:
        ready = self._poll.poll(0)
        return bool(ready) and bool(ready[0][1] & (select.POLLOUT | select.POLLERR | select.POLLHUP))


_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DEATHS_BEFORE_READY_MAX = 5
_SWEEP_S = 1.0
_READY_POLL_S = 0.05
_LOG_LINES_SHOWN = 8
_SAME_REQUEST_S = 0.5
"""Signals this close together are one request: `timeout` and shells send to a process and to its group."""


class StopRequests:
    """Counts the signals that ask us to stop. `wakes` becomes readable with each."""

    def __init__(self) -> None:
        self.count = 0
        self._last_s = 0.0
        self.wakes, self._waker = socket.socketpair()
        self.wakes.setblocking(False)
        self._waker.setblocking(False)
        for number in _STOP_SIGNALS:
            if not (number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN):
                signal.signal(number, self._asked)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)

    def _asked(self, _number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self.count == 0 or now_s - self._last_s > _SAME_REQUEST_S:
            self.count += 1
            self._last_s = now_s


@dataclass(frozen=True, slots=True)
class SupervisorDependencies:
    """What a supervisor needs beside its children. `record` is called with what runs, at every change.

    `before_stop` is called once, before the first child is asked to stop; it must not raise. `disk`: while it
    is full, children that end are started again slowly, and none of them ends the whole.
    """

    logs: Path
    record: Callable[[dict[str, Identity]], None]
    screen: TerminalOutput
    stops: StopRequests
    before_stop: Callable[[], None] = lambda: None
    disk: DiskWatch | None = None


class Supervisor:
    """Children in, exit code out."""

    def __init__(self, specs: Sequence[ChildSpec], surroundings: SupervisorDependencies) -> None:
        logs = surroundings.logs
        self._children = {spec.name: Child(spec, logs / f"{spec.name}.log") for spec in specs}
        self._record = surroundings.record
        self._screen = surroundings.screen
        self._stops = surroundings.stops
        self._before_stop = surroundings.before_stop
        self._disk = surroundings.disk
        self._waits_for_room: set[str] = set()
        self._failed = False
        self._swept_s = 0.0

    def run(self) -> int:
        """Run until asked to stop (0) or until a first start fails (1). No child lives afterwards."""
        try:
            while not self._failed and not self._stops.count:
                self._start_due()
                self._check_ready()
                self._sweep()
                self._wait(self._pause_s())
                self._bury(stopping=False)
        finally:
            self._before_stop()
            for wave in sorted({child.spec.stop_wave for child in self._children.values()}):
                self._stop_wave([each for each in self._children.values() if each.spec.stop_wave == wave])
        return 1 if self._failed else 0

    def _start_due(self) -> None:
        now_s = time.monotonic()
        started = False
        for child in self._children.values():
            if child.alive or child.finished or self._failed:
                continue
            if child.first_start_s is None:
                due = all(self._children[name].was_ready for name in child.spec.after)
            else:
                due = child.due_s is not None and now_s >= child.due_s
            if due and child.spec.wanted():
                started = self._start(child) or started
        if started:
            self._record_children()

    def _start(self, child: Child) -> bool:
        try:
            child.start()
        except OSError as error:
            # An attempt that did not even fork is a death, too.
            child.first_start_s = child.first_start_s or time.monotonic()
            child.deaths += 1
            if self._is_full():
                self._wait_for_room(child, f"{child.spec.name}: cannot be started ({error})")
                return False
            if not child.was_ready:
                self._fail(f"{child.spec.name}: cannot be started ({error})", child)
                return False
            child.due_s = time.monotonic() + backoff_s(child.deaths)
            self._screen.say(f"{child.spec.name}: cannot be started ({error}); trying again")
            return False
        return True

    def _check_ready(self) -> None:
        now_s = time.monotonic()
        for child in self._children.values():
            if not child.alive or child.ready or child.spec.once:
                continue
            if child.spec.ready(child.pid):
                if child.was_ready:
                    self._screen.say(f"{child.spec.name} is up again (pid {child.pid})")
                child.ready = child.was_ready = True
            elif self._is_full():
                continue  # it may wait for room, too
            elif not child.was_ready and now_s - (child.first_start_s or now_s) > child.spec.ready_within_s:
                self._fail(f"{child.spec.name}: not ready within {child.spec.ready_within_s:g} s", child)

    def _bury(self, *, stopping: bool) -> None:
        buried = False
        for child in self._children.values():
            pid = child.pid
            self._relay(child)
            status = child.collect()
            if status is None:
                continue
            buried = True
            if not stopping:
                self._decide_after(child, pid, status)
        if buried:
            self._record_children()

    def _decide_after(self, child: Child, pid: int, status: int) -> None:
        name = child.spec.name
        self._look_at_disk()
        if status != 0 and self._is_full() and (child.spec.once or child.deaths > 1):
            self._wait_for_room(child, f"{name} (pid {pid}) {_ending(status)}")
        elif child.spec.once:
            child.finished = True
            child.was_ready = True
            if status != 0:
                self._fail(f"{name}: {_ending(status)}", None)
        elif not child.was_ready and status in CANNOT_SUCCEED:
            why = (last_lines(child.log, 1) or [_ending(status)])[0]
            self._fail(f"{name}: {why.removeprefix(ERROR_PREFIX)}", None)
        elif not child.was_ready and child.deaths >= _DEATHS_BEFORE_READY_MAX:
            self._fail(f"{name}: {_ending(status)} ({child.deaths} times), never ready", child)
        else:
            pause_s = backoff_s(child.deaths) if child.spec.wanted() else 0.0
            child.due_s = time.monotonic() + pause_s
            then = f"restarting in {pause_s:g} s" if child.spec.wanted() else "its host is switched off"
            self._screen.say(f"{name} (pid {pid}) {_ending(status)}; {then}")

    def _is_full(self) -> bool:
        return self._disk is not None and bool(self._disk.trouble)

    def _wait_for_room(self, child: Child, what: str) -> None:
        """A child cannot live on a full disk: try it now and then, and say so once."""
        pause_s = retry_s(child.deaths - 1)
        child.due_s = time.monotonic() + pause_s
        if child.spec.name not in self._waits_for_room:
            self._waits_for_room.add(child.spec.name)
            self._screen.say(f"{what}; the disk is full, started again in {pause_s:g} s and then more rarely")

    def _look_at_disk(self) -> None:
        if self._disk is None or not self._disk.look():
            return
        if self._disk.trouble:
            self._screen.say(self._disk.trouble)
            return
        self._screen.say("the disk has free space again")
        self._waits_for_room.clear()
        now_s = time.monotonic()
        for child in self._children.values():
            if child.due_s is not None:
                child.due_s = now_s
            child.first_start_s = None if child.first_start_s is None else now_s
            child.deaths = 0

    def _fail(self, what: str, child: Child | None) -> None:
        self._failed = True
        self._screen.say(f"homeostat up: {what}")
        if child is not None:
            for line in last_lines(child.log, _LOG_LINES_SHOWN):
                self._screen.say(f"  | {line}")
            self._screen.say(f"  its log: {child.log}")

    def _sweep(self) -> None:
        now_s = time.monotonic()
        if now_s - self._swept_s >= _SWEEP_S:
            self._swept_s = now_s
            self._look_at_disk()
            for child in self._children.values():
                with suppress(OSError):
                    rotate_log(child.log)

    def _pause_s(self) -> float:
        """How long nothing needs to be done unless something happens."""
        now_s, pause_s = time.monotonic(), _SWEEP_S
        for child in self._children.values():
            if child.due_s is not None and not child.spec.wanted():
                pause_s = min(pause_s, _READY_POLL_S)
            elif child.due_s is not None:
                pause_s = min(pause_s, max(0.0, child.due_s - now_s))
            if child.alive and not child.ready and not child.spec.once:
                pause_s = min(pause_s, _READY_POLL_S)
            if not child.alive and child.first_start_s is None:
                pause_s = min(pause_s, _READY_POLL_S)
        return pause_s

    def _wait(self, pause_s: float) -> None:
        """Until something happens, at most `pause_s`; what children say is shown at once."""
        poll = select.poll()
        poll.register(self._stops.wakes, select.POLLIN)
        for child in self._children.values():
            for descriptor in (child.pidfd, child.output):
                if descriptor >= 0:
                    poll.register(descriptor, select.POLLIN)
        if self._screen.waiting:
            pause_s = min(pause_s, _READY_POLL_S)
        poll.poll(max(1, round(pause_s * 1000)))
        with suppress(BlockingIOError):
            while self._stops.wakes.recv(64):
                pass
        for child in self._children.values():
            self._relay(child)
        self._screen.flush()

    def _relay(self, child: Child) -> None:
        for line in child.read_output():
            self._screen.say(f"{child.spec.shown_as or ''}{line}")

    def _record_children(self) -> None:
        self._record(
            {name: child.identity for name, child in self._children.items() if child.identity is not None}
        )

    def _stop_wave(self, children: Sequence[Child]) -> None:
        asked_s = time.monotonic()
        for child in children:
            if child.identity is not None:
                send_signal(child.identity, child.spec.stop_signal)
        killed: set[str] = set()
        while any(child.alive for child in children):
            waited_s = time.monotonic() - asked_s
            for child in children:
                late = waited_s > child.spec.stop_deadline_s or self._stops.count > 1
                if late and child.alive and child.spec.name not in killed:
                    killed.add(child.spec.name)
                    self._kill(child, waited_s)
            self._wait(_READY_POLL_S)
            self._bury(stopping=True)

    def _kill(self, child: Child, waited_s: float) -> None:
        if child.identity is not None and send_signal(child.identity, signal.SIGKILL):
            self._screen.say(f"{child.spec.name} (pid {child.identity.pid}) killed after {waited_s:.1f} s")


def _ending(status: int) -> str:
    if status >= 0:
        return f"exited with code {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
