"""Whom the monitors and operations of a site believe: by which CAs and names its certificates are verified.

What the site says comes first, then its cloud's clouds.yaml (`cacert`, `verify`), then the CAs of the system.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from homeostat.drills.clouds.opening import verified_by
from homeostat.drills.model import Drill, Operation, Redundancy
from homeostat.drills.planning.guards import collateral, hit_services
from homeostat.drills.planning.preparation import operation_url, service_of, url_of
from homeostat.drills.site import Site, address_of
from homeostat.kernel.errors import BadInput
from homeostat.monitors.node_tls import context_of

VERIFIED_WITHIN_S = 2.0
_TLS = "https://"


@dataclass(frozen=True, slots=True)
class Verified:
    """How one address is verified. `server_name` None: by the name or address in its URL."""

    cacert: Path | None = None
    server_name: str | None = None
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """A new one; it reads the CAs. BadInput when there are none in the file."""
        return context_of(str(self.cacert) if self.cacert else None, verify=self.verify)


@dataclass(frozen=True, slots=True)
class Trust:
    """By address. `deviations`: what a report must say about it."""

    addresses: Mapping[tuple[str, int], tuple[str, Verified]] = field(default_factory=dict)
    """The field of the site that names it, and how it is verified."""
    otherwise: Verified = Verified()
    deviations: tuple[str, ...] = ()

    def of(self, url: str) -> Verified:
        """How what answers there is verified."""
        return self._known(url)[1]

    def _known(self, url: str) -> tuple[str, Verified]:
        return self.addresses.get(address_of(url), ("target.url", self.otherwise))

    async def check(self, url: str) -> None:
        """BadInput when its certificate cannot be verified now. Who does not answer says nothing of it."""
        if not url.startswith(_TLS):
            return
        named, verified = self._known(url)
        host, port = address_of(url)
        context = verified.context()
        try:
            async with asyncio.timeout(VERIFIED_WITHIN_S):
                _, writer = await asyncio.open_connection(
                    host, port, ssl=context, server_hostname=verified.server_name or host
                )
            writer.transport.abort()
        except ssl.SSLCertVerificationError as error:
            remedy = "cacert for its CA, server_name for another name in it, or a valid one there"
            words = f"a certificate that can be verified ({error.verify_message}); {remedy}"
            raise BadInput(named, url, words) from None
        except ssl.SSLError as error:
            if error.reason == "WRONG_VERSION_NUMBER":
                words = "http://, if it speaks no TLS there: its answer is none of TLS"
                raise BadInput(named, url, words) from None
        except OSError:  # a TimeoutError is one, too
            pass


SYSTEM = Trust()
"""Who this machine believes."""


def trust_in(site: Site, cloud: Verified | None = None) -> Trust:
    """What a site says, and its clouds.yaml (`cloud`). BadInput when it says two things of one address."""
    otherwise = Verified(site.cacert) if site.cacert or cloud is None else cloud
    found: dict[tuple[str, int], tuple[str, Verified]] = {}
    for named, url, verified in _said(site, otherwise):
        if not url.startswith(_TLS):
            continue
        before = found.setdefault(address_of(url), (named, verified))
        if before[1] != verified:
            words = f"the same cacert and server_name as {before[0]}, which is at the same address"
            raise BadInput(named, url, words)
    for host, each in site.hosts.items():
        if each.probe is not None and each.probe.startswith(_TLS):
            # At the address of a service it is verified as that one is.
            found.setdefault(address_of(each.probe), (f"hosts.{host}.probe", otherwise))
    unverified = found and not otherwise.verify and any(not by.verify for _, by in found.values())
    said = "certificates are not verified: `verify: false` of clouds.yaml"
    return Trust(found, otherwise, (said,) if unverified else ())


def _said(site: Site, otherwise: Verified) -> Iterator[tuple[str, str, Verified]]:
    for name, service in site.services.items():
        verified = Verified(service.cacert) if service.cacert else otherwise
        if service.endpoint is not None:
            yield f"services.{name}.endpoint", service.endpoint, verified
        for host, presence in service.hosts.items():
            if presence.url is not None:
                there = replace(verified, server_name=service.server_name)
                yield f"services.{name}.hosts.{host}.url", presence.url, there


async def trusted(site: Site) -> Trust:
    """The same, with clouds.yaml read when the site leaves it to that. BadInput; it may take seconds."""
    alone = trust_in(site)
    if site.cloud is None or site.cacert is not None or not alone.addresses:
        return alone
    verify, cacert = await asyncio.to_thread(verified_by, site.cloud)
    return trust_in(site, Verified(cacert, verify=verify))


async def check_certificates(trust: Trust, site: Site, drill: Drill, victim: str) -> None:
    """Of everything that the drill asks or looks after: BadInput for one that cannot be verified."""
    await asyncio.gather(*(trust.check(url) for url in dict.fromkeys(_asked(site, drill, victim))))


def _asked(site: Site, drill: Drill, victim: str) -> Iterator[str]:
    for monitor in drill.monitors:
        if monitor.kind == "http":
            yield url_of(site, monitor.target, victim, f"monitors.{monitor.id}.target")
    for operation in drill.operations.all:
        if isinstance(operation, Operation) and operation.kind == "http":
            yield operation_url(site, operation, victim)
    # Else a back end that nobody believes would be down for who looks after what the drill does not mean.
    yield from (each.url for each in collateral(site, drill, victim))
    needed = {each.service for each in drill.preconditions if isinstance(each, Redundancy)}
    for name in needed | set(hit_services(site, drill, victim)):
        service = service_of(site, name, "preconditions.service")
        yield from (presence.url for presence in service.hosts.values() if presence.url is not None)
