"""The undo keeper: whatever was broken on this host on purpose is undone in time, whoever dies.

One file, standard library only, any python3 from 3.8: it can be copied to a host and run there. It is a
process in a session of its own, without PDEATHSIG, so it outlives the tool and the node process; a guard
beside it starts it again when it is killed or stands still. It never injects anything.

Below its state folder (0700): `faults/<id>.json` is the ledger of one fault, on disk (fsync of file and
folder) before each act that it undoes; `<id>.renewed` the moment of the last renewal; `<id>.undo` asks for
the undo now; `halted` undoes everything and refuses new faults; `outcomes/<id>.json` is what came of it.
`doorbell` wakes the keeper, `keeper.json` is its sign of life, `keeper.lock` its claim to the folder.
`programs.json` holds what its host permits to be run for other hosts.

Invariants. A step is data of a fixed list of kinds, never a command line. A process is touched only by pid
*and* start ticks *and* boot id, through a pidfd. A step that fails stops no other, and is tried again. Time
is CLOCK_BOOTTIME: a step of the wall clock changes nothing. Whoever injects is registered with the fault
until it is done: it is killed before the undo, so a late act cannot follow its own undo.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import re
import select
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

DEADLINE_S = 30.0
LINGER_S = 60.0
"""How long a keeper with nothing to keep stays."""
_TURN_S = 0.5
_STILL_S = 10.0
"""A keeper silent for so long stands still; its guard replaces it."""
_RETRY_S = 1.0
_TOOL_S = 5.0
_HELD = 3
_FAULT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:-]{0,62}\Z")
_PIDFD_OPEN, _PIDFD_SEND_SIGNAL = 434, 424  # the same on every architecture but alpha

Step = Dict[str, Any]
Ledger = Dict[str, Any]


class KeeperError(Exception):
    """One line: what is wrong, and the remedy."""


class Refused(KeeperError):
    """This host takes no faults now."""


class Process(NamedTuple):
    """One process for ever: pid, start in ticks since boot, and which boot."""

    pid: int
    start_ticks: int
    boot_id: str


# ---- the machine ------------------------------------------------------------------------------------


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


# ---- files ------------------------------------------------------------------------------------------


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(path: Path, value: object, durable: bool = True) -> None:
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
        _sync_folder(path.parent)


def _read(path: Path) -> Optional[Dict[str, Any]]:
    """The object in the file; None when there is none; ValueError when it cannot be read."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


class Folder:
    """The state folder of one keeper."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100  resolve() would follow links
        self.faults, self.outcomes = self.root / "faults", self.root / "outcomes"
        self.lock, self.life, self.bell = (
            self.root / "keeper.lock",
            self.root / "keeper.json",
            self.root / "doorbell",
        )
        self.halted, self.log = self.root / "halted", self.root / "keeper.log"
        self.programs = self.root / "programs.json"

    def make(self) -> None:
        """The folders and the doorbell."""
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
        """Wake the keeper, if there is one."""
        with contextlib.suppress(OSError):
            handle = os.open(self.bell, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(handle, b"!")
            finally:
                os.close(handle)


# ---- the kinds of steps -----------------------------------------------------------------------------


def step_cont(process: Process) -> Step:
    """A process that is about to be stopped goes on."""
    return {"kind": "cont", **process._asdict()}


def step_kill(process: Process) -> Step:
    """A process of ours is ended."""
    return {"kind": "kill", **process._asdict()}


def step_remove(path: str, inode: Optional[int]) -> Step:
    """A file of ours is removed. Without an inode (not yet known) only while it is empty."""
    return {"kind": "remove", "path": path, "inode": inode}


def step_qdisc(netns: Optional[int], device: str, handle: str) -> Step:
    """A root queueing discipline with our handle (`8a01:`) is taken from a device."""
    return {"kind": "qdisc", "netns": netns, "device": device, "handle": handle}


def step_table(netns: Optional[int], table: str) -> Step:
    """Our own nftables table of family inet is dropped."""
    return {"kind": "table", "netns": netns, "table": table}


def step_chain(netns: Optional[int], command: str, chain: str) -> Step:
    """Our own chain of iptables or ip6tables, and the jumps to it."""
    return {"kind": "chain", "netns": netns, "command": command, "chain": chain}


def step_program(name: str, host: str, seen_by: str, says: str, takes_s: float = 0.0) -> Step:
    """A program that this machine permits is run for a host; it is undone when `seen_by` prints `says`.

    `takes_s`: so long before the deadline the undo begins, at most half of it.
    """
    step = {"kind": "program", "name": name, "host": host, "seen_by": seen_by, "says": says}
    return {**step, "takes_s": takes_s}


def step_nothing(why: str) -> Step:
    """Nothing is put back, because coming back is what is measured."""
    return {"kind": "nothing", "why": why}


def _process(step: Step) -> Process:
    return Process(int(step["pid"]), int(step["start_ticks"]), str(step["boot_id"]))


def _state_of(step: Step) -> Optional[str]:
    """The state letter of the step's own process; None when it is gone, or of another boot."""
    process, found = _process(step), stat_of(int(step["pid"]))
    if found is None or found[1] != process.start_ticks or process.boot_id != boot_id() or found[0] in "ZX":
        return None
    return found[0]


