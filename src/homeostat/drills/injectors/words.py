"""What somebody wrote, read field by field: a wrong word is BadInput with field, value and what is accepted.

It stands in for pydantic on hosts that have nothing but python3.9, and everywhere else too, so that the same
words mean the same on every host. Standard library only.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Optional, Tuple, Union

from homeostat.kernel.errors import BadInput
from homeostat.kernel.presenting import presentable

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


class Words:
    """The fields of one mapping. Each is taken once; `end` refuses what nobody took."""

    def __init__(self, given: object, path: str = "") -> None:
        if not isinstance(given, Mapping):
            raise BadInput(path or "it", presentable(path, given), "it must be a mapping")
        self._given, self._path = dict(given), path
        self._known: list[str] = []

    def text(self, name: str, pattern: str = "") -> Optional[str]:
        """A text, or None."""
        value = self._take(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.wrong(name, value, "it must be a text")
        if pattern and not re.fullmatch(pattern, value):
            raise self.wrong(name, value, f"it must match {pattern}")
        return value

    def needed(self, name: str, pattern: str = "") -> str:
        """A text that must be there."""
        value = self.text(name, pattern)
        if value is None:
            raise self.wrong(name, None, "it must be there")
        return value

    def one_of(self, name: str, accepted: Tuple[str, ...], default: Optional[str] = None) -> str:
        """One of these words."""
        value = self._take(name)
        value = default if value is None else value
        if value not in accepted:
            raise self.wrong(name, value, f"it must be one of {', '.join(accepted)}")
        return str(value)

    def flag(self, name: str) -> bool:
        """True or false; false when nothing is said."""
        value = self._take(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, value, "it must be true or false")
        return bool(value)

    def number(self, name: str, default: float, least: float, most: float) -> float:
        """A number within both."""
        value = self._take(name)
        value = default if value is None else value
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not least <= value <= most:
            raise self.wrong(name, value, f"it must be a number from {least:g} to {most:g}")
        return float(value)

    def whole(self, name: str, default: int, least: int, most: Optional[int] = None) -> int:
        """A whole number within both."""
        value = self._take(name)
        value = default if value is None else value
        if not _is_whole(value) or value < least or (most is not None and value > most):
            limit = f", at most {most}" if most is not None else ""
            raise self.wrong(name, value, f"it must be a whole number, at least {least}{limit}")
        return int(value)

    def wholes(self, name: str) -> Optional[Tuple[int, ...]]:
        """A list of whole numbers, or None."""
        return self._each(name, lambda one: one if _is_whole(one) else None, "whole numbers")

    def texts(self, name: str) -> Tuple[str, ...]:
        """A list of texts; empty when nothing is said."""
        return self._each(name, lambda one: one if isinstance(one, str) else None, "texts") or ()

    def addresses(self, name: str) -> Tuple[Address, ...]:
        """A list of IP addresses; empty when nothing is said."""
        return self._each(name, _address, "IP addresses") or ()

    def path(self, name: str) -> Optional[Path]:
        """A path, or None."""
        value = self.text(name)
        return None if value is None else Path(value)

    def mapping(self, name: str) -> Mapping[str, Any]:
        """A mapping as it is; empty when nothing is said."""
        value = self._take(name)
        if value is not None and not isinstance(value, Mapping):
            raise self.wrong(name, value, "it must be a mapping")
        return value or {}

    def words(self, name: str) -> Optional[Words]:
        """The mapping within, or None."""
        value = self._take(name)
        return None if value is None else Words(value, self._at(name))

    def names(self) -> Tuple[str, ...]:
        """Every name that is given here; for mappings whose names are free."""
        return tuple(map(str, self._given))

    def end(self) -> None:
        """BadInput when a word is left that nobody knows."""
        for name, value in self._given.items():
            known = ", ".join(sorted(self._known))
            raise self.wrong(str(name), value, f"there is no such setting; known here: {known}")

    def wrong(self, name: str, value: object, accepted: str) -> BadInput:
        """The error about one field."""
        where = self._at(name) if name else self._path or "it"
        return BadInput(where, presentable(where, value), accepted)

    def _take(self, name: str) -> Any:
        self._known.append(name)
        return self._given.pop(name, None)

    def _each(self, name: str, read: Callable[[object], Any], what: str) -> Optional[Tuple[Any, ...]]:
        value = self._take(name)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)):
            raise self.wrong(name, value, f"it must be a list of {what}")
        found = tuple(read(one) for one in value)
        if None in found:
            raise self.wrong(name, value[found.index(None)], f"it must be a list of {what}")
        return found

    def _at(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _address(value: object) -> Optional[Address]:
    try:
        return ipaddress.ip_address(value) if isinstance(value, str) else None
    except ValueError:
        return None
