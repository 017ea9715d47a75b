"""Reading in pages is reading at once, whatever the pages, kinds and subject."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from homeostat.components import catalogue
from homeostat.contracts.events.fleet import ComponentArmed
from homeostat.kernel import database
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.batch import BatchWriter, prepare
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.follower import Follower, FollowerResults, FollowerSettings
from homeostat.kernel.journal import Envelope, Journal, NewEvent, Seq, Submission
from store_parts import CATALOGUE, Moved, Store, draft, until

KINDS, SUBJECTS = ("Seen", "Moved"), ("a", "b", "c")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('reader')}/homeostat.db")
    writer = BatchWriter(store.engine, None)
    writer.open()
    batch = [
        Submission("t", (draft(SUBJECTS[n * n % 3], event=Moved("x", n) if n % 4 == 0 else None),))
        for n in range(60)
    ]
    writer.write([prepare(submission, CATALOGUE, 1000) for submission in batch])
    writer.close()
    yield store
    store.close()


@given(
    pages=st.lists(st.integers(1, 25), min_size=1, max_size=10),
    kinds=st.none() | st.sets(st.sampled_from(KINDS)),
    subject=st.none() | st.sampled_from(SUBJECTS),
    after=st.integers(0, 61),
)
def test_pages_together_are_the_whole(
    filled: Store, pages: list[int], kinds: set[str] | None, subject: str | None, after: int
) -> None:
    async def whole() -> list[Envelope]:
        return await filled.journal.read(Seq(after), 1000, kinds=kinds, subject=subject)

    async def in_pages() -> list[Envelope]:
        found: list[Envelope] = []
        at, turn = Seq(after), 0
        while page := await filled.journal.read(at, pages[turn % len(pages)], kinds=kinds, subject=subject):
            assert len(page) <= pages[turn % len(pages)]
            found, at, turn = found + page, page[-1].seq, turn + 1
        return found

    expected = [
        seq
        for seq in range(after + 1, 61)
        if (kinds is None or ("Moved" if (seq - 1) % 4 == 0 else "Seen") in kinds)
        and (subject is None or SUBJECTS[(seq - 1) ** 2 % 3] == subject)
    ]
    at_once = asyncio.run(whole())
    assert [envelope.seq for envelope in at_once] == expected
    assert asyncio.run(in_pages()) == at_once


async def test_what_was_stored_under_an_earlier_kind_is_found_by_its_present_one(store: Store) -> None:
    room = {
        "seq": 1, "kind": "RoomArmed", "version": 1, "subject": "arming/faults", "cause": None, "trace": "t",
        "at_ns": 1, "origin": "test", "loop": "test", "payload": '{"room":"faults","armed":true,"by":"ann"}',
    }  # fmt: skip
    present = ComponentArmed("faults", False, "bob")
    with store.engine.begin() as connection:
        connection.execute(insert(database.journal).values(room))
    journal, kinds = Journal(store.readers, catalogue()), frozenset({"ComponentArmed"})
    batches: list[list[object]] = []

    def decide(events: Sequence[Envelope]) -> FollowerResults:
        batches.append([each.event for each in events])
        return FollowerResults()

    appender = Appender(
        store.engine, catalogue(), epoch=None, settings=AppenderSettings(), clock=SystemClock()
    )
    appender.start()
    try:
        await appender.append(Submission("test", (NewEvent(present, "arming/faults", 2, "test", "t"),)))
        both = [ComponentArmed("faults", True, "ann"), present]
        assert [each.event for each in await journal.read(Seq(0), kinds=kinds)] == both
        latest = await journal.latest(Seq(9), 9, after=Seq(0), kind="ComponentArmed")
        assert [each.event for each in latest] == both[::-1]
        settings = FollowerSettings("f", kinds, start=Seq(0))
        task = asyncio.create_task(Follower(settings, journal, store.readers, appender, decide).run())
        await until(lambda: batches == [both])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    finally:
        await appender.close()


async def test_readers_drop_what_waits_when_they_are_closed(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/homeostat.db")
    assert await store.readers.read(_answer) == 42
    store.close()
    with pytest.raises(RuntimeError):
        await store.readers.read(_answer)


async def test_an_error_of_the_reader_is_the_callers(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/homeostat.db")

    def fail(connection: object) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await store.readers.read(fail)
    store.close()


_answer: Callable[[object], int] = lambda connection: 42  # noqa: E731