def _cont(step: Step) -> str:
    return "undone" if send(_process(step), signal.SIGCONT) else "already"


def _goes_on(step: Step) -> bool:
    return _state_of(step) != "T"


def _kill(step: Step) -> str:
    return "undone" if send(_process(step), signal.SIGKILL) else "already"


def _ended(step: Step) -> bool:
    return _state_of(step) is None


def _ours(step: Step) -> bool:
    """Whether the file of the step is there and is the one that we made."""
    try:
        found = os.lstat(step["path"])
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISREG(found.st_mode):
        return False
    return found.st_size == 0 if step["inode"] is None else found.st_ino == step["inode"]


def _unlink(step: Step) -> str:
    if not _ours(step):
        return "already"
    path = Path(step["path"])
    path.unlink()
    _sync_folder(path.parent)
    return "undone"


def entering(netns: Optional[int]) -> Optional[List[str]]:
    """How to run a command in a network namespace known by its inode; None when it is gone."""
    if netns is None or os.stat("/proc/self/ns/net").st_ino == netns:
        return []
    for path in (*Path("/run/netns").glob("*"), *Path("/proc").glob("[0-9]*/ns/net")):
        with contextlib.suppress(OSError):
            if os.stat(path).st_ino == netns:
                return ["nsenter", f"--net={path}"]
    return None


