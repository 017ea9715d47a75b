"""A host with a node process, a server and NATS, all real: what a tool reaches by `node: true`."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from broken_host import KINDS, BrokenHost, until

from homeostat.drills.site import SiteServer
from homeostat.drills.transports.remote import NodeTransport
from homeostat.kernel.client import Client
from real_parts import NatsServer
from running_server import RunningServer, running_server


@dataclass
class NodeHost(BrokenHost):
    """A broken host whose node process runs, below a server."""

    server: RunningServer = field(kw_only=True)
    nats: NatsServer = field(kw_only=True)
    ground: Path = field(kw_only=True)
    """The folder of server and NATS."""

    def permit(self, **drills: Any) -> None:
        """Write node.yaml; read again for every question. `enabled=None`: without a `drills:` part."""
        permitted = {"enabled": True, "injectors": list(KINDS), "writable_paths": [str(self.root)]} | drills
        password = self.root / "n1.password"
        password.write_text("n1-secret")
        given = {
            "host": "n1",
            "state_dir": str(self.root / "state"),
            "heartbeat_s": 0.2,
            "nats": {"url": self.nats.url, "user": "n1", "password_file": str(password)},
        }
        self.config.write_text(
            yaml.safe_dump(given | ({} if permitted["enabled"] is None else {"drills": permitted}))
        )

    def start_node(self) -> subprocess.Popen[bytes]:
        """Start the node process, and return when it hears what it is asked."""
        log, before = self.root / "node.log", self._connected()
        argv = (sys.executable, "-m", "homeostat.node.main", str(self.config))
        with log.open("ab") as file:
            node = self.start(*argv, stdout=file, stderr=file)
        until(lambda: self._connected() > before or node.poll() is not None, "the node process hears")
        assert node.poll() is None, log.read_text()
        until(lambda: '"n1"' in self.server.get("/api/v1/nodes")[1], "the server knows the node")
        return node

    def _connected(self) -> int:
        log = self.root / "node.log"
        return log.read_text().count("connected to NATS") if log.exists() else 0

    @property
    def site_server(self) -> SiteServer:
        """As a site file has it."""
        return SiteServer(url=self.server.url, token_file=self.ground / "admin.token")

    def transport(self, host: str = "n1", client: Client | None = None) -> NodeTransport:
        """By the node, with the administrator's token or another one."""
        if client is None:
            return NodeTransport(host, self.site_server)
        path = self.root / f"token-{uuid.uuid4().hex[:8]}"
        path.write_text(client.token)
        return NodeTransport(host, SiteServer(url=client.url, token_file=path))

    def announce(self, run: str, *hosts: str, client: Client | None = None) -> None:
        """Begin a run on a site of its own; its claim is open for some seconds from now."""
        body = {"run": run, "drill": "by-hand", "site": f"s-{run}", "hosts": list(hosts or ("n1",))}
        (client or self.server.client).call("POST", "/drills/runs", body)

    def announced(self, injector: str, target: dict[str, Any], deadline_s: float = 30.0) -> dict[str, Any]:
        """A record with a new fault, whose run has begun."""
        record: dict[str, Any] = json.loads(self.order(injector, target, deadline_s).read_text())
        self.announce(record["fault"])
        return record

    def token(self, name: str, role: str, project: str) -> Client:
        """A client with a token of its own."""
        made = self.server.client.call("PUT", f"/tokens/{name}", {"role": role, "project": project})
        return Client(self.server.url, made["token"])


@dataclass
class Ground:
    """A NATS server and a server of ours, for one host after the other."""

    folder: Path
    nats: NatsServer
    server: RunningServer

    @contextmanager
    def host(self, root: Path) -> Iterator[NodeHost]:
        """A host that permits everything and its node process, until the end of the test."""
        host = NodeHost(root, server=self.server, nats=self.nats, ground=self.folder)
        host.permit()
        try:
            host.start_node()
            yield host
        finally:
            host.end()
            if not self.server.status("/healthz"):
                self.server.kill()
                self.server.start()
            self.server.client.call("POST", "/drills/resume")


@contextmanager
def real_ground(folder: Path) -> Iterator[Ground]:
    """Both run, until the end of the tests."""
    nats = NatsServer(folder)
    nats.start()
    try:
        with running_server(folder, nats) as server:
            yield Ground(folder, nats, server)
    finally:
        nats.kill()
