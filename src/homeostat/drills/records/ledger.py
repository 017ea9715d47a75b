"""ledger.jsonl: what must be undone and by which keeper, on disk before it is done. And what was, in the end.

Lines are data, one a step; a last line without its end is what a killed tool leaves, and is left out.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from homeostat.drills.cloud_operation import What
from homeostat.drills.records.history import LEDGER
from homeostat.kernel.errors import CorruptState
from homeostat.kernel.files import append_whole
from homeostat.kernel.processes import Identity, identify, is_alive


class Ledger:
    """The ledger of a run while it runs; each line is on disk when the call returns."""

    def __init__(self, folder: Path) -> None:
        """A new one, or what a dead tool left, without the line that it did not end."""
        flags, left = os.O_WRONLY | os.O_APPEND | os.O_CREAT, _lines(folder / LEDGER)
        self._file = os.fdopen(os.open(folder / LEDGER, flags, 0o600), "wb", buffering=0)
        self._file.truncate(sum(map(len, left)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def began(self, site: str) -> None:
        """Who runs this: whether it still lives is what `heal` asks."""
        me = identify(os.getpid())
        assert me is not None
        self._add({"kind": "tool", "site": site, "pid": me.pid, "start_ticks": me.start_ticks})

    def to_undo(self, host: str, record: Mapping[str, Any]) -> None:
        """A fault that is about to be injected by this host; its keeper undoes it at the deadline."""
        self._add(
            {
                "kind": "undo",
                "fault": record["fault"],
                "host": host,
                "injector": record["injector"],
                "deadline_s": record["deadline_s"],
                "by": f"the undo keeper of {host}",
                "undo": record["plan"]["undo"],
            }
        )

    def undone(self, fault: str, seen: str) -> None:
        """A fault that is gone."""
        self._add({"kind": "undone", "fault": fault, "seen": seen})

    def made(self, url: str) -> None:
        """A test object that exists because of us."""
        self._add({"kind": "made", "url": url})

    def deleted(self, url: str) -> None:
        """It does not exist any more."""
        self._add({"kind": "deleted", "url": url})

    def creating(self, cloud: str, what: What, name: str, within_s: float) -> None:
        """A thing in a cloud that is about to be asked for: it is found by its name, whatever came of it."""
        until_ns = time.time_ns() + round(within_s * 1e9)
        self._add({"kind": "creating", "cloud": cloud, "what": what, "name": name, "until_ns": until_ns})

    def answered(self, what: What, name: str) -> None:
        """The cloud has said yes or no to it: from now on the list tells whether it is there."""
        self._add({"kind": "answered", "what": what, "name": name})

    def gone(self, what: What, name: str) -> None:
        """Nothing of that name is in the list any more."""
        self._add({"kind": "gone", "what": what, "name": name})

    def _add(self, line: Mapping[str, Any]) -> None:
        append_whole(self._file.fileno(), json.dumps(line, ensure_ascii=False).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class Undo:
    """One fault that was about to be injected."""

    fault: str
    host: str


@dataclass(frozen=True, slots=True)
class InCloud:
    """One thing in a cloud that was asked for. `until_ns`: nobody heard an answer; the request may have been
    sent up to then, by the wall clock."""

    cloud: str
    what: What
    name: str
    until_ns: int | None


@dataclass(frozen=True, slots=True)
class Left:
    """What a ledger says is left."""

    site: str | None
    tool: Identity | None
    faults: tuple[Undo, ...]
    objects: tuple[str, ...]
    """The newest first."""
    in_cloud: tuple[InCloud, ...] = ()
    """The newest first: what is made of others goes before them."""

    @property
    def tool_lives(self) -> bool:
        """Whether the process that writes this ledger still runs."""
        return self.tool is not None and is_alive(self.tool)


def read_left(folder: Path) -> Left:
    """What is left of a run. CorruptState for a line that is none."""
    path = folder / LEDGER
    site, tool = None, None
    faults: dict[str, Undo] = {}
    objects: dict[str, None] = {}
    in_cloud: dict[tuple[What, str], InCloud] = {}
    for number, line in enumerate(_lines(path), start=1):
        try:
            said = json.loads(line)
            match said["kind"]:
                case "tool":
                    site, tool = said["site"], Identity(int(said["pid"]), int(said["start_ticks"]))
                case "undo":
                    faults[said["fault"]] = Undo(said["fault"], said["host"])
                case "undone":
                    faults.pop(said["fault"], None)
                case "made":
                    objects[said["url"]] = None
                case "deleted":
                    objects.pop(said["url"], None)
                case "creating":
                    asked = InCloud(said["cloud"], said["what"], said["name"], int(said["until_ns"]))
                    in_cloud[asked.what, asked.name] = asked
                case "answered":
                    key = said["what"], said["name"]
                    in_cloud[key] = replace(in_cloud[key], until_ns=None)
                case "gone":
                    in_cloud.pop((said["what"], said["name"]), None)
                case other:
                    raise ValueError(f"kind {other!r}")
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptState(f"{path}: line {number} is no line of a ledger ({error})") from None
    newest_first = tuple(reversed(in_cloud.values()))
    return Left(site, tool, tuple(faults.values()), tuple(reversed(objects)), newest_first)


def _lines(path: Path) -> list[bytes]:
    try:
        found = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [line for line in found if line.endswith(b"\n")]
