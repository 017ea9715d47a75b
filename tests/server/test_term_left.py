"""How long a leader may start guests: as long as nobody else can lead."""

from __future__ import annotations

import asyncio
import math

from homeostat.kernel.clock import SystemClock
from homeostat.kernel.leadership import Leadership
from store_parts import Store, until

TTL_S = 1.5


async def test_what_is_left_of_the_term_is_known_after_it_was_renewed(store: Store) -> None:
    async with Leadership.of(store.engine, "me", TTL_S, SystemClock()) as leader:
        if store.engine.dialect.name == "sqlite":
            assert leader.left_s() == math.inf, "the lock on the file keeps others out"
            return
        assert leader.left_s() == 0.0, "nobody knows yet"
        keeping = asyncio.create_task(leader.keep())
        await until(lambda: leader.left_s() > 0)
        assert leader.left_s() <= TTL_S
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        left_s = leader.left_s()
        await until(lambda: leader.left_s() < left_s - 0.1)
