"""The lab's secrets: made once, kept in credentials.json (0600), never in a log or in arguments.

A file that cannot be read is refused and left as it is: somebody may still need what is in it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from homeostat.kernel.errors import CorruptState
from homeostat.kernel.files import read_json, write_json

WEBHOOK_KEY_ID = "lab-1"


@dataclass(frozen=True, slots=True)
class Credentials:
    """`nats` maps a NATS user to its password, `projects` a project to its token."""

    admin_token: str = field(repr=False)
    webhook_secret: str = field(repr=False)
    nats: Mapping[str, str] = field(repr=False)
    projects: Mapping[str, str] = field(repr=False)


def load_or_create(path: Path, *, users: Iterable[str], projects: Iterable[str]) -> Credentials:
    """The secrets in `path`; made when there is no such file, completed when a user or project is new."""
    found = read_json(path)
    kept = found or {}
    value: dict[str, Any] = {
        "admin_token": kept.get("admin_token") if found is not None else _token(),
        "webhook_secret": kept.get("webhook_secret") if found is not None else secrets.token_urlsafe(32),
        "nats": _section(path, kept, "nats") | _missing(kept, "nats", users, secrets.token_urlsafe),
        "projects": _section(path, kept, "projects") | _missing(kept, "projects", projects, _token),
    }
    _check(path, value)
    if value != found:
        write_json(path, value)
    return Credentials(**value)


def _token() -> str:
    return "hs_" + secrets.token_urlsafe(32)


def _section(path: Path, kept: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = kept.get(name, {})
    if not isinstance(section, dict):
        raise CorruptState(f"{path}: {name} is no object; restore the file or move it away")
    return section


def _missing(kept: Mapping[str, Any], section: str, names: Iterable[str], make: Any) -> dict[str, str]:
    return {name: make() for name in names if name not in kept.get(section, {})}


def _check(path: Path, value: Mapping[str, Any]) -> None:
    flat = {"admin_token": value["admin_token"], "webhook_secret": value["webhook_secret"]}
    for section in ("nats", "projects"):
        flat |= {f"{section}.{name}": secret for name, secret in value[section].items()}
    for name, secret in flat.items():
        if not isinstance(secret, str) or len(secret) < 16:
            raise CorruptState(
                f"{path}: {name} is no secret of 16 characters or more; restore the file or move it away"
            )
