"""Many rows are written in runs; what is in the table is what was handed in, whatever their number."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select

from homeostat.kernel.batch import BatchWriter, prepare
from homeostat.kernel.database import open_engine
from homeostat.kernel.errors import Conflict
from homeostat.kernel.journal import EventCatalogue, Receipt, RowChange, Submission
from homeostat.migrations import upgrade

THINGS = Table(
    "things",
    MetaData(),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", Text),
    Column("note", Text, default="by itself"),
)
_INSERT = insert(THINGS)


def _submission(rows: list[dict[str, object]]) -> Submission:
    return Submission("tests", changes=(RowChange(_INSERT, tuple(rows)),))


@pytest.mark.parametrize("count", [1, 4, 9, 10, 11, 99, 100, 101, 237])
def test_every_row_is_written_and_a_conflict_takes_all_of_its_own(tmp_path: Path, count: int) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    upgrade(url)
    engine = open_engine(url)
    THINGS.create(engine)
    writer = BatchWriter(engine, None)
    writer.open()
    rows: list[dict[str, object]] = [
        {"id": n, "name": None if n % 3 else f"n:{n}", "note": f":{n}"} for n in range(count)
    ]
    again = [{"id": n + 1_000, "name": "x", "note": "y"} for n in range(count - 1)] + [rows[-1]]
    catalogue = EventCatalogue(())
    parts = [prepare(_submission(each), catalogue, 1_000) for each in (rows, again)]
    kept, refused = writer.write(parts)
    assert isinstance(kept, Receipt)
    assert isinstance(refused, Conflict)
    with engine.connect() as connection:
        found = [dict(each) for each in connection.execute(select(THINGS).order_by("id")).mappings()]
    assert found == rows
    writer.close()
    engine.dispose()
