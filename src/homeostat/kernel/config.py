"""Settings from one YAML file, and those of the NATS connection, which are the same for servers and nodes.

An unreadable file, an unknown field or a wrong value is one clear line. What may be a secret is never in
that line: the value of a field whose path sounds like one, and everything around a field that is missing. A
password is in a file of its own, never in the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from homeostat.kernel.errors import BadInput
from homeostat.kernel.redaction import HIDDEN, redact

S = TypeVar("S", bound=BaseModel)

__all__ = ["HIDDEN", "load", "redact", "validate"]


def load(kind: type[S], path: Path, option: str = "--config") -> S:
    """The settings in `path`; BadInput names the file and the first field that is wrong.

    `option`: what said which file it is.
    """
    try:
        given = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise BadInput(option, str(path), f"it cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise BadInput(option, str(path), f"it must be YAML and cannot be parsed{where}") from error
    if not isinstance(given, dict):
        wanted = ", ".join(name for name, field in kind.model_fields.items() if field.is_required())
        raise BadInput(option, str(path), f"it must be a mapping with {wanted}")
    return validate(kind, given, path)


def validate(kind: type[S], given: Mapping[str, Any], path: Path | None = None) -> S:
    """The settings in a mapping; BadInput names the first field that is wrong."""
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        in_file = "" if path is None else f" (in {path})"
        # What surrounds a missing field is not its value.
        shown = None if first["type"] == "missing" else redact(where, first.get("input"))
        raise BadInput(where, shown, _accepted(kind, first) + in_file) from error


def _accepted(kind: type[BaseModel], error: Mapping[str, Any]) -> str:
    """What would be accepted; for an unknown field, the known ones beside it."""
    if error["type"] == "missing":
        return "it must be there"
    if error["type"] != "extra_forbidden":
        return str(error["msg"])
    model: type[BaseModel] | None = kind
    for part in error["loc"][:-1]:
        if not isinstance(part, int):
            model = _model_in(model, str(part))
    known = ", ".join(sorted(model.model_fields)) if model else "see docs/configuration.md"
    return f"there is no such setting; known here: {known}"


def _model_in(model: type[BaseModel] | None, name: str) -> type[BaseModel] | None:
    field = None if model is None else model.model_fields.get(name)
    if field is None:
        return None
    candidates = (field.annotation, *getattr(field.annotation, "__args__", ()))
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)


def read_secret(file: Path, field: str) -> str:
    """The secret in a file; BadInput names `field` when it cannot be read or is empty."""
    try:
        secret = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(field, str(file), f"a readable file ({error})") from error
    if not secret:
        raise BadInput(field, str(file), "a file that is not empty")
    return secret


class StrictSettings(BaseModel):
    """A part of a settings file; a field that is not known is an error."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


@runtime_checkable
class WarningSettings(Protocol):
    """A section that is good as it is, and yet may not be what was meant."""

    def warnings(self) -> list[str]:
        """What is likely not meant and what to set instead, one line each."""


def find_warnings(settings: BaseModel) -> list[str]:
    """The warnings of all sections."""
    sections = (getattr(settings, name) for name in type(settings).model_fields)
    return [line for each in sections if isinstance(each, WarningSettings) for line in each.warnings()]


class NatsSettings(StrictSettings, frozen=True):
    """The password is in a file, never in the settings."""

    url: str = Field(default="nats://127.0.0.1:4222", pattern=r"^(nats|tls)://")
    """The address of a NATS server, or of one of a cluster."""

    user: str = "server"
    """The account: `server`, or the name of the host."""

    password_file: Path | None = None
    """A file with the account's password; none where NATS asks for none."""

    ping_interval_s: float = Field(default=0.5, ge=0.1, le=60)
    """Seconds between pings; a frozen NATS server goes unnoticed for three of them. Too small: a busy NATS is
    left. Too large: a frozen one is not noticed."""

    def password(self) -> str | None:
        """What is in `password_file`; BadInput when it cannot be read or is empty."""
        return None if self.password_file is None else read_secret(self.password_file, "nats.password_file")
