"""Kill server, NATS, nodes, whole hosts while services die: nothing lost, nothing twice."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import pytest
from oracle import Verdict, compare, compare_hosts
from running_lab import Lab, eventually, running

from homeostat.contracts.nouns import HostId
from homeostat.lab.plan import HOSTS, StateDirectory
from homeostat.lab.power import switch_off, switch_on

pytestmark = pytest.mark.e2e
SEED = int(os.environ.get("SEED", "1"))


@dataclass
class Torment:
    """Kills in random order at random moments while the injector runs; then what the oracle says.

    `hosts` are whole hosts that lose their power once each, with other kills in between.
    """

    lab: Lab
    log: Path
    killed: Counter[tuple[str, str]] = field(default_factory=Counter)
    down: dict[HostId, Iterator[None]] = field(default_factory=dict)

    @property
    def heard(self) -> Path:
        return self.lab.directory / "heard.jsonl"

    def verdict(self) -> Verdict:
        return compare(self.log, self.heard, "on-call")

    def run(self, kinds: Counter[str]) -> None:
        """`kinds` says how many of each: server, nats, node, host."""
        choose = random.Random(SEED)
        order = list(kinds.elements())
        choose.shuffle(order)
        turns = cycle(HOSTS)
        words = map(str, (Path(__file__).with_name("injector.py"), self.lab.directory, self.log, 3600, SEED))
        injector = subprocess.Popen([sys.executable, *words])
        began_s = time.monotonic()
        try:
            for number, name in enumerate(order, 1):
                if choose.random() < 0.7:  # else it may well die while it starts
                    eventually(lambda: self.lab.get("/status"), 90, "the server answers")
                time.sleep(choose.uniform(0.0, 1.0))  # a random moment, not a wait for something
                self.kill(name, turns)
                for host in list(self.down):
                    if next(self.down[host], self) is self:
                        del self.down[host]
                if number % 10 == 0:
                    passed_s = time.monotonic() - began_s
                    print(f"{number} of {len(order)} kills in {passed_s:.0f} s", file=sys.stderr, flush=True)
            for story in self.down.values():
                list(story)
        finally:
            injector.terminate()
            injector.wait(10)
        eventually(self.lab.all_up, 60, "everything is up again")

        def settled() -> bool:
            told = self.verdict()
            everything = told.raised == told.cleared == told.injected
            return everything and not compare_hosts(self.killed, self.heard, "on-call")

        with suppress(AssertionError):  # the verdict says what is wrong
            eventually(settled, 60, "every outage was told")

    def kill(self, name: str, turns: Iterator[HostId]) -> None:
        """One kill -9, or the beginning of a host's end."""
        if name in ("server", "nats"):
            self.lab.kill_child(name)
            return
        host = next(each for each in turns if each not in self.down)
        if name == "node":
            eventually(lambda: self.is_told(host), 60, f"what was before of {host} is told")
            self.killed["agent_lost", host] += 1
            self.lab.kill_child(f"node-{host}")
        else:
            self.down[host] = self.whole_host(host)

    def whole_host(self, host: HostId) -> Iterator[None]:
        """A host loses its power and gets it back; between the steps other things are killed."""
        spare = self.log.with_name(f"{self.log.name}.spare-{host}")
        spare.touch()
        eventually(lambda: self.balanced(host), 60, f"what was before on {host} is over")
        yield
        self.killed["host_down", host] += 1
        assert switch_off(StateDirectory(self.lab.directory), host)
        yield
        about = f"node/{host}"
        eventually(lambda: self.lab.told("on-call", about)[-1:] == ["raised"], 60, f"{host} is told dead")
        yield
        switch_on(StateDirectory(self.lab.directory), host)
        yield
        eventually(lambda: self.is_back(host), 90, f"{host} is back")
        eventually(lambda: self.balanced(host), 60, f"{host} is told well")
        spare.unlink()

    def balanced(self, host: HostId) -> bool:
        """Whether nothing is open on a host and every kill there has been told."""
        return self.is_told(host) and not any(f"-{host}" in line for line in self.verdict().wrong)

    def is_back(self, host: HostId) -> bool:
        """Whether it is up. A late leader may have fenced it after it was switched on: then a person
        switches it on once more."""
        answer = self.lab.get("/hosts") or {"items": []}
        if any(row["host"] == host and row["fenced"] for row in answer["items"]):
            switch_on(StateDirectory(self.lab.directory), host)
        return self.is_up(host)

    def is_up(self, host: HostId) -> bool:
        """Whether the host's service is up there, and its guests are up wherever they are now."""
        answer = self.lab.get("/resources") or {"items": []}
        at_home = {f"web-{host}": host}
        belongs = [row for row in answer["items"] if f"-{host}" in row["id"]]
        return [row["state"] for row in belongs] == ["up"] * 3 and all(
            row["host"] == at_home.get(row["id"], row["host"]) for row in belongs
        )

    def is_told(self, host: HostId) -> bool:
        """Whether every kill of a host or of its node process has been told, and its end too."""
        told = self.lab.told("on-call", f"node/{host}")
        kills = self.killed["agent_lost", host] + self.killed["host_down", host]
        return told.count("raised") == told.count("cleared") == kills


def open_acts(lab: Lab) -> list[tuple[str, str]]:
    """Acts without an outcome, read from the database itself."""
    with closing(sqlite3.connect(f"file:{lab.directory}/server/homeostat.db?mode=ro", uri=True)) as database:
        return database.execute("SELECT id, verb FROM action WHERE outcome IS NULL").fetchall()


def judge(torment: Torment, kinds: Counter[str], at_least: int) -> None:
    """Run it; each outage was told once, and no act is open."""
    load, began_s = os.getloadavg()[0], time.monotonic()
    torment.run(kinds)
    verdict = torment.verdict()
    print(f"{dict(kinds)} {verdict} load {load:.1f} {time.monotonic() - began_s:.0f} s")
    assert verdict.injected >= at_least
    assert not verdict.wrong, f"SEED={SEED}: {verdict}"
    wrong = compare_hosts(torment.killed, torment.heard, "on-call")
    assert not wrong, f"SEED={SEED}: {wrong}"
    eventually(lambda: not open_acts(torment.lab), 10, "every act has ended")


@pytest.mark.seed("order kills of server and nats while services die: each outage told once, no open intent")
def test_a_few_kills_of_server_and_nats_lose_and_double_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "state") as lab:
        judge(Torment(lab, tmp_path / "injected.jsonl"), Counter(server=4, nats=2, node=1), 4)


@pytest.mark.slow
@pytest.mark.seed("order 100 kill -9 of the server and 20 of nats-server: each outage told exactly once")
def test_a_hundred_kills_of_the_server_and_many_others_lose_and_double_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "state") as lab:
        kinds = Counter(server=100, nats=20, node=15, host=3)
        judge(Torment(lab, tmp_path / "injected.jsonl"), kinds, 50)
