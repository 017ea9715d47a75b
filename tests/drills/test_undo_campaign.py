"""The tool or the node process dies at random moments while all is broken: undone in time, nothing else hurt.

The long form prints what `docs/evidence/undo.md` says.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from broken_host import BrokenHost
from control_groups import control_group
from undo_campaign import ALL, WAYS, Came, one_round

from engines import leave_out, needs

MOMENTS, SEED = 5, 7
UNTIL_S = 8.0
"""Moments lie between the begin of the tools and this: before, in and after the injections."""

pytestmark = [
    needs("root", "nftables"),
    pytest.mark.seed(
        "order tool and node process die in six ways at random moments: all undone within the deadline"
    ),
]
CAME: list[Came] = []


@pytest.fixture(scope="module", autouse=True)
def figures() -> Iterator[None]:
    """What all rounds together showed."""
    yield
    for way in WAYS:
        for kind in ALL:
            of = [each for each in CAME if (each.way, each.kind) == (way, kind)]
            spans = [each.before_s for each in of if each.before_s is not None]
            if of:
                least = f"{min(spans):.2f}" if spans else "-"
                print(f"| {way} | {kind} | {len(of)} | {len(of) - len(spans)} | {least} |")


def able(way: str) -> None:
    """Skip where the kernel kills nobody for memory at our wish."""
    with control_group("memory") as group:
        if way.startswith("OOM") and group is None:
            leave_out("control-group", why="memory")


@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=[] if "OOM" in way else pytest.mark.slow) for way in WAYS],
)
@pytest.mark.slow
def test_once_everything_is_broken(host: BrokenHost, way: str) -> None:
    able(way)
    came = one_round(host, way, None)
    assert [each.before_s is not None for each in came] == [True] * len(ALL)
    CAME.extend(came)


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(MOMENTS))
@pytest.mark.parametrize("way", WAYS)
def test_at_a_random_moment(host: BrokenHost, way: str, turn: int, tmp_path: Path) -> None:
    able(way)
    CAME.extend(one_round(host, way, random.Random(f"{SEED} {way} {turn}").uniform(0.0, UNTIL_S)))
