"""The announcement of a run to the server: claims the site, renews, polls, hands in the report.

The moments in what is heard are this machine's CLOCK_BOOTTIME, and bounds: what an answer did not have yet
happened after that answer was asked for, what it has happened before it arrived. No clock of the server is
ever compared with ours. The drill's own lock on this machine is in `cancellation`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from homeostat.drills.lapse import LAPSE_S
from homeostat.drills.records.facts import BroughtBack, FaultNoticed
from homeostat.kernel.client import Client, path_segment
from homeostat.kernel.clock import Clock, SystemClock
from homeostat.kernel.errors import AlreadyRunning, BadInput, Conflict, RetryLater

SILENCE_S = LAPSE_S - 5.0
"""Without an answer for so long the claim may lapse before the fault can be undone."""
_FIRST_TRIES = 3
_RUNS_MAX = 500

NoticedFact = FaultNoticed | BroughtBack


@dataclass(frozen=True, slots=True)
class DrillAnnouncement:
    """What is going to be drilled. Faults of these hosts, and of these resources, are the drill's."""

    run: str
    drill: str
    suite: str | None
    site: str
    hosts: tuple[str, ...]
    resources: tuple[str, ...]
    seed: int


class Announcer:
    """Announces one run. This one is for a site without a server of ours: nobody is asked, nobody notices."""

    async def begin(self, run: DrillAnnouncement) -> None:
        """The site is ours. AlreadyRunning: another drill has it, or all are halted. RetryLater."""

    async def renew(self) -> str | None:
        """Every second: why the drill must stop now, None: go on."""
        return None

    async def injected(self, before_ns_wall: int, after_ns_wall: int) -> None:
        """The fault began between these. RetryLater: nobody was told; nothing depends on it."""

    async def noticed(self) -> list[NoticedFact]:
        """What is new since the last time. RetryLater: nothing is known; nothing is lost."""
        return []

    async def finish(self, report: dict[str, Any]) -> None:
        """The report is in the database and the site is free; without a server the files of the run stay."""

    async def halt(self, why: str) -> None:
        """Stop every drill of that server, and let none begin. BadInput without a server, RetryLater."""
        raise BadInput("halt", why, "a site with a server; on a host, `homeostat node halt` stops faults")

    async def resume(self) -> None:
        """Let drills begin again. BadInput without a server, RetryLater."""
        raise BadInput("server", None, "a site with a server; on a host, `homeostat node resume`")


@dataclass(slots=True)
class ServerAnnouncer(Announcer):
    """By HTTP, through the command line's client. `run` is set by `begin`.

    `_seen_ns`: when the last answer about what was noticed was asked for.
    """

    client: Client
    clock: Clock = field(default_factory=SystemClock)
    run: str = ""
    _answered_ns: int = 0
    _seen_ns: int = 0
    _known: set[tuple[str, str]] = field(default_factory=set)
    _counted: dict[tuple[str, str], int] = field(default_factory=dict)

    async def begin(self, run: DrillAnnouncement) -> None:
        """AlreadyRunning names who is in the way; the same run may ask again."""
        self._seen_ns = self.clock.mono_ns()
        try:
            await self._call("POST", "/drills/runs", asdict(run))
        except Conflict as error:
            raise AlreadyRunning(str(error)) from None
        self.run, self._answered_ns = run.run, self.clock.mono_ns()

    async def renew(self) -> str | None:
        """Also why, when the server has not answered for so long that the claim may be lost."""
        try:
            told = await self._call("POST", self._route("/renew"))
        except RetryLater as error:
            silent_s = (self.clock.mono_ns() - self._answered_ns) / 1e9
            words = f"the server has not answered for {silent_s:.0f} s: {error}"
            return words if silent_s > SILENCE_S else None
        self._answered_ns = self.clock.mono_ns()
        return None if told["stop"] is None else str(told["stop"])

    async def injected(self, before_ns_wall: int, after_ns_wall: int) -> None:
        body = {"before_ns": before_ns_wall, "after_ns": after_ns_wall}
        await self._call("POST", self._route("/injected"), body)

    async def noticed(self) -> list[NoticedFact]:
        """Asked often, the bounds are narrow: they are one question apart."""
        asked_ns, after_ns = self.clock.mono_ns(), self._seen_ns
        told = await self._call("GET", self._route("/noticed"))
        by_ns, self._seen_ns = self.clock.mono_ns(), asked_ns
        fresh: list[NoticedFact] = []
        for each in told["faults"]:
            if (each["fault"], "") not in self._known:
                self._known.add((each["fault"], ""))
                fresh.append(FaultNoticed(each["fault"], each["kind"], after_ns, by_ns))
        counted: dict[tuple[str, str], int] = {}
        for each in told["brought_back"]:
            key = (each["what"], each["by"])
            counted[key] = counted.get(key, 0) + 1
            if counted[key] > self._counted.get(key, 0):  # the same may come back several times
                fresh.append(BroughtBack(*key))
        self._counted = counted
        return fresh

    async def finish(self, report: dict[str, Any]) -> None:
        """Tried a few times: the site is free afterwards, or when the claim lapses."""
        for _ in range(_FIRST_TRIES):
            try:
                await self._call("PUT", self._route("/report"), report)
                return
            except RetryLater as error:
                last = error
                await asyncio.sleep(1.0)
        raise last

    async def unreported(self) -> list[str]:
        """Of the newest runs, those without a report: their tool was killed, or could not hand it in."""
        told = await self._call("GET", f"/drills/runs?limit={_RUNS_MAX}")
        return [str(row["run"]) for row in told["items"] if row["verdict"] is None]

    async def halt(self, why: str) -> None:
        await self._call("POST", "/drills/halt", {"why": why})

    async def resume(self) -> None:
        await self._call("POST", "/drills/resume")

    def _route(self, rest: str) -> str:
        return f"/drills/runs/{path_segment(self.run)}{rest}"

    async def _call(self, method: str, path: str, body: object = None) -> Any:
        call: Callable[..., Any] = self.client.call
        return await asyncio.to_thread(call, method, path, body)


def server_announcer(url: str, token_file: Path, run: str = "") -> ServerAnnouncer:
    """The server of a site; `run` when it was begun by another tool. BadInput names the token file."""
    return ServerAnnouncer(Client.with_token_of(url, token_file), run=run)
