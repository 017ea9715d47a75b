"""For each invariant the simulation finds a planted bug; so a green run means something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from planted import PLANTED
from planted_guests import IsDisarmedOnceFenced

from homeostat.sim.__main__ import red_line
from homeostat.sim.database import SimDatabase
from homeostat.sim.run import run_seed
from homeostat.sim.under_test import ClassesUnderTest

SEEDS_MOST = 2000


def _by_invariant() -> Iterator[object]:
    """Of each invariant the first bug; the others break it in another way and are slow: a second each."""
    seen: set[str] = set()
    for name, planted in PLANTED.items():
        yield pytest.param(name, marks=pytest.mark.slow) if planted.checker in seen else name
        seen.add(planted.checker)


@pytest.mark.seed("order a planted bug of each invariant is found within 2000 seeds")
@pytest.mark.parametrize("invariant", [*_by_invariant()])
def test_a_planted_bug_is_found(invariant: str, record_property: pytest.RecordProperty) -> None:
    planted = PLANTED[invariant]
    with closing(SimDatabase.in_memory()) as disk:
        for seed in (planted.seed, *range(SEEDS_MOST)):
            verdict = run_seed(seed, disk, planted.parts)
            found = [each for each in verdict.violations if each.invariant == planted.checker]
            if any(planted.words in each.says for each in found):
                record_property("found_by_seed", seed)
                return
    pytest.fail(f"{SEEDS_MOST} seeds did not find it")


def test_a_person_who_disarms_at_a_bad_moment_is_no_bug() -> None:
    planted = PLANTED["moved unasked"]
    with closing(SimDatabase.in_memory()) as disk:
        assert run_seed(planted.seed, disk, ClassesUnderTest(IsDisarmedOnceFenced)).violations == ()


@pytest.mark.seed("order a red seed replays with one command")
def test_a_red_run_names_its_seed_and_the_command_and_is_as_red_again() -> None:
    planted = PLANTED["noticed"]
    with closing(SimDatabase.in_memory()) as disk:
        first, second = (run_seed(planted.seed, disk, planted.parts) for _ in range(2))
    said = red_line(first).splitlines()
    assert said[0] == f"seed {planted.seed}"
    assert said[-1].strip() == f"replay: python -m homeostat.sim --seed {planted.seed}"
    assert any(planted.checker in line for line in said[1:-1])
    assert list(map(str, first.story.lines)) == list(map(str, second.story.lines))
    assert first.violations == second.violations
