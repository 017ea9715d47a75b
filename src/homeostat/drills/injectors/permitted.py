"""What may be broken on a host, as the injectors know it, whichever file of that host says so.

On a host with a node process that file is its node.yaml (`node_settings.py`), on a host that is reached by
SSH alone it is a JSON file with the same words as the `drills:` part of one. Python3.9.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, Optional, Tuple, TypeVar

from homeostat.drills.injectors.words import Words

T = TypeVar("T")
KINDS = ("node_kill", "node_freeze", "node_cpu", "node_disk", "node_network", "node_power")
"""What can be broken."""


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
class Permitted:
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
        """All by name; the host's own win."""
        return {**self.shipped, **self.own}


def read_profile(words: Words) -> Profile:
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


def read_permitted(host: str, file: str, state_dir: Path, words: Words) -> Permitted:
    """The words of the `drills:` part. BadInput."""
    enabled = words.flag("enabled")
    injectors, paths = words.texts("injectors"), words.texts("writable_paths")
    own, programs, power = words.words("profiles"), words.words("programs"), words.words("power")
    words.end()
    for kind in injectors:
        if kind not in KINDS:
            raise words.wrong("injectors", kind, f"it must be among {', '.join(KINDS)}")
    return Permitted(
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


def read_profiles(words: Words) -> Mapping[str, Profile]:
    """Profiles by name. BadInput."""
    return _each(words, read_profile)


def _each(words: Words, read: Callable[[Words], T]) -> Dict[str, T]:
    found = {}
    for name in words.names():
        inner = words.words(name)
        if inner is None:
            raise words.wrong(name, None, "it must be a mapping")
        found[name] = read(inner)
    return found


def _program(words: Words) -> Program:
    found = Program(words.texts("argv"), words.number("timeout_s", 20.0, 0.001, 120))
    words.end()
    if not found.argv:
        raise words.wrong("argv", None, "the program and its words")
    return found


def _powered(words: Words) -> PoweredHost:
    found = PoweredHost(words.texts("answers_at"))
    words.end()
    if not found.answers_at:
        raise words.wrong("answers_at", None, "at least one address:port")
    for each in found.answers_at:
        address, _, port = each.rpartition(":")
        if not address or not port.isdigit() or not 0 < int(port) < 65_536:
            raise words.wrong("answers_at", each, "it must be address:port")
    return found
