"""Keeps a list of children running until it is told to stop. Knows nothing of what they are for.

One thread, one poll loop: the children's pidfds, what they say, and signals. Forks only from the main
thread. SIGINT, SIGTERM and SIGHUP ask it to stop; the second one kills everything at once.
"""

from __future__ import annotations

import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from homeostat.kernel.processes import Identity, send_signal
from homeostat.kernel.terminal import CANNOT_SUCCEED, ERROR_PREFIX
from homeostat.lab.children import Child, ChildSpec, backoff_s, fit_log, last_lines
from homeostat.lab.screen import Screen

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


def nothing() -> None:
    """Nothing has to be done."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a supervisor needs beside its children. `record` is told who runs, at every change.

    `before_stop` is called once, before the first child is asked to stop; it must not raise.
    """

    logs: Path
    record: Callable[[dict[str, Identity]], None]
    screen: Screen
    stops: StopRequests
    before_stop: Callable[[], None] = nothing


class Supervisor:
    """Children in, exit code out."""

    def __init__(self, specs: Sequence[ChildSpec], surroundings: Surroundings) -> None:
        logs = surroundings.logs
        self._children = {spec.name: Child(spec, logs / f"{spec.name}.log") for spec in specs}
        self._record = surroundings.record
        self._screen = surroundings.screen
        self._stops = surroundings.stops
        self._before_stop = surroundings.before_stop
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
            self._stop_all()
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
            child.fail_to_start()
            if not child.was_ready:
                self._fail(f"{child.spec.name}: cannot be started ({error})", child)
                return False
            child.due_s = time.monotonic() + backoff_s(child.deaths)
            self._screen.say(f"{child.spec.name}: cannot be started ({error}); tried again")
            return False
        return True

    def _check_ready(self) -> None:
        now_s = time.monotonic()
        for child in self._children.values():
            if not child.alive or child.ready or child.spec.once:
                continue
            if child.spec.ready(child.pid):
                if child.was_ready:
                    self._screen.say(f"{child.spec.name} is back (pid {child.pid})")
                child.ready = child.was_ready = True
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
        if child.spec.once:
            child.finished = True
            child.was_ready = True
            if status != 0:
                self._fail(f"{name}: {_ending(status)}", None)
        elif not child.was_ready and status in CANNOT_SUCCEED:
            why = (last_lines(child.log, 1) or [_ending(status)])[0]
            self._fail(f"{name}: {why.removeprefix(ERROR_PREFIX)}", None)
        elif not child.was_ready and child.deaths >= _DEATHS_BEFORE_READY_MAX:
            self._fail(f"{name}: {_ending(status)} for the {child.deaths}th time, never ready", child)
        else:
            pause_s = backoff_s(child.deaths) if child.spec.wanted() else 0.0
            child.due_s = time.monotonic() + pause_s
            then = f"started again in {pause_s:g} s" if child.spec.wanted() else "its host is off"
            self._screen.say(f"{name} (pid {pid}) {_ending(status)}; {then}")

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
            for child in self._children.values():
                with suppress(OSError):
                    fit_log(child.log)

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
        self._drain_wakes()
        for child in self._children.values():
            self._relay(child)
        self._screen.flush()

    def _drain_wakes(self) -> None:
        with suppress(BlockingIOError):
            while self._stops.wakes.recv(64):
                pass

    def _relay(self, child: Child) -> None:
        for line in child.read_output():
            self._screen.say(f"{child.spec.shown_as or ''}{line}")

    def _record_children(self) -> None:
        self._record(
            {name: child.identity for name, child in self._children.items() if child.identity is not None}
        )

    def _stop_all(self) -> None:
        for wave in sorted({child.spec.stop_wave for child in self._children.values()}):
            self._stop_wave([child for child in self._children.values() if child.spec.stop_wave == wave])

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
        return f"ended with code {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
