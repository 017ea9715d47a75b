"""The disk of a state directory, as its supervisor sees it: full or not, and how much room is needed.

A look is one statvfs. It decides nothing about children; it says when there is no use in hurrying.
"""

from __future__ import annotations

import os
from pathlib import Path

from homeostat.kernel.files import BALLAST_BYTES

FULL_BYTES = 256 * 1024
"""With less room no child starts in order: a pid file, a log line and a page of a database each need some."""
NEEDED_BYTES = 2 * BALLAST_BYTES
"""The server wants so much free before it writes again."""
RETRY_FIRST_S, RETRY_MAX_S = 5.0, 60.0
_MIB = 2**20


class DiskWatch:
    """`trouble` is one line while the disk is full, empty otherwise; it ends at four times `full_bytes`.

    It does not end while a reserve that was there is given back: the room of that is borrowed.
    """

    def __init__(self, folder: Path, reserve: Path | None = None, full_bytes: int = FULL_BYTES) -> None:
        self._folder, self._reserve, self._full_bytes = folder, reserve, full_bytes
        self._had_reserve = False
        self.trouble = ""

    def look(self) -> bool:
        """Look again; whether it became full or has room again."""
        try:
            disk = os.statvfs(self._folder)
        except OSError:
            return False  # whatever is wrong there, who writes there says it better
        free_bytes = disk.f_bavail * disk.f_frsize
        limit = 4 * self._full_bytes if self.trouble else self._full_bytes
        before = bool(self.trouble)
        held = self._reserve is not None and self._reserve.exists()
        self._had_reserve = self._had_reserve or held
        if before and self._had_reserve and not held:
            return False
        if free_bytes >= limit:
            self.trouble = ""
        elif not before:
            self.trouble = (
                f"the disk of {self._folder} is full: {free_bytes / _MIB:.1f} MiB free; make room: "
                f"the server is read-only until more than {NEEDED_BYTES // _MIB} MiB are free"
            )
        return before != bool(self.trouble)


def retry_s(attempts: int) -> float:
    """How long a child that ended waits while the disk is full."""
    return float(min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(max(0, attempts - 1), 8)))
