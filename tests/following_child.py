"""A process to be killed: follows the journal, counts events in a row, prints what it is about to do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from sqlalchemy import bindparam, update

from homeostat.kernel import database
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.database import Readers, open_engine
from homeostat.kernel.follower import Follower, FollowerResults, FollowerSettings
from homeostat.kernel.journal import Envelope, Journal, RowChange, Seq
from store_parts import CATALOGUE, draft

NAME = "counting"
SETTINGS = FollowerSettings(NAME, kinds=frozenset({"Seen"}), start=Seq(0), events_max=7)
_table = database.token
_COUNTED = update(_table).where(_table.c.name == NAME).values(created_ns=_table.c.created_ns + bindparam("n"))


def count(events: Sequence[Envelope]) -> FollowerResults:
    """Adds the number of events to a row and writes an event for each: neither may be repeated."""
    fresh = [each for each in events if each.origin == "test" and each.subject.startswith("s")]
    print("deciding", *(each.seq for each in events), flush=True)
    if not fresh:
        return FollowerResults()
    return FollowerResults(
        tuple(draft(f"counted/{each.subject}") for each in fresh),
        (RowChange(_COUNTED, ({"n": len(fresh)},)),),
    )


async def main(url: str) -> None:
    appender = Appender(
        open_engine(url), CATALOGUE, epoch=None, settings=AppenderSettings(), clock=SystemClock()
    )
    appender.start()
    readers = Readers(open_engine(url, read_only=True), threads=1)
    await Follower(SETTINGS, Journal(readers, CATALOGUE), readers, appender, count).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
