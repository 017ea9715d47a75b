"""A host without a process of ours, reached by SSH: our files are sent there, its own file decides.

Stamps come from that host; no round trip lies within what is measured. `inject` is a process there, and the
undo keeper, which was started before anything is broken, needs neither the connection nor us. The library is
imported with the first connection.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from homeostat.drills.transports.port import Verb
from homeostat.drills.transports.ssh_settings import SshAccess
from homeostat.kernel.errors import BadInput
from homeostat.monitors.node_process_watch import WatchConfig
from homeostat.monitors.supervision import MonitorCommand

if TYPE_CHECKING:
    from homeostat.drills.transports.ssh_link import SshLink

_STOP_S = 10.0
"""Its last words have to come over the network."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


class SshTransport:
    """One host. It connects when it is first asked, and again when the connection is over."""

    def __init__(self, host: str, access: SshAccess) -> None:
        self.host = host
        self._access = access
        self._link: SshLink | None = None
        self._linking = asyncio.Lock()

    async def verb(self, verb: Verb, record: dict[str, Any]) -> dict[str, Any]:
        """See the port."""
        section = await (await self._linked()).verb(verb, record)
        return {**record, verb: section}

    async def renew(self, fault: str) -> None:
        """See the port."""
        await (await self._linked()).ask("renew", fault=fault)

    async def heal(self) -> list[dict[str, Any]]:
        """See the port."""
        outcomes: list[dict[str, Any]] = await (await self._linked()).ask("heal")
        return outcomes

    async def status(self) -> dict[str, Any]:
        """See the port."""
        found: dict[str, Any] = await (await self._linked()).ask("status")
        return found

    async def clock_ns(self) -> int:
        """See the port."""
        return int(await (await self._linked()).ask("clock"))

    async def holds(self, profile: str, how: str, endpoint: str) -> bool:
        """See the port."""
        parts = urlsplit(endpoint)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
        if not parts.hostname or port is None:
            raise BadInput("endpoint", endpoint, "host and port, as in tcp://10.0.0.1:443")
        link = await self._linked()
        return bool(await link.ask("holds", profile=profile, how=how, name=parts.hostname, port=port))

    async def restart(self, profile: str, run: str) -> str:  # noqa: ARG002  nobody stands in between here
        """See the port."""
        return str(await (await self._linked()).restart(profile))

    def watch(self, config: WatchConfig, folder: Path) -> MonitorCommand:
        """See the port. A process of ours, with a connection of its own, says here what is said there."""
        path = folder / f"{config.name}.monitor.json"
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        ssh = self._access.model_dump(mode="json")
        path.write_text(json.dumps({"host": self.host, "ssh": ssh, "watch": asdict(config.checked())}))
        argv = (sys.executable, "-m", "homeostat.drills.transports.ssh_watch", "--config", str(path))
        return MonitorCommand(config.name, argv, path, Path(config.sightings_file), _STOP_S, "sightings")

    async def close(self) -> None:
        """The keeper there goes on."""
        if self._link is not None:
            await self._link.close()
            self._link = None

    async def _linked(self) -> SshLink:
        from homeostat.drills.transports.ssh_link import open_link

        async with self._linking:
            if self._link is not None and self._link.closed:
                await self.close()
            if self._link is None:
                self._link = await open_link(self.host, self._access)
            return self._link
