"""Where the testbed keeps things on the machine, and what its namespaces, links and cgroups are called.

One testbed a machine: the names are fixed, so that what a dead one left is found without any record of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MARK = "hstb"
"""Every namespace, link and cgroup of the testbed begins with this."""

FABRIC = f"{MARK}-fabric"
"""The namespace with the bridge that joins the nodes."""

HOST_LINK = f"{MARK}0"
"""The link by which the machine itself reaches the nodes."""

CGROUP = "homeostat-testbed"
"""Below each cgroup hierarchy."""

DEFAULT_STATE = Path("/var/lib/homeostat-testbed")


def namespace_of(node: str) -> str:
    """The name of a node's network namespace."""
    return f"{MARK}-{node}"


def link_of(node: str) -> str:
    """The node's end at the bridge."""
    return f"{MARK}-{node}"


@dataclass(frozen=True, slots=True)
class Places:
    """The folders. `wheels`, `root`, `client`, `prepared` are the cache; `run` is gone after `down`."""

    state: Path

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    @property
    def wheels(self) -> Path:
        """What PyPI gave."""
        return self.state / "wheels"

    @property
    def root(self) -> Path:
        """The file system under every node's own disk; never written to by a node."""
        return self.state / "root"

    @property
    def unfinished_root(self) -> Path:
        """It becomes `root` when all packages are in it."""
        return self.state / "root.partial"

    def stamp(self, stage: str) -> Path:
        """What a stage of the root was made of; absent while it is made."""
        return self.state / f"{stage}.stamp"

    @property
    def logs(self) -> Path:
        """Of preparing; the nodes' own logs are on their disks."""
        return self.state / "logs"

    @property
    def keys(self) -> Path:
        """SSH's: one to log in, and each node's own."""
        return self.state / "keys"

    def prepared(self, key: str) -> Path:
        """Disk, keys and password of one variant, as they are after the first start."""
        return self.state / "prepared" / key

    @property
    def client_environment(self) -> Path:
        """Python packages of the machine's own `openstack` command."""
        return self.state / "client"

    @property
    def client(self) -> Path:
        """The command itself."""
        return self.client_environment / "bin/openstack"

    @property
    def evidence_lock(self) -> Path:
        return self.state / "evidence.lock"

    @property
    def evidence(self) -> Path:
        """Runs of drills with all their samples; what is written about them is elsewhere."""
        return self.state / "evidence"

    @property
    def run(self) -> Path:
        """Everything of the running cloud."""
        return self.state / "run"

    @property
    def shared(self) -> Path:
        """What both controllers see: images and keystone's keys."""
        return self.run / "shared"

    @property
    def access(self) -> Path:
        """What somebody needs who uses or drills the cloud."""
        return self.run / "access"

    @property
    def record(self) -> Path:
        """The plan of the running cloud."""
        return self.run / "plan.json"

    def node(self, name: str) -> Path:
        """A node's disk, files and first script."""
        return self.run / "nodes" / name
