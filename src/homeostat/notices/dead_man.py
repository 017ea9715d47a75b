"""The dead-man notice: a signed sign of life to an endpoint that alarms when it stays out.

The message is the silence, so this sends only while the server could also raise a fault: it leads, can write
and hears. It is no notice of a fault: it is not in the outbox, has no key, and one that was lost is not sent
again; the next one says the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

import orjson
import structlog

from homeostat.contracts.nouns import INFRASTRUCTURE, SetPoint, Standing
from homeostat.kernel.access import Caller
from homeostat.kernel.clock import Clock, iso
from homeostat.notices import signing
from homeostat.notices.settings import DeadManSettings, NoticesSettings
from homeostat.notices.targets import Guard, Listener, guard
from homeostat.notices.webhook import SystemLookup, WebhookTransport
from homeostat.ports import Answered, NoAnswer, Post, Refused, Reply, Transport

ROOM = "notices"
PROMISE = "the dead-man notice is sent"
_LOOK_AGAIN_S = 1.0
_NS = 1_000_000_000
_log = structlog.get_logger("dead man")


def anywhere(listeners: Sequence[Listener]) -> Guard:
    """Administrators say where this goes, not consumers: any network but what is always refused."""
    return guard((ip_network("0.0.0.0/0"), ip_network("::/0")), listeners)


@dataclass(frozen=True, slots=True)
class DeadManParts:
    """`health` is empty while this server leads, writes and hears, else what is wrong."""

    guard: Guard
    clock: Clock
    health: Callable[[], str]
    epoch: int
    secret: str


class DeadMan:
    """One for a server; `run` is its only task."""

    def __init__(self, parts: DeadManParts, settings: DeadManSettings, notices: NoticesSettings) -> None:
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
            standing = Standing.BROKEN
        else:
            standing = Standing.UNKNOWN if last_ns is None else Standing.KEPT
        value = None if last_ns is None else silent_s
        return (SetPoint(ROOM, PROMISE, limit_s, "s", value, standing, self._wrong or "accepted"),)

    async def _once(self, transport: Transport) -> float:
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

    def _message(self) -> Post:
        now_ns, settings = self._parts.clock.wall_ns(), self._settings
        body = orjson.dumps(
            {
                "alive": "homeostat",
                "epoch": self._parts.epoch,
                "at": iso(now_ns),
                "next_in_s": settings.interval_s,
            }
        )
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "homeostat",
            signing.HEADER: signing.sign(self._parts.secret, settings.key_id, now_ns // _NS, body),
        }
        return Post(settings.url, headers, body)

    def _note(self, wrong: str) -> None:
        """Said once when it begins, and once when it ends."""
        if bool(wrong) != bool(self._wrong):
            if wrong:
                _log.warning("the dead-man notice is not sent", reason=wrong)
            else:
                _log.info("the dead-man notice is sent again")
        self._wrong = wrong


def _wrong(reply: Reply) -> str:
    match reply:
        case Answered(status=status) if 200 <= status < 300:
            return ""
        case Answered(status=status):
            return f"the endpoint answered {status}"
        case NoAnswer(reason=reason) | Refused(reason=reason):
            return reason
