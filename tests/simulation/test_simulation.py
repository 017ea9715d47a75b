"""Seeded runs of the real loops in virtual time. A red one prints its seed and the replay command."""

from __future__ import annotations

from contextlib import closing

import pytest

from homeostat.sim.__main__ import red_line
from homeostat.sim.disk import Disk
from homeostat.sim.many import run_many
from homeostat.sim.run import run_seed


def all_green(seeds: range) -> None:
    red = [verdict for verdict in run_many(seeds, processes=2) if not verdict.green]
    assert not red, "\n".join(map(red_line, red[:10]))


@pytest.mark.seed("order every invariant holds in seeded runs with crashes, losses and two leaders")
def test_seeds_are_green() -> None:
    all_green(range(150))


@pytest.mark.slow
@pytest.mark.seed("order 2000 seeds are green")
def test_many_seeds_are_green() -> None:
    all_green(range(150, 2150))


def test_a_seed_gives_the_same_story_every_time() -> None:
    with closing(Disk.in_memory()) as disk:
        for seed in (3, 18, 87, 209):
            first, second = (run_seed(seed, disk) for _ in range(2))
            assert list(map(str, first.story.lines)) == list(map(str, second.story.lines))


def test_a_run_goes_through_something() -> None:
    """The story is not empty: services died, servers wrote, people were told, and the world came to rest."""
    with closing(Disk.in_memory()) as disk:
        verdict = run_seed(209, disk)
    told = "\n".join(map(str, verdict.story.lines))
    for words in ("dies", "leads, epoch 3", "acknowledges", "kill -9", "hears", "nothing bad happens"):
        assert words in told
    assert verdict.settled_s is not None
