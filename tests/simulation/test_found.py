"""Seeds that were red once, each with what was wrong then. The bug is gone when they stay green."""

from __future__ import annotations

from contextlib import closing

import pytest

from homeostat.sim.__main__ import red_line
from homeostat.sim.database import SimDatabase
from homeostat.sim.run import run_seed

FOUND = {
    18: "notices of a commit whose answer was lost were not told before the next start",
    196: "an intent to mark named a death without a number; refused with it, a host was fenced unintended",
    209: "a node that was lost again while its fault was clearing stayed lost for ever",
    225: "a node process that fell silent twice in one life jammed the fault path",
    286: "an answer to a resync that was overtaken put an old level back",
    507: "an intent to mark whose commit nobody saw stayed open until the next server",
    711: "a host was fenced whose death was never committed",
    2032: "the check of the gate held a storm against a host that had its receipt before the storm",
    2237: "a deposed server whose delivery was told so while it was being cancelled never ended",
}


@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found_stays_mended(seed: int) -> None:
    with closing(SimDatabase.in_memory()) as disk:
        verdict = run_seed(seed, disk)
    assert verdict.green, f"{FOUND[seed]}\n{red_line(verdict)}"
    assert verdict.settled_s is not None, FOUND[seed]
