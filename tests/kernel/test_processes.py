"""Processes whose name is cut in the middle of a character, as the kernel cuts it at 15 bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeostat.drills.shipped.injectors.matching import processes_of
from homeostat.drills.shipped.injectors.workers import cpu_ticks
from homeostat.drills.shipped.keeper import machine
from homeostat.drills.shipped.permissions import HostPermissions, Profile
from homeostat.kernel.processes import ProcessStat, identify, is_alive, parse_stat, read_stat

LONG_NAME = "vm) R (xenïäöü-1"
"""Its 15th byte is the first half of a character; the blank and the parentheses mislead a careless reader."""
CUT = "import ctypes; ctypes.CDLL(None).prctl(15, {name!r}.encode(), 0, 0, 0)\n"
WAIT = "import sys; print(flush=True); sys.stdin.read()\n"
LOOK = """
import os, subprocess, sys
argv = [sys.executable, "-c", {look!r}]
sys.exit(subprocess.run(argv, env=os.environ | {{"MARK": "us"}}).returncode)
"""
SWEEP = """
from homeostat.lab.children import processes_with_environment
processes_with_environment(lambda environment: b"MARK=never" in environment)
"""


@pytest.fixture
def cut() -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-c", CUT.format(name=LONG_NAME) + WAIT]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_the_name_of_the_process_is_no_text(cut: subprocess.Popen[bytes]) -> None:
    with pytest.raises(UnicodeDecodeError):
        Path(f"/proc/{cut.pid}/comm").read_text(encoding="utf-8")


def test_the_process_is_identified_by_kernel_and_keeper_alike(cut: subprocess.Popen[bytes]) -> None:
    ours, theirs = identify(cut.pid), machine.identify(cut.pid)
    assert ours is not None and theirs is not None
    assert is_alive(ours) and machine.lives(theirs)
    assert (theirs.pid, theirs.start_ticks) == (ours.pid, ours.start_ticks)
    assert cpu_ticks(theirs) >= 0
    found = read_stat(cut.pid)
    assert found is not None and found.parent == os.getpid()


def test_a_drill_finds_the_processes_below_a_pid_file(cut: subprocess.Popen[bytes], tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    pid_file.write_text(f"{cut.pid}\n")
    node = HostPermissions("n1", "node.yaml", tmp_path, own={"vm": Profile(pid_file=pid_file)})
    assert [each.pid for each in processes_of(node, "vm")] == [cut.pid]


def test_the_lab_spares_an_ancestor_with_such_a_name() -> None:
    program = CUT.format(name=LONG_NAME) + LOOK.format(look=SWEEP)
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", [b"sh", b"a) Z 1 (b", b"xen\xc3", b") ) )", b""])
def test_the_fields_stand_behind_any_name(name: bytes) -> None:
    rest = b"S 7 6 6 0 -1 4194560 1 2 3 4 50 8 1 2 20 0 1 0 9000 1 2"
    assert parse_stat(b"42 (" + name + b") " + rest + b"\n") == ProcessStat("S", 7, 58, 9000)


def test_a_process_that_is_gone_has_no_stat(cut: subprocess.Popen[bytes]) -> None:
    cut.kill()
    cut.communicate()
    assert read_stat(cut.pid) is None and identify(cut.pid) is None
