"""The store's contract, the same on SQLite and on PostgreSQL: what a submission may rely on."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from sqlalchemy import Connection, Engine, bindparam, func, insert, select, text, update

from engines import POSTGRESQL
from homeostat.kernel import database
from homeostat.kernel.appender import AppenderSettings, Mode
from homeostat.kernel.batch import BatchWriter, prepare
from homeostat.kernel.errors import AlreadyDone, BadInput, Conflict, CorruptState, Deposed, StoreUnavailable
from homeostat.kernel.journal import EventIndex, Receipt, RowChange, Seq, Submission
from homeostat.kernel.leadership import acquire_term, release_term, renew_term
from real_postgresql import PostgresqlCluster
from store_parts import CATALOGUE, Moved, Seen, Store, draft, seen, until

TOKEN = {"name": "a", "hash": "h", "role": "viewer", "owner": "p", "created_ns": 1}


def token(**fields: object) -> RowChange:
    return RowChange(insert(database.token), ({**TOKEN, **fields},))


def write(store: Store, *batch: Submission, epoch: int | None = None) -> list[Receipt | Exception]:
    """These submissions in exactly one transaction."""
    writer = BatchWriter(store.engine, epoch)
    writer.open()
    try:
        return writer.write([prepare(submission, CATALOGUE, 10_000) for submission in batch])
    finally:
        writer.close()


# ---- one batch, many submissions ----


def test_a_bad_submission_in_a_batch_fails_alone(store: Store) -> None:
    bad = Submission("bad", (draft("bad/1"), draft("bad/2")), (token(name="x"), token(name="x")), Seq(9))
    outcomes = write(store, seen("good/1"), bad, seen("good/2", "good/3"))
    assert outcomes[0] == Receipt((Seq(1),))
    assert isinstance(outcomes[1], Conflict)
    assert outcomes[2] == Receipt((Seq(2), Seq(3)))
    assert store.subjects() == ["good/1", "good/2", "good/3"]
    assert store.rows(select(database.token)) == []
    assert store.rows(select(database.cursor)) == []


@pytest.mark.parametrize(
    "change",
    [
        RowChange(text("INSERT INTO no_such_table VALUES (1)")),
        RowChange(insert(database.token), ({**TOKEN, "owner": None},)),
        RowChange(insert(database.token), ({**TOKEN, "created_ns": 2**80},)),
        RowChange(insert(database.token), ({**TOKEN, "owner": "\ud800"},)),
    ],
    ids=["no table", "null", "too large", "no text"],
)
def test_whatever_is_wrong_with_it_it_fails_alone(store: Store, change: RowChange) -> None:
    outcomes = write(store, seen("a"), Submission("bad", (draft("b"),), (change,)), seen("c"))
    assert [type(outcome) is Receipt for outcome in outcomes] == [True, False, True]
    assert store.subjects() == ["a", "c"]


@pytest.mark.parametrize("count", [1, 9])
def test_a_statement_may_bring_values_of_its_own_for_one_row_and_for_many(store: Store, count: int) -> None:
    names = [f"t-{number}" for number in range(count)]
    others = tuple({**TOKEN, "name": name, "hash": f"h-{name}", "role": "admin"} for name in names)
    mine = tuple({**TOKEN, "name": f"mine-{name}", "hash": f"m-{name}"} for name in names)
    move = (
        update(database.token)
        .where(database.token.c.name == bindparam("which"), database.token.c.role == "viewer")
        .values(owner=bindparam("to"))
    )
    wanted = tuple({"which": row["name"], "to": f"q-{index}"} for index, row in enumerate((*others, *mine)))
    for changes in ((RowChange(insert(database.token), (*others, *mine)),), (RowChange(move, wanted),)):
        assert [type(each) for each in write(store, Submission("t", (), changes))] == [Receipt]
    owners = dict(store.rows(select(database.token.c.name, database.token.c.owner)))
    expected = {f"mine-{name}": f"q-{count + index}" for index, name in enumerate(names)}
    assert owners == {**dict.fromkeys(names, "p"), **expected}


async def test_through_the_appender_each_caller_gets_its_own_answer(store: Store) -> None:
    async with store.appending() as appender:
        submissions = [
            Submission("test", (draft(f"s/{number}"),), (token(name="x", hash=str(number)),))
            if number % 3 == 0
            else seen(f"s/{number}")
            for number in range(60)
        ]
        answers = await asyncio.gather(*map(appender.append, submissions), return_exceptions=True)
    conflicts = [number for number, answer in enumerate(answers) if isinstance(answer, Conflict)]
    assert conflicts == list(range(3, 60, 3))  # the first of them took the name
    receipts = [answer.seqs[0] for answer in answers if isinstance(answer, Receipt)]
    assert receipts == list(range(1, 42))
    assert store.seqs() == receipts


async def test_a_small_queue_makes_callers_wait_and_loses_nothing(store: Store) -> None:
    settings = AppenderSettings(queue_bound=2, batch_bound=2)
    async with store.appending(settings=settings) as appender:
        receipts = await asyncio.gather(*(appender.append(seen(f"s/{number}")) for number in range(50)))
    assert [receipt.seqs for receipt in receipts] == [(number,) for number in range(1, 51)]
    assert store.subjects() == [f"s/{number}" for number in range(50)]


async def test_a_cancelled_caller_does_not_disturb_the_others(store: Store) -> None:
    async with store.appending() as appender:
        tasks = [asyncio.create_task(appender.append(seen(f"s/{number}"))) for number in range(20)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers[3], asyncio.CancelledError)
        assert sum(isinstance(answer, Receipt) for answer in answers) == 19
        await appender.append(seen("after"))


async def test_what_was_handed_in_is_committed_before_the_end(store: Store) -> None:
    async with store.appending() as appender:
        tasks = [asyncio.create_task(appender.append(seen(f"s/{number}"))) for number in range(20)]
        await asyncio.sleep(0)
    assert all(isinstance(task.result(), Receipt) for task in tasks)
    with pytest.raises(StoreUnavailable):
        await appender.append(seen("late"))


# ---- rows, cursors and events are one ----


def test_a_cursor_moves_with_its_results_only(store: Store) -> None:
    write(store, Submission("loop", (draft("a"),), (), Seq(5)))
    assert store.rows(select(database.cursor.c.seq)) == [(5,)]
    write(store, Submission("loop", (draft("b"),), (token(owner=None),), Seq(6)))
    assert store.rows(select(database.cursor.c.seq)) == [(5,)]
    write(store, Submission("loop", (), (), Seq(7)))
    assert store.rows(select(database.cursor.c.seq)) == [(7,)]


async def test_cursors_are_read_by_loop(store: Store) -> None:
    write(store, Submission("one", (), (), Seq(5)))
    assert await store.journal.cursor("one") == 5
    assert await store.journal.cursor("never") == 0


def test_a_local_becomes_the_sequence_number(store: Store) -> None:
    write(store, seen("before"))
    (outcome,) = write(
        store,
        Submission(
            "test",
            (draft("root"), draft("child", cause=EventIndex(0)), draft("grandchild", cause=EventIndex(1))),
            (
                token(created_ns=EventIndex(2)),
                RowChange(
                    update(database.token)
                    .where(database.token.c.name == bindparam("who"))
                    .values(owner=bindparam("to")),
                    ({"who": "a", "to": "q"}, {"who": "b", "to": "q"}),
                ),
            ),
        ),
    )
    assert outcome == Receipt((Seq(2), Seq(3), Seq(4)))
    causes = store.rows(select(database.journal.c.cause).order_by(database.journal.c.seq))
    assert causes == [(None,), (None,), (2,), (3,)]
    assert store.rows(select(database.token.c.created_ns, database.token.c.owner)) == [(4, "q")]


@pytest.mark.parametrize(
    ("submission", "said"),
    [
        (Submission("l", (draft("a", cause=EventIndex(0)),)), "an earlier event"),
        (Submission("l", (draft("a", cause=EventIndex(1)), draft("b"))), "an earlier event"),
        (
            Submission("l", (draft("a"),), (token(created_ns=EventIndex(1)),)),
            "an event of the same submission",
        ),
        (Submission("l", (draft("a", key="k"), draft("b", key="k"))), "one event of a key"),
        (Submission("l", (draft("a", event=object()),)), "an event of the catalogue"),
        (Submission("l", (draft("a", what="x" * 20_000),)), "at most 10000 bytes"),
        (Submission("l", (draft("a", what="\ud800"),)), "an event that JSON can hold"),
    ],
)
def test_a_submission_that_makes_no_sense_is_refused_at_once(submission: Submission, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        prepare(submission, CATALOGUE, 10_000)


def test_a_conflict_names_field_and_value(store: Store) -> None:
    write(store, Submission("test", (), (token(),)))
    (same_name,) = write(store, Submission("test", (), (token(hash="other"),)))
    assert isinstance(same_name, Conflict)
    assert (same_name.field, same_name.value) == ("token.name", "a")
    (same_hash,) = write(store, Submission("test", (), (token(name="b"),)))
    assert isinstance(same_hash, Conflict)
    assert same_hash.field == "token.hash"


# ---- re-runs ----


def test_a_rerun_is_told_so_and_changes_nothing(store: Store) -> None:
    write(store, seen("root"))
    once = Submission("loop", (draft("a", key="k"),), (token(),), Seq(1))
    again = Submission("loop", (draft("a", key="k"),), (token(name="b", hash="b"),), Seq(99))
    assert isinstance(write(store, once)[0], Receipt)
    assert isinstance(write(store, again)[0], AlreadyDone)
    assert store.subjects() == ["root", "a"]
    assert store.rows(select(database.token.c.name)) == [("a",)]
    assert store.rows(select(database.cursor.c.seq)) == [(1,)]


def test_a_rerun_in_the_same_batch_is_found_too(store: Store) -> None:
    write(store, seen("root"))
    twice = seen("a", cause=Seq(1), key="k")
    outcomes = write(store, twice, twice)
    assert isinstance(outcomes[0], Receipt)
    assert isinstance(outcomes[1], AlreadyDone)


def test_loop_and_key_make_the_difference(store: Store) -> None:
    write(store, seen("root", "root"))  # without a key nothing is a re-run
    outcomes = write(
        store,
        seen("a", loop="one", cause=Seq(1)),
        seen("a", loop="one", cause=Seq(1)),
        seen("a", loop="one", cause=Seq(1), key="k1"),
        seen("a", loop="one", cause=Seq(1), key="k2"),
        seen("a", loop="two", cause=Seq(1), key="k1"),
    )
    assert all(isinstance(outcome, Receipt) for outcome in outcomes)
    (other,) = write(store, Submission("one", (draft("b", event=Moved("here", 1), key="k1"),)))
    assert isinstance(other, AlreadyDone), "the key alone says what a re-run is"


# ---- the term ----


def test_the_term_is_taken_kept_and_given_back(store: Store) -> None:
    first = acquire_term(store.engine, "one", 60)
    assert first == 1
    assert acquire_term(store.engine, "two", 60) is None
    assert renew_term(store.engine, "one", first, 60)
    assert not renew_term(store.engine, "one", first + 1, 60)
    assert not renew_term(store.engine, "two", first, 60)
    assert not release_term(store.engine, "two", first)
    assert acquire_term(store.engine, "two", 60) is None
    assert release_term(store.engine, "one", first)
    second = acquire_term(store.engine, "two", 60)
    assert second == 2
    assert not renew_term(store.engine, "one", first, 60)
    assert acquire_term(store.engine, "two", 60) == 3  # one's own term may be taken again
    assert acquire_term(store.engine, "one", 60, predecessor_is_dead=True) == 4


def test_a_term_runs_out_by_the_databases_clock(store: Store) -> None:
    assert acquire_term(store.engine, "one", 0.0) == 1
    assert acquire_term(store.engine, "two", 3600) == 2
    left_s = store.rows(select(database.term.c.expires_at - _database_now(store)))[0][0]
    assert 3590 < left_s <= 3600


def _database_now(store: Store) -> object:
    sqlite = "(julianday('now') - 2440587.5) * 86400.0"
    postgresql = "extract(epoch FROM clock_timestamp())::double precision"
    return text(sqlite if store.engine.dialect.name == "sqlite" else postgresql)


def _race(barrier: threading.Barrier, taken: dict[str, int | None], name: str, engine: Engine) -> None:
    barrier.wait()
    taken[name] = acquire_term(engine, name, 60)


def test_of_two_servers_one_gets_the_term(store: Store) -> None:
    engines = [store.engine, database.open_engine(store.url)]
    for round_number in range(10):
        taken: dict[str, int | None] = {}
        barrier = threading.Barrier(2)

        threads = [
            threading.Thread(target=_race, args=(barrier, taken, f"{name}{round_number}", engine))
            for name, engine in zip("ab", engines, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = {name: epoch for name, epoch in taken.items() if epoch is not None}
        assert list(winners.values()) == [round_number + 1]
        assert release_term(store.engine, next(iter(winners)), round_number + 1)
    engines[1].dispose()


def test_a_new_database_does_not_begin_with_an_epoch_of_the_past(store: Store) -> None:
    assert acquire_term(store.engine, "one", 60, at_least=1_700_000_000) == 1_700_000_000
    assert acquire_term(store.engine, "one", 60, at_least=1_700_000_000) == 1_700_000_001
    assert acquire_term(store.engine, "one", 60, at_least=5) == 1_700_000_002


async def test_after_a_takeover_nothing_of_the_old_server_gets_in(store: Store) -> None:
    epoch = acquire_term(store.engine, "old", 60)
    async with store.appending(epoch=epoch) as appender:
        await appender.append(seen("a"))
        acquire_term(store.engine, "new", 60, predecessor_is_dead=True)
        answers = await asyncio.gather(
            *(appender.append(seen(f"late/{number}")) for number in range(5)), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [Deposed] * 5
        with pytest.raises(Deposed, match="epoch is 2, ours was 1"):
            await appender.append(seen("later"))
    assert store.subjects() == ["a"]


def test_without_a_term_row_nobody_leads(store: Store) -> None:
    with pytest.raises(Deposed):
        write(store, seen("a"), epoch=1)


def test_a_takeover_waits_for_the_append_before_it(store: Store) -> None:
    epoch = acquire_term(store.engine, "old", 60)
    assert epoch is not None
    reading = select(database.term.c.epoch).with_for_update(read=True)
    got: list[int | None] = []
    other = database.open_engine(store.url)
    taker = threading.Thread(
        target=lambda: got.append(acquire_term(other, "new", 60, predecessor_is_dead=True)), daemon=True
    )
    with store.engine.begin() as connection:
        connection.execute(reading)
        taker.start()
        taker.join(0.2)
        assert taker.is_alive()
        assert got == []
    taker.join(10)
    assert got == [epoch + 1]
    other.dispose()


@pytest.mark.parametrize("store", [POSTGRESQL], indirect=True)
def test_a_takeover_waits_for_an_append_that_has_seen_the_epoch(store: Store) -> None:
    """The lock is the appender's own: hold it up in the middle, after it has looked at the term."""
    epoch = acquire_term(store.engine, "old", 60)
    write(store, Submission("test", (), (token(),)))
    change = RowChange(update(database.token).values(owner="later"))
    outcomes: list[Receipt | Exception] = []
    got: list[int | None] = []
    appending = threading.Thread(
        target=lambda: outcomes.extend(
            write(store, Submission("test", (draft("a"),), (change,)), epoch=epoch)
        )
    )
    taking = threading.Thread(
        target=lambda: got.append(acquire_term(store.engine, "new", 60, predecessor_is_dead=True))
    )
    with store.engine.begin() as holding:
        holding.execute(update(database.token).values(owner="first"))
        appending.start()
        _until_blocked(store, 1)
        taking.start()
        _until_blocked(store, 2)
        assert got == []
    appending.join(10)
    taking.join(10)
    assert outcomes == [Receipt((Seq(1),))]
    assert got == [2]


