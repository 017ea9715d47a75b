"""Rows of one statement go to the database together, and what is done to one table stays in its order."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import Column, MetaData, Table, Text, bindparam, insert, update

from homeostat.kernel.journal import RowChange, Submission, group_changes
from store_parts import Store, draft, until

META = MetaData()
PLACES, THINGS = (Table(name, META, Column("id", Text), Column("what", Text)) for name in ("place", "thing"))
NEW_PLACE, NEW_THING = insert(PLACES), insert(THINGS)
# With a value of its own, "nowhere", that is in no row.
MOVE = (
    update(PLACES)
    .where(PLACES.c.id == bindparam("key"), PLACES.c.id != "nowhere")
    .values(what=bindparam("what"))
)


def test_neighbours_of_one_table_become_one_and_their_order_stays() -> None:
    changes = [
        RowChange(NEW_PLACE, ({"id": "a"},)),
        RowChange(NEW_THING, ({"id": "1"},)),
        RowChange(NEW_PLACE, ({"id": "b"}, {"id": "c"})),
        RowChange(MOVE, ({"key": "a"},)),
        RowChange(NEW_THING, ({"id": "2"},)),
        RowChange(NEW_PLACE, ({"id": "d"},)),
    ]
    assert group_changes(changes) == (
        RowChange(NEW_PLACE, ({"id": "a"}, {"id": "b"}, {"id": "c"})),
        RowChange(MOVE, ({"key": "a"},)),
        RowChange(NEW_PLACE, ({"id": "d"},)),
        RowChange(NEW_THING, ({"id": "1"}, {"id": "2"})),
    )


def test_a_statement_without_rows_is_not_swallowed() -> None:
    everything = update(PLACES).values(what="gone")
    assert group_changes([RowChange(everything), RowChange(everything)]) == (
        RowChange(everything),
        RowChange(everything),
    )


async def test_many_rows_are_written_like_few(store: Store) -> None:
    META.create_all(store.engine)
    for count in (2, 40):
        rows = tuple({"id": f"{count}-{number}", "what": None} for number in range(count))
        moved = tuple({"key": f"{count}-{number}", "what": 'it\'s ":x" %s %% ü'} for number in range(count))
        events = tuple(draft(f"s-{count}-{number}") for number in range(count))
        async with store.appending() as appender:
            receipt = await appender.append(
                Submission("test", events, (RowChange(NEW_PLACE, rows), RowChange(MOVE, moved)))
            )
            assert len(receipt.seqs) == count
    assert {row.what for row in store.rows(PLACES.select())} == {'it\'s ":x" %s %% ü'}
    assert len(store.rows(PLACES.select())) == 42


async def test_the_write_ahead_log_is_put_away_when_nothing_is_to_be_written(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/homeostat.db")
    async with store.appending() as appender:
        for number in range(70):
            await appender.append(Submission("test", (draft(f"s{number}"),)))
        # What stands in the file itself, as somebody sees it who cannot read the log beside it.
        await until(lambda: _in_the_file(tmp_path / "homeostat.db") >= 60)
    store.close()


def _in_the_file(path: Path) -> int:
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    with closing(sqlite3.connect(f"file:{copy}?immutable=1", uri=True)) as database:
        try:
            return int(database.execute("SELECT count(*) FROM journal").fetchone()[0])
        except sqlite3.DatabaseError:
            return 0  # copied in the middle of a move
