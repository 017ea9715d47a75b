"""What goes on beside a run: our own server is told and asked, and what is not meant is watched."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from homeostat.drills.announcing import Announcing, Noticed
from homeostat.drills.asking import Asker
from homeostat.drills.book import Book, now_ns
from homeostat.drills.facts import BroughtBack, FaultNoticed
from homeostat.drills.guards import Watched, down_too_long
from homeostat.drills.site_lock import halted
from homeostat.drills.stopping import Beside, Stopped
from homeostat.kernel.errors import HomeostatError, RetryLater

RENEW_S = 1.0
NOTICE_S = 0.25
COLLATERAL_S = 0.5


async def keep_claim(announcing: Announcing, runs: Path, silent_s: float, beside: Beside) -> None:
    """Say every second that we live; ends the run when drills are halted, here or there."""
    answered_s = time.monotonic()
    while True:
        words = halted(runs)
        if words is not None:
            beside.end(Stopped("a person", words))
        try:
            told = await announcing.renew()
            answered_s = time.monotonic()
            if told is not None:
                beside.end(Stopped("our own server", told))
        except RetryLater as error:
            if time.monotonic() - answered_s > silent_s:
                beside.end(Stopped("our own server", f"silent for {silent_s:g} s: {error}"))
        except HomeostatError as error:
            beside.end(Stopped("our own server", str(error)))
        await asyncio.sleep(RENEW_S)


class Listening:
    """What our own fault manager noticed, each fault once."""

    def __init__(self, announcing: Announcing, book: Book) -> None:
        self._announcing, self._book = announcing, book
        self._not_yet_ns = now_ns()
        self._known: set[object] = set()

    async def listen(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            with suppress(RetryLater):  # the claim's own deadline ends the run
                await self.ask()
            await asyncio.sleep(NOTICE_S)

    async def ask(self) -> None:
        """Once: what is new came between the last question and this answer."""
        asked_ns = now_ns()
        found = await self._announcing.noticed()
        for each in found:
            key: object = each.fault if isinstance(each, Noticed) else each
            if key in self._known:
                continue
            self._known.add(key)
            if isinstance(each, BroughtBack):
                self._book.note(each)
            else:
                self._book.note(FaultNoticed(each.fault, each.kind, self._not_yet_ns, now_ns()))
        self._not_yet_ns = asked_ns


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
