"""The transports to the hosts of a site, one for each, made on first use; and that to this machine.

Only what a host needs is imported. A host that is this machine: its own node.yaml decides, and each verb is
a process of its own. The record of a fault lies as `<fault>.order` in the folder that was given. `inject` has
a session of its own: Ctrl-C at the tool does not reach it, and its keeper ends it if it must.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from homeostat.drills.node.settings import DrilledNodeSettings, read_drilled_node
from homeostat.drills.shipped.keeper import machine
from homeostat.drills.shipped.services import answer_order
from homeostat.drills.site import Site
from homeostat.drills.transports.port import HostTransport, Verb
from homeostat.kernel import errors
from homeostat.kernel.files import read_json, write_json
from homeostat.kernel.terminal import BROKEN, DAMAGED, ERROR_PREFIX, NOT_ALLOWED, NOT_FOUND, NOT_NOW
from homeostat.monitors.shipped.process_watch import WatchConfig
from homeostat.monitors.supervision import MonitorCommand, monitor_command

VERB_WITHIN_S = 90.0
"""No verb takes longer: the longest looks at its effect for a minute."""
_MEANT: dict[int, type[errors.HomeostatError]] = {
    NOT_NOW: errors.RetryLater,
    NOT_FOUND: errors.NotFound,
    NOT_ALLOWED: errors.NotAllowed,
    DAMAGED: errors.CorruptState,
}


def error_of_exit(code: int, said: str, what: str) -> errors.HomeostatError:
    """What the injector program meant by its exit code and its one line."""
    lines = said.strip().splitlines() or [f"{what} ended with {code} and said nothing"]
    return _MEANT.get(code, errors.GiveUp)(lines[-1].removeprefix(ERROR_PREFIX))


class LocalTransport(HostTransport):
    """One host of this machine."""

    def __init__(self, host: str, config: Path, folder: Path) -> None:
        super().__init__(host)
        self._config, self._folder = config, folder

    async def call(self, order: str, given: Mapping[str, Any]) -> Any:
        """See the port. The clock is ours, too, whatever the file says."""
        if order == "clock":
            return machine.now_ns()
        node = self._node()
        if order == "verb":
            return await self._verb(given["verb"], given["record"])
        return await asyncio.to_thread(answer_order, order, given, node.keeper, node.permitted)

    def watch(self, config: WatchConfig, folder: Path) -> MonitorCommand:
        return monitor_command(config, folder)

    async def _verb(self, verb: Verb, record: dict[str, Any]) -> Any:
        """Run the injector program; the section that it adds to the record."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{record['fault']}.order"
        write_json(path, record)
        argv = [sys.executable, "-m", "homeostat.drills.node.injector", verb]
        argv += ["--plan", str(path), "--config", str(self._config)]
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(VERB_WITHIN_S):
                _, said = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise errors.RetryLater(f"{self.host}: {verb} was not done within {VERB_WITHIN_S:g} s") from None
        code = process.returncode or 0
        answer = read_json(path)
        if code not in (0, BROKEN) or answer is None or not isinstance(answer.get(verb), dict):
            raise error_of_exit(code, said.decode(errors="replace"), f"{self.host}: {verb}")
        return answer[verb]

    def _node(self) -> DrilledNodeSettings:
        """What its node.yaml says now. BadInput for the file of another host: that one would be hit."""
        found = read_drilled_node(self._config)
        if found.host != self.host:
            raise errors.BadInput(
                f"hosts.{self.host}.config",
                str(self._config),
                f"a node.yaml of this host, not of {found.host}",
            )
        return found


def open_transport(site: Site, host: str, folder: Path) -> HostTransport:
    """The transport to one host; `folder` holds the records of its faults."""
    given = site.hosts[host]
    if given.ssh is not None:
        from homeostat.drills.transports.remote import SshTransport

        return SshTransport(host, given.ssh)
    if given.node:
        from homeostat.drills.transports.remote import NodeTransport

        assert site.server is not None, "a site with such a host has a server"
        return NodeTransport(host, site.server)
    assert given.config is not None
    return LocalTransport(host, given.config, folder)


class Transports:
    """One for each host of the site, made when it is first asked for; closed with `async with`."""

    def __init__(self, site: Site, folder: Path) -> None:
        self._site, self._folder = site, folder
        self._opened: dict[str, HostTransport] = {}

    def __getitem__(self, host: str) -> HostTransport:
        if host not in self._opened:
            self._opened[host] = open_transport(self._site, host, self._folder)
        return self._opened[host]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        async with AsyncExitStack() as stack:
            for each in self._opened.values():
                stack.push_async_callback(each.close)
