"""Takes the cloud down, also one whose `up` was killed at any moment, and says what is left of any.

Needs no record: everything of the testbed has its name in front. What it keeps is the cache.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from testbed import cgroups, fabric
from testbed.commands import output_of, succeeds
from testbed.failures import TestbedFailed
from testbed.machines import end_all
from testbed.places import Places

_DETACHED_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What of the testbed is on the machine now."""

    processes: list[int] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    cgroups: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    mounts: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(
            (self.processes, self.namespaces, self.links, self.cgroups, self.loops, self.mounts),
        )


def leftovers(places: Places) -> Leftovers:
    """Looked for on the machine, not in our own files."""
    namespaces = fabric.namespaces()
    folders = cgroups.remaining()
    return Leftovers(
        processes=sorted(cgroups.pids(folders) | fabric.processes_in(namespaces)),
        namespaces=namespaces,
        links=fabric.links(),
        cgroups=[str(each) for each in folders],
        loops=_loops(places),
        mounts=_mounts(places),
    )


def take_down(places: Places) -> None:
    """End everything and remove it. TestbedFailed names what could not be removed."""
    end_all(cgroups.remaining(), fabric.namespaces())
    fabric.remove_fabric()
    cgroups.remove(cgroups.remaining())
    for mount in reversed(_mounts(places)):
        succeeds(["umount", "--lazy", mount])
    _await_detached(places)
    for folder in (places.run, places.unfinished_root):
        if folder.exists():
            shutil.rmtree(folder)
    if left := leftovers(places):
        raise TestbedFailed(f"not everything could be removed: {left}")


def _await_detached(places: Places) -> None:
    """Loop devices go by themselves with the mount namespace that used them, but some moments later."""
    until = time.monotonic() + _DETACHED_WITHIN_S
    while (left := _loops(places)) and time.monotonic() < until:
        time.sleep(0.05)
    for device in left:
        succeeds(["losetup", "--detach", device])


def _loops(places: Places) -> list[str]:
    text = output_of(["losetup", "--json", "--list", "--output", "NAME,BACK-FILE"])
    listed = json.loads(text)["loopdevices"] if text.strip() else []
    ours = f"{os.path.realpath(places.state)}/"
    return [each["name"] for each in listed if (each["back-file"] or "").startswith(ours)]


def _mounts(places: Places) -> list[str]:
    """Those of the machine's own mount namespace. There should never be any."""
    ours = f"{os.path.realpath(places.state)}/"
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [point for line in lines if (point := line.split()[4]).startswith(ours)]