def run_tool(netns: Optional[int], *argv: str) -> Optional[str]:
    """What the tool prints; None when the namespace is gone. OSError when the tool fails."""
    prefix = entering(netns)
    if prefix is None:
        return None
    done = subprocess.run(
        [*prefix, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        timeout=_TOOL_S, universal_newlines=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _name(step: Step, field: str) -> str:
    value = str(step[field])
    if not _NAME.match(value):
        raise ValueError(f"{field}: {value!r} is no name")
    return value


def _qdisc_gone(step: Step) -> bool:
    device, handle = _name(step, "device"), _name(step, "handle")
    if not any(device == name for name in _devices(step["netns"])):
        return True
    shown = run_tool(step["netns"], "tc", "qdisc", "show", "dev", device) or ""
    return not any(line.split()[2:3] == [handle] for line in shown.splitlines())


def _devices(netns: Optional[int]) -> List[str]:
    shown = run_tool(netns, "ip", "-o", "link", "show") or ""
    return [line.split(":")[1].strip().split("@")[0] for line in shown.splitlines()]


def _qdisc(step: Step) -> str:
    if _qdisc_gone(step):
        return "already"
    device, handle = _name(step, "device"), _name(step, "handle")
    run_tool(step["netns"], "tc", "qdisc", "del", "dev", device, "root", "handle", handle)
    return "undone"


def _table_gone(step: Step) -> bool:
    shown = run_tool(step["netns"], "nft", "list", "tables") or ""
    return ["table", "inet", _name(step, "table")] not in [line.split() for line in shown.splitlines()]


def _table(step: Step) -> str:
    if _table_gone(step):
        return "already"
    run_tool(step["netns"], "nft", "delete", "table", "inet", _name(step, "table"))
    return "undone"


def _chain_words(step: Step) -> Tuple[str, str, List[List[str]]]:
    command, chain = str(step["command"]), _name(step, "chain")
    if command not in ("iptables", "ip6tables"):
        raise ValueError(f"command: {command!r} is not iptables or ip6tables")
    shown = run_tool(step["netns"], command, "-w", "5", "-S") or ""
    return command, chain, [words for words in map(str.split, shown.splitlines()) if chain in words]


def _chain_gone(step: Step) -> bool:
    return not _chain_words(step)[2]


def _chain(step: Step) -> str:
    command, chain, lines = _chain_words(step)
    if not lines:
        return "already"
    for words in lines:
        if words[0] == "-A" and words[-2:] == ["-j", chain]:
            run_tool(step["netns"], command, "-w", "5", "-D", *words[1:])
    run_tool(step["netns"], command, "-w", "5", "-F", chain)
    run_tool(step["netns"], command, "-w", "5", "-X", chain)
    return "undone"


def permit(root: Path, programs: Dict[str, Dict[str, Any]]) -> None:
    """Put down what may be run: by name `argv`, in which `{host}` stands for the host, and `timeout_s`."""
    folder = Folder(root)
    folder.make()
    _write(folder.programs, programs)


def _run_program(root: Path, name: str, host: str, beat: Callable[[], None]) -> str:
    """What a permitted program prints. OSError when it fails, hangs or is none."""
    programs = _read(Folder(root).programs) or {}
    if not (_NAME.match(host) and name in programs):
        raise ValueError(f"program {name!r} for host {host!r} is not permitted here")
    argv = [str(word).replace("{host}", host) for word in programs[name]["argv"]]
    end_ns = now_ns() + int(float(programs[name]["timeout_s"]) * 1e9)
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/",
        universal_newlines=True,
    ) as child:  # fmt: skip
        said = None
        while said is None:
            try:
                said = child.communicate(timeout=0.5)[0].strip()
            except subprocess.TimeoutExpired:
                beat()
                if now_ns() > end_ns:
                    child.kill()
                    raise OSError(f"{argv[0]}: no end in {programs[name]['timeout_s']} s") from None
    if child.returncode != 0:
        raise OSError(f"{argv[0]}: {said[-200:] or child.returncode}")
    return said


def _program_kind(root: Optional[Path], beat: Callable[[], None]) -> Kind:
    """The kind of step that needs to know whose keeper asks."""

    def seen(step: Step) -> bool:
        if root is None:
            raise ValueError("only a keeper runs programs")
        return _run_program(root, step["seen_by"], step["host"], beat) == str(step["says"])

    def undo(step: Step) -> str:
        if root is None:
            raise ValueError("only a keeper runs programs")
        _run_program(root, step["name"], step["host"], beat)
        return "undone"

    return Kind(undo, seen)


class Kind(NamedTuple):
    """How a step is undone (`undone` or `already`), and how it is seen that it is."""

    undo: Callable[[Step], str]
    verify: Callable[[Step], bool]


KINDS: Dict[str, Kind] = {
    "cont": Kind(_cont, _goes_on),
    "kill": Kind(_kill, _ended),
    "remove": Kind(_unlink, lambda step: not _ours(step)),
    "qdisc": Kind(_qdisc, _qdisc_gone),
    "table": Kind(_table, _table_gone),
    "chain": Kind(_chain, _chain_gone),
    "nothing": Kind(lambda _: "already", lambda _: True),
}


def _kind_of(step: Step, root: Optional[Path], beat: Callable[[], None]) -> Kind:
    return _program_kind(root, beat) if step["kind"] == "program" else KINDS[step["kind"]]


def undo_step(
    step: Step, beat: Callable[[], None] = lambda: None, root: Optional[Path] = None
) -> Dict[str, Any]:
    """Undo one step and look whether it is. Whatever goes wrong is in the result, nothing is raised.

    `root` is the folder of the keeper whose host permits the programs.
    """
    result, reason = "failed", None
    beat()
    try:
        kind = _kind_of(step, root, beat)
        result = kind.undo(step)
        if not within(2.0, lambda: kind.verify(step)):
            result, reason = "failed", "still in effect 2 s after the undo"
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
        result, reason = "failed", f"{type(error).__name__}: {error}"
    return {"step": step, "result": result, "reason": reason}


def verify_step(step: Step, root: Optional[Path] = None) -> Dict[str, Any]:
    """Whether nothing of a step's effect is left; looks only."""
    try:
        undone = _kind_of(step, root, lambda: None).verify(step)
        return {"step": step, "undone": undone, "reason": None}
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
        return {"step": step, "undone": False, "reason": f"{type(error).__name__}: {error}"}


# ---- the keeper -------------------------------------------------------------------------------------


def due_ns(ledger: Ledger, renewed_ns: Optional[int], at_ns: int) -> int:
    """When the undo begins: a margin before the deadline, so that it ends in it.

    A renewal from the future counts as one of now. Pure.
    """
    last_ns = max(int(ledger["armed_ns"]), min(renewed_ns or 0, at_ns))
    return last_ns + int((float(ledger["deadline_s"]) - margin_s(ledger)) * 1e9)


def margin_s(ledger: Ledger) -> float:
    """How long the undo may take: a tenth of the deadline, at most 2 s; with programs what they say. Pure."""
    deadline_s = float(ledger["deadline_s"])
    takes_s = sum(float(step.get("takes_s", 0.0)) for step in ledger.get("steps", []) if "takes_s" in step)
    return max(min(2.0, deadline_s / 10), min(takes_s, deadline_s / 2))


class Keeper:
    """Everything that one keeper does, a turn at a time. It holds the lock while it lives."""

    def __init__(self, folder: Folder) -> None:
        self._folder, self._boot = folder, boot_id()
        self._retry_ns: Dict[str, int] = {}
        me = identify(os.getpid())
        assert me is not None
        self._me = me
        self._busy_ns = now_ns()
        self.leaving = False

    def beat(self) -> None:
        """A sign of life for the guard, however full the disk is."""
        with contextlib.suppress(OSError):
            os.write(1, b".")

    def turn(self) -> float:
        """Undo what is due; seconds until the next look."""
        keeping, wait_s = [], _TURN_S
        halted = self._folder.halted.exists()
        for fault in self._folder.open_faults():
            self.beat()
            at_ns = now_ns()
            reason, due = self._reason(fault, at_ns, halted)
            if reason is None:
                keeping.append(fault)
                wait_s = min(wait_s, max(0.0, (due - at_ns) / 1e9))
            elif at_ns >= self._retry_ns.get(fault, 0):
                self._undo(fault, reason, due)
        if self._folder.open_faults():
            self._busy_ns = now_ns()
        self._show(keeping)
        return wait_s

    def idle_s(self) -> float:
        """For how long there was nothing to keep."""
        return (now_ns() - self._busy_ns) / 1e9

    def _reason(self, fault: str, at_ns: int, halted: bool) -> Tuple[Optional[str], int]:
        """Why the fault is undone now, or None; and when it is due."""
        try:
            ledger = _read(self._folder.ledger(fault))
            if ledger is None:
                return None, at_ns
            renewed = _read(self._folder.mark(fault, "renewed")) or {}
            due = due_ns(ledger, renewed.get("at_ns"), at_ns)
            actor = ledger["actor"]
        except (OSError, ValueError, KeyError, TypeError):
            return "unreadable", at_ns
        reason: Optional[str] = None
        if ledger["boot_id"] != self._boot:
            reason = "rebooted"
        elif halted:
            reason = "halted"
        elif self.leaving:
            reason = "terminated"
        elif self._folder.mark(fault, "undo").exists():
            reason = "asked"
        elif at_ns >= due:
            reason = "lapsed"
        elif actor is not None and not lives(_process(actor)):
            # It may have said that it is done, and ended, since the ledger was read.
            again = _read(self._folder.ledger(fault))
            reason = "injector died" if again is not None and again["actor"] is not None else None
        return reason, due

    def _undo(self, fault: str, reason: str, due: int) -> None:
        path, began_ns = self._folder.ledger(fault), now_ns()
        results: List[Dict[str, Any]] = []
        ledger: Optional[Ledger] = None
        try:
            ledger = _read(path)
            if ledger is not None and ledger["actor"] is not None:
                results.append(undo_step({**ledger["actor"], "kind": "kill"}, self.beat))
                ledger = _read(path)  # what it still wrote before it died
            for step in reversed(list(ledger["steps"]) if ledger is not None else []):
                results.append(undo_step(step, self.beat, self._folder.root))
        except (OSError, ValueError, KeyError, TypeError) as error:
            results.append({"step": None, "result": "failed", "reason": f"{path}: {error}"})
        done_ns = now_ns()
        deadline_ns = due if ledger is None else due + int(margin_s(ledger) * 1e9)
        undone = all(one["result"] != "failed" for one in results)
        outcome = {
            "fault": fault, "reason": reason, "undone": undone, "within_deadline": done_ns <= deadline_ns,
            "began_ns": began_ns, "done_ns": done_ns, "deadline_ns": deadline_ns,
            "boot_id": self._boot, "steps": results,
        }  # fmt: skip
        try:
            _write(self._folder.outcome(fault), outcome)
        except OSError as error:
            undone = False
            print(f"{fault}: the outcome cannot be written: {error}", file=sys.stderr, flush=True)
        if undone:
            for mark in ("undo", "renewed"):
                _remove(self._folder.mark(fault, mark))
            _remove(path)
            _sync_folder(path.parent)
            self._retry_ns.pop(fault, None)
        else:
            self._retry_ns[fault] = now_ns() + int(_RETRY_S * 1e9)

    def _show(self, keeping: List[str]) -> None:
        with contextlib.suppress(OSError):
            life = {**self._me._asdict(), "beat_ns": now_ns(), "keeping": keeping}
            _write(self._folder.life, life, durable=False)


@contextlib.contextmanager
def _only_keeper(folder: Folder) -> Iterator[None]:
    handle = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise SystemExit(_HELD) from None
    try:
        yield
    finally:
        os.close(handle)


def keep(root: Path, linger_s: float) -> None:
    """Be the keeper of a folder until there was nothing to keep for `linger_s`, or SIGTERM undid it all."""
    folder = Folder(root)
    folder.make()
    with _only_keeper(folder):
        keeper = Keeper(folder)
        bell = os.open(folder.bell, os.O_RDWR | os.O_NONBLOCK)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)

        def leave(*_: object) -> None:
            keeper.leaving = True
            folder.ring()

        signal.signal(signal.SIGTERM, leave)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("-1000")
        while True:
            wait_s = keeper.turn()
            keeper.beat()
            empty = not folder.open_faults()
            if empty and (keeper.leaving or keeper.idle_s() > linger_s):
                _remove(folder.life)
                return
            select.select([bell], [], [], wait_s)
            with contextlib.suppress(BlockingIOError):
                os.read(bell, 4096)


