"""From nothing, or from prepared disks, to a cloud that answers. Every step says that it begins.

A cloud is never half-used: what an earlier `up` left unfinished is taken down first.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from homeostat.kernel.errors import AlreadyRunning
from homeostat.kernel.files import read_json, write_json
from testbed import bootstrap, cgroups, fabric, readiness
from testbed.access import write_access
from testbed.client import prepare_client
from testbed.cloud import Cloud
from testbed.failures import TestbedFailed
from testbed.machines import Machine, find_node, start_node, stop_node
from testbed.node_files import node_files
from testbed.places import Places
from testbed.plan import NODES, Checks, Node, Plan, Secrets, cpu_sets, node_named
from testbed.preparing import prepare_root
from testbed.registration import register
from testbed.teardown import leftovers, take_down

Say = Callable[[str], None]
_TOOLS = ("ip", "nsenter", "unshare", "losetup", "mkfs.ext4", "ssh-keygen", "sysctl", "mount", "pivot_root")
_FREE_BYTES = 8 * 1024**3


@dataclass(frozen=True, slots=True)
class Wishes:
    """What may be chosen at a start."""

    network: str
    database_on: str
    vip_on: str
    checks: Checks
    not_restarted: tuple[str, ...]
    deadline_s: float


@contextmanager
def only_one(places: Places) -> Iterator[None]:
    """Nobody else brings it up or down meanwhile. The lock goes with the process. AlreadyRunning."""
    places.state.mkdir(parents=True, exist_ok=True)
    places.state.chmod(0o700)
    with places.lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"{places.lock}: another `testbed` is at work; wait for it") from None
        yield


def bring_up(places: Places, wishes: Wishes, say: Say) -> Plan:
    """The running cloud's plan. TestbedFailed says what did not come and why; nothing is taken down then."""
    _preflight(places)
    if is_up(places):
        raise AlreadyRunning("the testbed is up already; `down` ends it")
    if leftovers(places) or places.run.exists():
        say("an unfinished testbed is taken down first")
        take_down(places)
    prepare_root(places, say)
    prepare_client(places, say)
    variant = Plan(Secrets("", ""), wishes.network, wishes.database_on).variant
    prepared = places.prepared(bootstrap.key_of(variant))
    plan = Plan(
        secrets=bootstrap.known_secrets(prepared),
        network=wishes.network,
        database_on=wishes.database_on,
        vip_on=wishes.vip_on,
        checks=wishes.checks,
        not_restarted=wishes.not_restarted,
    )
    places.run.mkdir(mode=0o700)
    write_json(places.record, dataclasses.asdict(plan))
    bootstrap.make_keys(places.keys)
    write_access(plan, places)
    fabric.make_fabric(plan)
    start = _Start(places, plan, wishes.deadline_s, say)
    if bootstrap.is_prepared(prepared):
        start.from_prepared(prepared)
    else:
        start.for_the_first_time(prepared)
    _pin(say)
    return plan


class _Start:
    def __init__(self, places: Places, plan: Plan, deadline_s: float, say: Say) -> None:
        self._places, self._plan, self._deadline_s, self._say = places, plan, deadline_s, say
        self._machines: list[Machine] = []
        self._cloud = Cloud(plan)

    def from_prepared(self, prepared: Path) -> None:
        disk = self._places.node(self._plan.database_on) / "disk.img"
        self._say(f"the prepared disk of {self._plan.database_on}")
        bootstrap.copy_sparse(prepared / "database.img", disk)
        shutil.copytree(prepared / "shared", self._places.shared)
        self._start(*NODES)
        readiness.wait_for_apis(self._plan, self._machines, self._deadline_s, self._say)
        self._wait_for_workers()

    def for_the_first_time(self, prepared: Path) -> None:
        for name in ("keystone", "images"):
            (self._places.shared / name).mkdir(parents=True)
        home = node_named(self._plan.database_on)
        self._say(f"databases and tables on {home.name} (some minutes, once)")
        # Alone: whatever else runs there would die for want of the tables, again and again.
        alone = start(self._places, self._plan, home, only=("sshd", "mariadb"))
        bootstrap.make_databases(self._plan, alone)
        bootstrap.make_tables(self._plan, alone, self._say)
        stop_node(self._places, home, gently=True)
        self._start(*NODES)
        database = next(each for each in self._machines if each.node is home)
        readiness.wait_for_keystone(self._plan, self._machines, self._deadline_s)
        self._say("users and endpoints")
        readiness.until_answered(self._register, self._deadline_s)
        readiness.wait_for_apis(self._plan, self._machines, self._deadline_s, self._say)
        self._wait_for_workers()
        bootstrap.discover_computes(database)
        self._say("the disk is kept for later starts")
        bootstrap.keep_prepared(self._places, self._plan, prepared, database)
        readiness.wait_for_apis(self._plan, self._machines, self._deadline_s, self._say)
        self._wait_for_workers()

    def _start(self, *nodes: Node) -> None:
        for node in nodes:
            self._say(f"{node.name} ({self._plan.address(node)}) starts")
            self._machines.append(start(self._places, self._plan, node))

    def _register(self) -> None:
        self._cloud.login()
        register(self._plan, self._cloud)

    def _wait_for_workers(self) -> None:
        self._say("the programs behind the APIs")
        readiness.wait_for_workers(self._cloud, self._machines, self._deadline_s)


def start(places: Places, plan: Plan, node: Node, only: Collection[str] = ()) -> Machine:
    """One node, with the files of this plan; only some of its programs when they are named."""
    keys = bootstrap.keys_of(places.keys, node)
    return start_node(places, plan, node, node_files(plan, node, keys, only))


def switch(places: Places, name: str, *, on: bool) -> None:
    """One node of a running cloud on, or off at once as if its power failed. Its disk stays."""
    plan, node = running_plan(places), node_named(name)
    if not on:
        stop_node(places, node, gently=False)
        return
    start(places, plan, node)
    _pin(lambda _: None)


def running_plan(places: Places) -> Plan:
    """TestbedFailed when there is no cloud."""
    found = read_json(places.record)
    if found is None:
        raise TestbedFailed("the testbed is not up; `up` starts it")
    secrets, checks = Secrets(**found.pop("secrets")), Checks(found.pop("checks"))
    not_restarted = tuple(found.pop("not_restarted"))
    return Plan(secrets=secrets, checks=checks, not_restarted=not_restarted, **found)


def is_up(places: Places) -> bool:
    """Whether every node runs."""
    return places.record.exists() and all(find_node(places, each) for each in NODES)


def _pin(say: Say) -> None:
    """Only now: while they start, everybody may use every CPU."""
    sets = cpu_sets(sorted(os.sched_getaffinity(0)))
    pinned = [
        f"{name} on {','.join(map(str, cpus))}" for name, cpus in sets.items() if cgroups.pin(name, cpus)
    ]
    say(f"CPUs: {'; '.join(pinned)}" if pinned else "no CPU sets: this machine does not let us make cgroups")


def _preflight(places: Places) -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise TestbedFailed("the testbed needs Linux and root: namespaces, mounts and loop devices")
    for tool in _TOOLS:
        if shutil.which(tool) is None:
            raise TestbedFailed(
                f"{tool}: not found; install it (iproute2, util-linux, e2fsprogs, openssh-client)"
            )
    free = shutil.disk_usage(places.state).free
    if free < _FREE_BYTES:
        raise TestbedFailed(
            f"{places.state}: {free / 1024**3:.1f} GiB are free, {_FREE_BYTES / 1024**3:.0f} needed"
        )


def progress() -> Say:
    """Lines with the seconds since now."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    return say
