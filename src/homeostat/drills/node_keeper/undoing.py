"""One step is undone, or looked at: a kind of step has one way to be undone, and one to see that it is.

Which steps, in which order and when is not decided here. Invariants: what is already as it should be is left
alone, so a step may be undone any number of times; whatever goes wrong is a result, nothing is raised.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, Optional

from . import network
from .folder import sync_folder
from .machine import boot_id, process_in, send, stat_of, within
from .programs import program_kind
from .steps import Kind, Step


def _state_of(step: Step) -> Optional[str]:
    """The state letter of the step's own process; None when it is gone, or of another boot."""
    process, found = process_in(step), stat_of(int(step["pid"]))
    if found is None or found[1] != process.start_ticks or process.boot_id != boot_id() or found[0] in "ZX":
        return None
    return found[0]


def _cont(step: Step) -> str:
    return "undone" if send(process_in(step), signal.SIGCONT) else "already"


def _goes_on(step: Step) -> bool:
    return _state_of(step) != "T"


def _kill(step: Step) -> str:
    return "undone" if send(process_in(step), signal.SIGKILL) else "already"


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
    sync_folder(path.parent)
    return "undone"


KINDS: Dict[str, Kind] = {
    "cont": Kind(_cont, _goes_on),
    "kill": Kind(_kill, _ended),
    "remove": Kind(_unlink, lambda step: not _ours(step)),
    "nothing": Kind(lambda _: "already", lambda _: True),
    **network.KINDS,
}


def _kind_of(step: Step, root: Optional[Path], beat: Callable[[], None]) -> Kind:
    return program_kind(root, beat) if step["kind"] == "program" else KINDS[step["kind"]]


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