def guard(root: Path, linger_s: float) -> None:
    """Start the keeper, and start it again when it was killed or stands still; ends when it ended well."""
    if os.fork() != 0:
        os._exit(0)
    os.setsid() if os.getsid(0) != os.getpid() else None
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    argv = [sys.executable, "-I", "-S", os.path.abspath(__file__), "keep"]  # noqa: PTH100
    argv += ["--state", str(root), "--linger", str(linger_s)]
    while True:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
        assert child.stdout is not None
        signal.signal(signal.SIGTERM, lambda *_, child=child: child.terminate())
        while True:
            ready = select.select([child.stdout], [], [], _STILL_S)[0]
            if not ready:
                child.kill()
            if not ready or not os.read(child.stdout.fileno(), 4096):
                break
        code = child.wait()
        child.stdout.close()
        if code in (0, _HELD):
            return
        time.sleep(0.1)  # a keeper that cannot start must not eat the processor


# ---- for those who inject, and for people ---------------------------------------------------------


def sign_of_life(root: Path, within_s: float = 5.0) -> Optional[Dict[str, Any]]:
    """What the keeper says after having been asked just now; None when none answers."""
    folder, asked_ns = Folder(root), now_ns()
    found: List[Dict[str, Any]] = []

    def answered() -> bool:
        life = _life(folder)
        if life is None:
            return True
        if life["beat_ns"] > asked_ns:
            found.append(life)
            return True
        folder.ring()
        return False

    return found[-1] if within(within_s, answered) and found else None


def _life(folder: Folder) -> Optional[Dict[str, Any]]:
    """The last sign of a keeper that lives, however old."""
    try:
        life = _read(folder.life)
        return life if life is not None and lives(_process(life)) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def start(root: Path, linger_s: float = LINGER_S, within_s: float = 15.0) -> Dict[str, Any]:
    """A keeper that has just answered: the one that is there, else a new one. KeeperError when none does."""
    life = sign_of_life(root)
    if life is not None:
        return life
    folder = Folder(root)
    folder.make()
    argv = [sys.executable, "-I", "-S", os.path.abspath(__file__), "guard"]  # noqa: PTH100
    argv += ["--state", str(folder.root), "--linger", str(linger_s)]
    with folder.log.open("ab") as log:
        subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, cwd="/",
            start_new_session=True, check=True, timeout=within_s,
        )  # fmt: skip
    found: List[Dict[str, Any]] = []

    def answers() -> bool:
        found.extend(filter(None, [sign_of_life(root, 0.2)]))
        return bool(found)

    if not within(within_s, answers):
        raise KeeperError(f"{folder.root}: no undo keeper answers; see {folder.log}; nothing was injected")
    return found[-1]


def arm(
    root: Path, fault: str, deadline_s: float, actor_pid: int, steps: Optional[List[Step]] = None
) -> None:
    """Register a fault before anything is done; the keeper has it when this returns.

    `actor_pid` is the process that will inject: it is killed before the undo unless `injected` was told, and
    its death is a reason to undo. Refused on a halted host, KeeperError when the fault is known already.
    """
    folder = Folder(root)
    folder.make()
    if folder.halted.exists():
        raise Refused(f"{folder.root}: halted; `homeostat node resume` lets faults in again")
    if not 0 < deadline_s <= 3600:
        raise KeeperError(f"deadline_s: {deadline_s} is not accepted; more than 0, at most 3600")
    actor = identify(actor_pid)
    if actor is None:
        raise KeeperError(f"process {actor_pid} is gone")
    if folder.ledger(fault).exists() or folder.outcome(fault).exists():
        raise KeeperError(f"fault: {fault} has been used here; each injection has a name of its own")
    start(root)
    ledger = {
        "fault": fault, "boot_id": boot_id(), "armed_ns": now_ns(), "deadline_s": deadline_s,
        "actor": actor._asdict(), "steps": steps or [],
    }  # fmt: skip
    _write(folder.ledger(fault), ledger)

    def kept() -> bool:
        life = sign_of_life(root, 1.0) or start(root)
        return fault in life["keeping"] or not folder.ledger(fault).exists()

    if not within(10.0, kept) or not folder.ledger(fault).exists():
        _remove(folder.ledger(fault))
        raise Refused(f"{folder.root}: the keeper did not take fault {fault}; nothing was injected")


