"""The appender's queue and commits are bounded by what submissions weigh, not only by how many there are."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import insert

from homeostat.kernel import database
from homeostat.kernel.appender import AppenderSettings
from homeostat.kernel.batch import prepare
from homeostat.kernel.journal import RowChange, Submission
from store_parts import CATALOGUE, Store, draft, seen

HUGE = 100_000


def huge(name: str) -> Submission:
    return Submission("test", (draft(name, what="x" * HUGE),))


def test_a_submission_weighs_its_payloads_and_the_texts_of_its_rows() -> None:
    rows = tuple({"name": f"t{number}", "hash": "h" * 1000} for number in range(500))
    change = RowChange(insert(database.token), rows)
    light, heavy, wide = (
        prepare(each, CATALOGUE, HUGE * 2)
        for each in (seen("a"), huge("a"), Submission("t", changes=(change,)))
    )
    assert light.size < 1000
    assert HUGE < heavy.size < HUGE + 1000
    assert wide.rows == 500
    assert 500_000 < wide.size < 700_000


@pytest.mark.parametrize(
    "settings",
    [AppenderSettings(batch_bytes=3 * HUGE - 1), AppenderSettings(batch_rows=3)],
    ids=["bytes", "rows"],
)
async def test_few_huge_submissions_make_several_commits(store: Store, settings: AppenderSettings) -> None:
    counts: list[int] = []
    async with store.appending(settings=settings) as appender:
        appender.on_commit(lambda _waited_s, _took_s, count: counts.append(count))
        await asyncio.gather(*(appender.append(huge(f"s{number}")) for number in range(12)))
    assert sum(counts) == 12
    assert max(counts) <= 3


async def test_what_waits_is_bounded_in_bytes_and_keeps_its_order(store: Store) -> None:
    most = 0
    async with store.appending(settings=AppenderSettings(queue_bytes=3 * HUGE)) as appender:
        names = [f"s{number}" for number in range(12)]
        appends = [asyncio.ensure_future(appender.append(huge(name))) for name in names]
        while not all(each.done() for each in appends):
            await asyncio.sleep(0)
            most = max(most, appender.waiting)
    assert store.subjects() == names
    assert most == 2  # three of them, each with its envelope, are more than the bound


async def test_a_submission_that_is_larger_than_the_bound_waits_for_its_turn_alone(store: Store) -> None:
    async with store.appending(settings=AppenderSettings(queue_bytes=HUGE // 2)) as appender:
        await asyncio.gather(*(appender.append(each) for each in (seen("a"), huge("b"), seen("c"))))
    assert store.subjects() == ["a", "b", "c"]
