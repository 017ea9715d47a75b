"""What the cloud consists of. Pure: every file of every node follows from one plan.

Two controllers carry every API behind one address; `infra` has what they share; `cmp1` runs guests that
are only said to run. The same plan gives the same files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from homeostat.kernel.errors import BadInput

REGION = "RegionOne"


class Role(StrEnum):
    """What a node is for."""

    controller = "controller"
    infrastructure = "infrastructure"
    compute = "compute"


class Checks(StrEnum):
    """How soon the balancer sees that a service is gone."""

    fast = "fast"
    slow = "slow"


@dataclass(frozen=True, slots=True)
class Node:
    """One node; `last` is the last part of its address."""

    name: str
    role: Role
    last: int


NODES = (
    Node("infra", Role.infrastructure, 10),
    Node("ctl1", Role.controller, 11),
    Node("ctl2", Role.controller, 12),
    Node("cmp1", Role.compute, 21),
)
"""In the order of their start."""

CONTROLLERS = tuple(each for each in NODES if each.role is Role.controller)
NODE_1 = CONTROLLERS[0]
"""The controller that drills hit."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """Made at random with the disk that holds them."""

    password: str
    """Of the administrator, of every service's user, of the database and of RabbitMQ."""

    key: str
    """With which heat encrypts what it stores: 32 characters."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the files follow from."""

    secrets: Secrets
    network: str = "10.77.0"
    database_on: str = "infra"
    vip_on: str = NODE_1.name
    checks: Checks = Checks.fast
    not_restarted: tuple[str, ...] = ()
    """Services of ctl1 that its supervisor leaves dead."""

    def __post_init__(self) -> None:
        if self.database_on not in ("infra", NODE_1.name):
            raise BadInput("database_on", self.database_on, f"give infra or {NODE_1.name}")
        if self.vip_on not in {each.name for each in CONTROLLERS}:
            raise BadInput("vip_on", self.vip_on, f"give {' or '.join(each.name for each in CONTROLLERS)}")
        parts = self.network.split(".")
        if len(parts) != 3 or not all(part.isdigit() and int(part) < 256 for part in parts):
            raise BadInput("network", self.network, "give the first three parts of a /24, such as 10.77.0")

    @property
    def vip(self) -> str:
        """The address that moves between the controllers."""
        return f"{self.network}.100"

    @property
    def host_address(self) -> str:
        """The machine itself, as the nodes see it."""
        return f"{self.network}.1"

    def address(self, node: Node) -> str:
        return f"{self.network}.{node.last}"

    @property
    def database_address(self) -> str:
        return self.address(node_named(self.database_on))

    @property
    def infra_address(self) -> str:
        return self.address(node_named("infra"))

    def url(self, port: int, path: str = "") -> str:
        """Where a service is found by its users."""
        return f"http://{self.vip}:{port}{path}"

    @property
    def variant(self) -> str:
        """What is written into prepared disks: addresses, and on whose disk the database is."""
        return f"{self.network}-database-on-{self.database_on}"


def node_named(name: str) -> Node:
    """BadInput names those that there are."""
    for each in NODES:
        if each.name == name:
            return each
    raise BadInput("node", name, f"give one of {', '.join(each.name for each in NODES)}")


def cpu_sets(cpus: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Which CPUs a node may use, so that a load on Node1 takes nothing from the others.

    Node1 has a third of them, at least one; the others share the rest. A single CPU is everybody's.
    """
    if len(cpus) < 2:
        return {each.name: tuple(cpus) for each in NODES}
    mine = max(1, len(cpus) // 3)
    return {each.name: tuple(cpus[:mine] if each is NODE_1 else cpus[mine:]) for each in NODES}
