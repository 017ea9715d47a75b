"""Errors that a host has named, as the kernel's own again. They keep their kind across the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from homeostat.kernel import errors
from homeostat.kernel.errors import BadInput, GiveUp, HomeostatError


def error_of(said: Mapping[str, Any]) -> HomeostatError:
    """The kernel's error that the host named."""
    kind = getattr(errors, str(said.get("kind")), GiveUp)
    if kind is BadInput and said.get("field") is not None:
        return BadInput(said["field"], said["value"], said["accepted"])
    if not (isinstance(kind, type) and issubclass(kind, HomeostatError)) or issubclass(kind, BadInput):
        kind = GiveUp
    return kind(str(said["message"]))
