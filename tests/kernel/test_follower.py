"""A follower of the journal: what it is given, when its cursor moves, and what survives its death."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from following_child import NAME, SETTINGS, count
from homeostat.kernel import database
from homeostat.kernel.appender import Appender
from homeostat.kernel.errors import StoreUnavailable
from homeostat.kernel.follower import (
    DecideOnEvents,
    Follower,
    FollowerResults,
    FollowerSettings,
    read_cursor,
    release_cursor,
    release_cursors_except,
)
from homeostat.kernel.journal import Envelope, Receipt, RowChange, Seq, Submission
from homeostat.kernel.processes import die_with_parent
from store_parts import Moved, Store, draft, seen, until

CHILD = Path(__file__).parent.parent / "following_child.py"
FAST = {"tick_s": 0.02, "retry_first_s": 0.001, "retry_max_s": 0.002}


def following(**more: object) -> FollowerSettings:
    """A follower of the sources only, from the first event on."""
    fields: dict[str, object] = {"name": "f", "kinds": frozenset({"Seen"}), "start": Seq(0), **FAST, **more}
    return FollowerSettings(**fields)  # type: ignore[arg-type]


class Notes:
    """Decides nothing and remembers what it was asked."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def decide(self, events: Sequence[Envelope]) -> FollowerResults:
        self.batches.append([each.subject for each in events])
        return FollowerResults()

    @property
    def subjects(self) -> list[str]:
        return [each for batch in self.batches for each in batch]


def move(events: Sequence[Envelope]) -> FollowerResults:
    """One result an event, caused by it."""
    return FollowerResults(
        tuple(draft(each.subject, event=Moved("here", 1), cause=each.seq) for each in events)
    )


def made(store: Store, appender: Appender, decide: DecideOnEvents, settings: FollowerSettings) -> Follower:
    return Follower(settings, store.journal, store.readers, appender, decide)


@asynccontextmanager
async def running(follower: Follower) -> AsyncIterator[None]:
    task = asyncio.create_task(follower.run())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def cursors(store: Store) -> dict[str, int]:
    table = database.cursor.c
    return {row.loop: row.seq for row in store.rows(select(table.loop, table.seq))}


def moved(store: Store) -> list[str]:
    table = database.journal.c
    query = select(table.subject).where(table.kind == "Moved").order_by(table.seq)
    return [row.subject for row in store.rows(query)]


async def test_a_commit_wakes_it_and_its_cursor_moves_with_its_results(store: Store) -> None:
    async with store.appending() as appender:
        follower = made(store, appender, move, following(tick_s=3600.0))
        async with running(follower):
            await until(lambda: cursors(store) == {"f": 0})
            await appender.append(seen("a"))
            await until(lambda: moved(store) == ["a"])
            assert cursors(store) == {"f": 1}
            await appender.append(seen("b", "c"))
            await until(lambda: moved(store) == ["a", "b", "c"])
            assert cursors(store)["f"] == 4


async def test_without_a_cursor_it_begins_behind_the_last_event(store: Store) -> None:
    notes = Notes()
    async with store.appending() as appender:
        await appender.append(seen("old"))
        async with running(made(store, appender, notes.decide, following(start=None))):
            await until(lambda: cursors(store) == {"f": 1})
            await appender.append(seen("new"))
            await until(lambda: notes.subjects == ["new"])


async def test_a_new_follower_has_its_cursor_before_it_handles_anything(store: Store) -> None:
    """Or retention could remove what it has still to read."""
    found: list[dict[str, int]] = []

    def look(events: Sequence[Envelope]) -> FollowerResults:
        found.append(cursors(store))
        return FollowerResults()

    async with store.appending() as appender:
        await appender.append(seen("a"))
        async with running(made(store, appender, look, following())):
            await until(lambda: bool(found))
    assert found[0] == {"f": 0}


async def test_a_restart_goes_on_from_the_cursor(store: Store) -> None:
    first, second = Notes(), Notes()
    async with store.appending() as appender:
        await appender.append(seen("a", "b"))
        async with running(made(store, appender, first.decide, following())):
            await until(lambda: cursors(store) == {"f": 2})  # at the tick: there was no result
        await appender.append(seen("c"))
        async with running(made(store, appender, second.decide, following())):
            await until(lambda: bool(second.subjects))
    assert (first.subjects, second.subjects) == (["a", "b"], ["c"])


