"""Settings from one YAML file: an unreadable file, an unknown field or a wrong value is one clear line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from homeostat.kernel.errors import BadInput

HIDDEN = "(hidden)"
_SECRET_WORDS = ("secret", "password", "token")
_PASSWORD = re.compile(r"((?<=//)[^/?#@:]*:(?=.*@)).*(?=@)|([?&]password=)[^&]*", re.IGNORECASE)

S = TypeVar("S", bound=BaseModel)


def load(kind: type[S], path: Path) -> S:
    """The settings in `path`; BadInput names the file and the first field that is wrong."""
    try:
        given = yaml.safe_load(path.read_text())
    except OSError as error:
        raise BadInput(str(path), error.strerror or "unreadable", "a readable settings file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(str(path), " ".join(str(error).split()), "a YAML file") from error
    if not isinstance(given, dict):
        raise BadInput(str(path), given, "a mapping of settings; see docs/configuration.md")
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        # What surrounds a missing field is not its value.
        shown = None if first["type"] == "missing" else presentable(where, first.get("input"))
        raise BadInput(f"{path}: {where}", shown, _accepted(kind, first)) from error


def presentable(field: str, value: object) -> object:
    """What may be shown of a setting: nothing under a secret's name, no password in a URL, nothing nested."""
    name = field.rpartition(".")[2].lower()
    if not name.endswith("_file") and any(word in name for word in _SECRET_WORDS):
        return HIDDEN
    if isinstance(value, str):
        return _PASSWORD.sub(rf"\1\2{HIDDEN}", value)
    return f"a {type(value).__name__}" if isinstance(value, dict | list) else value


def _accepted(kind: type[BaseModel], error: object) -> str:
    """What would be accepted; for an unknown field, the known ones beside it."""
    assert isinstance(error, dict)
    if error["type"] != "extra_forbidden":
        return str(error["msg"])
    model: type[BaseModel] | None = kind
    for part in error["loc"][:-1]:
        field = None if model is None else model.model_fields.get(str(part))
        inner = None if field is None else field.annotation
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    known = ", ".join(sorted(model.model_fields)) if model else "see docs/configuration.md"
    return f"there is no such field; known here: {known}"
