"""A leader that is one no longer stops."""

from __future__ import annotations

import asyncio

import pytest

from homeostat.kernel.clock import SystemClock
from homeostat.kernel.database import open_engine
from homeostat.kernel.errors import Deposed
from homeostat.kernel.leadership import Leadership, acquire_term
from real_parts import free_port
from store_parts import Store

TTL_S = 0.3
SOON_S = 20.0
"""Only a leader that never stops takes so long."""


async def test_a_leader_whose_term_was_taken_steps_down(store: Store) -> None:
    async with Leadership.of(store.engine, "me", TTL_S, SystemClock()) as leader:
        assert acquire_term(store.engine, "another", 60.0, predecessor_is_dead=True) == leader.epoch + 1
        with pytest.raises(Deposed, match=rf"no longer leads \(epoch {leader.epoch}\)"):
            async with asyncio.timeout(SOON_S):
                await leader.keep()


async def test_a_leader_that_cannot_renew_its_term_steps_down_when_it_has_run_out() -> None:
    """Nobody answers there, and by now another server may lead."""
    engine = open_engine(f"postgresql+psycopg://me:secret@127.0.0.1:{free_port()}/none")
    leader = Leadership(engine, "me", 7, TTL_S, SystemClock())
    try:
        with pytest.raises(Deposed):
            async with asyncio.timeout(SOON_S):
                await leader.keep()
        assert "cannot be renewed" in leader.trouble
    finally:
        engine.dispose()