async def test_events_of_other_kinds_move_the_cursor_so_that_retention_does_not_wait(store: Store) -> None:
    notes = Notes()
    async with store.appending() as appender, running(made(store, appender, notes.decide, following())):
        for number in range(3):
            await appender.append(Submission("test", (draft(f"m{number}", event=Moved("x", number)),)))
        await until(lambda: cursors(store) == {"f": 3})
    assert notes.batches == []


async def test_events_of_unknown_kinds_and_unreadable_ones_are_passed_over(store: Store) -> None:
    notes = Notes()
    row = {"version": 1, "trace": "t", "at_ns": 1, "origin": "o", "loop": "l"}
    with store.engine.begin() as connection:
        for seq, kind, payload in (
            (1, "FromTheFuture", "{}"),
            (2, "Seen", "torn"),
            (3, "Seen", '{"what":""}'),
        ):
            values = {**row, "seq": seq, "kind": kind, "subject": f"s{seq}", "payload": payload}
            connection.execute(insert(database.journal).values(values))
    async with (
        store.appending() as appender,
        running(made(store, appender, notes.decide, following(kinds=None))),
    ):
        await until(lambda: cursors(store) == {"f": 3})
    assert notes.subjects == ["s3"]


async def test_a_batch_is_bounded_in_events(store: Store) -> None:
    notes = Notes()
    async with store.appending() as appender:
        await appender.append(seen(*"abcdefg"))
        async with running(made(store, appender, notes.decide, following(events_max=3))):
            await until(lambda: len(notes.subjects) == 7)
    assert notes.batches == [["a", "b", "c"], ["d", "e", "f"], ["g"]]


async def test_a_batch_is_bounded_in_bytes_and_what_is_larger_comes_alone(store: Store) -> None:
    notes = Notes()
    sizes = {"a": 400, "b": 400, "c": 400, "huge": 5000, "d": 10, "e": 10}
    async with store.appending() as appender:
        await appender.append(
            Submission("test", tuple(draft(name, what="x" * size) for name, size in sizes.items()))
        )
        async with running(made(store, appender, notes.decide, following(bytes_max=1000))):
            await until(lambda: len(notes.subjects) == 6)
    assert notes.batches == [["a", "b"], ["c"], ["huge"], ["d", "e"]]


async def test_a_decision_that_raises_is_repeated_recorded_once_and_skips_nothing(store: Store) -> None:
    recorded: list[tuple[str, str]] = []
    tries = 0

    async def record(name: str, error: BaseException) -> None:
        recorded.append((name, str(error)))

    def decide(events: Sequence[Envelope]) -> FollowerResults:
        nonlocal tries
        if any(each.subject == "bad" for each in events):
            tries += 1
            if tries < 12:
                raise ValueError("no idea")
        return move(events)

    async with store.appending() as appender:
        await appender.append(seen("a", "bad", "c"))
        follower = made(store, appender, decide, following())
        follower.on_stuck(record)
        async with running(follower):
            await until(lambda: follower.stuck_at == 2)
            assert moved(store) == ["a"]  # what stands before it does not wait for it
            await until(lambda: moved(store) == ["a", "bad", "c"])
            assert follower.stuck_at is None
    assert recorded == [("f at event 2", "no idea")]


async def test_results_that_the_store_refuses_are_a_failed_decision(store: Store) -> None:
    recorded: list[str] = []

    async def record(name: str, error: BaseException) -> None:
        recorded.append(name)

    def twice(events: Sequence[Envelope]) -> FollowerResults:
        return FollowerResults((draft("x", cause=events[0].seq), draft("x", cause=events[0].seq)))

    async with store.appending() as appender:
        await appender.append(seen("a"))
        follower = made(store, appender, twice, following())
        follower.on_stuck(record)
        async with running(follower):
            await until(lambda: bool(recorded))
            assert cursors(store) == {"f": 0}
    assert recorded == ["f at event 1"]


