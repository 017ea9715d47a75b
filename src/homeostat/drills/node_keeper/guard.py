"""That a keeper lives: whether one answers, how one is started, and who starts it again.

A keeper is a process in a session of its own, without PDEATHSIG, so it outlives the tool and the node
process; the guard beside it starts it again when it is killed or stands still. Both run this very folder (or
the one file that was made of it) by its own path, isolated. What a keeper does is not known here.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from .folder import Folder, KeeperError, read
from .keeping import HELD
from .machine import lives, now_ns, process_in, within

LINGER_S = 60.0
"""How long a keeper with nothing to keep stays."""
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
