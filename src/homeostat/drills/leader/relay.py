"""Questions of drills on their way to a host's node process, and the answers on their way back.

Nothing is kept and nothing sent twice: who waits in vain asks again under the same name, and the node does
no question twice. What may be asked is not decided here. Invariant: an answer counts only for the host on
whose subject it came.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog

from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import MESSAGE_BYTES_MAX, Answered, Asked, Subjects, decode, encode
from homeostat.kernel.bus import Messages
from homeostat.kernel.errors import BadInput, BusUnavailable, RetryLater

WAITING_MAX = 256
_log = structlog.get_logger("drills")


@dataclass(slots=True)
class _Waiting:
    """Who waits for one question of a host. `taken`: the last word of a node that works on it."""

    answered: asyncio.Future[Answered]
    taken: Answered | None = None


@dataclass(slots=True)
class NodeRelay:
    """One for a server that leads. Used from one event loop."""

    bus: Messages
    epoch: int
    _waiting: dict[tuple[str, str], list[_Waiting]] = field(default_factory=dict)
    _count: int = 0

    async def listen(self) -> None:
        """Hear what nodes answer."""
        await self.bus.subscribe("node.*.answered", self._on_answered)

    async def ask(self, host: HostId, asked: Asked, within_s: float) -> Answered | None:
        """What came of it, or that it is worked on; None when the node said nothing in time.

        BadInput for what is too long or no JSON, RetryLater.
        """
        try:
            body = encode(asked)
        except TypeError as error:
            raise BadInput("words", None, f"what JSON and 64 bits can hold ({error})") from None
        if len(body) > MESSAGE_BYTES_MAX:
            raise BadInput("words", f"{len(body)} bytes", f"at most {MESSAGE_BYTES_MAX} are carried")
        if self._count >= WAITING_MAX:
            raise RetryLater(f"{WAITING_MAX} questions wait for answers of nodes; ask again later")
        waiting = _Waiting(asyncio.get_running_loop().create_future())
        others = self._waiting.setdefault((host, asked.question), [])
        others.append(waiting)
        self._count += 1
        try:
            if not await self.bus.publish(Subjects(host).asked, body):
                raise BusUnavailable(f"NATS is not connected; {host} was not asked")
            async with asyncio.timeout(within_s):
                return await waiting.answered
        except TimeoutError:
            return waiting.taken
        finally:
            self._count -= 1
            others.remove(waiting)
            if not others:
                self._waiting.pop((host, asked.question), None)

    def _on_answered(self, subject: str, body: bytes) -> None:
        try:
            said = decode(Answered, body)
            if said.host != subject.split(".")[1]:
                raise BadInput("Answered.host", said.host, f"it came in on {subject}")
        except BadInput as error:
            _log.warning("an answer was refused", subject=subject, error=str(error))
            return
        for waiting in self._waiting.get((said.host, said.question), ()):
            if said.taken:
                waiting.taken = said
            elif not waiting.answered.done():
                waiting.answered.set_result(said)
