"""Runs one action of one OCF agent under a deadline.

Each agent leads its own session; at the deadline its whole process group gets SIGKILL, as Pacemaker does.
Output goes to files: a service that the agent leaves behind may keep them open without making anybody wait,
and never meets a closed pipe. They are cut at the next action, so they stay small.
A start or stop is written down before it runs: a shell holds at a gate until the record is there, so that
no kill -9 of the runner leaves an act that its successor does not know of.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from homeostat.kernel.processes import identify
from homeostat.resources.node_metadata import BYTES_MAX
from homeostat.resources.node_scratch import ActInFlight, Scratch
from homeostat.resources.node_watch import Watch
from homeostat.resources.ocf import Answer, Call, OcfCode, answer_of, environment, exit_reason

_log = logging.getLogger(__name__)
_KEPT = 16 * 1024
_KILL_WAIT_S = 5.0
_ACTS = ("start", "stop")
_GATE = 'read -r go || exit 125; exec "$0" "$1" </dev/null'
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class ActionResult:
    """How an action ended. `code` is None when it was killed; output is the first and last 16 KiB."""

    answer: Answer
    code: int | None
    reason: str
    stdout: str
    stderr: str
    took_ms: float

    @property
    def detail(self) -> str:
        """One short line for a report."""
        if self.answer in (Answer.OK, Answer.NOT_RUNNING) or self.code is None:
            return self.reason
        return f"{self.reason}; exit code {self.code}" if self.reason else f"exit code {self.code}"


class RunningAction:
    """An action in flight. Exactly one caller awaits `result`."""

    def __init__(self, call: Call, scratch: Scratch, watch: Watch) -> None:
        self._call, self._scratch, self._watch = call, scratch, watch
        self._began = time.monotonic()
        self._killed = False

    @property
    def pid(self) -> int:
        return self._watch.identity.pid

    @classmethod
    def begin(cls, call: Call, scratch: Scratch, ocf_root: Path) -> RunningAction:
        """Start the agent. OSError when it cannot be run at all."""
        if not os.access(call.executable, os.X_OK):
            missing = FileNotFoundError if not call.executable.exists() else PermissionError
            raise missing(f"{call.executable} is not an executable file")
        env = environment(call, ocf_root, scratch.rsctmp, os.environ)
        if call.verb not in _ACTS:
            argv = [str(call.executable), call.verb]
            return cls(
                call, scratch, Watch.on_child(_spawn(argv, env, None, scratch.output_files(_label(call))))
            )
        behind, gate = os.pipe()
        try:
            argv = ["/bin/sh", "-c", _GATE, str(call.executable), call.verb]
            pid = _spawn(argv, env, behind, scratch.output_files(_label(call)))
            watch = Watch.on_child(pid)
            deadline_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + round(call.timeout_s * 1e9)
            record = ActInFlight(call.verb, pid, watch.identity.start_ticks, deadline_ns)
            scratch.begin_act(call.resource, record)
            os.write(gate, b"go\n")
        finally:
            os.close(behind)
            os.close(gate)
        return cls(call, scratch, watch)

    def kill(self) -> None:
        """End the action now, with its whole process group. `result` tells as soon as it is gone."""
        self._killed = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def result(self) -> ActionResult:
        """Wait for the end, at most until the deadline. Cancelled: an act goes on, a look is killed."""
        timed_out = False
        try:
            await asyncio.wait({self._watch.ended}, timeout=self._call.timeout_s)
            if not self._watch.ended.done():
                timed_out = True
                self.kill()
                await asyncio.wait({self._watch.ended}, timeout=_KILL_WAIT_S)
        except asyncio.CancelledError:
            if self._call.verb not in _ACTS:
                self.kill()
            self._watch.close()
            raise
        took_ms = (time.monotonic() - self._began) * 1000
        code = self._reap()
        out, err = self._scratch.output_files(_label(self._call))
        kept = BYTES_MAX // 2 if self._call.verb == "meta-data" else _KEPT
        stdout, stderr = _read_ends(out, kept), _read_ends(err, _KEPT)
        if timed_out or self._killed or code is None:
            said = exit_reason(stderr)
            why = f"killed after {took_ms / 1000:.1f} s" if code is not None else "cannot be killed"
            why = f"{said}; {why}" if said else why
            return ActionResult(Answer.TIMED_OUT, None, why, stdout, stderr, took_ms)
        return ActionResult(answer_of(code), code, exit_reason(stderr), stdout, stderr, took_ms)

    def _reap(self) -> int | None:
        """The exit code, 128 + number for a signal; None for a process that not even SIGKILL ends."""
        if not self._watch.ended.done():
            _log.error("agent process %d of %s ignores SIGKILL", self.pid, self._call.resource)
            self._watch.close()
            return None
        self._watch.close()
        if self._call.verb in _ACTS:
            self._scratch.end_act(self._call.resource)
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code


async def run_action(call: Call, scratch: Scratch, ocf_root: Path) -> ActionResult:
    """Run one action to its end or deadline. An agent that cannot be run at all answers as OCF would."""
    try:
        action = RunningAction.begin(call, scratch, ocf_root)
    except OSError as error:
        return refused(error)
    return await action.result()


def refused(error: OSError) -> ActionResult:
    """The answer of an agent that is not there or not a program (5) or may not be run (4).

    Any other error is the runner's own trouble (no memory, full disk) and is raised again.
    """
    if error.errno not in (None, errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR):
        raise error
    code = OcfCode.ERR_PERM if isinstance(error, PermissionError) else OcfCode.ERR_INSTALLED
    return ActionResult(Answer.HARD, code, str(error), "", "", 0.0)


async def settle_act(resource: str, scratch: Scratch) -> bool:
    """Wait for an act that an earlier runner left in flight, and kill it at its deadline; whether one was."""
    act = scratch.act_in_flight(resource)
    if act is None:
        return False
    watch = Watch.on(act.identity)
    if watch is not None:
        try:
            left_s = (act.deadline_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) / 1e9
            _log.info("%s: waiting for the %s of an earlier runner, pid %d", resource, act.verb, act.pid)
            await asyncio.wait({watch.ended}, timeout=max(0.0, left_s))
            if not watch.ended.done() and identify(act.pid) == act.identity:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(act.pid, signal.SIGKILL)
                await asyncio.wait({watch.ended}, timeout=_KILL_WAIT_S)
        finally:
            watch.close()
    scratch.end_act(resource)
    return True


def _label(call: Call) -> str:
    """Meta-data is asked for beside the resource's actions; no resource can have this name."""
    return "_meta-data" if call.verb == "meta-data" else call.resource


def _spawn(argv: list[str], env: dict[str, str], stdin: int | None, outputs: tuple[Path, Path]) -> int:
    out, err = outputs
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    source = (
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
        if stdin is None
        else (os.POSIX_SPAWN_DUP2, stdin, 0)
    )
    actions = [source, (os.POSIX_SPAWN_OPEN, 1, str(out), flags, 0o600)]
    actions.append((os.POSIX_SPAWN_OPEN, 2, str(err), flags, 0o600))
    return os.posix_spawn(
        argv[0], argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULT_SIGNALS
    )


def _read_ends(path: Path, kept: int) -> str:
    """The first and the last `kept` bytes of a file, as text."""
    try:
        with path.open("rb") as file:
            head = file.read(kept)
            size = os.fstat(file.fileno()).st_size
            tail = b""
            if size > kept:
                file.seek(max(kept, size - kept))
                tail = file.read(kept)
    except OSError:
        return ""
    gap = b"\n[...]\n" if size > 2 * kept else b""
    return (head + gap + tail).decode(errors="replace")
