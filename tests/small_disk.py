"""A file system of its own that a test can fill to the brim, and empty again."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engines import need


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of this size, mounted on the folder, which is made."""
    need("mount")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    except BaseException:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # whatever failed says more
        raise
    subprocess.run(["umount", str(folder)], check=True)


def fill(file: Path) -> None:
    """Append to the file until the disk takes not one byte more."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while os.write(handle, bytes(size)):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC
    finally:
        os.close(handle)
