"""A full replay of what a server wrote about notices finds nothing wrong with its tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import update

from homeostat.contracts.events.notices import SubscriptionCreated
from homeostat.kernel.journal import NewEvent, RowChange, Submission
from homeostat.notices.model import Endpoint, NoticeState
from homeostat.notices.store import insert_subscription, outbox
from homeostat.notices.subscriptions import SubscriptionChange
from homeostat.server.replay import compare_with_tables
from notices_parts import World, picture, subscription, world


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def test_notices_that_are_only_read_are_as_the_events_say(here: World) -> None:
    row = subscription("listener", endpoints=(Endpoint(1, ""),))
    event = SubscriptionCreated(row.name, row.owner, "")
    draft = NewEvent(event, f"subscription/{row.name}", 1, "test", "trace")
    here.open = [picture("f-1")]
    await here.enrol(SubscriptionChange(row.name, row, draft, insert_subscription(row)))
    assert [each.state for each in (await here.rows()).values()] == [NoticeState.KEPT]

    async def verdict() -> str:
        return await here.readers.read(lambda connection: compare_with_tables(connection, lambda _: None)[1])

    assert await verdict() == ""
    spoilt = RowChange(update(outbox).values(state=NoticeState.DELIVERED.value))
    await here.appender.append(Submission("test", changes=(spoilt,)))
    assert "state is 'delivered' in the table and 'pending' by the events" in await verdict()
