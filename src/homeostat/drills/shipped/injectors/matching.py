"""Matches a profile to processes: a whole set by exact identities, or an error. Nothing is signalled here.

The same rule serves the plan and the check just before the act, so the two cannot drift apart.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

from homeostat.drills.shipped.injectors.record import InjectedFault, Section
from homeostat.drills.shipped.keeper import machine, orders
from homeostat.drills.shipped.keeper.machine import Process
from homeostat.drills.shipped.permissions import FieldReader, HostPermissions, Profile, read_profile
from homeostat.kernel.errors import BadInput, NotAllowed, NotFound
from homeostat.kernel.processes import read_stat
from homeostat.kernel.redaction import HIDDEN, redact
from homeostat.monitors.shipped.process_watch import command_line

SHOWN = 200
_WAYS = ("command_line", "pid_file", "cgroup", "resource")


@dataclass(frozen=True)
class ProcessTarget:
    """A service by its profile, or by the words of a profile directly."""

    profile: Optional[str]
    direct: Mapping[str, str]
    """One of the words of a profile, when no profile is named."""
    allow_collateral: bool
    only_look: bool = False
    """Whether it is asked who is there: then who asks counts, too, and nothing is ever hit."""


def process_target(words: FieldReader) -> ProcessTarget:
    """The processes that are meant; all other words must have been taken before. BadInput."""
    profile, collateral = words.text("profile"), words.flag("allow_collateral")
    only_look = words.flag("only_look")
    given = {name: words.text(name) for name in _WAYS}
    words.end()
    direct = {name: value for name, value in given.items() if value is not None}
    return ProcessTarget(profile, direct, collateral, only_look)


def match_processes(fault: InjectedFault, target: ProcessTarget) -> tuple[Process, ...]:
    """Every process that is meant. NotFound when there is none, NotAllowed when others would be hit."""
    profile = profile_of(fault.node, target)
    found = tuple(sorted(_find(fault.node, profile)))
    if not found:
        raise NotFound(f"no process here matches {_words(target)}; nothing would be hit")
    if not target.only_look:
        _refuse_our_own(fault, found)
    if not target.allow_collateral:
        _refuse_shared(fault.node, target, profile, found)
    return found


def processes_of(node: HostPermissions, name: str) -> tuple[Process, ...]:
    """The processes of a profile now, none when there are none. BadInput for a name that nobody knows."""
    return tuple(sorted(_find(node, profile_of(node, ProcessTarget(name, {}, allow_collateral=True)))))


def match_again(fault: InjectedFault, target: ProcessTarget) -> tuple[Process, ...]:
    """The planned processes, when they are exactly those that match now. NotFound otherwise."""
    if target.only_look:
        raise BadInput("target.only_look", True, "false: with it nothing is ever hit")
    planned = tuple(machine.process_in(each) for each in fault.section("plan")["matched"])
    now = match_processes(fault, target)
    if now != planned:
        raise NotFound(
            f"{len(planned)} processes were planned and {len(now)} match now, not all the same; plan again"
        )
    return planned


def shown(found: Iterable[Process]) -> list[Section]:
    """The match list for people: identities and command lines, without what looks like a password."""
    return [each._asdict() | {"command_line": shown_line(command_line(each.pid))} for each in found]


def shown_line(line: str) -> str:
    """Its beginning. Hidden before it is cut, and not cut within what says so: a watch is made from it."""
    whole = str(redact("", line))
    at = whole.find(HIDDEN, max(0, SHOWN - len(HIDDEN) + 1), SHOWN + len(HIDDEN) - 1)
    return whole[: SHOWN if at < 0 else at + len(HIDDEN)]


def missing_permission(found: Iterable[Process]) -> List[str]:
    """The processes that we may not signal, in a line with the remedy; nothing when there are none."""
    refused = []
    for each in found:
        try:
            machine.send(each, 0)
        except PermissionError:
            refused.append(each.pid)
    pids = ", ".join(map(str, refused))
    return [f"permission to signal {pids}; run as root, or as the owner of these processes"] if pids else []


def profile_of(node: HostPermissions, target: ProcessTarget) -> Profile:
    """The profile that a target names or spells out. BadInput."""
    if target.profile is None:
        return read_profile(FieldReader(target.direct, "target"))
    if target.direct:
        raise BadInput("target", sorted(target.direct), "a profile, or the words of one, not both")
    found = node.profiles().get(target.profile)
    if found is None:
        known = ", ".join(sorted(node.profiles()))
        raise BadInput("target.profile", target.profile, f"known on this node: {known}")
    return found


def _words(target: ProcessTarget) -> str:
    given = {**({"profile": target.profile} if target.profile else {}), **target.direct}
    return ", ".join(f"{name} {value!r}" for name, value in given.items())


def _pids() -> list[int]:
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]


def _find(node: HostPermissions, profile: Profile) -> set[Process]:
    if profile.command_line is not None:
        pattern = re.compile(profile.command_line, re.DOTALL)
        return _identified(pid for pid in _pids() if pattern.fullmatch(command_line(pid)))
    if profile.cgroup is not None:
        return _identified(pid for pid in _pids() if _in_cgroup(pid, profile.cgroup.strip("/")))
    return _identified(
        _with_descendants(_pid_in(profile.pid_file or _pid_file(node, profile.resource or "")))
    )


def _identified(pids: Iterable[int]) -> set[Process]:
    return {found for pid in pids if (found := machine.identify(pid)) is not None}


def _in_cgroup(pid: int, wanted: str) -> bool:
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return False
    paths = (line.split(":", 2)[2].strip("/") for line in lines)
    return any(path == wanted or path.startswith(wanted + "/") for path in paths)


def _pid_file(node: HostPermissions, resource: str) -> Path:
    found = node.pid_files.get(resource)
    if found is None:
        known = ", ".join(node.pid_files) or "none"
        raise BadInput("target.resource", resource, f"resources of this node: {known}")
    return found


def _pid_in(path: Path) -> int | None:
    """The pid in a file; None when there is none, or when its process began after the file was written.

    That is a reused pid. A step of the wall clock can make a good file look old, never the other way round
    by more than the second that is allowed for.
    """
    try:
        pid, written_s = int(path.read_text().split()[0]), path.stat().st_mtime
    except (OSError, ValueError, IndexError):
        return None
    found = machine.stat_of(pid)
    if found is None:
        return None
    age_s = machine.now_ns() / 1e9 - found[1] / os.sysconf("SC_CLK_TCK")
    return pid if time.time() - age_s <= written_s + 1.0 else None


def _with_descendants(pid: int | None) -> set[int]:
    if pid is None:
        return set()
    parents = {each: _parent(each) for each in _pids()}
    found, fresh = {pid}, {pid}
    while fresh:
        fresh = {each for each, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


def _parent(pid: int) -> int | None:
    try:
        found = read_stat(pid)
    except PermissionError:
        return None
    return None if found is None else found.parent


def _refuse_our_own(fault: InjectedFault, found: Iterable[Process]) -> None:
    """Init, who asks, and the keeper are never hit: nobody would be left to undo it."""
    ours, pid = {1}, os.getpid()
    while pid > 1:
        ours.add(pid)
        pid = _parent(pid) or 0
    life = orders.status(fault.keeper)["keeper"]
    if life is not None:
        ours.add(life["pid"])
    if hit := sorted(ours & {each.pid for each in found}):
        raise NotAllowed(f"process {hit[0]} would be hit: init, who asks, or the undo keeper; name others")


def _refuse_shared(
    node: HostPermissions, target: ProcessTarget, profile: Profile, found: Iterable[Process]
) -> None:
    """NotAllowed when the processes serve others as well, by their own word or another profile's."""
    remedy = "say `allow_collateral: true` to hit them all the same"
    if profile.shared:
        raise NotAllowed(f"{_words(target)}: other services live in the same processes; {remedy}")
    hit = set(found)
    for name, other in node.own.items():
        if name != target.profile and other != profile and (both := hit & _find(node, other)):
            raise NotAllowed(f"{len(both)} of the processes belong to {name} as well; {remedy}")
