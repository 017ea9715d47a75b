"""Probes of one target over HTTP, HTTPS or TCP: each is answered, fails or expires by itself.

asyncio Protocols (and its TLS, verified by the CAs of one file or of the system) and httptools. Knows no
schedule: the sampler says when. A probe goes out on a kept connection or a new one and never waits for
another. One that a server closed unused while our request was on its way is asked again on a new one, as
every HTTP client does; the sample covers both. Of each probe exactly one sample comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import httptools

from homeostat.kernel.errors import BadInput
from homeostat.monitors.outage import ProbeAnswer, Sample

_IDLE_MAX = 4
_LENGTH_TOLD = re.compile(rb"\r\n(content-length|transfer-encoding):", re.IGNORECASE)
"""An end of the connection before that length is an answer cut short; without one it ends the answer."""
_NO_LINGER = struct.pack("ii", 1, 0)
_OURS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL, errno.EPERM, errno.EACCES}
)
"""Errors of connecting that only our own machine can be blamed for."""

_OK, _LATE, _ERROR = ProbeAnswer.OK, ProbeAnswer.LATE, ProbeAnswer.ERROR
"""Looked up once: a member of an enumeration costs a thousand instructions each time."""
_new = tuple.__new__


now_ns: Callable[[], int] = partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
"""CLOCK_BOOTTIME; the only clock of a monitor."""


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """Whom to ask. `path` None: a connection that stands is the whole answer. `address` is resolved."""

    address: str
    port: int
    path: str | None
    host: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    expected: range = range(200, 400)
    deadline_ns: int = 1_000_000_000
    tls: ssl.SSLContext | None = None
    server_name: str = ""
    """By SNI, and in the certificate."""

    def request(self) -> bytes:
        """What is sent, every time the same."""
        fields = {"Host": self.host or f"{self.address}:{self.port}", "Accept": "*/*", **self.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"GET {self.path} HTTP/1.1\r\n{lines}\r\n".encode()


class _Probe:
    """One question under way. Filled in by who asks: an `__init__` would double what it costs."""

    __slots__ = ("connection", "fresh", "over", "scheduled_ns", "sent_ns", "task")
    scheduled_ns: int
    sent_ns: int
    fresh: bool
    over: bool
    connection: _Connection | None
    task: asyncio.Task[None] | None


class Prober:
    """Asks one target. `record` gets every sample, in the order of their ends."""

    __slots__ = ("_idle", "_loop", "_tls", "expected", "late_ns", "record", "request", "target", "waiting")

    def __init__(self, target: ProbeTarget, record: Callable[[Sample], None]) -> None:
        self.target, self.record = target, record
        self.request = target.request()
        self.expected = frozenset(target.expected)
        """What counts as a good answer; a member is found faster here than in a range."""
        self.late_ns = target.deadline_ns
        """A good answer after so long is late; the sampler knows more once it has its baseline."""
        self.waiting: deque[_Probe] = deque()
        """Those without an end; and what has one behind the first of them, until `expire`."""
        self._idle: list[_Connection] = []
        self._tls: dict[str, Any] = {}
        if target.tls is not None:
            # The handshake is part of its probe, and has no deadline of its own before that one's.
            late_s = 2 * target.deadline_ns / 1e9
            self._tls = {
                "ssl": target.tls,
                "server_hostname": target.server_name,
                "ssl_handshake_timeout": late_s,
            }
        self._loop = asyncio.get_running_loop()

    @property
    def under_way(self) -> bool:
        return any(not probe.over for probe in self.waiting)

    def ask(self, scheduled_ns: int, *, fresh: bool) -> None:
        """Send one probe now. `fresh`: on a new connection, in place of a kept one."""
        probe = _Probe()
        probe.scheduled_ns = scheduled_ns
        probe.fresh = probe.over = False
        probe.connection = probe.task = None
        probe.sent_ns = now_ns()
        self.waiting.append(probe)
        connection = self._idle.pop() if self._idle else None
        if connection is not None and not fresh and self.target.path is not None:
            connection.ask(probe)
            return
        if connection is not None:
            connection.abort()
        self.connect(probe)

    def expire(self) -> None:
        """End what is older than its deadline. To be called once a period while anything is `waiting`."""
        waiting = self.waiting
        while waiting and (waiting[0].over or now_ns() - waiting[0].sent_ns >= self.target.deadline_ns):
            probe = waiting.popleft()
            if not probe.over:
                self.end(probe, ProbeAnswer.TIMEOUT)
                if probe.task is not None:
                    probe.task.cancel()
                if probe.connection is not None:
                    probe.connection.abort()

    def end(self, probe: _Probe, answer: ProbeAnswer, status: int = 0) -> None:
        """The one end of a probe; later ones are ignored."""
        if probe.over:
            return
        done_ns = now_ns()
        probe.over = True
        if self.waiting and self.waiting[0] is probe:
            self.waiting.popleft()
        if answer is _OK and done_ns - probe.sent_ns > self.late_ns:
            answer = _LATE
        seen = (probe.scheduled_ns, probe.sent_ns, done_ns, answer, probe.fresh, status)
        self.record(_new(Sample, seen))  # Sample(*seen) without the detour through Python

    def connect(self, probe: _Probe) -> None:
        probe.fresh = True
        probe.task = self._loop.create_task(self._connect(probe))

    def keep(self, connection: _Connection) -> None:
        """It may serve another probe; what many probes held up at once left over is closed."""
        if len(self._idle) < _IDLE_MAX:
            self._idle.append(connection)
        else:
            connection.abort()

    def forget(self, connection: _Connection) -> None:
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def close(self) -> None:
        for connection in list(self._idle):
            connection.abort()

    async def _connect(self, probe: _Probe) -> None:
        try:
            await self._loop.create_connection(
                lambda: _Connection(self, probe), self.target.address, self.target.port, **self._tls
            )
        except ConnectionRefusedError:
            self.end(probe, ProbeAnswer.REFUSED)
        except ssl.SSLCertVerificationError:
            self.end(probe, ProbeAnswer.UNTRUSTED)
            self.close()  # those that are kept believed the certificate before
        except ssl.SSLError:  # its numbers are not those of the system
            self.end(probe, _ERROR)
        except OSError as error:
            self.end(probe, ProbeAnswer.CLIENT_ERROR if error.errno in _OURS else ProbeAnswer.ERROR)
        finally:
            probe.task = None


class _Connection(asyncio.Protocol):
    """One connection, at most one probe on it at a time."""

    __slots__ = ("_heard", "_parser", "_probe", "_prober", "_transport", "_used")

    def __init__(self, prober: Prober, probe: _Probe) -> None:
        self._prober = prober
        self._probe: _Probe | None = probe
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._used = False
        self._heard = b""

    def ask(self, probe: _Probe) -> None:
        assert self._transport is not None
        self._probe = probe
        probe.connection = self
        self._heard = b""
        self._transport.write(self._prober.request)

    def abort(self) -> None:
        """Close at once; the probe on it, if any, has had its end."""
        self._probe = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, probe = cast(asyncio.Transport, transport), self._probe
        # A reset instead of an orderly end: thousands of connections in TIME_WAIT say nothing.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        if probe is None or probe.over:
            self.abort()
        elif self._prober.target.path is None:
            self._prober.end(probe, ProbeAnswer.OK)
            self.abort()
        else:
            self.ask(probe)

    def data_received(self, data: bytes) -> None:
        self._heard = self._heard or data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._failed()
            self.abort()

    def on_message_complete(self) -> None:
        self._answered()
        if self._parser.should_keep_alive() and self._transport is not None:
            self._used = True
            self._prober.keep(self)
        else:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._prober.forget(self)
        probe, self._transport = self._probe, None
        if probe is None or probe.over:
            return
        if self._used and not self._heard:
            self._probe = probe.connection = None
            self._prober.connect(probe)
        elif exc is None and b"\r\n\r\n" in self._heard and not _LENGTH_TOLD.search(self._heard):
            self._answered()
        else:
            self._failed()

    def _answered(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            status, prober = self._parser.get_status_code(), self._prober
            probe.connection = None
            prober.end(probe, _OK if status in prober.expected else _ERROR, status)

    def _failed(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.connection = None
            self._prober.end(probe, ProbeAnswer.ERROR)


def tls_context(cacert: str | None, *, verify: bool = True) -> ssl.SSLContext:
    """Certificates are verified by the CAs of this file and no others, without one by those of the system.

    BadInput when the file cannot be used. `verify` False: anybody is believed, as clouds.yaml may want it.
    """
    try:
        context = ssl.create_default_context(cafile=cacert)
    except OSError as error:  # an SSLError is one, too
        words = f"a file of CA certificates in PEM that can be read ({error.strerror or error})"
        raise BadInput("cacert", cacert, words) from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
