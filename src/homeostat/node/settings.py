"""Settings of a node (node.yaml): what its process may know and do. Decided on the node, never by the
server.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from homeostat.contracts.nouns import HOST_ID, HostId
from homeostat.drills.node.settings import HostDrillSettings
from homeostat.kernel.config import NatsSettings, StrictSettings
from homeostat.resources.settings import RunnerSettings

STOP_MARGIN_S = 10.0
"""Seconds that a role has for itself when it stops."""


class NodeNatsSettings(NatsSettings):
    """The same as a server's, with more patience: there are many nodes."""

    user: str
    """The account: the name of the host. It may publish and hear nothing of other hosts."""

    ping_interval_s: float = Field(default=2.0, ge=0.1, le=60)
    """Seconds between pings; a frozen NATS server goes unnoticed for three of them. Too small: thousands of
    nodes keep NATS busy with pings. Too large: observations wait for a connection that is dead."""


class NodeSettings(StrictSettings, frozen=True):
    """One node."""

    host: HostId = Field(pattern=HOST_ID)
    """The name of this host, the same everywhere."""

    state_dir: Path
    """Where observations, pid files and logs of acts are kept. One node process a directory."""

    nats: NodeNatsSettings

    heartbeat_s: float = Field(default=1.0, ge=0.05, le=60)
    """Seconds between heartbeats. Formula: a third of the server's fleet.lost_after_s. Too small: costs the
    server CPU for every node. Too large: a healthy node looks silent."""

    role_stop_s: float | None = Field(default=None, gt=0)
    """Seconds between SIGTERM and SIGKILL of a role. Default: what the slowest resource may take, and 10 s.
    Too small: an `on_stop: stop` is cut short. Too large: a hanging role delays the stop of the node."""

    goodbye_s: float = Field(default=2.0, ge=0)
    """Seconds that a stopping node waits for the server to acknowledge its last observations. Too small:
    they are told after the next start only. Too large: a stop without a server takes that long."""

    unacknowledged_max: int = Field(default=10_000, ge=100)
    """Transitions kept while the server is away, about 500 bytes each; beyond, the oldest are dropped and
    counted. Too small: a long absence of the server loses observations. Too large: disk."""

    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    """debug, info, warning or error."""

    runner: RunnerSettings = RunnerSettings()

    drills: HostDrillSettings = HostDrillSettings()

    @property
    def runner_stop_s(self) -> float:
        """Seconds that the runner has to stop: a start that has just begun, and the stop after it."""
        if self.role_stop_s is not None:
            return self.role_stop_s
        each = [one.operations for one in self.runner.resources if self.runner.on_stop == "stop"]
        return STOP_MARGIN_S + max((one.start.timeout_s + one.stop.timeout_s for one in each), default=0.0)
