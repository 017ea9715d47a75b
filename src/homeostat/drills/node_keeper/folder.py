"""The state folder of one keeper: which file says what, written whole and, where it matters, on disk.

`faults/<id>.json` is the ledger of one fault; `<id>.renewed` the moment of its last renewal; `<id>.undo` asks
for the undo now; `halted` undoes everything and refuses new faults; `outcomes/<id>.json` is what came of a
fault. `doorbell` wakes the keeper, `keeper.json` is its sign of life, `keeper.lock` its claim to the folder.
`programs.json` holds what this host permits to be run for other hosts. What the files mean is not known here.

Invariants. A reader sees a whole file or none. What was written durably survives a power loss: file and
folder are synced before the call returns. The name of a fault is never a path.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any, Dict, List, Optional

Ledger = Dict[str, Any]

_FAULT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")


class KeeperError(Exception):
    """One line: what is wrong, and the remedy."""


class Refused(KeeperError):
    """This host takes no faults now."""


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path: Path, value: object, durable: bool = True) -> None:
    """Whole or not at all; durable means that it survives a power loss from here on."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(value, file)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def read(path: Path) -> Optional[Dict[str, Any]]:
    """The object in the file; None when there is none; ValueError when it cannot be read."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


class Folder:
    """The state folder of one keeper."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100  resolve() would follow links
        self.faults, self.outcomes = self.root / "faults", self.root / "outcomes"
        self.lock, self.life, self.bell = (
            self.root / "keeper.lock",
            self.root / "keeper.json",
            self.root / "doorbell",
        )
        self.halted, self.log = self.root / "halted", self.root / "keeper.log"
        self.programs = self.root / "programs.json"

    def make(self) -> None:
        """The folders and the doorbell."""
        for folder in (self.root, self.faults, self.outcomes):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self.bell, 0o600)

    def ledger(self, fault: str) -> Path:
        if not _FAULT.match(fault):
            raise KeeperError(f"fault: {fault!r} is no name; letters, digits, - and _, at most 63")
        return self.faults / f"{fault}.json"

    def mark(self, fault: str, what: str) -> Path:
        return self.ledger(fault).with_suffix(f".{what}")

    def outcome(self, fault: str) -> Path:
        return self.outcomes / self.ledger(fault).name

    def open_faults(self) -> List[str]:
        """Every fault with a ledger, the oldest name first."""
        return sorted(path.stem for path in self.faults.glob("*.json")) if self.faults.is_dir() else []

    def ring(self) -> None:
        """Wake the keeper, if there is one."""
        with contextlib.suppress(OSError):
            handle = os.open(self.bell, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(handle, b"!")
            finally:
                os.close(handle)
