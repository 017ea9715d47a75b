"""The files of a node's OCF agents by their paths: whoever reads a pid file needs no message's model."""

from __future__ import annotations

from pathlib import Path


def scratch_of(state_dir: Path) -> Path:
    """The agents' HA_RSCTMP on a node."""
    return state_dir.absolute() / "runner" / "rsctmp"


def pid_file_of(state_dir: Path, resource: str) -> Path:
    """Where the agent `process` writes the pid of a resource."""
    return scratch_of(state_dir) / f"homeostat-process-{resource}.pid"
