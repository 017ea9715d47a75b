"""The schema's contract: the revisions and the tables in the code say the same on both engines."""

from __future__ import annotations

import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from homeostat.components import FRAME_TABLES, known_tables, load_schemas
from homeostat.kernel.database import METADATA, open_engine
from homeostat.kernel.errors import BadInput, CorruptState, StoreUnavailable
from homeostat.migrations import upgrade
from store_parts import Store


def differences(connection: Connection) -> list[Any]:
    """Between the database and the tables of the installed components; other tests may have loaded more."""
    load_schemas()
    installed = {table.name for table in known_tables()}

    def counts(_: object, name: str | None, kind: str, reflected: bool, __: object) -> bool:
        return reflected or kind != "table" or name in installed

    options = {"compare_type": True, "include_object": counts}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), METADATA))


def test_the_revisions_make_the_tables_of_the_code(store: Store) -> None:
    with store.engine.connect() as connection:
        assert differences(connection) == []
        assert {table.name for table in known_tables()} <= set(inspect(connection).get_table_names())


def test_a_table_without_a_revision_is_found(store: Store) -> None:
    with store.engine.begin() as connection:
        connection.execute(text("DROP INDEX ix_journal_trace"))
    with store.engine.connect() as connection:
        assert [change[0] for change in differences(connection)] == ["add_index"]


def test_the_history_is_one_line() -> None:
    config = Config()
    config.set_main_option("script_location", "homeostat:migrations")
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_bases() == ["0001"]
    assert len(scripts.get_heads()) == 1
    assert all(len(script.revision) == 4 for script in scripts.walk_revisions())


def test_without_components_only_the_frame_has_tables() -> None:
    assert load_schemas(()) == FRAME_TABLES


def test_upgrade_may_be_repeated_and_raced(database_url: str) -> None:
    errors: list[Exception] = []

    def run() -> None:
        try:
            upgrade(database_url)
        except Exception as error:
            errors.append(error)

    upgrade(database_url)
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_two_servers_may_make_one_database(database_url: str) -> None:
    barrier, errors = threading.Barrier(2), []

    def run() -> None:
        barrier.wait()
        try:
            upgrade(database_url)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_database_of_a_newer_version_is_refused(store: Store) -> None:
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(BadInput, match="of this version or an older one"):
        upgrade(store.url)


def test_a_reading_engine_does_not_write(store: Store) -> None:
    with pytest.raises(Exception, match=r"read-?only"), store.reading.begin() as connection:
        connection.execute(text("DELETE FROM journal"))


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://root@localhost/x",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:////no/such/folder/x.db",
        "postgresql://u:hidden@h/d",
    ],
)
def test_a_url_we_do_not_know_is_one_clear_line(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        open_engine(url)
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "homeostat.db"
    file.write_bytes(b"not a database" * 1000)
    for call in (lambda: open_engine(f"sqlite:///{file}"), lambda: upgrade(f"sqlite:///{file}")):
        with pytest.raises(CorruptState) as caught:
            call()
        assert str(caught.value).startswith(f"{file}: ")
        assert "restore it or move it away" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert file.read_bytes() == b"not a database" * 1000


async def test_damage_inside_the_file_is_named_by_a_reader(tmp_path: Path) -> None:
    file = tmp_path / "homeostat.db"
    store = Store(f"sqlite:///{file}")
    store.close()
    body = bytearray(file.read_bytes())
    body[4096:] = b"\xff" * (len(body) - 4096)  # all but the first page
    file.write_bytes(body)
    # A schema of more than one page is damaged too: then it is found on the way in already.
    with pytest.raises(CorruptState, match=str(file)):
        damaged = open_engine(f"sqlite:///{file}", read_only=True)
        try:
            with damaged.connect() as connection:
                connection.execute(text("SELECT * FROM journal")).all()
        finally:
            damaged.dispose()


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/homeostat.db")
    with store.engine.begin() as connection:
        connection.execute(text("DELETE FROM journal"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    store.close()


def test_a_commit_is_on_the_disk_when_it_returns(store: Store) -> None:
    with store.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        else:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
            assert connection.exec_driver_sql("SHOW fsync").scalar() == "on"


def test_a_server_that_is_not_there_is_unavailable() -> None:
    engine = open_engine("postgresql+psycopg://nobody:hidden@/none?host=/no/such/folder")
    with pytest.raises(StoreUnavailable) as caught, engine.connect():
        pass
    assert "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)
