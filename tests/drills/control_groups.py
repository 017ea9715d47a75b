"""A control group of our own with a limit, of version 1 or 2, where this machine lets us make one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class ControlGroup:
    """One group: what is written into it holds for every process that is put there."""

    folder: Path
    unified: bool

    def limit_cpus(self, cpus: float) -> None:
        """So many processors' time."""
        quota_us = round(cpus * 100_000)
        if self.unified:
            (self.folder / "cpu.max").write_text(f"{quota_us} 100000")
        else:
            (self.folder / "cpu.cfs_quota_us").write_text(str(quota_us))

    def limit_memory(self, mib: int) -> None:
        """So much memory; who takes more is killed by the kernel."""
        name = "memory.max" if self.unified else "memory.limit_in_bytes"
        (self.folder / name).write_text(str(mib << 20))

    def put(self, pid: int) -> None:
        """A process, without those that it has started."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def oom_kills(self) -> int:
        """How many processes the kernel has killed here for their memory."""
        name = "memory.events" if self.unified else "memory.oom_control"
        lines = (self.folder / name).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def prefix(self) -> list[str]:
        """Words before a command line that put the command there."""
        return ["sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$@"', "sh"]


@contextmanager
def control_group(controller: str) -> Iterator[ControlGroup | None]:
    """A group with `cpu` or `memory`; None when this machine gives us none."""
    made = _made(controller)
    try:
        yield made
    finally:
        if made is not None:
            with suppress(OSError):
                made.folder.rmdir()


def _made(controller: str) -> ControlGroup | None:
    name = f"hd-{uuid.uuid4().hex[:8]}"
    unified = (ROOT / "cgroup.controllers").exists()
    folder = ROOT / name if unified else ROOT / controller / name
    try:
        folder.mkdir()
        if unified and controller not in (folder / "cgroup.controllers").read_text().split():
            folder.rmdir()
            return None
        return ControlGroup(folder, unified) if os.access(folder / "cgroup.procs", os.W_OK) else None
    except OSError:
        return None
