"""Runs one action of one OCF agent under a deadline; keeps the runner's directory; sees the end of a
process.

Each agent leads its own session; at the deadline its whole process group gets SIGKILL, as Pacemaker does.
Output goes to files: a service that the agent leaves behind may keep them open without making anybody wait,
and never meets a closed pipe. They are cut at the next action, so they stay small. A start or stop is written
down before it runs: a shell holds at a gate until the record is there, so that no kill -9 of the runner
leaves an act that its successor does not know of.

Below `<state_dir>/runner`: `rsctmp/` is the agents' HA_RSCTMP, `acts/<resource>.json` names the agent
process of a start or stop in flight, so that a runner that comes after a kill -9 waits for it instead of
running a second one beside it; `<resource>.out` and `.err` hold what the last action printed. After a reboot
`rsctmp/` and `acts/` are emptied, as OCF demands of its scratch space.

The end of a process, child or not, is seen at once through a pidfd on the event loop: no polling, no thread.
A watch holds one file descriptor and must be closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import shutil
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from homeostat.contracts.scratch import pid_file_of, scratch_of
from homeostat.kernel.processes import Identity, identify, is_alive
from homeostat.resources import ocf

_PID_FILE_BYTES = 64
_ACT_BYTES = 256
"""An act in flight is about 90; all are written in this length."""


class PidfdWatch:
    """The end of exactly one process. `ended` is done when it is gone, also as a zombie."""

    def __init__(self, identity: Identity, handle: int) -> None:
        self.identity = identity
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(handle, self._on_end)

    @classmethod
    def on(cls, identity: Identity) -> PidfdWatch | None:
        """Watch this process; None when it is gone already. Checked after opening, so never a successor."""
        try:
            handle = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            return None
        if not is_alive(identity):
            os.close(handle)
            return None
        return cls(identity, handle)

    @classmethod
    def on_child(cls, pid: int) -> PidfdWatch:
        """Watch a child not yet waited for: its pid cannot be anybody else's, even when it is a zombie."""
        return cls(identify(pid) or Identity(pid, 0), os.pidfd_open(pid))

    def close(self) -> None:
        if self._handle >= 0:
            self._loop.remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1
        self.ended.cancel()

    def _on_end(self) -> None:
        self._loop.remove_reader(self._handle)
        if not self.ended.done():
            self.ended.set_result(None)


def recorded_identity(pid_file: Path) -> Identity | None:
    """Who the first line names: `<pid> <start_ticks>`, or a pid alone, which is taken for who has it now.

    None when there is no file, no pid in it, or (pid alone) nobody has that pid. An identity with start
    ticks is returned whether it still lives or not.
    """
    try:
        with pid_file.open("rb") as file:
            words = file.readline(_PID_FILE_BYTES).split()
    except OSError:
        return None
    if not words or not words[0].isdigit() or not 0 < int(words[0]) < 1 << 31:
        return None
    pid = int(words[0])
    return Identity(pid, int(words[1])) if len(words) > 1 and words[1].isdigit() else identify(pid)


_log = logging.getLogger(__name__)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ActInFlight:
    """The agent process of an act. `deadline_ns` is on CLOCK_BOOTTIME."""

    verb: str
    pid: int
    start_ticks: int
    deadline_ns: int

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.start_ticks)


class Scratch:
    """The directory `<state_dir>/runner`."""

    def __init__(self, state_dir: Path) -> None:
        self._root = state_dir.absolute() / "runner"
        self.rsctmp = scratch_of(state_dir)
        self._state_dir = state_dir
        self._acts = self._root / "acts"

    def prepare(self) -> None:
        """Make the directories; empty those of an earlier boot."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark, boot_id = self._root / "boot_id", _BOOT_ID.read_text()
        if mark.exists() and mark.read_text() != boot_id:
            shutil.rmtree(self.rsctmp, ignore_errors=True)
            shutil.rmtree(self._acts, ignore_errors=True)
        # 0755: a process of another user may need to find its own files in here.
        self._root.chmod(0o755)
        self.rsctmp.mkdir(mode=0o755, exist_ok=True)
        self._acts.mkdir(mode=0o700, exist_ok=True)
        mark.write_text(boot_id)

    def output_files(self, resource: str) -> tuple[Path, Path]:
        """Where standard output and standard error of a resource's actions go."""
        return self._root / f"{resource}.out", self._root / f"{resource}.err"

    def pid_file(self, resource: str) -> Path:
        return pid_file_of(self._state_dir, resource)

    def begin_act(self, resource: str, act: ActInFlight) -> None:
        """Write down an act before it does anything. Need not survive a reboot, so no fsync.

        In place and always of one length: on a full disk the file's block is all that there is. Where not
        even that is, the act goes on: what must be restarted must not wait for room.
        """
        body = orjson.dumps(asdict(act)).ljust(_ACT_BYTES)
        try:
            self._write_act(resource, body)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self.end_act(resource)
            _log.error("%s: its %s could not be written down (%s)", resource, act.verb, error.strerror)

    def _write_act(self, resource: str, body: bytes) -> None:
        handle = os.open(self._acts / f"{resource}.json", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            if os.pwrite(handle, body, 0) < len(body):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)

    def act_in_flight(self, resource: str) -> ActInFlight | None:
        """What an earlier runner began and did not see the end of; None also for an unreadable record."""
        path = self._acts / f"{resource}.json"
        try:
            body = path.read_bytes().strip()
            return ActInFlight(**orjson.loads(body)) if body else None
        except FileNotFoundError:
            return None
        except (orjson.JSONDecodeError, TypeError):
            _log.warning("%s: cannot be read, taken as missing", path)
            return None

    def end_act(self, resource: str) -> None:
        """Nothing is in flight any more; the file keeps its block for the next act."""
        try:
            self._write_act(resource, b" " * _ACT_BYTES)
        except OSError:
            (self._acts / f"{resource}.json").unlink(missing_ok=True)


