"""Simulated consumers of notices: they answer, refuse, are gone, or take a notice and never say so."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random

from homeostat.notices.signing import KEY_HEADER
from homeostat.ports import Answered, NoAnswer, Post, Reply
from homeostat.sim import story
from homeostat.sim.disk import Disk


class Mood(Enum):
    """How a consumer behaves now."""

    FINE = "200"
    GONE = "nothing: it is not there"
    BUSY = "503"
    MUTE = "nothing, but has read it"
    CONFUSED = "404"


@dataclass(slots=True)
class Consumer:
    """One webhook."""

    subscription: str
    mood: Mood = Mood.FINE


class SimTransport:
    """Carries posts of one server process. A post that is on its way when the server dies still arrives."""

    def __init__(
        self,
        consumers: dict[str, Consumer],
        disk: Disk,
        chance: Random,
        tell: Callable[[str, story.Fact], None],
    ) -> None:
        self._consumers, self._disk, self._chance, self._tell = consumers, disk, chance, tell
        self._dead = False

    async def post(self, request: Post) -> Reply:
        """Send once."""
        if self._dead:
            return NoAnswer("the process is gone")
        consumer = self._consumers[request.url]
        await asyncio.sleep(self._chance.uniform(0.0005, 0.02))
        mood = consumer.mood
        if mood is Mood.GONE:
            await asyncio.sleep(0.3)
            return NoAnswer("connection refused")
        self._hear(consumer, request, mood)
        await asyncio.sleep(self._chance.uniform(0.0005, 0.02))
        match mood:
            case Mood.FINE:
                return Answered(200)
            case Mood.BUSY:
                return Answered(503)
            case Mood.CONFUSED:
                return Answered(404)
            case _:
                return NoAnswer("no answer in time")

    async def close(self) -> None:
        """Nothing is kept open."""

    def die(self) -> None:
        """No further post leaves this process."""
        self._dead = True

    def _hear(self, consumer: Consumer, request: Post, mood: Mood) -> None:
        if mood not in (Mood.FINE, Mood.MUTE):
            return
        key = request.headers[KEY_HEADER]
        rows = self._disk.ask("SELECT fault, transition FROM outbox WHERE key = ?", key)
        fault, transition = rows[0] if rows else (key.split(":")[1], key.split(":")[2])
        body = hashlib.blake2b(request.body, digest_size=8).hexdigest()
        fact = story.Received(
            consumer.subscription, key, str(fault), str(transition), body, bool(rows), mood.value
        )
        self._tell(f"@{consumer.subscription}", fact)
