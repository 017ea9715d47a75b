"""The connections and streams that a server takes, counted: in all, by address, by token, by project.

It decides who is let in and who has to go for that, and touches no socket but to ask whether something
waits to be read. A *stranger* is a connection on which nobody has shown a token yet. Invariants: whoever has
shown one is never put out for another; a stranger is put out only while its request is not complete or its
answer is not taken, the oldest of the address with most strangers first; so an address that keeps thousands
half open harms itself.
"""

from __future__ import annotations

import fcntl
import ipaddress
import resource
import termios
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from homeostat.kernel.access import Caller
from homeostat.kernel.errors import RetryLater


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections there may be: in all, from one address, and without a token yet.

    `header_s` is how long a request's head may take, `request_s` how long its body, and then its answer to a
    stranger. A stranger who has taken nothing of his answer for `stalled_s` makes room for others.
    """

    in_all: int = 1000
    per_address: int = 200
    strangers: int = 256
    header_s: float = 10.0
    request_s: float = 60.0
    stalled_s: float = 5.0


class CountedConnection(Protocol):
    """A connection as it is counted. It is removed by `ConnectionCount.leave`, whoever ends it."""

    @property
    def address(self) -> str: ...

    @property
    def may_go(self) -> bool:
        """Whether nothing is being answered on it that somebody takes."""
        ...

    @property
    def unread_bytes(self) -> int:
        """What has come in and was not looked at yet."""
        ...

    def put_out(self, refusal: ConnectionRefusal) -> None:
        """Say why, and close it."""
        ...


@dataclass(frozen=True, slots=True)
class ConnectionRefusal:
    """Why a connection is not served: an HTTP status and a sentence."""

    status: int
    message: str


_LOOKED_AT_MAX = 16
_PUT_OUT = ConnectionRefusal(
    503, "closed in favour of another connection: this one brought no complete request, or took no answer"
)
LATE = ConnectionRefusal(408, "the request did not come in completely in time")


class ConnectionCount:
    """All connections of one listener."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._by_address: Counter[str] = Counter()
        self._strangers: dict[str, dict[CountedConnection, None]] = {}

    def __len__(self) -> int:
        return self._by_address.total()

    @property
    def strangers(self) -> int:
        """How many of them have shown no token yet."""
        return sum(map(len, self._strangers.values()))

    def enter(self, connection: CountedConnection) -> ConnectionRefusal | None:
        """Count a new one, a stranger, and put out another where it takes that; or the refusal."""
        limits, address = self.limits, network_of(connection.address)
        if self._by_address[address] >= limits.per_address and not self._make_room(address):
            return ConnectionRefusal(
                429,
                f"{limits.per_address} connections from {address} are open already,"
                " api.connections_per_address permits no more",
            )
        if self.strangers >= limits.strangers and not self._make_room():
            return ConnectionRefusal(
                503,
                f"{limits.strangers} callers have shown no token yet, api.connections_unauthenticated"
                " permits no more",
            )
        if len(self) >= limits.in_all and not self._make_room():
            return ConnectionRefusal(
                503, f"{limits.in_all} connections are open already; this server has no room for more"
            )
        self._by_address[address] += 1
        self._strangers.setdefault(address, {})[connection] = None
        return None

    def authenticated(self, connection: CountedConnection) -> None:
        """Somebody has shown a token on it."""
        self._drop_stranger(connection)

    def leave(self, connection: CountedConnection) -> None:
        """It is closed."""
        address = network_of(connection.address)
        self._drop_stranger(connection)
        self._by_address[address] -= 1
        if self._by_address[address] <= 0:
            del self._by_address[address]

    def _drop_stranger(self, connection: CountedConnection) -> None:
        address = network_of(connection.address)
        of_address = self._strangers.get(address, {})
        of_address.pop(connection, None)
        if not of_address:
            self._strangers.pop(address, None)

    def _make_room(self, address: str | None = None) -> bool:
        """Put out a stranger of this address, or of the one with most; False when none may go."""
        addresses = sorted(self._strangers, key=lambda each: -len(self._strangers[each]))
        for each in addresses if address is None else [address]:
            victim = self._victim(self._strangers.get(each, {}))
            if victim is not None:
                self.leave(victim)
                victim.put_out(_PUT_OUT)
                return True
        return False

    def _victim(self, strangers: dict[CountedConnection, None]) -> CountedConnection | None:
        """The oldest that may go; if possible one whose request is not waiting to be read just now."""
        some = list(islice((each for each in strangers if each.may_go), _LOOKED_AT_MAX))
        return next((each for each in some if not each.unread_bytes), some[0] if some else None)


def network_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 of an IPv6 one, which one machine has alone."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))


def unread_bytes(descriptor: int) -> int:
    """What waits to be read from a socket; 0 when nobody can say."""
    try:
        found = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4)
    except OSError:
        return 0
    return int.from_bytes(found, "little")


DESCRIPTORS_MAX = 65_536


def connections_within(wanted: int, reserved: int) -> int:
    """How many connections this process may take, so that `reserved` descriptors are left for all else.

    The soft limit is raised to the hard one, as far as that makes sense.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, soft - len(list(Path("/proc/self/fd").iterdir())) - reserved))


@dataclass(slots=True)
class StreamPlace:
    """The place of one stream. `leave` may be called more than once."""

    _on_leave: Callable[[], None] | None

    def leave(self) -> None:
        on_leave, self._on_leave = self._on_leave, None
        if on_leave is not None:
            on_leave()


class StreamCount:
    """The open streams of each token and each project, of whatever kind."""

    def __init__(self, per_token: int = 20, per_project: int = 50) -> None:
        self._per_token, self._per_project = per_token, per_project
        self._open: Counter[tuple[str, str]] = Counter()

    def enter(self, caller: Caller) -> StreamPlace:
        """One more for this caller. RetryLater: his token or his project has enough."""
        for key, most, setting in self._limits(caller):
            if self._open[key] >= most:
                raise RetryLater(
                    f"the {key[0]} {key[1]} has {most} streams open already, {setting} permits no more"
                )
        keys = [key for key, _, _ in self._limits(caller)]
        self._open.update(keys)
        return StreamPlace(lambda: self._left(keys))

    def _left(self, keys: Sequence[tuple[str, str]]) -> None:
        self._open.subtract(keys)
        self._open = +self._open

    def _limits(self, caller: Caller) -> Iterator[tuple[tuple[str, str], int, str]]:
        yield ("token", caller.name), self._per_token, "api.streams_per_token"
        yield ("project", caller.owner), self._per_project, "api.streams_per_project"
