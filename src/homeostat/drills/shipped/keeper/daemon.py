"""The undo keeper as a process, and the guard that starts it again when it is killed or hangs.

The keeper reads its folder, a turn at a time, and undoes what is due. It never injects anything, and knows
nothing that is not in its folder: a new one goes on where the last one was killed. It runs in a session of
its own, without PDEATHSIG, so it outlives the tool and the node process. Keeper and guard run this very
folder (or the one file that was made of it) by its own path, isolated.

Invariants. One keeper a folder. Whoever injects is registered with the fault until it is done: it is killed
before the undo, so a late act cannot follow its own undo. A step that fails stops no other, and is tried
again; a ledger goes only when nothing of its fault is left, after its outcome is on disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from .machine import (
    Folder,
    KeeperError,
    Ledger,
    boot_id,
    identify,
    lives,
    now_ns,
    process_in,
    read,
    remove,
    sync_folder,
    within,
    write,
)
from .steps import due_ns, margin_s, undo_step

HELD = 3
"""The exit code of a keeper whose folder has one already."""
_TURN_S = 0.5
_RETRY_S = 1.0


class Keeper:
    """Everything that one keeper does, a turn at a time. It holds the lock while it lives."""

    def __init__(self, folder: Folder) -> None:
        self._folder, self._boot = folder, boot_id()
        self._retry_ns: Dict[str, int] = {}
        me = identify(os.getpid())
        assert me is not None
        self._me = me
        self.busy_ns = now_ns()
        """When there was something to keep for the last time."""
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
            self.busy_ns = now_ns()
        self._show(keeping)
        return wait_s

    def _reason(self, fault: str, at_ns: int, halted: bool) -> Tuple[Optional[str], int]:
        """Why the fault is undone now, or None; and when it is due."""
        try:
            ledger = read(self._folder.ledger(fault))
            if ledger is None:
                return None, at_ns
            renewed = read(self._folder.mark(fault, "renewed")) or {}
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
        elif actor is not None and not lives(process_in(actor)):
            # It may have said that it is done, and ended, since the ledger was read.
            again = read(self._folder.ledger(fault))
            reason = "injector died" if again is not None and again["actor"] is not None else None
        return reason, due

    def _undo(self, fault: str, reason: str, due: int) -> None:
        path, began_ns = self._folder.ledger(fault), now_ns()
        results: List[Dict[str, Any]] = []
        ledger: Optional[Ledger] = None
        try:
            ledger = read(path)
            if ledger is not None and ledger["actor"] is not None:
                results.append(undo_step({**ledger["actor"], "kind": "kill"}, self.beat))
                ledger = read(path)  # what it still wrote before it died
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
            write(self._folder.outcome(fault), outcome)
        except OSError as error:
            undone = False
            print(f"{fault}: the outcome cannot be written: {error}", file=sys.stderr, flush=True)
        if undone:
            for mark in ("undo", "renewed"):
                remove(self._folder.mark(fault, mark))
            remove(path)
            sync_folder(path.parent)
            self._retry_ns.pop(fault, None)
        else:
            self._retry_ns[fault] = now_ns() + int(_RETRY_S * 1e9)

    def _show(self, keeping: List[str]) -> None:
        with contextlib.suppress(OSError):
            life = {**self._me._asdict(), "beat_ns": now_ns(), "keeping": keeping}
            write(self._folder.life, life, durable=False)


@contextlib.contextmanager
def _only_keeper(folder: Folder) -> Iterator[None]:
    handle = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise SystemExit(HELD) from None
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
            if empty and (keeper.leaving or (now_ns() - keeper.busy_ns) / 1e9 > linger_s):
                remove(folder.life)
                return
            select.select([bell], [], [], wait_s)
            with contextlib.suppress(BlockingIOError):
                os.read(bell, 4096)


LINGER_S = 60.0
"""The time for which a keeper with nothing to keep stays."""
_STILL_S = 10.0
"""A keeper silent for so long stands still; its guard replaces it."""
_PROGRAM = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  resolve() would follow links


def guard(root: Path, linger_s: float) -> None:
    """Start the keeper, and start it again when it was killed or stands still; ends when it ended well."""
    if os.fork() != 0:
        os._exit(0)
    os.setsid() if os.getsid(0) != os.getpid() else None
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    argv = [sys.executable, "-I", "-S", _PROGRAM, "keep"]
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
        if code in (0, HELD):
            return
        time.sleep(0.1)  # a keeper that cannot start must not eat the processor


def sign_of_life(root: Path, within_s: float = 5.0) -> Optional[Dict[str, Any]]:
    """What the keeper says after having been asked just now; None when none answers."""
    folder, asked_ns = Folder(root), now_ns()
    found: List[Dict[str, Any]] = []

    def answered() -> bool:
        life = last_life(folder)
        if life is None:
            return True
        if life["beat_ns"] > asked_ns:
            found.append(life)
            return True
        folder.ring()
        return False

    return found[-1] if within(within_s, answered) and found else None


def last_life(folder: Folder) -> Optional[Dict[str, Any]]:
    """The last sign of a keeper that lives, however old."""
    try:
        life = read(folder.life)
        return life if life is not None and lives(process_in(life)) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def start(root: Path, linger_s: float = LINGER_S, within_s: float = 15.0) -> Dict[str, Any]:
    """A keeper that has just answered: the one that is there, else a new one. KeeperError when none does."""
    life = sign_of_life(root)
    if life is not None:
        return life
    folder = Folder(root)
    folder.make()
    argv = [sys.executable, "-I", "-S", _PROGRAM, "guard"]
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
