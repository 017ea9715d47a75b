"""The ballast really takes its room, and gives it back."""

from __future__ import annotations

from pathlib import Path

from homeostat.kernel.files import Ballast

SIZE = 2**20


def test_it_takes_room_and_gives_it_back(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "ballast", SIZE)
    assert not ballast.is_held
    assert not ballast.release()
    assert ballast.create()
    assert ballast.is_held
    assert ballast.path.stat().st_blocks * 512 >= SIZE  # allocated, not a hole
    assert ballast.path.stat().st_mode & 0o777 == 0o600
    assert ballast.create()
    assert ballast.release()
    assert not ballast.path.exists()


def test_a_stump_of_a_crash_is_made_whole(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "ballast", SIZE)
    ballast.path.write_bytes(b"stump")
    assert not ballast.is_held
    assert ballast.create()
    assert ballast.is_held


def test_where_twice_its_size_is_not_free_there_is_none(tmp_path: Path) -> None:
    free_bytes = Ballast(tmp_path / "ballast", SIZE).free_bytes
    ballast = Ballast(tmp_path / "ballast", free_bytes)
    assert not ballast.create()
    assert list(tmp_path.iterdir()) == []
