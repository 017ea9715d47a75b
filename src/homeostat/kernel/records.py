"""Turns frozen records into database rows and back, with enums as text. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from enum import Enum
from functools import cache
from operator import attrgetter
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R")

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


def record_of(kind: Callable[..., R], row: Any) -> R:
    """The record of a row; columns that are no field of it are left out, as are fields that are no column."""
    found = row._mapping
    values = {name: found[name] for name in field_types(kind) if name in found}
    for name, enum in _enums(kind).items():
        if values[name] is not None:
            values[name] = enum(values[name])
    return kind(**values)


@cache
def field_types(kind: Any) -> dict[str, tuple[type, bool]]:
    """Of each field the plain type (below a NewType, the first of a union), and whether it may be None."""
    hints = get_type_hints(kind)
    found = {}
    for name in (field.name for field in fields(kind)):
        options = get_args(hints[name]) or (hints[name],)
        plain = next(each for each in options if each is not NoneType)
        found[name] = (getattr(plain, "__supertype__", plain), NoneType in options)
    return found


@cache
def _enums(kind: Any) -> dict[str, type[Enum]]:
    return {name: plain for name, (plain, _) in field_types(kind).items() if issubclass(plain, Enum)}
