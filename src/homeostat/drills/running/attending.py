"""What goes on beside a run: our own server is told and asked, and what is not meant is watched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from homeostat.drills.planning.asking import Asker
from homeostat.drills.planning.guards import Watched, down_too_long
from homeostat.drills.records.book import Book, now_ns
from homeostat.drills.running.announcing import Announcing
from homeostat.drills.running.site_lock import halted
from homeostat.drills.running.stopping import Beside, Stopped, to_its_end
from homeostat.kernel.errors import HomeostatError, RetryLater

RENEW_S = 1.0
NOTICE_S = 0.25
COLLATERAL_S = 0.5


async def keep_claim(announcing: Announcing, runs: Path, beside: Beside) -> None:
    """Say every second that we live; ends the run when drills are halted, here or there."""
    while True:
        words = halted(runs)
        if words is not None:
            beside.end(Stopped("a person", words))
        try:
            told = await announcing.renew()
        except HomeostatError as error:
            told = str(error)
        if told is not None:
            beside.end(Stopped("our own server", told))
        await asyncio.sleep(RENEW_S)


class Listening:
    """What our own fault manager noticed, and who brought what back, into the history."""

    def __init__(self, announcing: Announcing, book: Book) -> None:
        self._announcing, self._book = announcing, book

    async def listen(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            with suppress(RetryLater):  # the claim's own deadline ends the run
                await self.ask()
            await asyncio.sleep(NOTICE_S)

    async def ask(self) -> None:
        """Once. RetryLater."""
        for each in await to_its_end(self._announcing.noticed()):
            self._book.note(each)


async def watch_collateral(
    asker: Asker, watched: Sequence[Watched], beside: Beside, clock_ns: Callable[[], int] = now_ns
) -> None:
    """Ask everything that the drill does not mean; ends the run when one of it is out for too long."""
    down_since: dict[str, int] = {}
    while True:
        for each, asked in zip(
            watched, await asyncio.gather(*(asker.serves(each.url) for each in watched)), strict=True
        ):
            if asked.ok:
                down_since.pop(each.name, None)
                continue
            at_ns = clock_ns()
            since_ns = down_since.setdefault(each.name, at_ns)
            if down_too_long(since_ns, at_ns, each.at_most_ms):
                out_s = (at_ns - since_ns) / 1e9
                why = f"{each.name}, which it does not mean, has been out for {out_s:.1f} s: {asked.seen}"
                beside.end(Stopped("an abort condition", why))
        await asyncio.sleep(COLLATERAL_S)
