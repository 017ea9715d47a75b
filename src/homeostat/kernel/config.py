"""Settings from one YAML file: an unreadable file, an unknown field or a wrong value is one clear line.

What may be a secret is never in that line: the value of a field whose path sounds like one, and everything
around a field that is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from homeostat.kernel.errors import BadInput
from homeostat.kernel.presenting import HIDDEN, presentable

S = TypeVar("S", bound=BaseModel)

__all__ = ["HIDDEN", "checked", "load", "presentable"]


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
    return checked(kind, given, path)


def checked(kind: type[S], given: Mapping[str, Any], path: Path | None = None) -> S:
    """The settings in a mapping; BadInput names the first field that is wrong."""
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        in_file = "" if path is None else f" (in {path})"
        # What surrounds a missing field is not its value.
        shown = None if first["type"] == "missing" else presentable(where, first.get("input"))
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
