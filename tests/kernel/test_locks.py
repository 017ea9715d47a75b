"""One owner of a file: told, handed on, and free when its holder was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from homeostat.kernel.errors import AlreadyRunning
from homeostat.kernel.files import hold_lock
from homeostat.kernel.processes import die_with_parent

HOLD = """
import sys, pathlib
from homeostat.kernel.files import hold_lock
with hold_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_holder_is_told_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "homeostat.db.lock"
    with hold_lock(path):
        with pytest.raises(AlreadyRunning, match=f"held by process {os.getpid()};"), hold_lock(path):
            pass
        assert path.stat().st_mode & 0o777 == 0o600
    with hold_lock(path):
        pass


def test_a_killed_holder_holds_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "homeostat.db.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent(),
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(AlreadyRunning, match=f"held by process {child.pid};"), hold_lock(path):
            pass
        child.send_signal(signal.SIGKILL)
    with hold_lock(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_lock_that_does_not_say_who_is_still_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "homeostat.db.lock"
    with hold_lock(path):
        path.write_text("")
        with pytest.raises(AlreadyRunning, match="held by process unknown"), hold_lock(path):
            pass