def add(root: Path, fault: str, *steps: Step) -> None:
    """Put steps on disk, before the acts that they undo. KeeperError when the fault has been undone."""

    def grow(ledger: Ledger) -> None:
        ledger["steps"] = [*ledger["steps"], *steps]

    _change(root, fault, grow)


def replace(root: Path, fault: str, old: Step, new: Step) -> None:
    """Put more exact words in the place of a step: the inode of a file that now exists."""

    def swap(ledger: Ledger) -> None:
        ledger["steps"] = [new if step == old else step for step in ledger["steps"]]

    _change(root, fault, swap)


def injected(root: Path, fault: str) -> None:
    """Everything is done: whoever injected may end, the fault stands until its deadline."""
    _change(root, fault, lambda ledger: ledger.update(actor=None))


def _change(root: Path, fault: str, how: Callable[[Ledger], None]) -> None:
    path = Folder(root).ledger(fault)
    ledger = _read(path)
    if ledger is None:
        raise KeeperError(f"fault: {fault} is not armed here; it may have been undone")
    how(ledger)
    _write(path, ledger)


def renew(root: Path, fault: str) -> Dict[str, Any]:
    """Move the deadline on. Starts a keeper when there is none. KeeperError when the fault is over."""
    folder = Folder(root)
    if not folder.ledger(fault).exists():
        raise KeeperError(f"fault: {fault} is not armed here; it may have been undone")
    _write(folder.mark(fault, "renewed"), {"at_ns": now_ns()}, durable=False)
    return start(root)


