"""What a monitor process was given: JSON with the names of its configuration and no others. No I/O here."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, ClassVar, Protocol, Self, TypeVar

from homeostat.kernel.errors import BadInput


class Configuration(Protocol):
    """A dataclass that knows what is acceptable. A list in JSON is a tuple in it."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def checked(self) -> Self:
        """Itself, or BadInput naming the field."""
        ...


C = TypeVar("C", bound=Configuration)


def config_of(kind: type[C], text: str) -> C:
    """The configuration in this JSON; BadInput names the first field that is wrong."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise BadInput("config", text, f"JSON ({error})") from None
    if not isinstance(values, dict):
        raise BadInput("config", values, "an object")
    known = [each.name for each in fields(kind)]
    for name in values:
        if name not in known:
            raise BadInput(name, values[name], f"one of {', '.join(known)}")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    try:
        return kind(**given).checked()
    except TypeError as error:
        raise BadInput("config", sorted(values), str(error)) from None
