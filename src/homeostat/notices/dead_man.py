"""The dead-man notice: a signed sign of life to an endpoint that alarms when it stays out.

Its absence is the alarm, so this sends only while the server could also raise a fault: it leads, can write
and hears nodes. It is no notice of a fault: it is not in the outbox, has no key, and one that was lost is
not sent again; the next one says the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

import orjson
import structlog

from homeostat import ports
from homeostat.contracts.nouns import INFRASTRUCTURE, SetPoint, SetPointState
from homeostat.kernel.access import Caller
from homeostat.kernel.clock import Clock, iso
from homeostat.notices import signing
from homeostat.notices.settings import DeadManSettings, NoticesSettings
from homeostat.notices.targets import AddressGuard, Listener, make_guard
from homeostat.notices.webhook import SystemLookup, WebhookTransport

COMPONENT = "notices"
SET_POINT = "dead-man notice sent"
_LOOK_AGAIN_S = 1.0
_NS = 1_000_000_000
_log = structlog.get_logger("dead man")


def any_network_guard(listeners: Sequence[Listener]) -> AddressGuard:
    """Administrators say where this goes, not consumers: any network but what is always refused."""
    return make_guard((ip_network("0.0.0.0/0"), ip_network("::/0")), listeners)


@dataclass(frozen=True, slots=True)
class DeadManDependencies:
    """`health` is empty while this server leads, writes and hears, else what is wrong."""

    guard: AddressGuard
    clock: Clock
    health: Callable[[], str]
    epoch: int
    secret: str


class DeadMan:
    """One for a server; `run` is its only task."""

    def __init__(
        self, parts: DeadManDependencies, settings: DeadManSettings, notices: NoticesSettings
    ) -> None:
        self._parts, self._settings, self._notices = parts, settings, notices
        self._since_ns = parts.clock.mono_ns()
        self._accepted_ns: int | None = None
        self._wrong = ""

    async def run(self) -> None:
        """Send for ever, every `interval_s`; while something is wrong with this server, nothing."""
        lookup = SystemLookup()
        transport = WebhookTransport(self._parts.guard, lookup, self._notices)
        try:
            while True:
                wait_s = await self._once(transport)
                await asyncio.sleep(wait_s)
        finally:
            await transport.close()
            lookup.close()

    async def __call__(self, caller: Caller) -> Sequence[SetPoint]:
        """`homeostat status`, for administrators: how long ago the endpoint last accepted one."""
        if not caller.may_read(INFRASTRUCTURE):
            return ()
        limit_s = 2 * self._settings.interval_s
        now_ns = self._parts.clock.mono_ns()
        last_ns = self._accepted_ns
        silent_s = (now_ns - (self._since_ns if last_ns is None else last_ns)) / _NS
        if silent_s > limit_s:
            standing = SetPointState.BROKEN
        else:
            standing = SetPointState.UNKNOWN if last_ns is None else SetPointState.KEPT
        value = None if last_ns is None else silent_s
        said = self._wrong or ("none was sent yet" if last_ns is None else "accepted")
        return (SetPoint(COMPONENT, SET_POINT, limit_s, "s", value, standing, said, needs_nodes=False),)

    async def _once(self, transport: ports.Transport) -> float:
        """Send one, or not; how long to wait then."""
        why = self._parts.health()
        if why:
            self._note(f"held back: {why}")
            return min(_LOOK_AGAIN_S, self._settings.interval_s)
        wrong = _wrong(await transport.post(self._message()))
        if not wrong:
            self._accepted_ns = self._parts.clock.mono_ns()
        self._note(wrong)
        return self._settings.interval_s

    def _message(self) -> ports.WebhookRequest:
        now_ns, settings = self._parts.clock.wall_ns(), self._settings
        body = orjson.dumps(
            {
                "alive": "homeostat",
                "epoch": self._parts.epoch,
                "at": iso(now_ns),
                "next_in_s": settings.interval_s,
            }
        )
        headers = signing.headers(self._parts.secret, settings.key_id, now_ns // _NS, "", body)
        return ports.WebhookRequest(settings.url, headers, body)

    def _note(self, wrong: str) -> None:
        """Said once when it begins, and once when it ends."""
        if bool(wrong) != bool(self._wrong):
            if wrong:
                _log.warning("dead-man notice (watchdog) not sent", reason=wrong)
            else:
                _log.info("the dead-man notice is sent again")
        self._wrong = wrong


def _wrong(reply: ports.WebhookResult) -> str:
    match reply:
        case ports.WebhookReply(status=status) if 200 <= status < 300:
            return ""
        case ports.WebhookReply(status=status):
            return f"the endpoint answered {status}"
        case ports.NoWebhookReply(reason=reason) | ports.WebhookRefused(reason=reason):
            return reason
