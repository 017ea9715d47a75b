"""Decides which webhook URLs and addresses may be connected to; `webhook` connects to nothing else.

Three steps, each with its own refusal: the text of the URL (`parse`), the addresses behind its name
(`judge` for each), and at every connect the very address that the socket is about to use. A name that
changes its address after the check therefore gains nothing.

Always refused, whatever is allowed: link-local, cloud metadata, multicast, unspecified, reserved, and our
own listeners. Otherwise `allowed_networks`; when that is empty, public addresses only.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import psutil

from homeostat.kernel.errors import BadInput

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Listener = tuple[str, int]
"""Host (an address, a name, or "" for all) and port that this installation listens on."""

_URL_LENGTH_MAX = 2048
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s/?#@:\\\[\]]+)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<rest>[/?][!$&-;=?-Z_a-z~%\[\]]*)?",
    re.IGNORECASE | re.ASCII,
)
_NAME = re.compile(
    r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*", re.ASCII
)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)

_METADATA = frozenset(
    ip_address(each)
    for each in (
        "169.254.169.254",  # most clouds
        "169.254.170.2",  # containers at AWS
        "fd00:ec2::254",  # AWS over IPv6
        "fd20:ce::254",  # Google over IPv6
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure, a public address
        "192.0.0.192",  # Oracle
    )
)
_NAT64 = ip_network("64:ff9b::/96")
_NAT64_LOCAL = ip_network("64:ff9b:1::/48")
_THIS_HOST = ip_network("0.0.0.0/8")
_RESERVED = ip_network("240.0.0.0/4")
_SITE_LOCAL = ip_network("fec0::/10")

# The IANA Special-Purpose Address Registries (IPv4, IPv6) of 2025: blocks that are not globally reachable,
# and those inside them that are. `is_global` of the standard library knows the registries of the day on which
# that Python was made: to the 3.11.2 of Debian 12, 192.0.0.8 is public.
_NOT_PUBLIC = tuple(
    ip_network(each)
    for each in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "240.0.0.0/4",  # reserved, and broadcast
        "::/128",  # unspecified
        "::1/128",  # loopback
        "::ffff:0:0/96",  # mapped
        "64:ff9b:1::/48",  # translated, for local use
        "100::/64",  # discard-only
        "100:0:0:1::/64",  # dummy prefix
        "2001::/23",  # protocol assignments, Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fc00::/7",  # unique local
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local, deprecated
    )
)
_PUBLIC_INSIDE = tuple(
    ip_network(each)
    for each in (
        "192.0.0.9/32",  # port control protocol, anycast
        "192.0.0.10/32",  # TURN, anycast
        "2001:1::1/128",  # port control protocol, anycast
        "2001:1::2/128",  # TURN, anycast
        "2001:1::3/128",  # DNS-SD service registration, anycast
        "2001:3::/32",  # AMT
        "2001:4:112::/48",  # AS112
        "2001:20::/28",  # ORCHIDv2
        "2001:30::/28",  # drone remote identification
    )
)

ACCEPTED = "http:// or https:// with a host name or a plain address, without user, password and fragment"


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """A URL that may be looked up. `address` is set when the host is an address already."""

    url: str
    host: str
    port: int
    address: Address | None

    @property
    def place(self) -> str:
        """Host and port: what is behind it fails together."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class AddressGuard:
    """What is allowed. `own` holds every address and port that leads back to this installation."""

    allowed_networks: tuple[Network, ...] = ()
    own: frozenset[tuple[Address, int]] = frozenset()
    own_ports_on_loopback: frozenset[int] = frozenset()

    def judge(self, address: Address, port: int) -> str | None:
        """Why we do not connect there; None when we do."""
        for face in faces(address):
            reason = self._judge_face(face, port)
            if reason is not None:
                return f"{address} {reason}"
        return None

    def _judge_face(self, address: Address, port: int) -> str | None:
        reason = _always_refused(address)
        if reason is not None:
            return reason
        if (address, port) in self.own or (address.is_loopback and port in self.own_ports_on_loopback):
            return f"with port {port} is one of our own listeners"
        if self.allowed_networks:
            inside = any(address in network for network in self.allowed_networks)
            return None if inside else "is outside notices.allowed_networks"
        return None if is_public(address) else "is not a public address and notices.allowed_networks is empty"


def is_public(address: Address) -> bool:
    """True for an address that the whole internet can reach, by the registries of IANA, on every Python."""
    if any(address in network for network in _NOT_PUBLIC):
        return any(address in network for network in _PUBLIC_INSIDE)
    return True


