"""What `homeostat up` is told, and where everything of one lab lies.

Pure: no file is read or written here. Everything a lab keeps is below one directory, which has one owner.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from homeostat.contracts.nouns import HostId

PROGRAM = (sys.executable, "-m", "homeostat.cli")
"""How a child runs our own command line."""


@dataclass(frozen=True, slots=True)
class UpSettings:
    """`state_dir` holds all state. `renew_ports` picks new ports for those that somebody else has taken.

    `program` is how a child runs our own command line.
    """

    state_dir: Path
    renew_ports: bool = False
    program: tuple[str, ...] = PROGRAM


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """The layout of one lab. `root` is absolute."""

    root: Path

    @property
    def lock_file(self) -> Path:
        return self.root / "lock"

    @property
    def lab_file(self) -> Path:
        return self.root / "lab.json"

    @property
    def credentials_file(self) -> Path:
        return self.root / "credentials.json"

    @property
    def client_file(self) -> Path:
        return self.root / "client.json"

    @property
    def children_file(self) -> Path:
        return self.root / "children.json"

    @property
    def heard_file(self) -> Path:
        return self.root / "heard.jsonl"

    @property
    def consumer_file(self) -> Path:
        return self.root / "consumer.json"

    @property
    def site_file(self) -> Path:
        """What of this lab can be drilled, and how its hosts are reached."""
        return self.root / "site.yaml"

    @property
    def balancer_lock_file(self) -> Path:
        return self.root / "balancer.lock"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def doctor_monitor_log(self) -> Path:
        return self.logs / "doctor_monitor.log"

    @property
    def doctor_consumer_log(self) -> Path:
        return self.logs / "doctor_consumer.log"

    @property
    def nats(self) -> Path:
        return self.root / "nats"

    @property
    def nats_config_file(self) -> Path:
        return self.nats / "nats.conf"

    @property
    def server(self) -> Path:
        return self.root / "server"

    @property
    def server_config_file(self) -> Path:
        return self.server / "server.yaml"

    @property
    def server_local_file(self) -> Path:
        """What a person wants otherwise in server.yaml; never written by us."""
        return self.root / "server.local.yaml"

    @property
    def server_nats_password_file(self) -> Path:
        return self.server / "nats.password"

    @property
    def admin_token_file(self) -> Path:
        return self.server / "admin.token"

    @property
    def hosts(self) -> Path:
        return self.root / "hosts"

    def host(self, host: HostId) -> Path:
        return self.hosts / host

    def off_file(self, host: HostId) -> Path:
        """While it is there the host is off: nothing of it is started."""
        return self.host(host) / "off"

    def node_config_file(self, host: HostId) -> Path:
        return self.host(host) / "node.yaml"

    def node_nats_password_file(self, host: HostId) -> Path:
        return self.host(host) / "nats.password"

    def resource_log(self, host: HostId, resource: str) -> Path:
        return self.host(host) / "logs" / f"{resource}.log"

    def ready_file(self, host: HostId, resource: str) -> Path:
        return self.host(host) / f"{resource}.ready"
