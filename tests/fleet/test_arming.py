"""Arming: a room that is told to stop stops, whatever becomes of the database."""

from __future__ import annotations

from contextlib import closing
from random import Random

import pytest

from homeostat.fleet.arming import Arming
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.errors import NotFound, StoreUnavailable
from homeostat.sim.disk import Disk, Fate, Mishap, SimAppender


@pytest.mark.parametrize("mishap", [Mishap.UNAVAILABLE, Mishap.ANSWER_LOST])
async def test_a_room_stops_at_once_also_when_nobody_knows_whether_it_was_written(mishap: Mishap) -> None:
    with closing(Disk.in_memory()) as disk:
        befalls = [Mishap.NONE, mishap, Mishap.NONE, Mishap.NONE]
        appender = SimAppender(disk, None, Fate(Random(1), lambda: befalls.pop(0)))
        arming = Arming(appender, disk.readers, SystemClock(), ())
        await arming.set("faults", armed=True, by="somebody")
        assert arming.rooms["faults"]
        with pytest.raises(StoreUnavailable):
            await arming.set("faults", armed=False, by="somebody")
        assert not arming.rooms["faults"]
        await arming.set("faults", armed=False, by="somebody")
        after = Arming(appender, disk.readers, SystemClock(), ["faults"])
        await after.reload()
        assert not after.rooms["faults"]
        await arming.set("faults", armed=True, by="somebody")
        assert arming.rooms["faults"]
        appender.die()


async def test_a_room_that_does_no_harm_cannot_be_armed() -> None:
    with closing(Disk.in_memory()) as disk:
        appender = SimAppender(disk, None, Fate(Random(1)))
        with pytest.raises(NotFound, match="known: faults"):
            await Arming(appender, disk.readers, SystemClock(), ()).set("nothing", armed=True, by="x")
        appender.die()
