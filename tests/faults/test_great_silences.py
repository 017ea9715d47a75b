"""Ten thousand notices kept back, a thousand silences: what one entry costs stays small."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from homeostat.contracts.faults import Fault
from homeostat.contracts.nouns import INFRASTRUCTURE
from homeostat.faults.notice_bridge import LOOK_AGAIN_NS, LOOKED_MAX, OWED_MAX, NoticeBridge
from homeostat.ingest.entry import PendingNotice
from homeostat.kernel.journal import EventIndex, Receipt, Seq, Submission
from homeostat.notices.model import NoticeState, Silence
from homeostat.notices.store import end_silence, insert_silence
from homeostat.notices.subscriptions import Silences
from notices_parts import NoDelivery, World, fault_of, picture, subscription, world

COUNT, END_NS = 1_000, 9 * 10**18


def silences(count: int) -> list[Silence]:
    """One covers what runs on n1; the others are about something else there."""
    other = Silence("s-0", INFRASTRUCTURE, "memory", "admin", 0, 0, END_NS, host="n1")
    return [
        other,
        *(replace(other, id=f"s-{number}", resource=f"other-{number}") for number in range(1, count)),
    ]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        await made.subscribe(subscription(owner="infrastructure"))
        changes = tuple(insert_silence(row) for row in silences(100))
        await made.appender.append(Submission("test", changes=changes))
        yield made


async def keeping(here: World, count: int) -> tuple[NoticeBridge, Silences, list[Fault]]:
    """A herald that keeps back the news of so many faults."""
    known = Silences(here.readers)
    await known.reload()
    herald = NoticeBridge(here.subscriptions, NoDelivery(), here.readers, known)  # type: ignore[arg-type]
    faults = [fault_of(picture(f"f-{number}", host="n1")) for number in range(count)]
    faults = [replace(each, host="n1") for each in faults]
    told = herald.announce([PendingNotice(each, "raised", EventIndex(0), 1) for each in faults], 0)
    assert {each.state for each in told.notices} == {NoticeState.SILENCED}
    herald.tell(told, Receipt(tuple(Seq(each) for each in range(1, len(told.drafts) + 1))))
    return herald, known, faults


async def test_the_end_of_a_great_silence_is_told_in_parts_and_once(here: World) -> None:
    herald, known, faults = await keeping(here, COUNT)
    assert not herald.owed(faults, 2, 0).notices
    await here.appender.append(Submission("test", changes=(end_silence("s-0", 2, "admin"),)))
    await known.reload()
    told: list[str] = []
    now_ns = 3
    while len(told) < COUNT:
        part = herald.owed(faults, now_ns, 0)
        assert 0 < len(part.notices) <= OWED_MAX
        herald.tell(part, Receipt(tuple(Seq(each) for each in range(1, len(part.drafts) + 1))))
        told += [each.key for each in part.notices]
        now_ns += 1
    assert len(set(told)) == COUNT
    assert not herald.owed(faults, now_ns + LOOK_AGAIN_NS, 0).notices


async def test_who_is_looked_at_last_is_looked_at_though_silences_come_and_go(here: World) -> None:
    herald, known, faults = await keeping(here, COUNT)
    faults[-1] = replace(faults[-1], host="n2")  # the last of them is covered by none
    for entry in range(COUNT // LOOKED_MAX):
        await known.reload()  # something has changed, again
        told = herald.owed(faults, 2 + entry, 0)
        assert bool(told.notices) == (entry == COUNT // LOOKED_MAX - 1)


@pytest.mark.slow
async def test_no_entry_costs_much(here: World) -> None:
    changes = tuple(insert_silence(row) for row in silences(1_000)[100:])
    await here.appender.append(Submission("test", changes=changes))
    herald, known, faults = await keeping(here, 10_000)

    def cost_ms(now_ns: int) -> float:
        began_s = time.thread_time()
        herald.owed(faults, now_ns, 0)
        return (time.thread_time() - began_s) * 1e3

    looking = [cost_ms(2 + number) for number in range(20)]
    await here.appender.append(Submission("test", changes=(end_silence("s-0", 2, "admin"),)))
    await known.reload()
    telling = [cost_ms(100 + number) for number in range(20)]
    assert min(looking) < 5
    assert min(telling) < 5
