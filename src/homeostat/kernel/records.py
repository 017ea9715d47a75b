"""From a frozen record to a row: the one place where enums become text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from enum import Enum
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_PLAIN = frozenset({str, int, float, bool, type(None)})


def row_of(record: DataclassInstance) -> dict[str, object]:
    """Column name to value. Enums become their values: drivers disagree on what to do with them."""
    names, values_of = _reading(type(record))
    # Asked of a thousand records while consumers wait: whole values first, then the few that may be enums.
    row = dict(zip(names, values_of(record), strict=True))
    for name, value in row.items():
        if type(value) not in _PLAIN and isinstance(value, Enum):
            row[name] = value._value_  # `value` is a property in Python, several times as slow
    return row


@cache
def _reading(kind: type[DataclassInstance]) -> tuple[tuple[str, ...], Callable[[object], tuple[Any, ...]]]:
    names = tuple(field.name for field in fields(kind))
    if len(names) == 1:
        return names, lambda record: (getattr(record, names[0]),)
    return names, attrgetter(*names)
