"""From a host of the site to its transport. Only what a host needs is imported."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from homeostat.drills.site import Site
from homeostat.drills.transports.local import LocalTransport
from homeostat.drills.transports.port import HostTransport


def transport_to(site: Site, host: str, folder: Path) -> HostTransport:
    """The transport to one host; `folder` holds the records of its faults."""
    given = site.hosts[host]
    if given.ssh is not None:
        from homeostat.drills.transports.ssh import SshTransport

        return SshTransport(host, given.ssh)
    if given.node:
        from homeostat.drills.transports.by_node import NodeTransport

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
            self._opened[host] = transport_to(self._site, host, self._folder)
        return self._opened[host]

    def to(self, hosts: Iterable[str]) -> list[HostTransport]:
        """In this order."""
        return [self[host] for host in hosts]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with AsyncExitStack() as stack:
            for each in self._opened.values():
                stack.push_async_callback(each.close)
