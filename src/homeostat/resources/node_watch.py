"""Sees the end of a process at once, child or not: a pidfd on the event loop, no polling, no thread.

A watch holds one file descriptor and must be closed.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from homeostat.kernel.processes import Identity, identify, is_alive

_PID_FILE_BYTES = 64


class Watch:
    """The end of exactly one process. `ended` is done when it is gone, also as a zombie."""

    def __init__(self, identity: Identity, handle: int) -> None:
        self.identity = identity
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(handle, self._on_end)

    @classmethod
    def on(cls, identity: Identity) -> Watch | None:
        """Watch this process; None when it is gone already. Checked after opening, so never a successor."""
        try:
            handle = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            return None
        if not is_alive(identity):
            os.close(handle)
            return None
        return cls(identity, handle)

    @classmethod
    def on_child(cls, pid: int) -> Watch:
        """Watch a child not yet waited for: its pid cannot be anybody else's, even when it is a zombie."""
        return cls(identify(pid) or Identity(pid, 0), os.pidfd_open(pid))

    def close(self) -> None:
        """Stop watching."""
        if self._handle >= 0:
            self._loop.remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1
        self.ended.cancel()

    def _on_end(self) -> None:
        self._loop.remove_reader(self._handle)
        if not self.ended.done():
            self.ended.set_result(None)


def recorded_identity(pid_file: Path) -> Identity | None:
    """Who the first line names: `<pid> <start_ticks>`, or a pid alone, which is taken for who has it now.

    None when there is no file, no pid in it, or (pid alone) nobody has that pid. An identity with start
    ticks is returned whether it still lives or not.
    """
    try:
        with pid_file.open("rb") as file:
            words = file.readline(_PID_FILE_BYTES).split()
    except OSError:
        return None
    if not words or not words[0].isdigit() or not 0 < int(words[0]) < 1 << 31:
        return None
    pid = int(words[0])
    return Identity(pid, int(words[1])) if len(words) > 1 and words[1].isdigit() else identify(pid)
