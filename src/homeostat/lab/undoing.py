"""What drills broke in the lab and `up` has to see to: kept again after a start, undone before a stop.

Each host has an undo keeper of its own, which no `up` started and which outlives it. How a fault is undone
is the keeper's; here they are only asked, and it is seen that none is left.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from homeostat.drills import node_keeper as keeper
from homeostat.drills.node_settings import keeper_folder
from homeostat.lab.leftovers import end_all, keepers
from homeostat.lab.plan import EDGES, UP
from homeostat.lab.settings import StateDirectory

_UNDO_S, _END_S = 15.0, 5.0
_POLL_S = 0.02

Say = Callable[[str], None]


def keep_again(state: StateDirectory, say: Say) -> None:
    """A keeper where something is still broken and no node process would start one; who is halted is said."""
    for folder in _folders(state):
        if keeper.status(folder)["halted"]:
            say(f"{_host(folder)}: takes no faults; `homeostat node resume` lets them in again")
    for host in (*EDGES, UP):
        folder = keeper_folder(state.host(host))
        if faults := keeper.Folder(folder).open_faults():
            say(f"{host}: still broken by a drill: {', '.join(faults)}; its undo keeper is started")
            _try(folder, partial(keeper.start, folder), say)


def undo_everything(state: StateDirectory, say: Say, hurry: Callable[[], bool]) -> list[Path]:
    """Nothing stays broken and no keeper lives; the folders that refuse faults from here on, for `let_in`.

    What cannot be undone within 15 s, or before somebody is in a `hurry`, is named and stays on disk: it is
    undone after the next start.
    """
    folders, halted = _folders(state), []
    for folder in folders:
        found = keeper.status(folder)
        if found["open"]:
            say(f"{_host(folder)}: undoing what a drill broke: {', '.join(found['open'])}")
        if found["open"] or found["keeper"]:
            _try(folder, partial(keeper.halt, folder, within_s=0.0), say)
            if not found["halted"]:
                halted.append(folder)
    until_s = time.monotonic() + _UNDO_S
    while _left(folders) and time.monotonic() < until_s and not hurry():
        time.sleep(_POLL_S)
    for folder in _left(folders):
        faults = ", ".join(keeper.Folder(folder).open_faults())
        say(f"{_host(folder)}: NOT undone: {faults}; see {folder / 'outcomes'}")
    end_all(lambda: keepers(state.hosts), grace_s=0.0 if hurry() else _END_S)
    return halted


def let_in(halted: Sequence[Path], say: Say) -> None:
    """Take faults again where `undo_everything` had them refused."""
    for folder in halted:
        _try(folder, partial(keeper.resume, folder), say)


def _try(folder: Path, act: Callable[[], object], say: Say) -> None:
    try:
        act()
    except (keeper.KeeperError, OSError, subprocess.SubprocessError) as error:
        say(f"{_host(folder)}: {error}")


def _left(folders: Sequence[Path]) -> list[Path]:
    return [folder for folder in folders if keeper.Folder(folder).open_faults()]


def _folders(state: StateDirectory) -> list[Path]:
    return sorted(state.hosts.glob("*/keeper"))


def _host(folder: Path) -> str:
    return folder.parent.name
