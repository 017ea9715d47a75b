"""A process whose output no disk or reader takes: it goes on, and ends as it should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engines import needs
from small_disk import fill, small_disk

SPEAKER = """
import logging, sys
from homeostat.kernel.terminal import configure_logging, drop_unwritable_output
configure_logging("info")
drop_unwritable_output("stdout")
import structlog
for number in range(2000):
    structlog.get_logger("x").info("said", number=number)
    logging.getLogger("library").warning("said %d", number)
    print("said", number, flush=True)
    print("said", number, file=sys.stderr)
open(sys.argv[1], "w").write("came to the end")
sys.exit(7)
"""


def speak(ended: Path, output: int) -> int:
    words = [sys.executable, "-c", SPEAKER, str(ended)]
    return subprocess.run(words, stdout=output, stderr=output, check=False).returncode


@needs("mount")
@pytest.mark.seed("order full disk: a log line that cannot be written ends no process")
def test_a_full_disk_below_the_log_ends_nobody(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        handle = os.open(disk / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            fill(disk / "filler")
            assert speak(tmp_path / "ended", handle) == 7
        finally:
            os.close(handle)
    assert (tmp_path / "ended").read_text() == "came to the end"


def test_a_reader_that_went_away_ends_nobody(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert speak(tmp_path / "ended", writer) == 7
    finally:
        os.close(writer)
    assert (tmp_path / "ended").read_text() == "came to the end"


def test_what_can_be_written_is_written(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        assert speak(tmp_path / "ended", log.fileno()) == 7
    said = (tmp_path / "log").read_text()
    assert said.count("said 1999\n") == 3 and "number=1999" in said
