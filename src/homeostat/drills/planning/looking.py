"""What is looked at before anything is broken: holders, back ends, room, open faults. Touches nothing.

`guards` and the checkers decide what follows from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from homeostat.drills.cloud_operation import Phase
from homeostat.drills.fault import Disk
from homeostat.drills.model import Drill, FreeSpace, NoOpenFaults, Redundancy
from homeostat.drills.planning.asking import Asker
from homeostat.drills.planning.guards import Serving, held
from homeostat.drills.planning.preparation import asks_for_holder, order_of, service_of
from homeostat.drills.records.facts import HolderSeen, PreconditionSeen
from homeostat.drills.site import Presence, Site, SiteService
from homeostat.drills.transports.opening import Transports
from homeostat.kernel.client import Client
from homeostat.kernel.errors import BadInput, HomeostatError

_GIB = 1 << 30
_OPEN_SHOWN = 5
HOLDERS_WITHIN_S = 90.0
"""For who holds an address, before the fault and after it: longer than a host takes to be reached at all."""
HOLDERS_HELD_S = 5.0
"""The same while the fault stands: what is not said by then is silence, and no fault stands longer for it."""


class Looking:
    """Asks hosts and services of a site."""

    def __init__(self, site: Site, transports: Transports, asker: Asker) -> None:
        self._site, self._transports, self._asker = site, transports, asker

    async def holders(self, drill: Drill) -> tuple[str, ...]:
        """The hosts that hold the target's address; none when the drill does not ask for it."""
        target = drill.fault.target
        if not asks_for_holder(target):
            return ()
        service = service_of(self._site, str(target.service), "fault.target.service")
        return tuple(
            host
            for host, holds in zip(
                sorted(service.hosts),
                await asyncio.gather(*(self._holds(service, host) for host in sorted(service.hosts))),
                strict=True,
            )
            if holds
        )

    async def holder(self, name: str, when: Phase, without: Collection[str] = ()) -> HolderSeen:
        """Who says now that it holds the address of a service. `without`: hosts that are off for certain.

        One that has not said it in time is silent; that time is short while the fault stands.
        """
        within_s = HOLDERS_HELD_S if when == "during" else HOLDERS_WITHIN_S
        service = self._site.services[name]
        hosts = [host for host in sorted(service.hosts) if host not in without]
        asked = (asyncio.wait_for(self._holds(service, host), within_s) for host in hosts)
        found = dict(zip(hosts, await asyncio.gather(*asked, return_exceptions=True), strict=True))
        for each in found.values():
            if isinstance(each, BaseException) and not isinstance(each, HomeostatError | TimeoutError):
                raise each
        silent = tuple(host for host, each in found.items() if isinstance(each, BaseException))
        return HolderSeen(name, when, tuple(host for host, each in found.items() if each is True), silent)

    async def _holds(self, service: SiteService, host: str) -> bool:
        if service.endpoint is None:
            raise BadInput("services.endpoint", None, "the address that somebody holds")
        profile = service.hosts[host].profile
        return await self._transports[host].holds(profile, service.holder, service.endpoint)

    async def serving(self, service: str) -> list[Serving]:
        """Every host's part of a service: asked where it answers, else whether its processes are there."""
        on = sorted(self._site.services[service].hosts.items())
        return list(await asyncio.gather(*(self._serves(host, each) for host, each in on)))

    async def _serves(self, host: str, presence: Presence) -> Serving:
        if presence.url is not None:
            asked = await self._asker.serves(presence.url)
            return Serving(host, asked.ok, asked.seen)
        try:
            found = await self.matched(host, presence.profile, f"look-{host}-{presence.profile}")
        except HomeostatError as error:
            return Serving(host, False, str(error))
        return Serving(host, bool(found), f"{len(found)} processes")

    async def matched(self, host: str, profile: str, name: str) -> list[dict[str, Any]]:
        """The processes of a profile on a host, as a kill would plan it. NotFound when there are none."""
        target = {"profile": profile, "allow_collateral": True, "only_look": True}
        record = {"fault": name[:63], "injector": "node_kill", "target": target}
        answered = await self._transports[host].verb("plan", record)
        found: list[dict[str, Any]] = answered["plan"]["matched"]
        return found

    async def precondition(self, number: int, drill: Drill, victim: str) -> PreconditionSeen:
        """One of the drill's list."""
        asked = drill.preconditions[number]
        match asked:
            case Redundancy():
                return PreconditionSeen(number, *held(asked, await self.serving(asked.service)))
            case FreeSpace():
                return PreconditionSeen(number, *await self._room(asked, drill, victim))
            case NoOpenFaults():
                return PreconditionSeen(number, *await self._open_faults())

    async def _room(self, asked: FreeSpace, drill: Drill, victim: str) -> tuple[bool, str]:
        record = {"fault": f"look-{victim}-room"[:63], "injector": "node_disk", "target": {}}
        if isinstance(drill.fault, Disk):  # the disk that will be hit
            record = order_of(self._site, drill.fault, victim, str(record["fault"]), 30.0)
        try:
            section = (await self._transports[victim].verb("probe", record))["probe"]
        except HomeostatError as error:
            return False, str(error)
        if "free_bytes" not in section:
            return False, "; ".join(section["missing"])
        free_gib = section["free_bytes"] / _GIB
        return free_gib >= asked.at_least_gib, f"{free_gib:.1f} GiB free on {victim}"

    async def _open_faults(self) -> tuple[bool, str]:
        """Nothing that a drill left, on any host; and nothing open at our own fault manager."""
        hosts = sorted(self._site.hosts)
        found = await asyncio.gather(*(self._left_on(host) for host in hosts))
        left = [each for several in found for each in several]
        left += await asyncio.to_thread(self._open_at_the_server)
        shown = ", ".join(left[:_OPEN_SHOWN]) + (" ..." if len(left) > _OPEN_SHOWN else "")
        return not left, f"open: {shown}" if left else f"none on {len(hosts)} hosts"

    async def _left_on(self, host: str) -> Sequence[str]:
        try:
            status = await self._transports[host].status()
        except HomeostatError as error:
            return [f"{host} cannot be asked ({error})"]
        return [f"{fault} on {host}" for fault in status["open"]]

    async def fenced_late(self, host: str) -> str | None:
        """Why our own server may still have a host switched off that is on again; None when it will not."""
        if self._site.server is None:
            return None
        try:
            answer = await asyncio.to_thread(self._at_the_server, "/hosts")
        except HomeostatError as error:
            return f"our own server cannot be asked ({error})"
        for each in answer["items"]:
            if each["host"] == host and (each["acting"] or each["state"] != "up"):
                return f"our own server: {host} is {', '.join(each['acting']) or each['state']}"
        return None

    def _open_at_the_server(self) -> list[str]:
        if self._site.server is None:
            return []
        try:
            answer = self._at_the_server("/faults", state="open")
        except HomeostatError as error:
            return [f"our own server cannot be asked ({error})"]
        return [f"{each['kind']} {each['id']}" for each in answer["items"]]

    def _at_the_server(self, path: str, **query: str) -> Any:
        server = self._site.server
        assert server is not None
        try:
            token = server.token_file.read_text().strip()
        except OSError as error:
            raise BadInput("server.token_file", str(server.token_file), str(error.strerror)) from error
        return Client(server.url.rstrip("/"), token).call("GET", path, **query)
