"""The command driver with real programs: only exit 0 is a receipt."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from homeostat.fleet.fencing import CommandFence, make_fence
from homeostat.fleet.settings import FencingSettings
from homeostat.kernel.processes import Identity, identify, is_alive
from homeostat.ports import ActFailed, ActUnknown, Fenced
from store_parts import until


async def test_exit_0_is_the_receipt_and_the_host_is_named() -> None:
    said = await CommandFence(
        [sys.executable, "-c", "import sys; print('off:', sys.argv[1])", "{host}"], 10
    ).fence("n2")
    assert said == Fenced("off: n2")


async def test_any_other_exit_code_is_not() -> None:
    said = await CommandFence(
        [sys.executable, "-c", "print('no power switch'); raise SystemExit(3)"], 10
    ).fence("n2")
    assert isinstance(said, ActFailed)
    assert "3: no power switch" in said.reason


async def test_a_program_that_is_not_there_is_a_reason() -> None:
    said = await CommandFence(["/no/such/program"], 10).fence("n2")
    assert isinstance(said, ActFailed)
    assert "No such file" in said.reason


async def test_a_deadline_is_unknown_and_nothing_of_the_program_lives_on(tmp_path: Path) -> None:
    body = (
        "import os, pathlib, sys, time; from homeostat.kernel.processes import identify; "
        "me = identify(os.getpid()); "
        "pathlib.Path(sys.argv[1]).write_text(f'{me.pid} {me.start_ticks}'); time.sleep(60)"
    )
    note = tmp_path / "pid"
    said = await CommandFence([sys.executable, "-c", body, str(note)], 1.5).fence("n2")
    assert isinstance(said, ActUnknown)
    pid, ticks = note.read_text().split()
    assert not is_alive(Identity(int(pid), int(ticks)))


def test_manual_means_that_no_program_is_run() -> None:
    assert make_fence(FencingSettings()) is None


async def test_a_program_does_not_outlive_the_server_that_asked_it(tmp_path: Path) -> None:
    """Or it could switch off a host that has come back under the next leader."""
    pid_file = tmp_path / "pid"
    shell = f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 60"
    program = (
        "import asyncio, sys; from homeostat.fleet.fencing import CommandFence; "
        "asyncio.run(CommandFence(['/bin/sh', '-c', sys.argv[1]], 60).fence('n1'))"
    )
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", program, shell)
    await until(pid_file.exists)
    asked = identify(int(pid_file.read_text()))
    assert asked is not None
    server.kill()
    await server.wait()
    await until(lambda: not is_alive(asked))