def _until_blocked(store: Store, connections: int) -> None:
    blocked = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND datname = current_database()"
    )
    deadline_s = time.monotonic() + 10
    while store.rows(blocked) != [(connections,)]:
        assert time.monotonic() < deadline_s, f"{connections} connections should wait for a lock"
        time.sleep(0.01)


# ---- sequence numbers ----


async def test_sequence_numbers_have_no_gaps_and_go_on_after_a_reopen(store: Store) -> None:
    async with store.appending() as appender:
        assert appender.head == 0
        await appender.append(seen("a", "b"))
        with pytest.raises(Conflict):
            await appender.append(Submission("t", (draft("x"),), (token(), token())))
        await appender.append(seen("c"))
        assert appender.head == 3
    async with store.appending() as appender:
        assert appender.head == 3
        assert (await appender.append(seen("d"))).seqs == (4,)
    assert store.seqs() == [1, 2, 3, 4]
    assert await store.journal.head() == 4


async def test_a_tool_may_write_beside_the_server(store: Store) -> None:
    async with store.appending() as server, store.appending() as tool:
        await server.append(seen("a"))
        assert (await tool.append(seen("b", "c"))).seqs == (2, 3)
        assert (await server.append(seen("d"))).seqs == (4,)
    assert store.subjects() == ["a", "b", "c", "d"]


async def test_who_waits_for_an_event_is_woken_by_the_commit(store: Store) -> None:
    async with store.appending() as appender:
        await appender.append(seen("a"))
        assert await appender.wait_beyond(Seq(0)) == 1
        waiting = [asyncio.create_task(appender.wait_beyond(Seq(1))) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        await appender.append(seen("b"))
        assert await asyncio.gather(*waiting) == [2, 2, 2]
        last = asyncio.create_task(appender.wait_beyond(Seq(2)))
        await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await last


# ---- reading ----


async def test_old_versions_are_cast_up_and_unknown_kinds_kept(store: Store) -> None:
    rows = [
        ("Moved", 1, '{"where": "n1"}'),
        ("Moved", 2, '{"place": "n2"}'),
        ("Moved", 3, '{"place": "n3", "speed": 7}'),
        ("Moved", 4, '{"something": "new"}'),
        ("Vanished", 1, '{"x": 1}'),
        ("Seen", 1, "not json"),
        ("Seen", 1, "[1]"),
        ("Seen", 1, '{"what": ["no", "text"]}'),
        ("Seen", 0, '{"what": "no upcast"}'),
        ("Seen", 1, '{"what": "fine"}'),
    ]
    with store.engine.begin() as connection:
        for seq, (kind, version, payload) in enumerate(rows, 1):
            row = dict.fromkeys(("subject", "trace", "origin", "loop"), "x") | {"at_ns": 1, "cause": None}
            row |= {"seq": seq, "kind": kind, "version": version, "payload": payload}
            connection.execute(insert(database.journal), row)
    found = await store.journal.read(Seq(0))
    assert [envelope.seq for envelope in found] == list(range(1, 11))
    assert [envelope.event for envelope in found] == [
        Moved("n1", 0),
        Moved("n2", 0),
        Moved("n3", 7),
        *[None] * 6,
        Seen("fine"),
    ]
    assert found[0].payload == {"where": "n1"}
    assert found[0].version == 1
    assert found[4].payload == {"x": 1}


async def test_an_event_comes_back_as_it_went_in(store: Store) -> None:
    strange = 'Grüße, \u2028"quoted"\\ \x00 \U0001f600'
    async with store.appending() as appender:
        await appender.append(Submission("t", (draft("a", what=strange, trace="tr"),)))
    (envelope,) = await store.journal.read(Seq(0))
    assert envelope.event == Seen(strange)
    assert (envelope.kind, envelope.subject, envelope.cause) == ("Seen", "a", None)
    assert (envelope.trace, envelope.at_ns, envelope.origin) == ("tr", 1_000, "test")


async def test_reading_by_kind_and_subject(store: Store) -> None:
    write(store, seen("a", "b"), Submission("t", (draft("a", event=Moved("x", 1)),)), seen("a"))

    async def seqs(**chosen: object) -> list[int]:
        return [envelope.seq for envelope in await store.journal.read(Seq(0), **chosen)]  # type: ignore[arg-type]

    assert await seqs() == [1, 2, 3, 4]
    assert await seqs(limit=2) == [1, 2]
    assert await seqs(subject="a") == [1, 3, 4]
    assert await seqs(kinds={"Seen"}) == [1, 2, 4]
    assert await seqs(kinds={"Seen"}, subject="a", limit=1) == [1]
    assert await seqs(kinds=set()) == []
    assert [envelope.seq for envelope in await store.journal.read(Seq(3))] == [4]


async def test_a_chain_holds_the_causes_and_the_trace(store: Store) -> None:
    write(
        store,
        Submission(
            "t",
            (
                draft("root", trace="one"),
                draft("stranger", trace="other"),
                draft("fault", trace="two", cause=EventIndex(0)),
                draft("sibling", trace="two"),
                draft("notice", trace="two", cause=EventIndex(2)),
                draft("root's trace", trace="one"),
            ),
        ),
    )
    assert [envelope.subject for envelope in await store.journal.chain(Seq(5))] == [
        "root",
        "fault",
        "sibling",
        "notice",
    ]
    assert [envelope.seq for envelope in await store.journal.chain(Seq(1))] == [1, 6]
    assert await store.journal.chain(Seq(99)) == []


async def test_a_damaged_chain_with_a_circle_ends(store: Store) -> None:
    write(store, seen("a", "b"))
    with store.engine.begin() as connection:
        connection.execute(update(database.journal).values(cause=3 - database.journal.c.seq))
    assert [envelope.seq for envelope in await store.journal.chain(Seq(1))] == [1, 2]


async def test_a_read_is_one_snapshot(store: Store) -> None:
    counting = select(func.count()).select_from(database.journal)

    def twice(connection: Connection) -> tuple[object, object]:
        before = connection.execute(counting).scalar()
        write(store, seen("a"))
        return before, connection.execute(counting).scalar()

    assert await store.readers.read(twice) == (0, 0)
    assert store.events() == 1


# ---- a database that goes and comes back ----


@pytest.mark.parametrize("store", [POSTGRESQL], indirect=True)
async def test_a_cut_connection_is_told_and_mended(store: Store, postgresql: PostgresqlCluster) -> None:
    settings = AppenderSettings(reconnect_first_s=0.01)
    async with store.appending(settings=settings) as appender:
        await appender.append(seen("a"))
        assert postgresql.cut_connections() >= 1
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await appender.append(seen("b"))
        await until(lambda: appender.mode is Mode.WRITABLE)
        assert (await appender.append(seen("c"))).seqs == (2,)
        assert appender.why == ""
    assert store.subjects() == ["a", "c"]


async def test_a_journal_that_went_back_is_not_written_to(store: Store) -> None:
    writer = BatchWriter(store.engine, None)
    writer.open()
    writer.write([prepare(seen("a", "b"), CATALOGUE, 10_000)])
    with store.engine.begin() as connection:
        connection.execute(text("DELETE FROM journal WHERE seq = 2"))
    with pytest.raises(CorruptState, match="ends at 1 and ended at 2 before"):
        writer.open()
    writer.close()
