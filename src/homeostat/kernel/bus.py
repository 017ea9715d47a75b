"""The connection to NATS core: publishes and subscribes; nothing is kept and nothing promised.

What is published while there is no connection is dropped, never queued: senders repeat what matters and a
stale heartbeat is worse than none. The connection is ours to keep: nats-py gives up for good on several
server errors (a changed password among them), so every connection is a fresh client of it, and
subscriptions are made again before anybody is notified of the reconnect.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from homeostat.kernel.errors import BadInput, BusUnavailable
from homeostat.kernel.loops import Backoff

OnMessage = Callable[[str, bytes], None]
"""Called on the event loop with subject and body. It must not block: it puts the message somewhere."""

RETRY_FIRST_S, RETRY_MAX_S = 0.05, 1.0
HANDSHAKE_S = 2.0
"""For connecting, and again for subscribing: a server that takes longer is as good as none."""
PINGS_MISSED_MAX = 2
CLOSE_S = 1.0
PENDING_BYTES_MAX = 1024 * 1024
"""Bytes that wait for the socket of a live connection before further messages are dropped."""
UNREAD_BYTES_MAX = 64 * 1024 * 1024
"""The most that one subscription holds received and not handed over. It is bounded in bytes only: how many
messages that is depends on who sends."""
QUIET_S = 30.0
"""The same error is logged once in this time."""

_log = structlog.get_logger("bus")


@dataclass(frozen=True, slots=True)
class BusSettings:
    """Where NATS is and who we are.

    `ping_interval_s` x 3 is how long a frozen NATS server goes unnoticed: 0.5 for servers; 2-5 for nodes,
    or ten thousand of them keep NATS busy with pings. `inbox_prefix` is where replies to this user may go.
    """

    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    name: str = "homeostat"
    ping_interval_s: float = 0.5
    inbox_prefix: str = "_INBOX"


class Messages(Protocol):
    """What loops need of a bus; see `Bus` for what each promises. The simulator has its own."""

    @property
    def connected(self) -> bool: ...

    def on_reconnect(self, told: Callable[[], None]) -> None: ...

    async def subscribe(self, pattern: str, hear: OnMessage) -> None: ...

    async def publish(self, subject: str, body: bytes) -> bool: ...

    async def flush(self, timeout_s: float = 1.0) -> bool: ...


class Bus:
    """One user's connection to NATS. Used from one event loop."""

    def __init__(self, settings: BusSettings) -> None:
        """`settings` are checked here; nothing is connected before `run`."""
        parts = urlsplit(settings.url)
        if parts.scheme not in ("nats", "tls") or not parts.hostname:
            raise BadInput("nats.url", settings.url, "an address such as nats://127.0.0.1:4222 is")
        self._settings = settings
        self._client: Client | None = None
        self._heard: list[tuple[str, OnMessage]] = []
        self._told: list[Callable[[], None]] = []
        self._settling: set[asyncio.Task[None]] = set()
        self._up = asyncio.Event()
        self._broke = asyncio.Event()
        self._last_break_ns: int | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._quiet = _Quiet()

    @classmethod
    async def connect(cls, settings: BusSettings, *, wait_s: float = 10.0) -> Bus:
        """A connected bus that keeps itself connected; BusUnavailable when NATS does not answer."""
        bus = cls(settings)
        bus._keeper = asyncio.create_task(bus.run(), name="bus")
        try:
            await bus.wait_connected(wait_s)
        except BaseException:
            await bus.close()
            raise
        return bus

    @property
    def connected(self) -> bool:
        """Whether a message published now has a connection to go to. It may still be lost."""
        return self._up.is_set() and self._client is not None and self._client.is_connected

    @property
    def last_break_ns(self) -> int | None:
        """CLOCK_BOOTTIME of the last lost connection, None while there was none."""
        return self._last_break_ns

    def on_reconnect(self, told: Callable[[], None]) -> None:
        """Call `told` after every connection made, the first one too, when all subscriptions stand."""
        self._told.append(told)

    async def subscribe(self, pattern: str, hear: OnMessage) -> None:
        """Hear what matches `pattern`, now and after every reconnect. BusUnavailable: now not, later yes."""
        self._heard.append((pattern, hear))
        if self._client is not None and self._up.is_set():
            await self._listen(self._client, [(pattern, hear)])

    async def publish(self, subject: str, body: bytes) -> bool:
        """Hand a message to the connection; False when it was dropped because there is none, or it is stuck.

        Never waits: True says that it was written, not that anybody has it.
        """
        client = self._client
        if client is None or not self._up.is_set() or not client.is_connected:
            return False
        if client.pending_data_size + len(body) > PENDING_BYTES_MAX or len(body) > client.max_payload:
            self._quiet.say(f"dropped a message for {subject}: it is too large, or the server does not read")
            return False
        try:
            await client.publish(subject, body)
        except (NatsError, OSError) as error:
            self._quiet.say(f"could not publish on {subject}: {error!r}")
            return False
        return True

    async def flush(self, timeout_s: float = 1.0) -> bool:
        """Whether the server has read everything published so far, within `timeout_s`."""
        client = self._client
        if client is None or not self.connected:
            return False
        try:
            await self._settled(client, timeout_s)
        except (NatsError, OSError, TimeoutError):
            return False
        return True

    async def wait_connected(self, wait_s: float) -> None:
        """Return when there is a connection; BusUnavailable, with the last reason, after `wait_s`."""
        try:
            async with asyncio.timeout(wait_s):
                await self._up.wait()
        except TimeoutError:
            raise BusUnavailable(
                f"NATS at {_shown(self._settings.url)} does not log in user {self._settings.user!r} within"
                f" {wait_s:g} s: {self._quiet.last or 'no answer'}; start it or correct nats.url, nats.user"
            ) from None

    async def run(self) -> None:
        """Connect, and connect again whenever the connection is lost, until cancelled."""
        backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S)
        try:
            while True:
                client = await self._try_connect()
                if client is not None:
                    backoff.reset()
                    await self._until_broken(client)
                await asyncio.sleep(backoff.next_s())
        finally:
            await self._drop()

    async def close(self) -> None:
        """Stop keeping the connection and close it."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        await self._drop()

    async def _try_connect(self) -> Client | None:
        client = Client()
        # Errors of a client that was given up must not mark the next one as broken.
        self._broke = broke = asyncio.Event()
        settings = self._settings

        async def lost() -> None:
            broke.set()

        async def failed(error: Exception) -> None:
            if not client.is_closed:  # what closing it says only hides why it was closed
                self._quiet.say(_reason(error))

        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await client.connect(
                    settings.url,
                    name=settings.name,
                    user=settings.user,
                    password=settings.password,
                    inbox_prefix=settings.inbox_prefix,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,  # 0 would mean: for ever
                    reconnect_time_wait=0,
                    connect_timeout=int(HANDSHAKE_S),
                    ping_interval=settings.ping_interval_s,  # type: ignore[arg-type]  # slept, fractions work
                    max_outstanding_pings=PINGS_MISSED_MAX,
                    pending_size=2 * PENDING_BYTES_MAX,
                    flush_timeout=CLOSE_S,
                    error_cb=failed,
                    disconnected_cb=lost,
                    closed_cb=lost,
                )
            standing = 0
            while fresh := self._heard[standing:]:  # one may be added while the others are being made
                await self._listen(client, fresh)
                standing += len(fresh)
        except (NatsError, BusUnavailable, OSError, TimeoutError) as error:
            self._quiet.say(_reason(error))
            await _close(client)
            return None
        except BaseException:
            await _close(client)
            raise
        self._client = client
        return client

    async def _listen(self, client: Client, heard: list[tuple[str, OnMessage]]) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                for pattern, hear in heard:
                    await client.subscribe(
                        pattern,
                        cb=self._receiver(hear),
                        pending_msgs_limit=0,
                        pending_bytes_limit=UNREAD_BYTES_MAX,
                    )
                await self._settled(client, HANDSHAKE_S)
        except (NatsError, OSError, TimeoutError) as error:
            raise BusUnavailable(f"NATS did not take the subscriptions: {_reason(error)}") from error

    async def _settled(self, client: Client, timeout_s: float) -> None:
        """Return when the server has read all that was written before; TimeoutError.

        In a task of its own: nats-py waits by `wait_for`, which up to Python 3.11 keeps a cancellation to
        itself that comes together with the answer, so that who was stopped would never end; and a cancelled
        wait for an answer makes the answer break the connection.
        """
        settling = asyncio.create_task(_settle(client), name="flush")
        self._settling.add(settling)
        settling.add_done_callback(self._forget)
        done, _ = await asyncio.wait({settling}, timeout=timeout_s)
        if not done:
            raise TimeoutError
        settling.result()

    def _forget(self, settling: asyncio.Task[None]) -> None:
        self._settling.discard(settling)
        if not settling.cancelled():
            settling.exception()  # looked at: nobody may wait for it any more

    def _receiver(self, hear: OnMessage) -> Callable[[Msg], Awaitable[None]]:
        async def receive(message: Msg) -> None:
            try:
                hear(message.subject, message.data)
            except Exception as error:
                self._quiet.say(f"a message on {message.subject} was not understood: {error!r}")

        return receive

    async def _until_broken(self, client: Client) -> None:
        """Return when this connection is lost. Polls too: a client that dies badly calls nobody back."""
        self._up.set()
        self._quiet.forget()
        _log.info("connected to NATS", url=_shown(self._settings.url), user=self._settings.user)
        for told in self._told:
            told()
        try:
            while client.is_connected and not self._broke.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.ping_interval_s):
                        await self._broke.wait()
        finally:
            self._up.clear()
            self._last_break_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        reason = self._quiet.last or (str(client.last_error) if client.last_error else "no answer to pings")
        _log.warning("connection to NATS lost", url=_shown(self._settings.url), reason=reason)
        await self._drop()

    async def _drop(self) -> None:
        self._up.clear()
        client, self._client = self._client, None
        if client is not None:
            await _close(client)


class _Quiet:
    """Says the same thing once in QUIET_S, and remembers what it was asked to say last."""

    def __init__(self) -> None:
        self.last = ""
        self._said: dict[str, float] = {}

    def say(self, what: str) -> None:
        self.last = what
        now_s = time.monotonic()
        if now_s - self._said.get(what, -QUIET_S) < QUIET_S:
            return
        if len(self._said) > 100:
            self._said.clear()
        self._said[what] = now_s
        _log.warning("NATS", reason=what)

    def forget(self) -> None:
        self.last = ""


async def _settle(client: Client) -> None:
    # nats-py writes the PING of a flush past commands that still wait for its flusher task: the first answer
    # shows that they are on the wire, the second that the server has read them.
    await client.flush()
    await client.flush()


async def _close(client: Client) -> None:
    # wait_closed of a socket to a frozen server waits for ever; the process must not.
    with contextlib.suppress(NatsError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await client.close()


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    return str(error) or type(error).__name__


def _shown(url: str) -> str:
    """The address without a user or password that somebody put into it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or 4222}"
