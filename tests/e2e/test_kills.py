"""Kill server and NATS again and again while services die: nothing lost, nothing twice."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from oracle import Verdict, compare
from running_lab import Lab, eventually, running

pytestmark = pytest.mark.e2e
SEED = int(os.environ.get("SEED", "1"))


def torment(lab: Lab, log: Path, servers: int, nats: int) -> Verdict:
    """Kills in random order at random moments while the injector runs; then compare."""
    choose = random.Random(SEED)
    order = ["server"] * servers + ["nats"] * nats
    choose.shuffle(order)
    injector = subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).with_name("injector.py")),
            *map(str, (lab.directory, log, 3600, SEED)),
        ]
    )
    try:
        for name in order:
            if choose.random() < 0.7:  # else it may well die while it starts
                eventually(lambda: lab.get("/status"), 30, "the server answers")
            time.sleep(choose.uniform(0.0, 1.0))  # a random moment, not a wait for something
            lab.kill_child(name)
    finally:
        injector.terminate()
        injector.wait(10)
    eventually(lab.all_up, 60, "everything is up again")

    def settled() -> bool:
        verdict = compare(log, lab.directory / "heard.jsonl", "on-call")
        return verdict.raised == verdict.cleared == verdict.injected

    with suppress(AssertionError):  # the verdict says what is wrong
        eventually(settled, 60, "every outage was told")
    return compare(log, lab.directory / "heard.jsonl", "on-call")


def open_acts(lab: Lab) -> list[tuple[str, str]]:
    """Acts without an outcome, read from the database itself."""
    with closing(sqlite3.connect(f"file:{lab.directory}/server/homeostat.db?mode=ro", uri=True)) as database:
        return database.execute("SELECT id, verb FROM action WHERE outcome IS NULL").fetchall()


@pytest.mark.seed("order kills of server and nats while services die: each outage told once, no open intent")
def test_a_few_kills_of_server_and_nats_lose_and_double_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "state") as lab:
        verdict = torment(lab, tmp_path / "injected.jsonl", servers=4, nats=2)
        print(verdict)
        assert verdict.injected > 3
        assert not verdict.wrong, f"SEED={SEED}: {verdict}"
        eventually(lambda: not open_acts(lab), 10, "every act has ended")


@pytest.mark.slow
@pytest.mark.seed("order 100 kill -9 of the server and 20 of nats-server: each outage told exactly once")
def test_a_hundred_kills_of_the_server_and_twenty_of_nats_lose_and_double_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "state") as lab:
        verdict = torment(lab, tmp_path / "injected.jsonl", servers=100, nats=20)
        print(verdict)
        assert verdict.injected > 50
        assert not verdict.wrong, f"SEED={SEED}: {verdict}"
        eventually(lambda: not open_acts(lab), 10, "every act has ended")
