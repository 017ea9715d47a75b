"""Which processes are meant: a whole set by exact identities, or an error. Nothing is signalled here.

The same rule serves the plan and the check just before the act, so the two cannot drift apart.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Optional

from homeostat.drills import node_keeper as keeper
from homeostat.drills.injectors.permitted import Permitted, Profile, read_profile
from homeostat.drills.injectors.record import Fault, Section
from homeostat.drills.injectors.words import Words
from homeostat.drills.node_keeper import Process
from homeostat.kernel.errors import BadInput, NotAllowed, NotFound
from homeostat.kernel.presenting import HIDDEN, presentable

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


def process_target(words: Words) -> ProcessTarget:
    """The processes that are meant; all other words must have been taken before. BadInput."""
    profile, collateral = words.text("profile"), words.flag("allow_collateral")
    only_look = words.flag("only_look")
    given = {name: words.text(name) for name in _WAYS}
    words.end()
    direct = {name: value for name, value in given.items() if value is not None}
    return ProcessTarget(profile, direct, collateral, only_look)


def matched(fault: Fault, target: ProcessTarget) -> tuple[Process, ...]:
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


def processes_of(node: Permitted, name: str) -> tuple[Process, ...]:
    """The processes of a profile now, none when there are none. BadInput for a name that nobody knows."""
    return tuple(sorted(_find(node, profile_of(node, ProcessTarget(name, {}, allow_collateral=True)))))


def still(fault: Fault, target: ProcessTarget) -> tuple[Process, ...]:
    """The planned processes, when they are exactly those that match now. NotFound otherwise."""
    if target.only_look:
        raise BadInput("target.only_look", True, "false: with it nothing is ever hit")
    planned = tuple(process_of(each) for each in fault.section("plan")["matched"])
    now = matched(fault, target)
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
    whole = str(presentable("", line))
    at = whole.find(HIDDEN, max(0, SHOWN - len(HIDDEN) + 1), SHOWN + len(HIDDEN) - 1)
    return whole[: SHOWN if at < 0 else at + len(HIDDEN)]


def process_of(record: Mapping[str, Any]) -> Process:
    """The identity in a record."""
    return Process(record["pid"], record["start_ticks"], record["boot_id"])


def unpermitted(found: Iterable[Process]) -> list[int]:
    """The pids that we may not signal."""
    refused = []
    for each in found:
        try:
            keeper.send(each, 0)
        except PermissionError:
            refused.append(each.pid)
    return refused


def missing_permission(found: Iterable[Process]) -> List[str]:
    """The processes that we may not signal, in a line with the remedy; nothing when there are none."""
    pids = ", ".join(map(str, unpermitted(found)))
    return [f"permission to signal {pids}; run as root, or as the owner of these processes"] if pids else []


def refuse_unpermitted(found: Iterable[Process]) -> None:
    """NotAllowed naming the processes that we may not signal."""
    for line in missing_permission(found):
        raise NotAllowed(f"no {line}")


def profile_of(node: Permitted, target: ProcessTarget) -> Profile:
    """The profile that a target names or spells out. BadInput."""
    if target.profile is None:
        return read_profile(Words(target.direct, "target"))
    if target.direct:
        raise BadInput("target", sorted(target.direct), "a profile, or the words of one, not both")
    found = node.profiles().get(target.profile)
    if found is None:
        known = ", ".join(sorted(node.profiles()))
        raise BadInput("target.profile", target.profile, f"known on this node: {known}")
    return found


def command_line(pid: int) -> str:
    """The words joined by blanks; empty for kernel threads and processes that are gone."""
    try:
        return (
            Path(f"/proc/{pid}/cmdline")
            .read_bytes()
            .rstrip(b"\0")
            .replace(b"\0", b" ")
            .decode(errors="replace")
        )
    except OSError:
        return ""


def _words(target: ProcessTarget) -> str:
    given = {**({"profile": target.profile} if target.profile else {}), **target.direct}
    return ", ".join(f"{name} {value!r}" for name, value in given.items())


def _pids() -> list[int]:
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]


def _find(node: Permitted, profile: Profile) -> set[Process]:
    if profile.command_line is not None:
        pattern = re.compile(profile.command_line, re.DOTALL)
        return _identified(pid for pid in _pids() if pattern.fullmatch(command_line(pid)))
    if profile.cgroup is not None:
        return _identified(pid for pid in _pids() if _in_cgroup(pid, profile.cgroup.strip("/")))
    return _identified(
        _with_descendants(_pid_in(profile.pid_file or _pid_file(node, profile.resource or "")))
    )


def _identified(pids: Iterable[int]) -> set[Process]:
    return {found for pid in pids if (found := keeper.identify(pid)) is not None}


def _in_cgroup(pid: int, wanted: str) -> bool:
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return False
    paths = (line.split(":", 2)[2].strip("/") for line in lines)
    return any(path == wanted or path.startswith(wanted + "/") for path in paths)


def _pid_file(node: Permitted, resource: str) -> Path:
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
    found = keeper.stat_of(pid)
    if found is None:
        return None
    age_s = keeper.now_ns() / 1e9 - found[1] / os.sysconf("SC_CLK_TCK")
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
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _refuse_our_own(fault: Fault, found: Iterable[Process]) -> None:
    """Init, who asks, and the keeper are never hit: nobody would be left to undo it."""
    ours, pid = {1}, os.getpid()
    while pid > 1:
        ours.add(pid)
        pid = _parent(pid) or 0
    life = keeper.status(fault.keeper)["keeper"]
    if life is not None:
        ours.add(life["pid"])
    if hit := sorted(ours & {each.pid for each in found}):
        raise NotAllowed(f"process {hit[0]} would be hit: init, who asks, or the undo keeper; name others")


def _refuse_shared(
    node: Permitted, target: ProcessTarget, profile: Profile, found: Iterable[Process]
) -> None:
    """NotAllowed when the processes serve others as well, by their own word or another profile's."""
    remedy = "say `allow_collateral: true` to hit them all the same"
    if profile.shared:
        raise NotAllowed(f"{_words(target)}: other services live in the same processes; {remedy}")
    hit = set(found)
    for name, other in node.own.items():
        if name != target.profile and other != profile and (both := hit & _find(node, other)):
            raise NotAllowed(f"{len(both)} of the processes belong to {name} as well; {remedy}")
