"""From a frozen record to a row: the one place where enums become text."""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def row_of(record: DataclassInstance) -> dict[str, object]:
    """Column name to value. Enums become their values: drivers disagree on what to do with them."""
    return {
        name: value.value if isinstance(value := getattr(record, name), Enum) else value
        for name in _names(type(record))
    }


@cache
def _names(kind: type[DataclassInstance]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
