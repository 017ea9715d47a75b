"""The HTTP and TCP client for drilled services, and the TLS trust that it and the monitors verify them by.

Asks a service once or until a deadline, for operations and back-end checks. Not a monitor: nothing is
concluded about an outage from here. No redirects, no proxy, a new connection each time.

Trust of an address: what the site says comes first, then its cloud's clouds.yaml (`cacert`, `verify`), then
the CAs of the system.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin

import aiohttp

from homeostat.drills.clouds.connection import verified_by
from homeostat.drills.model import Drill, Operation, Redundancy
from homeostat.drills.planning.blast_radius import collateral, hit_services
from homeostat.drills.planning.preparation import operation_url, service_of, url_of
from homeostat.drills.shipped.services import address_of
from homeostat.drills.site import Site
from homeostat.kernel.errors import BadInput
from homeostat.monitors.node.prober import tls_context

VERIFIED_WITHIN_S = 2.0
_TLS = "https://"


@dataclass(frozen=True, slots=True)
class TlsVerification:
    """How one address is verified. `server_name` None: by the name or address in its URL."""

    cacert: Path | None = None
    server_name: str | None = None
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """A new one; it reads the CAs. BadInput when there are none in the file."""
        return tls_context(str(self.cacert) if self.cacert else None, verify=self.verify)


@dataclass(frozen=True, slots=True)
class TlsTrust:
    """By address. `deviations`: what a report must say about it."""

    addresses: Mapping[tuple[str, int], tuple[str, TlsVerification]] = field(default_factory=dict)
    """The field of the site that names it, and how it is verified."""
    otherwise: TlsVerification = TlsVerification()
    deviations: tuple[str, ...] = ()

    def of(self, url: str) -> TlsVerification:
        """How what answers there is verified."""
        return self._known(url)[1]

    def _known(self, url: str) -> tuple[str, TlsVerification]:
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


SYSTEM_TRUST = TlsTrust()
"""The authorities that this machine trusts."""


def tls_trust_in(site: Site, cloud: TlsVerification | None = None) -> TlsTrust:
    """What a site says, and its clouds.yaml (`cloud`). BadInput when it says two things of one address."""
    otherwise = TlsVerification(site.cacert) if site.cacert or cloud is None else cloud
    found: dict[tuple[str, int], tuple[str, TlsVerification]] = {}
    for named, url, verified in _site_trust(site, otherwise):
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
    return TlsTrust(found, otherwise, (said,) if unverified else ())


def _site_trust(site: Site, otherwise: TlsVerification) -> Iterator[tuple[str, str, TlsVerification]]:
    for name, service in site.services.items():
        verified = TlsVerification(service.cacert) if service.cacert else otherwise
        if service.endpoint is not None:
            yield f"services.{name}.endpoint", service.endpoint, verified
        for host, presence in service.hosts.items():
            if presence.url is not None:
                there = replace(verified, server_name=service.server_name)
                yield f"services.{name}.hosts.{host}.url", presence.url, there


async def read_tls_trust(site: Site) -> TlsTrust:
    """The same, with clouds.yaml read when the site leaves it to that. BadInput; it may take seconds."""
    alone = tls_trust_in(site)
    if site.cloud is None or site.cacert is not None or not alone.addresses:
        return alone
    verify, cacert = await asyncio.to_thread(verified_by, site.cloud)
    return tls_trust_in(site, TlsVerification(cacert, verify=verify))


async def check_certificates(trust: TlsTrust, site: Site, drill: Drill, victim: str) -> None:
    """Of everything that the drill asks or looks after: BadInput for one that cannot be verified."""
    await asyncio.gather(*(trust.check(url) for url in dict.fromkeys(_asked_urls(site, drill, victim))))


def _asked_urls(site: Site, drill: Drill, victim: str) -> Iterator[str]:
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


ONCE_WITHIN_S = 2.0
_AGAIN_S = 0.1
_PLAIN = range(200, 400)


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """What came of it. `made`: the URL of a thing that now exists because of it."""

    ok: bool
    seen: str
    made: str | None = None


class ServiceClient:
    """Asks by HTTP or by a connection; `async with`. No redirects, no proxy, a new connection each time.

    `trust`: by which CAs and names certificates are verified.
    """

    def __init__(self, trust: TlsTrust = SYSTEM_TRUST) -> None:
        self.trust = trust
        self._contexts: dict[TlsVerification, ssl.SSLContext] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=16), cookie_jar=aiohttp.DummyCookieJar()
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def serves(self, url: str) -> ServiceAnswer:
        """Whether something answers there now: any status below 400, or a connection that stands."""
        if url.startswith("tcp:"):
            return await self._connects(url)
        return await self.once("GET", url, _PLAIN, ONCE_WITHIN_S)

    async def once(self, method: str, url: str, expected: Container[int], within_s: float) -> ServiceAnswer:
        assert self._session is not None
        try:
            async with asyncio.timeout(within_s):
                named = self._verified(url) if url.startswith("https:") else {}
                async with self._session.request(method, url, allow_redirects=False, **named) as answer:
                    await answer.read()
                    where = answer.headers.get("Location")
                    made = urljoin(url, where) if where and answer.status == 201 else None
                    return ServiceAnswer(answer.status in expected, str(answer.status), made)
        except TimeoutError:
            return ServiceAnswer(False, f"no answer within {within_s:g} s")
        except aiohttp.ClientConnectorCertificateError as error:
            return ServiceAnswer(
                False, f"its certificate cannot be verified ({_failure_text(error.certificate_error)})"
            )
        except aiohttp.ClientConnectorSSLError as error:  # its numbers are not those of the system
            return ServiceAnswer(False, f"TLS with it fails ({_failure_text(error.os_error)})")
        except aiohttp.ClientConnectorError as error:
            number = error.os_error.errno
            return ServiceAnswer(False, os.strerror(number).lower() if number else str(error.os_error))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return ServiceAnswer(False, str(error) or type(error).__name__)

    def _verified(self, url: str) -> dict[str, Any]:
        """The same name for SNI, certificate and `Host`, as with a monitor."""
        verified = self.trust.of(url)
        if verified not in self._contexts:
            self._contexts[verified] = verified.context()
        words: dict[str, Any] = {"ssl": self._contexts[verified]}
        if verified.server_name is None:
            return words
        host = f"{verified.server_name}:{address_of(url)[1]}"
        return words | {"server_hostname": verified.server_name, "headers": {"Host": host}}

    async def until(self, method: str, url: str, expected: Container[int], within_s: float) -> ServiceAnswer:
        """Again and again until it answers as expected; else the last answer when the time is over."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while True:
            asked = await self.once(method, url, expected, max(0.001, end - loop.time()))
            if asked.ok or loop.time() + _AGAIN_S >= end:
                return asked
            await asyncio.sleep(_AGAIN_S)

    async def _connects(self, url: str) -> ServiceAnswer:
        try:
            host, port = address_of(url)
        except ValueError as error:
            raise BadInput("url", url, str(error)) from None
        try:
            async with asyncio.timeout(ONCE_WITHIN_S):
                _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return ServiceAnswer(True, "accepts connections")
        except TimeoutError:
            return ServiceAnswer(False, f"no connection within {ONCE_WITHIN_S:g} s")
        except OSError as error:
            return ServiceAnswer(False, os.strerror(error.errno).lower() if error.errno else str(error))


def _failure_text(error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return error.verify_message
        case ssl.SSLError(reason=str(reason)):
            return reason.replace("_", " ").lower()
        case _:
            return str(error)
