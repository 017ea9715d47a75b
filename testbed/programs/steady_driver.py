"""nova's small fake driver with an identity that outlives its process.

The shipped one makes up the id of its node anew in every process, and nova-compute, rightly, refuses to
start a second time for a node that the database knows by another id. Runs inside the compute node.
"""

from __future__ import annotations

from typing import Any

from nova.virt import fake
from nova.virt.node import get_local_node_uuid


class SteadyDriver(fake.SmallFakeDriver):  # type: ignore[misc]  # nova has no types
    """One node, known by the id in /var/lib/nova/compute_id."""

    def get_available_resource(self, nodename: str) -> dict[str, Any]:
        """What the shipped one says, under our id."""
        return {**super().get_available_resource(nodename), "uuid": get_local_node_uuid()}

    def get_nodenames_by_uuid(self, refresh: bool = False) -> dict[str, str]:
        """By the same id."""
        return {get_local_node_uuid(): name for name in self.get_available_nodes(refresh)}
