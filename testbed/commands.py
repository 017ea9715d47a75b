"""Runs commands of the host, so that a `kill -9` of this process leaves none of them behind.

`contained` puts a command in PID and mount namespaces of its own: when the first process ends, so does
everything it started, and what it mounted is gone. The kernel does that, nobody has to be alive for it.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from homeostat.kernel.processes import die_with_parent
from testbed.failures import CommandFailed

_TAIL = 20


def contained(argv: Sequence[str]) -> list[str]:
    """The same command, which cannot leave a process or a mount behind."""
    return [
        *("unshare", "--mount", "--pid", "--ipc", "--fork", "--mount-proc", "--kill-child=SIGKILL"),
        *("--propagation", "private", "--", *argv),
    ]


def output_of(argv: Sequence[str], *, what: str | None = None, stdin: str = "") -> str:
    """What a short command prints. CommandFailed with its last lines when it ends with an error."""
    done = subprocess.run(
        argv,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=die_with_parent(),
    )
    if done.returncode != 0:
        tail = (done.stdout + done.stderr).splitlines()[-_TAIL:]
        raise CommandFailed(what or " ".join(argv), done.returncode, tail)
    return done.stdout


def succeeds(argv: Sequence[str]) -> bool:
    """Whether a short command ends without an error; what it prints does not matter."""
    done = subprocess.run(argv, capture_output=True, check=False, preexec_fn=die_with_parent())
    return done.returncode == 0


def run_logged(
    what: str, argv: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None
) -> float:
    """Run a long command into a log file; how long it took in seconds. CommandFailed quotes the log."""
    began = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            check=False,
            preexec_fn=die_with_parent(),
        )
    if done.returncode != 0:
        raise CommandFailed(f"{what} (whole log: {log})", done.returncode, last_lines(log))
    return time.monotonic() - began


def last_lines(path: Path, count: int = _TAIL) -> list[str]:
    """The end of a log; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 16_384))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []
