"""The observation store on a disk that is full: a real one, filled to the last byte."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from reports import finish, intent, report

from engines import needs
from homeostat.contracts.nouns import ResourceId, ResourceState
from homeostat.contracts.wire import ResourceTransition
from homeostat.node.observation_file import RESERVE_BYTES
from homeostat.node.observations import ObservationStore
from small_disk import fill, small_disk

pytestmark = needs("mount")
WEB = ResourceId("web")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "8m") as mounted:
        yield mounted


def use_up(store: ObservationStore, disk: Path) -> int:
    """Record until nothing more goes to the disk, while somebody else takes all room; how often that was."""
    count = 0
    while count < 500:
        fill(disk / "filler")
        count += 1
        transition = store.record(report("web", ResourceState.DOWN, intended=intent(f"use-{count}")))
        if transition.intended is not None and transition.intended.uncommitted:
            return count
    raise AssertionError("the reserve is never used up")


def numbers(transitions: tuple[ResourceTransition, ...]) -> list[int]:
    return [each.level.seq for each in transitions]


@pytest.mark.seed("order full disk: of a node, a reserve takes the intents")
def test_the_reserve_takes_what_a_full_disk_does_not(disk: Path) -> None:
    store = ObservationStore(disk / "o.db")
    assert (disk / "o.db.reserve").stat().st_blocks * 512 == RESERVE_BYTES
    assert store.trouble == ""
    fill(disk / "filler")
    for number in range(20):
        act = intent(f"a-{number}")
        transition = store.record(report(state=ResourceState.DOWN, intended=act))
        assert transition.intended == act, "committed, and not marked as anything else"
    store.tend()
    assert "the disk is full" in store.trouble
    shutil.copytree(disk, disk.parent / "as after kill -9", ignore=shutil.ignore_patterns("filler"))
    killed = ObservationStore(disk.parent / "as after kill -9" / "o.db")
    assert (killed.seq, killed.open_intents()) == (20, {WEB: act}), "it was on the disk"
    killed.close()
    store.close()


def test_a_full_disk_is_known_before_anybody_wants_to_write(disk: Path) -> None:
    store = ObservationStore(disk / "o.db")
    fill(disk / "filler")
    store.tend()
    assert "0 KiB are free, its reserve is left; make room" in store.trouble
    assert store.snapshot().trouble == store.trouble
    (disk / "filler").unlink()
    store.tend()
    assert store.trouble == ""
    store.close()


@pytest.mark.seed("order full disk: of a node, what no disk takes is held in memory, as uncommitted")
def test_what_no_disk_takes_is_held_in_memory_and_written_when_there_is_room(disk: Path) -> None:
    store = ObservationStore(disk / "o.db")
    use_up(store, disk)
    assert not (disk / "o.db.reserve").exists()
    held = store.record(report("db", ResourceState.DOWN, intended=intent("db-1")))
    assert held.intended is not None and held.intended.uncommitted
    store.record(report("db", finished=finish("db-1")))
    before = store.snapshot()
    assert store.pending(10_000)[-1].level.state is ResourceState.UP
    assert store.see_epoch(9) and store.acknowledge(store.boot, 3)
    store.assign({ResourceId("g"): 2})
    store.tend()
    assert "its reserve is used" in store.trouble

    (disk / "filler").unlink()
    store.tend()
    assert store.trouble == ""
    assert (disk / "o.db.reserve").stat().st_blocks * 512 == RESERVE_BYTES, "it is there again"
    store.close()
    again = ObservationStore(disk / "o.db")
    seen = again.snapshot()
    assert (seen.boot, seen.seq, seen.digest) == (before.boot, before.seq, again.digest())
    assert (seen.acknowledged, seen.levels, seen.asks) == (3, before.levels, False)
    assert not again.see_epoch(8)
    told = again.assigned()
    assert told is not None and told.mine == {ResourceId("g"): 2}
    again.close()


def test_no_number_is_given_twice_after_kill_9_while_the_reserve_was_used_up(disk: Path) -> None:
    store = ObservationStore(disk / "o.db")
    store.record(report("mail"))
    use_up(store, disk)
    store.record(report())
    sent = store.pending(10_000)
    # As after kill -9: nothing in memory is left, the file is as it is.
    shutil.copytree(disk, disk.parent / "killed", ignore=shutil.ignore_patterns("filler"))
    store._file.database.close()
    again = ObservationStore(disk.parent / "killed" / "o.db")
    on_disk = again.seq
    assert on_disk < store.seq, "something was in memory only"
    assert again.snapshot().asks
    again.record(report(state=ResourceState.DOWN, intended=intent("since")))
    again.tend()
    assert not (disk.parent / "killed" / "o.db.reserve").exists(), "its absence says so until it is answered"
    assert numbers(again.pending(10_000)) == list(range(1, on_disk + 1)), "nothing new is told by a number"

    # The server has them all: numbers that this file never gave.
    assert again.acknowledge(again.boot, sent[-1].level.seq)
    assert again.boot != store.boot and not again.snapshot().asks
    told = again.pending(10)
    assert numbers(told) == [1, 2], "each level once, what it knew and what came since"
    assert [each.level.resource for each in told] == ["mail", "web"]
    assert told[1].intended == intent("since")
    again.tend()
    assert (disk.parent / "killed" / "o.db.reserve").exists()
    again.close()


@pytest.mark.seed("order full disk: of a node, what no disk takes is held in memory, as uncommitted")
def test_after_kill_9_deaths_are_told_by_a_new_name_though_the_disk_is_still_full(disk: Path) -> None:
    store = ObservationStore(disk / "o.db")
    use_up(store, disk)
    store.record(report())
    sent = store.seq
    store._file.database.close()  # as kill -9 leaves it, on the very disk
    fill(disk / "filler")
    again = ObservationStore(disk / "o.db")
    assert (again.boot, again.snapshot().asks) == (store.boot, True)
    fill(disk / "filler")
    again.record(report("db", ResourceState.DOWN, intended=intent("since")))

    assert again.acknowledge(again.boot, sent)
    renewed = again.boot
    assert renewed != store.boot and not again.snapshot().asks
    assert [each.level.resource for each in again.pending(10)] == ["web", "db"]
    assert not (disk / "o.db.reserve").exists(), (
        "what is in memory only is asked for again after the next kill"
    )

    (disk / "filler").unlink()
    again.tend()
    again.close()
    last = ObservationStore(disk / "o.db")
    assert (last.boot, last.seq) == (renewed, 2)
    assert last.levels()[0].state is ResourceState.DOWN
    last.close()


def test_after_kill_9_the_old_name_goes_on_when_the_server_knows_nothing_later(disk: Path) -> None:
    store = ObservationStore(disk / "o.db")
    store.record(report("mail"))
    store.close()
    (disk / "o.db.reserve").unlink()
    again = ObservationStore(disk / "o.db")
    again.record(report("web"))
    assert numbers(again.pending(10)) == [1]
    assert again.acknowledge(again.boot, 0), "an answer, though nothing is acknowledged with it"
    assert numbers(again.pending(10)) == [1, 2]
    assert again.boot == store.boot
    again.close()


@contextmanager
def kept_as_it_is(file: Path) -> Iterator[None]:
    """Nobody can remove it meanwhile, as on a disk that was made read-only."""
    subprocess.run(["mount", "--bind", str(file), str(file)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(file)], check=True)


@pytest.mark.seed("order full disk: of a node, what no disk takes is held in memory, as uncommitted")
def test_no_number_is_given_twice_after_a_disk_that_let_nothing_be_removed_either(disk: Path) -> None:
    ObservationStore(disk / "o.db").close()
    store = ObservationStore(disk / "o.db")
    assert not store.snapshot().asks, "after an end in order nobody is asked, and nothing waits"
    store.record(report("mail"))
    with kept_as_it_is(disk / "o.db.reserve"):
        use_up(store, disk)
        sent = store.record(report("web", ResourceState.UP)).level.seq
        store._file.database.close()  # as kill -9 leaves it
    (disk / "filler").unlink()
    assert (disk / "o.db.reserve").exists(), "it says nothing of what was in memory"
    again = ObservationStore(disk / "o.db")
    assert again.boot == store.boot and again.seq < sent
    assert again.snapshot().asks
    on_disk = again.seq
    again.record(report("db", ResourceState.DOWN, intended=intent("since")))
    assert numbers(again.pending(10_000)) == list(range(1, on_disk + 1)), "nothing new is told by a number"
    assert again.acknowledge(again.boot, sent)
    assert again.boot != store.boot
    assert [each.level.resource for each in again.pending(10)][-1] == "db"
    again.close()
    last = ObservationStore(disk / "o.db")
    assert not last.snapshot().asks
    last.close()


def test_a_store_is_opened_on_a_full_disk(disk: Path) -> None:
    store = ObservationStore(disk / "o.db")
    store.record(report())
    store.close()
    fill(disk / "filler")
    again = ObservationStore(disk / "o.db")
    assert again.seq == 1
    assert again.record(report(state=ResourceState.DOWN, intended=intent("a"))).intended == intent("a")
    again.tend()
    assert again.trouble
    again.close()


def test_a_store_is_opened_on_a_full_disk_without_its_reserve(disk: Path) -> None:
    store = ObservationStore(disk / "o.db")
    store.record(report())
    store.close()
    (disk / "o.db.reserve").unlink()
    fill(disk / "filler")
    again = ObservationStore(disk / "o.db")
    assert (again.seq, again.snapshot().asks) == (1, True)
    assert again.trouble
    again.acknowledge(again.boot, 1)
    held = again.record(report(state=ResourceState.DOWN, intended=intent("a"))).intended
    assert held is not None and held.uncommitted
    (disk / "filler").unlink()
    again.tend()
    assert again.trouble == ""
    again.close()
    last = ObservationStore(disk / "o.db")
    assert (last.seq, last.open_intents()) == (2, {WEB: held})
    last.close()
