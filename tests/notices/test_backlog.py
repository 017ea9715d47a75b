"""The backlog: what is read from the outbox while notices end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from homeostat.contracts.nouns import FaultId
from homeostat.notices.delivery import Backlog
from homeostat.notices.model import FaultPicture, Notice
from notices_parts import picture, subscription, until, world


async def test_a_notice_that_ended_while_the_outbox_was_read_is_not_brought_back(tmp_path: Path) -> None:
    """The rows were read before its end was committed: taken in again, its consumer would get it twice."""
    async with world(tmp_path) as here:
        await here.subscribe(subscription())
        first, second = await here.tell(None, picture("f-1"), picture("f-2"))
        taken: list[str] = []

        def take(notice: Notice, shown: FaultPicture | None) -> bool:
            taken.append(notice.key)
            return True

        async def recall(faults: Sequence[FaultId]) -> Mapping[FaultId, FaultPicture]:
            backlog.ended(first)  # the rows are here, and now its end is committed
            return await here.recall(faults)

        backlog = Backlog(here.readers, recall, take, lambda _: True)
        catching_up = asyncio.create_task(backlog.run())
        try:
            await until(lambda: bool(here.recalled) and not backlog.is_behind(first.destination))
        finally:
            catching_up.cancel()
            await asyncio.gather(catching_up, return_exceptions=True)
    assert taken == [second.key]
