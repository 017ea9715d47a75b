"""A host that is reached by its node process: tool, server, NATS, node; each answer comes back the same way.

Every question has a name and a deadline. When nothing comes back it is asked again under that name, and the
node does no question twice. What would be another thing when done twice (`inject`, a restart) is for the life
of the node process that was heard last, and for some seconds of that host's own clock: a node that was
started again, or thawed, since does not begin it. Stamps come from the host; no round trip lies within what
is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from homeostat.drills.site import SiteServer, address_of
from homeostat.drills.transports.meaning import error_of
from homeostat.drills.transports.port import Verb
from homeostat.drills.transports.questions import (
    AskClock,
    AskHeal,
    AskHolds,
    AskRenew,
    AskRestart,
    AskStatus,
    AskWatch,
    Question,
    once_only,
    question_of,
)
from homeostat.kernel.client import Client, segment
from homeostat.kernel.errors import BadInput, RetryLater
from homeostat.monitors.node_process_watch import WatchConfig
from homeostat.monitors.supervision import MonitorCommand

SILENT_S = 10.0
"""Without a word of the node for so long, a question is given up."""
ANSWER_S = 150.0
"""Longer than anything that a node does: it kills a verb after 90 s, a program of the host after 120 s."""
BEGUN_WITHIN_S = SILENT_S
"""What is done once is begun so long after the node was asked, or never: not when it was given up."""
_AGAIN_S = 0.2
_STOP_S = 10.0
"""Its last words have to come over the network."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """A node's last word: which life of it, its clock, and ours when we had it."""

    life: str
    at_ns: int
    ours_ns: int


class NodeAsking:
    """Asks one host's node process, through the server."""

    def __init__(self, host: str, client: Client) -> None:
        self.host = host
        self._client = client
        self._heard: _Heard | None = None

    async def ask(self, asked: Question) -> Any:
        """The answer. The host's own errors; the server's; RetryLater when nobody says anything."""
        body: dict[str, Any] = {"question": uuid.uuid4().hex, "words": asked.model_dump(mode="json")}
        if once_only(asked):
            body |= await self._for_now()
        began_s = word_s = time.monotonic()
        why = "its node process says nothing; is it running, and connected to NATS?"
        while True:
            try:
                told = await self._call(body)
            except RetryLater as error:
                why = str(error)
                await asyncio.sleep(_AGAIN_S)
            else:
                if told["state"] == "answered":
                    return self._meant(told)
                if told["state"] == "taken":
                    word_s = time.monotonic()
            now_s = time.monotonic()
            if now_s - word_s > SILENT_S or now_s - began_s > ANSWER_S:
                raise RetryLater(f"{self.host}: no answer to {asked.ask} for {now_s - began_s:.0f} s: {why}")

    async def _call(self, body: dict[str, Any]) -> dict[str, Any]:
        path = f"/drills/hosts/{segment(self.host)}/questions"
        told: dict[str, Any] = await asyncio.to_thread(self._client.call, "POST", path, body)
        return told

    def _meant(self, told: dict[str, Any]) -> Any:
        self._heard = _Heard(told["life"], told["at_ns"], time.monotonic_ns())
        if told["refusal"] is not None:
            raise error_of(told["refusal"])
        return told["answer"]

    async def _for_now(self) -> dict[str, Any]:
        """For the life that was heard last, and for some seconds of its clock."""
        if self._heard is None:
            await self.ask(AskClock())
        heard = self._heard
        assert heard is not None
        # Its stamp is older than our having it: the moment is early by the way back, never late.
        since_ns = time.monotonic_ns() - heard.ours_ns
        return {"life": heard.life, "until_ns": heard.at_ns + since_ns + round(BEGUN_WITHIN_S * 1e9)}


class NodeTransport:
    """One host."""

    def __init__(self, host: str, server: SiteServer) -> None:
        """BadInput names the token file."""
        self.host = host
        self._server = server
        self._asking = NodeAsking(host, Client.with_token_of(server.url, server.token_file))

    async def verb(self, verb: Verb, record: dict[str, Any]) -> dict[str, Any]:
        """See the port."""
        section = await self._asking.ask(_verb(verb, record))
        return {**record, verb: section}

    async def renew(self, fault: str) -> None:
        """See the port."""
        await self._asking.ask(AskRenew(fault=fault))

    async def heal(self) -> list[dict[str, Any]]:
        """See the port."""
        outcomes: list[dict[str, Any]] = await self._asking.ask(AskHeal())
        return outcomes

    async def status(self) -> dict[str, Any]:
        """See the port."""
        found: dict[str, Any] = await self._asking.ask(AskStatus())
        return found

    async def clock_ns(self) -> int:
        """See the port."""
        return int(await self._asking.ask(AskClock()))

    async def holds(self, profile: str, how: str, endpoint: str) -> bool:
        """See the port."""
        try:
            address_of(endpoint)
        except ValueError as error:
            raise BadInput("endpoint", endpoint, str(error)) from None
        return bool(await self._asking.ask(AskHolds(profile=profile, how=how, endpoint=endpoint)))

    async def restart(self, profile: str, run: str) -> str:
        """See the port. The server lets it through only for a run that was announced for this host."""
        # The host may have been off since it was heard last: whoever is there now is meant.
        await self._asking.ask(AskClock())
        return str(await self._asking.ask(AskRestart(profile=profile, run=run)))

    def watch(self, config: WatchConfig, folder: Path) -> MonitorCommand:
        """See the port. A process of ours reads through the server what is said there, and says it here."""
        path = folder / f"{config.name}.monitor.json"
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        server = self._server.model_dump(mode="json")
        path.write_text(json.dumps({"host": self.host, "server": server, "watch": asdict(config.checked())}))
        argv = (sys.executable, "-m", "homeostat.drills.transports.by_node_watch", "--config", str(path))
        return MonitorCommand(config.name, argv, path, Path(config.sightings_file), _STOP_S, "sightings")

    async def close(self) -> None:
        """Nothing is held."""


def _verb(verb: Verb, record: dict[str, Any]) -> Question:
    """Without what an earlier run of the verb found, as on the host itself. BadInput."""
    before = {name: value for name, value in record.items() if name != verb}
    return question_of({"ask": "verb", "verb": verb, "record": before})


def watching(config: WatchConfig, watch: str) -> AskWatch:
    """The watch of a tool; the file with what it saw is the tool's, and not known there."""
    return AskWatch(watch=watch, config={**asdict(config), "sightings_file": "-"})
