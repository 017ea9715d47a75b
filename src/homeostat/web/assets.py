"""The files that pages load: ours and the vendored ones, read once and served from memory.

A file's name in a page carries its checksum, so a browser keeps it for a year and never shows an old one. No
path comes from outside: what is not in the list is not there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

STATIC = Path(__file__).with_name("static")
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file. `version` is the beginning of its SHA-256."""

    body: bytes
    media_type: str
    version: str


@cache
def assets() -> dict[str, Asset]:
    """Every file that may be asked for, by its path below `static`."""
    return {
        path.relative_to(STATIC).as_posix(): Asset(
            body, f"{_TYPES[path.suffix]}; charset=utf-8", hashlib.sha256(body).hexdigest()[:12]
        )
        for path in sorted(STATIC.rglob("*"))
        if path.suffix in _TYPES and (body := path.read_bytes())
    }


def asset_url(name: str) -> str:
    """Where a page finds a file."""
    return f"/console/static/{assets()[name].version}/{name}"
