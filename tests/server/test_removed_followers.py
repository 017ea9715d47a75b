"""A component that was taken off the list must not keep all history by the cursor that it left."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from homeostat.components import COMPONENTS, load_schemas
from homeostat.contracts.component import Component
from homeostat.kernel import database
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.journal import Seq, Submission
from homeostat.server.settings import ServerSettings
from homeostat.server.store import open_store
from store_parts import Store

TOYS = Component(name="toys", summary="", followers=("toys", "toys of guests"))


async def test_a_cursor_is_given_back_when_its_component_is_off_the_list(
    store: Store, tmp_path: Path
) -> None:
    load_schemas()
    settings = ServerSettings.model_validate(
        {"state_dir": tmp_path, "database_url": store.url, "nats": {"url": "nats://127.0.0.1:4222"}}
    )

    def cursors() -> set[str]:
        return {row.loop for row in store.rows(select(database.cursor.c.loop))}

    async with open_store(settings, SystemClock(), (*COMPONENTS, TOYS)) as opened:
        for name in TOYS.followers:
            await opened.appender.append(Submission(name, cursor=Seq(1)))
    async with open_store(settings, SystemClock(), (*COMPONENTS, TOYS)):
        assert cursors() == {"toys", "toys of guests"}
    async with open_store(settings, SystemClock(), COMPONENTS):
        assert cursors() == set()