def undo(root: Path, fault: str, within_s: float = 15.0) -> Dict[str, Any]:
    """Undo now; the outcome. Asking again gives the same outcome. KeeperError when there is none in time."""
    folder = Folder(root)
    if folder.ledger(fault).exists():
        _write(folder.mark(fault, "undo"), {"at_ns": now_ns()})
        start(root)
        within(within_s, lambda: not folder.ledger(fault).exists())
        _remove(folder.mark(fault, "undo")) if not folder.ledger(fault).exists() else None
    found = outcome(root, fault)
    if found is None:
        raise KeeperError(f"fault: {fault} has no outcome; it was never armed here, or no keeper runs")
    return found


def outcome(root: Path, fault: str) -> Optional[Dict[str, Any]]:
    """What came of the undo; None while it has not been tried."""
    return _read(Folder(root).outcome(fault))


def halt(root: Path, within_s: float = 15.0) -> List[Dict[str, Any]]:
    """Undo everything now and refuse new faults until `resume`. What was open, and what came of each."""
    folder = Folder(root)
    folder.make()
    open_now = folder.open_faults()
    _write(folder.halted, {"at_ns": now_ns(), "boot_id": boot_id()})
    if open_now:
        start(root)
        within(within_s, lambda: not folder.open_faults())
    none = {"undone": False, "reason": "halted", "within_deadline": False, "steps": []}
    return [{**none, "fault": fault, **(_read(folder.outcome(fault)) or {})} for fault in open_now]


def resume(root: Path) -> bool:
    """Let faults in again; whether they had been refused."""
    folder = Folder(root)
    was = folder.halted.exists()
    _remove(folder.halted)
    if was:
        _sync_folder(folder.root)
    return was


def status(root: Path) -> Dict[str, Any]:
    """The keeper, what it keeps, and whether the host is halted. Looks only."""
    folder = Folder(root)
    return {"keeper": _life(folder), "open": folder.open_faults(), "halted": folder.halted.exists()}


def main(argv: Optional[List[str]] = None) -> int:
    """`python3 node_keeper.py VERB --state FOLDER`, JSON. 0 done, 1 not everything is undone, 2 not done."""
    parser = argparse.ArgumentParser(description="The undo keeper of this host.")
    verbs = ("start", "status", "renew", "undo", "halt", "resume", "keep", "guard")
    parser.add_argument("verb", choices=verbs)
    parser.add_argument("--state", type=Path, required=True, help="its folder")
    parser.add_argument("--fault", default="", help="which one: renew, undo")
    parser.add_argument("--linger", type=float, default=LINGER_S, help="seconds to stay without a fault")
    given = parser.parse_args(argv)
    answers: Dict[str, Callable[[], object]] = {
        "start": lambda: start(given.state, given.linger),
        "status": lambda: status(given.state),
        "renew": lambda: renew(given.state, given.fault),
        "undo": lambda: undo(given.state, given.fault),
        "halt": lambda: halt(given.state),
        "resume": lambda: resume(given.state),
    }
    if given.verb in ("keep", "guard"):
        (keep if given.verb == "keep" else guard)(given.state, given.linger)
        os._exit(0)  # a signal during Python's own clean-up would make a good end look like a death
    try:
        answer = answers[given.verb]()
    except (KeeperError, OSError, subprocess.SubprocessError) as error:
        print(f"undo keeper: {error}", file=sys.stderr)
        return 2
    print(json.dumps(answer))
    outcomes = answer if isinstance(answer, list) else [answer]
    return 1 if any(isinstance(one, dict) and one.get("undone") is False for one in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
