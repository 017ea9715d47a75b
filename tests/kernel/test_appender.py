"""The appender when the disk is full, the database stalls or goes away, and when its process is killed."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event, func, select, text

from engines import need
from homeostat.kernel import database
from homeostat.kernel.appender import AppenderSettings, Mode
from homeostat.kernel.errors import StoreFull, StoreUnavailable
from homeostat.kernel.journal import Receipt, Seq, Submission
from homeostat.kernel.processes import die_with_parent
from store_parts import Store, draft, mode_of, seen, until

MIB = 2**20
CHILD = Path(__file__).parent.parent / "store_appending_child.py"


@pytest.fixture
def file_store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/homeostat.db")
    yield store
    store.close()


# ---- a full disk, a real one ----


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    need("mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


async def test_a_full_disk_loses_nothing_and_heals_when_there_is_room(small_disk: Path) -> None:
    filler, ballast = small_disk / "filler", small_disk / "ballast"
    filler.write_bytes(bytes(5 * MIB))
    store = Store(f"sqlite:///{small_disk}/homeostat.db")
    settings = AppenderSettings(ballast=ballast, ballast_bytes=2 * MIB)
    known: list[str] = []
    async with store.appending(settings=settings) as appender:
        assert ballast.stat().st_blocks * 512 == 2 * MIB
        assert mode_of(appender) is Mode.WRITABLE
        with pytest.raises(StoreFull) as caught:
            for number in range(10_000):
                await appender.append(_large(number))
                known.append(f"large/{number}")
        assert "make room" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert mode_of(appender) is Mode.FULL
        assert str(small_disk) in appender.why
        assert not ballast.exists()
        # Small ones would fit into the ballast's room, and are refused all the same: read-only is read-only.
        answers = await asyncio.gather(
            *(appender.append(seen(f"small/{number}")) for number in range(3)), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [StoreFull] * 3
        assert await _subjects(store) == known

        filler.unlink()
        receipt = await appender.append(seen("after"))
        assert receipt.seqs == (len(known) + 1,)
        assert mode_of(appender) is Mode.WRITABLE
        assert appender.why == ""
        assert ballast.stat().st_size == 2 * MIB
    assert await _subjects(store) == [*known, "after"]
    assert store.rows(text("PRAGMA integrity_check")) == [("ok",)]
    store.close()


async def test_on_a_nearly_full_disk_it_starts_read_only(small_disk: Path) -> None:
    store = Store(f"sqlite:///{small_disk}/homeostat.db")
    filler = small_disk / "filler"
    filler.write_bytes(bytes(8 * MIB))
    settings = AppenderSettings(ballast=small_disk / "ballast", ballast_bytes=2 * MIB)
    async with store.appending(settings=settings) as appender:
        assert mode_of(appender) is Mode.FULL
        with pytest.raises(StoreFull, match="read-only until more than 4 MiB are free"):
            await appender.append(seen("a"))
        filler.unlink()
        await appender.append(seen("b"))
    assert store.subjects() == ["b"]
    store.close()


async def test_without_a_ballast_a_full_disk_is_told_too(small_disk: Path) -> None:
    store = Store(f"sqlite:///{small_disk}/homeostat.db")
    filler = small_disk / "filler"
    async with store.appending() as appender:
        await appender.append(seen("a"))
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(MIB))
        with pytest.raises(StoreFull, match="make room"):
            await appender.append(_large(0))
        assert mode_of(appender) is Mode.FULL
        filler.unlink()
        await appender.append(seen("b"))
        assert mode_of(appender) is Mode.WRITABLE
    assert store.subjects() == ["a", "b"]
    store.close()


def _large(number: int) -> Submission:
    return Submission("test", (draft(f"large/{number}", what="x" * 100_000),))


async def _subjects(store: Store) -> list[str]:
    return [envelope.subject for envelope in await store.journal.read(Seq(0), limit=100_000)]


# ---- a database that stalls or goes away ----


async def test_a_stalled_database_is_told_and_callers_do_not_wait(file_store: Store) -> None:
    settings = AppenderSettings(stall_s=0.05)
    async with file_store.appending(settings=settings) as appender:
        with closing(sqlite3.connect(file_store.engine.url.database or "", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(appender.append(seen("a")))
            await until(lambda: appender.mode is Mode.UNAVAILABLE)
            assert "has not answered for" in appender.why
            with pytest.raises(StoreUnavailable):
                await appender.append(seen("b"))
            other.execute("ROLLBACK")
        assert isinstance(await waiting, Receipt)
        assert mode_of(appender) is Mode.WRITABLE
    assert file_store.subjects() == ["a"]


async def test_a_file_that_is_moved_away_is_missed_and_found_again(file_store: Store, tmp_path: Path) -> None:
    file, away = tmp_path / "homeostat.db", tmp_path / "away"
    away.mkdir()
    async with file_store.appending(settings=AppenderSettings(reconnect_first_s=0.01)) as appender:
        await appender.append(seen("a"))
        names = [path.name for path in tmp_path.glob("homeostat.db*")]
        for name in names:
            (tmp_path / name).rename(away / name)
        with pytest.raises(StoreUnavailable, match="is gone; put it back"):
            await appender.append(seen("b"))
        assert mode_of(appender) is Mode.UNAVAILABLE
        assert not file.exists()
        for name in names:
            (away / name).rename(tmp_path / name)
        await until(lambda: appender.mode is Mode.WRITABLE)
        await appender.append(seen("c"))
    assert file_store.subjects() == ["a", "c"]


async def test_a_restored_copy_is_not_written_to(file_store: Store, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    settings = AppenderSettings(reconnect_first_s=0.01, reconnect_longest_s=0.02)
    async with file_store.appending(settings=settings) as appender:
        await appender.append(seen("a"))
        with (
            closing(sqlite3.connect(file_store.engine.url.database or "")) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        await appender.append(seen("b"))
        for path in tmp_path.glob("homeostat.db*"):
            path.unlink()
        copy.rename(tmp_path / "homeostat.db")
        with pytest.raises(StoreUnavailable, match="another file"):
            await appender.append(seen("c"))
        await until(lambda: "restored from an older copy" in appender.why)
        with pytest.raises(StoreUnavailable, match="restored from an older copy"):
            await appender.append(seen("d"))
        assert mode_of(appender) is Mode.UNAVAILABLE


async def test_a_database_that_is_not_there_at_the_start_is_one_clear_line(file_store: Store) -> None:
    Path(file_store.engine.url.database or "").unlink()
    with pytest.raises(StoreUnavailable, match="is gone; put it back"):
        async with file_store.appending():
            pass


async def test_the_event_loop_runs_on_while_the_database_is_slow(file_store: Store) -> None:
    async with file_store.appending() as appender:
        with closing(sqlite3.connect(file_store.engine.url.database or "", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(appender.append(seen("a")))
            turns = 0
            async with asyncio.timeout(5):
                while turns < 200:
                    await asyncio.sleep(0.0005)
                    turns += 1
            assert not waiting.done()
            other.execute("ROLLBACK")
        await waiting


async def test_many_wait_for_one_commit(file_store: Store) -> None:
    """Group commit: what arrives while a commit runs goes into the next one together."""
    commits: list[int] = []
    event.listen(file_store.engine, "commit", lambda connection: commits.append(1))
    async with file_store.appending() as appender:
        await asyncio.gather(*(appender.append(seen(f"s/{number}")) for number in range(200)))
    assert file_store.events() == 200
    assert len(commits) < 50


async def test_it_ends_its_thread(file_store: Store) -> None:
    async with file_store.appending() as appender:
        assert "appender" in {thread.name for thread in threading.enumerate()}
    assert "appender" not in {thread.name for thread in threading.enumerate()}
    await appender.close()


# ---- kill -9 ----


@pytest.mark.parametrize("receipts", [1, 40, 400])
def test_after_a_kill_everything_acknowledged_is_there(database_url: str, receipts: int) -> None:
    child = subprocess.Popen(
        [sys.executable, str(CHILD), database_url],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent(),
    )
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(receipts)]
    child.send_signal(signal.SIGKILL)
    lines += child.stdout.readlines()  # what it had printed when it died
    child.stdout.close()
    assert child.wait(10) == -signal.SIGKILL

    store = Store(database_url)
    table = database.journal
    found = {row.seq: row for row in store.rows(select(table.c.seq, table.c.subject, table.c.cause))}
    rows = {row.name: row.created_ns for row in store.rows(select(database.token))}
    acknowledged = [line.split() for line in lines if line.endswith("\n")]
    assert len(acknowledged) >= receipts
    for subject, first, second in acknowledged:
        assert found[int(first)].subject == subject
        assert found[int(second)].cause == int(first)
        assert rows[subject] == int(second)
    # Whole submissions only: no gap, two events and one row each, every cursor at its last one.
    assert sorted(found) == list(range(1, len(found) + 1))
    assert len(found) == 2 * len(rows)
    for loop, seq in store.rows(select(database.cursor.c.loop, database.cursor.c.seq)):
        assert max(int(name[2:]) for name in rows if name.startswith(f"{loop}-")) == seq
    assert store.rows(select(func.count()).select_from(database.cursor)) != [(0,)]
    store.close()


# ---- what is measured ----


async def test_every_transaction_is_measured_and_nothing_waits_afterwards(file_store: Store) -> None:
    measured: list[tuple[float, float, int]] = []
    async with file_store.appending() as appender:
        appender.on_commit(lambda waited_s, took_s, count: measured.append((waited_s, took_s, count)))
        appends = [asyncio.ensure_future(appender.append(seen(f"s{number}"))) for number in range(20)]
        await asyncio.sleep(0)
        assert appender.waiting == 20
        await asyncio.gather(*appends)
        await until(lambda: sum(count for _, _, count in measured) == 20)
        assert appender.waiting == 0
    assert all(0 <= waited_s < 10 and 0 < took_s < 10 for waited_s, took_s, _ in measured)
