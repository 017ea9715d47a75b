"""Arming: a component that is told to stop stops, whatever becomes of the database."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import closing
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from homeostat.fleet.gate import Arming, component_armed_name, is_armed
from homeostat.fleet.store import arming_changes, load_arming
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.errors import BadInput, NotFound, StoreUnavailable
from homeostat.kernel.journal import Submission
from homeostat.sim.database import CommitFailure, CommitHooks, SimAppender, SimDatabase

ARMABLE = ("recovery",)


@pytest.mark.parametrize("mishap", [CommitFailure.UNAVAILABLE, CommitFailure.ANSWER_LOST])
async def test_a_component_stops_at_once_also_when_nobody_knows_whether_it_was_written(
    mishap: CommitFailure,
) -> None:
    with closing(SimDatabase.in_memory()) as disk:
        befalls = [CommitFailure.NONE, mishap, CommitFailure.NONE, CommitFailure.NONE]
        appender = SimAppender(disk, None, CommitHooks(Random(1), lambda: befalls.pop(0)))
        arming = Arming(appender, disk.readers, SystemClock(), (), ARMABLE)
        await arming.set("recovery", armed=True, by="somebody")
        assert arming.components["recovery"]
        with pytest.raises(StoreUnavailable):
            await arming.set("recovery", armed=False, by="somebody")
        assert not arming.components["recovery"]
        await arming.set("recovery", armed=False, by="somebody")
        after = Arming(appender, disk.readers, SystemClock(), ["recovery"], ARMABLE)
        await after.reload()
        assert not after.components["recovery"]
        await arming.set("recovery", armed=True, by="somebody")
        assert arming.components["recovery"]
        appender.die()


async def test_a_component_without_disruptive_actions_cannot_be_armed() -> None:
    with closing(SimDatabase.in_memory()) as disk:
        appender = SimAppender(disk, None, CommitHooks(Random(1)))
        with pytest.raises(NotFound, match="known: recovery"):
            await Arming(appender, disk.readers, SystemClock(), (), ARMABLE).set(
                "nothing", armed=True, by="x"
            )
        appender.die()


@pytest.mark.parametrize(
    ("by_settings", "said", "armed"),
    [
        (["faults", "resources"], {}, True),
        (["faults"], {}, False),
        (["recovery"], {}, True),
        (["recovery"], {"resources": False}, False),
        ([], {"faults": True, "resources": True}, True),
        (["faults", "resources"], {"recovery": False}, False),
        (["faults"], {"recovery": True}, True),
    ],
)
def test_names_of_0_1_arm_recovery_only_together(
    by_settings: list[str], said: dict[str, bool], armed: bool
) -> None:
    assert is_armed("recovery", by_settings, said) is armed
    assert component_armed_name("faults") == component_armed_name("resources") == "recovery"


async def test_a_new_word_takes_the_place_of_the_words_of_0_1() -> None:
    with closing(SimDatabase.in_memory()) as disk:
        appender = SimAppender(disk, None, CommitHooks(Random(1)))
        old = arming_changes("resources", (), False, 1, "somebody")
        await appender.append(Submission("arming", changes=old))
        arming = Arming(appender, disk.readers, SystemClock(), ["recovery"], ARMABLE)
        await arming.reload()
        assert not arming.components["recovery"]
        await arming.set("recovery", armed=True, by="somebody")
        assert arming.components["recovery"]
        assert await disk.readers.read(load_arming) == {"recovery": True}
        appender.die()


@pytest.mark.parametrize(
    ("by_settings", "said", "armed_once"),
    [
        (["faults"], {}, "faults"),
        (["resources"], {}, "resources"),
        ([], {"resources": True}, "resources"),
        (["faults", "resources"], {"resources": False}, "faults"),
    ],
)
async def test_a_start_warns_of_what_the_upgrade_disarmed(
    by_settings: list[str], said: dict[str, bool], armed_once: str
) -> None:
    (warning,) = await warnings_at_start(by_settings, said)
    assert warning["log_level"] == "warning"
    assert warning["armed"] == armed_once
    assert warning["means"] == "recovery only observes; no host is fenced or recovered by it"
    assert warning["command"] == "homeostat arm recovery"


@pytest.mark.parametrize(
    ("by_settings", "said"),
    [
        ([], {}),
        (["recovery"], {}),
        (["faults", "resources"], {}),
        (["faults"], {"recovery": False}),
        (["faults"], {"faults": False}),
    ],
)
async def test_a_start_does_not_warn_when_nothing_was_disarmed_unseen(
    by_settings: list[str], said: dict[str, bool]
) -> None:
    assert await warnings_at_start(by_settings, said) == []


async def warnings_at_start(by_settings: list[str], said: dict[str, bool]) -> list[MutableMapping[str, Any]]:
    with closing(SimDatabase.in_memory()) as disk:
        appender = SimAppender(disk, None, CommitHooks(Random(1)))
        for name, each in said.items():
            await appender.append(Submission("test", changes=arming_changes(name, (), each, 1, "x")))
        arming = Arming(appender, disk.readers, SystemClock(), by_settings, ARMABLE)
        with capture_logs() as logged:
            await arming.reload()
        appender.die()
        return logged


@pytest.mark.parametrize("name", ["faults", "resources"])
async def test_a_name_of_0_1_disarms_recovery_but_does_not_arm_it(name: str) -> None:
    with closing(SimDatabase.in_memory()) as disk:
        appender = SimAppender(disk, None, CommitHooks(Random(1)))
        arming = Arming(appender, disk.readers, SystemClock(), (), ARMABLE)
        with pytest.raises(BadInput, match="which is armed as a whole: recovery"):
            await arming.set(name, armed=True, by="somebody")
        assert not arming.components["recovery"]
        await arming.set("recovery", armed=True, by="somebody")
        await arming.set(name, armed=False, by="somebody")
        assert arming.components == {"recovery": False}
        assert await disk.readers.read(load_arming) == {"recovery": False}
        appender.die()
