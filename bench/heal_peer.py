"""Starts `heal_blazar.py` in an environment of its own and asks it; installs PyPI Blazar there once."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).parent
PEER_HOME = HERE.parent / ".venv" / "bench-blazar"
PEER = "blazar==18.*"


def install_peer() -> str:
    """Blazar in an environment of its own, once: the versions that matter."""
    python = PEER_HOME / "bin" / "python"
    if not (PEER_HOME / "installed").exists():
        print("installing Blazar ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(PEER_HOME)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", PEER], check=True)
        (PEER_HOME / "installed").touch()
    said = "from importlib.metadata import version as v; print(*(f'{n} {v(n)}' for n in ('blazar','SQLAlchemy','oslo.db')), sep=', ')"
    ran = subprocess.run([str(python), "-c", said], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


class Blazar:
    """A running peer. One question after the other."""

    def __init__(self, questions: IO[str], answers: IO[str]) -> None:
        self._questions, self._answers = questions, answers
        self._read()

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """Have a job done."""
        self._questions.write(json.dumps(job) + "\n")
        self._questions.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            raise SystemExit("bench: Blazar ended; what it said is above")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def blazar(folder: Path) -> Iterator[Blazar]:
    """The peer with a database in this folder; ended with the block."""
    argv = [str(PEER_HOME / "bin" / "python"), "-W", "ignore", str(HERE / "heal_blazar.py"), str(folder)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield Blazar(process.stdin, process.stdout)
        finally:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
