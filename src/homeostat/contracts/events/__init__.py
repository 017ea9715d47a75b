"""Published, versioned events: the only things one component may know of another.

An event's name in the journal is its class name; a changed payload gets a VERSION above 1 and an upcast from
the old one; a class that got another name is listed with its earlier one. An unknown name is kept and
skipped by readers. The catalogue is added up from the records of the components (`homeostat.components`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass


def events_in(module: Mapping[str, object]) -> tuple[type, ...]:
    """The events among the names of a module: the dataclasses that it defines itself."""
    own = (
        each for each in module.values() if isinstance(each, type) and each.__module__ == module["__name__"]
    )
    return tuple(each for each in own if is_dataclass(each))