def make_guard(allowed_networks: Iterable[Network], listeners: Iterable[Listener]) -> AddressGuard:
    """The guard of this process. Looks up the names among our listeners and this machine's addresses."""
    own: set[tuple[Address, int]] = set()
    everywhere: set[int] = set()
    for host, port in listeners:
        found = _addresses_of(host)
        own.update((address, port) for address in found)
        if any(address.is_unspecified for address in found):
            everywhere.add(port)
    own.update((address, port) for address in _machine_addresses() for port in everywhere)
    faced = frozenset((face, port) for address, port in own for face in faces(address))
    return AddressGuard(tuple(allowed_networks), faced, frozenset(everywhere))


def parse(url: str, field: str = "url") -> WebhookTarget:
    """The target in the text of a URL; no lookup. BadInput says in one line what would be accepted."""
    found = _URL.fullmatch(url) if len(url) <= _URL_LENGTH_MAX else None
    if found is None:
        raise BadInput(field, _harmless(url), ACCEPTED)
    host = found["host"].lower()
    port = int(found["port"]) if found["port"] else {"http": 80, "https": 443}[found["scheme"].lower()]
    if not 0 < port < 65536:
        raise BadInput(field, _harmless(url), "a port between 1 and 65535")
    return WebhookTarget(url, host.strip("[]"), port, _literal(host, field, url))


@lru_cache(maxsize=4096)
def place_of(url: str) -> str:
    """Host and port of a URL that was accepted once; the URL itself when it would not be any more."""
    try:
        return parse(url).place
    except BadInput:
        return url


def check(url: str, guard: AddressGuard, field: str = "url") -> WebhookTarget:
    """`parse`, and `judge` when the host is an address."""
    target = parse(url, field)
    if target.address is not None:
        reason = guard.judge(target.address, target.port)
        if reason is not None:
            raise BadInput(field, _harmless(url), f"use another address: {reason}")
    return target


def choose(
    target: WebhookTarget, addresses: Iterable[Address], guard: AddressGuard, field: str = "url"
) -> tuple[Address, ...]:
    """Those addresses of a name that we connect to. BadInput with the first refusal when there is none."""
    judged = [(address, guard.judge(address, target.port)) for address in addresses]
    chosen = tuple(address for address, reason in judged if reason is None)
    if not chosen:
        why = judged[0][1] if judged else f"{target.host} has no address"
        raise BadInput(field, _harmless(target.url), f"use another host: {why}")
    return chosen


def faces(address: Address) -> tuple[Address, ...]:
    """All addresses that one address may mean: itself, and what a tunnel or a translator makes of it."""
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    number = int(address)
    low = IPv4Address(number & 0xFFFF_FFFF)
    if address in _NAT64 or address in _NAT64_LOCAL:
        return (low,)
    inner: list[Address] = [address]
    if address.sixtofour is not None:
        inner.append(address.sixtofour)
    if address.teredo is not None:
        inner.extend(address.teredo)
    if number >> 32 == 0 and number > 0xFFFF:
        inner.append(low)  # ::a.b.c.d, long deprecated
    return tuple(inner)


def _always_refused(address: Address) -> str | None:
    if address in _METADATA:
        return "is a cloud's metadata service"
    if address.is_unspecified or address in _THIS_HOST:
        return "is the unspecified address"
    if address.is_link_local:
        return "is link-local"
    if address.is_multicast:
        return "is multicast"
    if address in _RESERVED or address in _SITE_LOCAL:
        return "is reserved"
    return None


def _literal(host: str, field: str, url: str) -> Address | None:
    """The address when the host is written as one; BadInput for spellings that machines read differently."""
    if host.startswith("["):
        try:
            return IPv6Address(host[1:-1])
        except ValueError as error:
            raise BadInput(field, _harmless(url), "an IPv6 address in brackets, without a zone") from error
    try:
        return IPv4Address(host)
    except ValueError:
        pass
    if host.endswith("."):
        raise BadInput(field, _harmless(url), "the host without the dot at its end")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        raise BadInput(field, _harmless(url), "an IPv4 address as four decimal numbers, as in 192.0.2.1")
    if len(host) > 253 or not _NAME.fullmatch(host):
        raise BadInput(field, _harmless(url), "a host name of letters, digits, - and . (xn--... for others)")
    return None


def _harmless(url: str) -> str:
    """The URL for a message: without what might be a password, and short."""
    return re.sub(r"//[^/?#]*@", "//(not shown)@", url[:200])


def _addresses_of(host: str) -> set[Address]:
    name = host.strip("[]")
    if name in ("", "*"):
        return {IPv4Address(0), IPv6Address(0)}
    try:
        return {ip_address(name)}
    except ValueError:
        pass
    try:
        return {ip_address(str(info[4][0]).partition("%")[0]) for info in socket.getaddrinfo(name, None)}
    except OSError as error:
        raise BadInput("listeners", host, "a name that this machine can look up") from error


def _machine_addresses() -> set[Address]:
    families = (socket.AF_INET, socket.AF_INET6)
    return {
        ip_address(each.address.partition("%")[0])
        for interface in psutil.net_if_addrs().values()
        for each in interface
        if each.family in families
    }
