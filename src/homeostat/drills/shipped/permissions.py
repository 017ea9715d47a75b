"""Permissions of a host for drills, as its own file states them, and the reader of such files, field by
field.

On a host with a node process that file is its node.yaml (`drills.node.settings`), on a host that is reached
by SSH alone it is a JSON file with the same fields as the `drills:` part of one. The reader stands in for
pydantic on hosts that have nothing but python3.9, and is used everywhere else too, so that the same input
means the same on every host: a wrong value is BadInput with field, value and what is accepted. Standard
library only.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple, TypeVar, Union

from homeostat.kernel.errors import BadInput
from homeostat.kernel.redaction import redact

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


class FieldReader:
    """The fields of one mapping. Each is taken once; `end` refuses what nobody took."""

    def __init__(self, given: object, path: str = "") -> None:
        if not isinstance(given, Mapping):
            raise BadInput(path or "it", redact(path, given), "it must be a mapping")
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
        value = self.text(name, pattern)
        if value is None:
            raise self.wrong(name, None, "it must be there")
        return value

    def one_of(self, name: str, accepted: Tuple[str, ...], default: Optional[str] = None) -> str:
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
        value = self._take(name)
        value = default if value is None else value
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not least <= value <= most:
            raise self.wrong(name, value, f"it must be a number from {least:g} to {most:g}")
        return float(value)

    def whole(self, name: str, default: int, least: int, most: Optional[int] = None) -> int:
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

    def words(self, name: str) -> Optional[FieldReader]:
        """The mapping within, or None."""
        value = self._take(name)
        return None if value is None else FieldReader(value, self._at(name))

    def names(self) -> Tuple[str, ...]:
        """Every name that is given here; for mappings whose names are free."""
        return tuple(map(str, self._given))

    def end(self) -> None:
        """BadInput when a word is left that nobody knows."""
        for name, value in self._given.items():
            known = ", ".join(sorted(self._known))
            raise self.wrong(str(name), value, f"there is no such setting; known here: {known}")

    def wrong(self, name: str, value: object, accepted: str) -> BadInput:
        where = self._at(name) if name else self._path or "it"
        return BadInput(where, redact(where, value), accepted)

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


T = TypeVar("T")
KINDS = ("node_kill", "node_freeze", "node_cpu", "node_disk", "node_network", "node_power")
"""The kinds of injectors that a node can permit."""


@dataclass(frozen=True)
class Profile:
    """Which processes are a service: exactly one way to find them is there."""

    command_line: Optional[str] = None
    pid_file: Optional[Path] = None
    cgroup: Optional[str] = None
    resource: Optional[str] = None
    shared: bool = False


@dataclass(frozen=True)
class Program:
    """A program that may be run here for a host."""

    argv: Tuple[str, ...]
    timeout_s: float


@dataclass(frozen=True)
class PoweredHost:
    """A host whose power is switched here."""

    answers_at: Tuple[str, ...]
    """`address:port` of what answers there while it is on."""


@dataclass(frozen=True)
class HostPermissions:
    """One host and what its own file permits."""

    host: str
    file: str
    """What people call the file that says so."""
    state_dir: Path
    enabled: bool = False
    injectors: Tuple[str, ...] = ()
    writable_paths: Tuple[Path, ...] = ()
    own: Mapping[str, Profile] = field(default_factory=dict)
    """The host's own profiles."""
    shipped: Mapping[str, Profile] = field(default_factory=dict)
    pid_files: Mapping[str, Path] = field(default_factory=dict)
    """Of the resources of this host's runner, by id."""
    programs: Mapping[str, Program] = field(default_factory=dict)
    """By name, for node_power."""
    power: Mapping[str, PoweredHost] = field(default_factory=dict)
    """Other hosts whose power is switched here."""

    @property
    def keeper(self) -> Path:
        """The state folder of this host's undo keeper."""
        return self.state_dir.absolute() / "keeper"

    def profiles(self) -> Mapping[str, Profile]:
        return {**self.shipped, **self.own}


def read_profile(words: FieldReader) -> Profile:
    """A profile: exactly one way, and a regular expression that is one. BadInput."""
    found = Profile(
        words.text("command_line"),
        words.path("pid_file"),
        words.text("cgroup"),
        words.text("resource"),
        words.flag("shared"),
    )
    words.end()
    ways = (found.command_line, found.pid_file, found.cgroup, found.resource)
    if sum(way is not None for way in ways) != 1:
        accepted = "exactly one of command_line, pid_file, cgroup, resource must be given"
        raise words.wrong("", sum(way is not None for way in ways), accepted)
    if found.command_line is not None:
        try:
            re.compile(found.command_line)
        except re.error as error:
            raise words.wrong(
                "command_line", found.command_line, f"it must be a regular expression: {error}"
            ) from error
    return found


def read_permissions(host: str, file: str, state_dir: Path, words: FieldReader) -> HostPermissions:
    """The words of the `drills:` part. BadInput."""
    enabled = words.flag("enabled")
    injectors, paths = words.texts("injectors"), words.texts("writable_paths")
    own, programs, power = words.words("profiles"), words.words("programs"), words.words("power")
    words.end()
    for kind in injectors:
        if kind not in KINDS:
            raise words.wrong("injectors", kind, f"it must be among {', '.join(KINDS)}")
    return HostPermissions(
        host=host,
        file=file,
        state_dir=state_dir,
        enabled=enabled,
        injectors=injectors,
        writable_paths=tuple(map(Path, paths)),
        own={} if own is None else read_profiles(own),
        programs={} if programs is None else _each(programs, _program),
        power={} if power is None else _each(power, _powered),
    )


def read_profiles(words: FieldReader) -> Mapping[str, Profile]:
    """Profiles by name. BadInput."""
    return _each(words, read_profile)


def _each(words: FieldReader, read: Callable[[FieldReader], T]) -> Dict[str, T]:
    found = {}
    for name in words.names():
        inner = words.words(name)
        if inner is None:
            raise words.wrong(name, None, "it must be a mapping")
        found[name] = read(inner)
    return found


def _program(words: FieldReader) -> Program:
    found = Program(words.texts("argv"), words.number("timeout_s", 20.0, 0.001, 120))
    words.end()
    if not found.argv:
        raise words.wrong("argv", None, "the program and its words")
    return found


def _powered(words: FieldReader) -> PoweredHost:
    found = PoweredHost(words.texts("answers_at"))
    words.end()
    if not found.answers_at:
        raise words.wrong("answers_at", None, "at least one address:port")
    for each in found.answers_at:
        address, _, port = each.rpartition(":")
        if not address or not port.isdigit() or not 0 < int(port) < 65_536:
            raise words.wrong("answers_at", each, "it must be address:port")
    return found