class LosesAnswers:
    """An appender whose every other receipt is lost on the way, after the commit."""

    def __init__(self, appender: Appender) -> None:
        self._appender, self._count = appender, 0

    @property
    def head(self) -> Seq:
        return self._appender.head

    async def wait_beyond(self, seq: Seq) -> Seq:
        return await self._appender.wait_beyond(seq)

    async def append(self, submission: Submission) -> Receipt:
        receipt = await self._appender.append(submission)
        self._count += 1
        if self._count % 2:
            raise StoreUnavailable("the answer is lost")
        return receipt


async def test_a_commit_whose_answer_was_lost_is_not_done_again(store: Store) -> None:
    def uncaused(events: Sequence[Envelope]) -> FollowerResults:
        return FollowerResults(tuple(draft(each.subject, event=Moved("here", 1)) for each in events))

    async with store.appending() as appender:
        await appender.append(seen(*"abcdef"))
        settings = following(events_max=2)
        follower = Follower(settings, store.journal, store.readers, LosesAnswers(appender), uncaused)
        async with running(follower):
            await until(lambda: moved(store)[-1:] == ["f"])
            await until(lambda: follower.place >= 9)
    assert moved(store) == list("abcdef")


async def test_who_is_switched_off_gives_its_cursor_back_and_comes_again_at_the_head(store: Store) -> None:
    notes = Notes()
    async with store.appending() as appender:
        async with running(made(store, appender, notes.decide, following(start=None))):
            await until(lambda: "f" in cursors(store))
        await release_cursor(appender, "f")
        assert cursors(store) == {}
        assert await store.readers.read(lambda connection: read_cursor(connection, "f")) is None
        await release_cursor(appender, "f")  # again, and of one that never was: nothing
        await appender.append(seen("while it was off"))
        async with running(made(store, appender, notes.decide, following(start=None))):
            await until(lambda: cursors(store) == {"f": 1})
            await appender.append(seen("on again"))
            await until(lambda: notes.subjects == ["on again"])


async def test_who_comes_again_at_an_older_place_does_nothing_twice(store: Store) -> None:
    async with store.appending() as appender:
        await appender.append(seen("a", "b"))
        async with running(made(store, appender, move, following())):
            await until(lambda: moved(store) == ["a", "b"])
        await release_cursor(appender, "f")
        await appender.append(seen("c"))
        async with running(made(store, appender, move, following())):
            await until(lambda: moved(store) == ["a", "b", "c"])


async def test_cursors_of_components_that_are_gone_are_given_back(store: Store) -> None:
    async with store.appending() as appender:
        for name in ("gone", "here", "removed"):
            await appender.append(Submission(name, cursor=Seq(1)))
        assert await release_cursors_except(appender, store.readers, {"here"}) == ("gone", "removed")
    assert cursors(store) == {"here": 1}


def _killed_at(url: str, decisions: int, last: str) -> bool:
    """Let the child decide so often and kill it in the midst of that batch; whether that one had `last`."""
    child = subprocess.Popen(
        [sys.executable, str(CHILD), url],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent(),
    )
    assert child.stdout is not None
    reached = False
    for _ in range(decisions):
        reached = reached or last in child.stdout.readline().split()
        if reached:
            break
    child.send_signal(signal.SIGKILL)
    child.stdout.close()
    assert child.wait(10) == -signal.SIGKILL
    return reached


async def test_killed_in_mid_batch_it_has_handled_every_event_once(store: Store) -> None:
    sources = [f"s{number}" for number in range(35)]
    token = {"name": NAME, "hash": "h", "role": "viewer", "owner": "o", "created_ns": 0}
    async with store.appending() as appender:
        await appender.append(
            Submission(
                "test",
                tuple(draft(each) for each in sources),
                (RowChange(insert(database.token), (token,)),),
            )
        )
    kills = 0
    while not _killed_at(store.url, 2 + kills % 2, "35"):
        kills += 1
    assert kills >= 2
    # The last batch of the last child may not be committed: this one ends it, and handles nothing again.
    async with store.appending() as appender:
        follower = made(store, appender, count, SETTINGS)
        async with running(follower):
            await until(lambda: follower.place >= 2 * len(sources))
    handled = [each for each in store.subjects() if each.startswith("counted/")]
    assert handled == [f"counted/{each}" for each in sources]
    table = database.token.c
    assert store.rows(select(table.created_ns).where(table.name == NAME)) == [(len(sources),)]
