"""Work for the pool of workers, imported by the worker processes; standard library only."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def double(number: int) -> int:
    return 2 * number


def own_pid(_: object) -> int:
    return os.getpid()


def spin(mark: str) -> None:
    """Writes its pid into the file `mark`, then computes for ever."""
    Path(mark + ".part").write_text(str(os.getpid()))
    Path(mark + ".part").rename(mark)
    while True:
        pass


def deaf_spin(mark: str) -> None:
    """As `spin`, and no signal but SIGKILL ends it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    spin(mark)


def wait_for(file: str) -> str:
    """Returns when there is such a file."""
    while not Path(file).exists():
        time.sleep(0.005)
    return file


def fail(reason: str) -> None:
    raise ValueError(reason)


def exit_with(status: int) -> None:
    os._exit(status)


def kill_itself(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def grow(size: int) -> bytes:
    return b"x" * size


def chatter(text: str) -> str:
    """Writes on both outputs, past Python's own stdout too."""
    print(text)
    os.write(1, text.encode())
    sys.stderr.write(text)
    return text


class Broken:
    """Can be sent and not be read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return refuse, ("nobody can read this",)


def refuse(reason: str) -> None:
    raise LookupError(reason)


def broken(_: object) -> Broken:
    return Broken()
