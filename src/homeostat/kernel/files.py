"""Small state files: written whole or not at all, readable by their owner only."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import orjson

from homeostat.kernel.errors import CorruptState


def write_private(path: Path, body: bytes) -> None:
    """Replace `path` atomically and durably, mode 0600."""
    fresh = path.with_name(path.name + ".new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def append_whole(handle: int, body: bytes) -> None:
    """Append to an open file and have it on disk. OSError when the disk did not take all of it."""
    if os.write(handle, body) < len(body):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fdatasync(handle)


def write_json(path: Path, value: object) -> None:
    """Replace `path` by `value` as JSON."""
    write_private(path, orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`, None when there is no such file; CorruptState names the file and the remedy."""
    try:
        body = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise CorruptState(f"{path}: not readable as JSON ({error}); restore it or move it away") from error
    if not isinstance(value, dict):
        found = type(value).__name__
        raise CorruptState(f"{path}: holds {found} where an object belongs; restore it or move it away")
    return value
