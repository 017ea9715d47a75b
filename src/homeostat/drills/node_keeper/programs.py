"""Programs that a keeper runs for another host, which cannot undo anything itself while it is off.

Only what its own host permitted by name is run, with the name of a host put in and nothing else; a program
that hangs is killed, and the keeper shows that it lives meanwhile.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, Optional

from .folder import Folder, read, write
from .machine import now_ns
from .steps import NAME, Kind, Step


def permit(root: Path, programs: Dict[str, Dict[str, Any]]) -> None:
    """Put down what may be run: by name `argv`, in which `{host}` stands for the host, and `timeout_s`."""
    folder = Folder(root)
    folder.make()
    write(folder.programs, programs)


def _run_program(root: Path, name: str, host: str, beat: Callable[[], None]) -> str:
    """What a permitted program prints. OSError when it fails, hangs or is none."""
    programs = read(Folder(root).programs) or {}
    if not (NAME.match(host) and name in programs):
        raise ValueError(f"program {name!r} for host {host!r} is not permitted here")
    argv = [str(word).replace("{host}", host) for word in programs[name]["argv"]]
    end_ns = now_ns() + int(float(programs[name]["timeout_s"]) * 1e9)
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/",
        universal_newlines=True,
    ) as child:  # fmt: skip
        said = None
        while said is None:
            try:
                said = child.communicate(timeout=0.5)[0].strip()
            except subprocess.TimeoutExpired:
                beat()
                if now_ns() > end_ns:
                    child.kill()
                    raise OSError(f"{argv[0]}: no end in {programs[name]['timeout_s']} s") from None
    if child.returncode != 0:
        raise OSError(f"{argv[0]}: {said[-200:] or child.returncode}")
    return said


def program_kind(root: Optional[Path], beat: Callable[[], None]) -> Kind:
    """The kind of step that needs to know whose keeper asks."""

    def seen(step: Step) -> bool:
        if root is None:
            raise ValueError("only a keeper runs programs")
        return _run_program(root, step["seen_by"], step["host"], beat) == str(step["says"])

    def undo(step: Step) -> str:
        if root is None:
            raise ValueError("only a keeper runs programs")
        _run_program(root, step["name"], step["host"], beat)
        return "undone"

    return Kind(undo, seen)