_KEPT = 16 * 1024
_KILL_WAIT_S = 5.0
_ACTS = ("start", "stop")
_GATE = 'read -r go || exit 125; exec "$0" "$1" </dev/null'
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class ActionResult:
    """How an action ended. `code` is None when it was killed; output is the first and last 16 KiB."""

    answer: ocf.ActionOutcome
    code: int | None
    reason: str
    stdout: str
    stderr: str
    took_ms: float

    @property
    def detail(self) -> str:
        """One short line for a report."""
        if self.answer in (ocf.ActionOutcome.OK, ocf.ActionOutcome.NOT_RUNNING) or self.code is None:
            return self.reason
        return f"{self.reason}; exit code {self.code}" if self.reason else f"exit code {self.code}"


class RunningAction:
    """An action in flight. Exactly one caller awaits `result`."""

    def __init__(self, call: ocf.AgentCall, scratch: Scratch, watch: PidfdWatch) -> None:
        self._call, self._scratch, self._watch = call, scratch, watch
        self._began = time.monotonic()
        self._killed = False

    @property
    def pid(self) -> int:
        return self._watch.identity.pid

    @classmethod
    def begin(cls, call: ocf.AgentCall, scratch: Scratch, ocf_root: Path) -> RunningAction:
        """Start the agent. OSError when it cannot be run at all."""
        if not os.access(call.executable, os.X_OK):
            missing = FileNotFoundError if not call.executable.exists() else PermissionError
            raise missing(f"{call.executable} is not an executable file")
        env = ocf.environment(call, ocf_root, scratch.rsctmp, os.environ)
        outputs = scratch.output_files(_label(call))
        if call.verb not in _ACTS:
            pid = _spawn([str(call.executable), call.verb], env, None, outputs)
            return cls(call, scratch, PidfdWatch.on_child(pid))
        behind, gate = os.pipe()
        try:
            argv = ["/bin/sh", "-c", _GATE, str(call.executable), call.verb]
            pid = _spawn(argv, env, behind, outputs)
            watch = PidfdWatch.on_child(pid)
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
        kept = ocf.META_DATA_BYTES_MAX // 2 if self._call.verb == "meta-data" else _KEPT
        stdout, stderr = _read_ends(out, kept), _read_ends(err, _KEPT)
        if timed_out or self._killed or code is None:
            said = ocf.exit_reason(stderr)
            why = f"killed after {took_ms / 1000:.1f} s" if code is not None else "cannot be killed"
            why = f"{said}; {why}" if said else why
            return ActionResult(ocf.ActionOutcome.TIMED_OUT, None, why, stdout, stderr, took_ms)
        return ActionResult(ocf.outcome_of(code), code, ocf.exit_reason(stderr), stdout, stderr, took_ms)

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


async def run_action(call: ocf.AgentCall, scratch: Scratch, ocf_root: Path) -> ActionResult:
    """Run one action to its end or deadline. An agent that cannot be run at all answers as OCF would."""
    try:
        action = RunningAction.begin(call, scratch, ocf_root)
    except OSError as error:
        return unrunnable_result(error)
    return await action.result()


def unrunnable_result(error: OSError) -> ActionResult:
    """The answer of an agent that is not there or not a program (5) or may not be run (4).

    Any other error is the runner's own trouble (no memory, full disk) and is raised again.
    """
    if error.errno not in (None, errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR):
        raise error
    code = ocf.OcfCode.ERR_PERM if isinstance(error, PermissionError) else ocf.OcfCode.ERR_INSTALLED
    return ActionResult(ocf.ActionOutcome.HARD, code, str(error), "", "", 0.0)


async def settle_act(resource: str, scratch: Scratch) -> bool:
    """Wait for an act that an earlier runner left in flight, and kill it at its deadline; whether one was."""
    act = scratch.act_in_flight(resource)
    if act is None:
        return False
    watch = PidfdWatch.on(act.identity)
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


def _label(call: ocf.AgentCall) -> str:
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
