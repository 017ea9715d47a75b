"""A dead host's guests start elsewhere: exactly once, where what-if said, and only after the receipt.

The oracle is outside Homeostat: a thread looks at /proc for the guests' real processes all the time, and each
guest writes a line of its own when it starts.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from running_lab import Lab, eventually, running

pytestmark = pytest.mark.e2e

GUESTS = [f"guest-{host}-{letter}" for host in ("n1", "n2", "n3") for letter in "ab"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of its own: here the guests do not stay where others expect them."""
    with running(Path(tmp_path_factory.mktemp("moving")) / "state") as started:
        yield started


def command(lab: Lab, *words: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "homeostat.cli", *words, "--dir", str(lab.directory), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        env={name: value for name, value in os.environ.items() if not name.startswith("HOMEOSTAT")},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else None


class Watch(threading.Thread):
    """Looks at this lab's real guests over and over; `most` is the most seen of each at once."""

    def __init__(self, directory: Path) -> None:
        super().__init__(daemon=True)
        self._root = str(directory).encode()
        self._over = threading.Event()
        self.most = dict.fromkeys(GUESTS, 0)
        self.looks = 0

    def running(self) -> dict[str, set[int]]:
        """The pids of each guest now."""
        found: dict[str, set[int]] = {name: set() for name in GUESTS}
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit():
                continue
            try:
                words = Path(entry.path, "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"homeostat.lab.service" in words and any(self._root in word for word in words):
                name = words[words.index(b"--name") + 1].decode()
                if name in found:
                    found[name].add(int(entry.name))
        return found

    def run(self) -> None:
        while not self._over.is_set():
            for name, pids in self.running().items():
                self.most[name] = max(self.most[name], len(pids))
            self.looks += 1
            self._over.wait(0.01)

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._over.set()
        self.join()


def starts(lab: Lab) -> list[tuple[int, str, str]]:
    """Every start of a guest, as the guests say themselves: when, which, where."""
    found = []
    for path in lab.directory.glob("**/*guest-n*.log"):
        for line in path.read_text().splitlines():
            if line.startswith('{"name"'):
                said = json.loads(line)
                found.append((said["started_ns"], said["name"], said["host"]))
    return sorted(found)


def journal(lab: Lab, kind: str) -> list[tuple[int, dict[str, Any]]]:
    """Time and payload of all events of one kind, straight from the database."""
    database = sqlite3.connect(f"file:{lab.directory}/server/homeostat.db?mode=ro", uri=True, timeout=10)
    try:
        rows = database.execute("SELECT at_ns, payload FROM journal WHERE kind = ? ORDER BY seq", (kind,))
        return [(at_ns, json.loads(payload)) for at_ns, payload in rows]
    finally:
        database.close()


def guests(lab: Lab) -> dict[str, tuple[str, int, str]]:
    """Host, generation and state of each guest, says the server."""
    answer = lab.get("/resources") or {"items": []}
    rows = [row for row in answer["items"] if row["kind"] == "guest"]
    return {row["id"]: (row["host"], row["generation"], row["state"]) for row in rows}


def at_rest(lab: Lab) -> bool:
    """Everything is up, every host answers, no fault is open."""
    hosts, faults = lab.get("/hosts"), lab.get("/faults", state="open")
    return (
        lab.all_up()
        and bool(hosts)
        and all((row["state"], row["probe"]) == ("up", "answers") for row in hosts["items"])
        and faults == {"items": []}
    )


def crowded(lab: Lab) -> str:
    """The host with the most guests: something of it has to move."""
    homes = [host for host, _, _ in guests(lab).values()]
    return max(sorted(set(homes)), key=homes.count)


def foretold(lab: Lab, host: str) -> dict[str, str]:
    return {row["id"]: row["host"] for row in command(lab, "what-if", "host", host)["elsewhere"]}


def moved(lab: Lab, said: dict[str, str]) -> bool:
    now = guests(lab)
    return len(now) == len(GUESTS) and all(now[name][::2] == (host, "up") for name, host in said.items())


def proven(lab: Lab, watch: Watch, before: int, host: str, said: dict[str, str]) -> None:
    """Each guest of `host` started once since, where it was said and after the receipt; others did not."""
    since = starts(lab)[before:]
    assert sorted((name, there) for _, name, there in since) == sorted(said.items())
    (fenced_ns,) = [at_ns for at_ns, event in journal(lab, "HostFenced")[-1:] if event["host"] == host]
    assert all(started_ns > fenced_ns for started_ns, _, _ in since), "only after the receipt"
    assert watch.looks > 20
    assert watch.most == dict.fromkeys(GUESTS, 1), "never two of one"
    assert {name: len(pids) for name, pids in watch.running().items()} == dict.fromkeys(GUESTS, 1)


def checked(lab: Lab) -> None:
    answer = command(lab, "check")
    assert answer["violations"] == []


@pytest.mark.seed("order guests return elsewhere exactly once")
@pytest.mark.seed("order guests of a dead host start elsewhere only after a fencing receipt")
def test_guests_of_a_dead_host_start_where_what_if_said_once_and_do_not_come_back(lab: Lab) -> None:
    eventually(lambda: at_rest(lab), 40, "everything is up")
    assert {name: (host, generation) for name, (host, generation, _) in guests(lab).items()} == {
        name: (name.split("-")[1], 1) for name in GUESTS
    }, "at home"
    said, untouched = foretold(lab, "n2"), guests(lab)
    assert said == {"guest-n2-a": "n1", "guest-n2-b": "n3"}
    acts = command(lab, "what-if", "host", "n2")["acts"]
    assert [(act["act"], act["allowed"]) for act in acts] == [
        (act, True) for act in ("mark_down", "set_error", "fence", "start_elsewhere")
    ]
    before = len(starts(lab))
    with Watch(lab.directory) as watch:
        eventually(lambda: watch.looks > 3, 10, "the watch looks")
        command(lab, "lab", "kill-host", "n2")
        eventually(lambda: moved(lab, said), 20, "its guests are up elsewhere")
        now = guests(lab)
        assert all(now[name] == untouched[name] for name in GUESTS if name not in said), "nobody else moves"
        hit = command(lab, "what-if", "host", "n2")
        assert [row["id"] for row in hit["resources"]] == ["web-n2"], "they are not hit a second time"
        fault = lab.read("/faults", state="open")["items"][0]
        assert (fault["kind"], fault["about"]) == ("host_down", "node/n2")
        (raised,) = [
            body["fault"]
            for body in lab.heard("on-call")
            if body["fault"]["id"] == fault["id"] and body["transition"] == "raised"
        ]
        assert sorted(each["subject"] for each in raised["affected"]) == [
            "resource/guest-n2-a",
            "resource/guest-n2-b",
            "resource/web-n2",
        ], "the fault keeps whom it hit"
        told = [row["what"] for row in command(lab, "explain", fault["id"])["items"]]
        for name, new in said.items():
            assert sum(what.startswith(f"{name} on {new} is up") for what in told) == 1, told
        proven(lab, watch, before, "n2", said)
        command(lab, "lab", "start-host", "n2")
        eventually(lambda: at_rest(lab), 60, "the host is back")
        assert guests(lab) == now, "nothing moves back by itself"
        proven(lab, watch, before, "n2", said)
    causes = [event["from_host"] for _, event in journal(lab, "GuestMoved")]
    assert causes == ["n2", "n2"]
    checked(lab)


@pytest.mark.seed("order what fails on its new host is a fault of its own")
def test_a_guest_that_moved_and_dies_there_is_restarted_there_and_told(lab: Lab) -> None:
    eventually(lambda: at_rest(lab), 40, "everything is up")
    guest = next(name for name, (_, generation, _) in sorted(guests(lab).items()) if generation > 1)
    before, there = lab.service(guest), guests(lab)[guest]
    assert before is not None
    owner = "blue" if guest.endswith("a") else "green"
    heard = len(lab.told(owner, f"resource/{guest}"))
    lab.kill(before)
    eventually(lambda: lab.restarted(guest, before), 10, "it runs again")
    eventually(lambda: len(lab.told(owner, f"resource/{guest}")) == heard + 2, 10, "its owner was told")
    assert guests(lab)[guest] == there


def _down(lab: Lab) -> list[str]:
    return [each["host"] for each in lab.read("/hosts")["items"] if each["state"] == "down"]


@pytest.mark.seed("order kill -9 of the server between receipt and assignment: still exactly once")
@pytest.mark.slow
def test_the_server_dies_between_the_receipt_and_the_assignment(lab: Lab) -> None:
    eventually(lambda: at_rest(lab), 40, "everything is up")
    host = crowded(lab)
    said, before = foretold(lab, host), len(starts(lab))
    assert said
    command(lab, "arm", "recovery", "--off")
    with Watch(lab.directory) as watch:
        try:
            fenced = len(journal(lab, "HostFenced"))
            command(lab, "lab", "kill-host", host)
            eventually(lambda: host in _down(lab), 20, "it is known to be down")
            command(lab, "host", "fenced", host, "--receipt", "I looked")  # nobody else may fence it
            eventually(lambda: len(journal(lab, "HostFenced")) > fenced, 20, "the receipt is written")
            refused = [
                event
                for _, event in journal(lab, "ActRefused")
                if event["component"] == "recovery" and event["act"] == "start_elsewhere"
            ]
            eventually(
                lambda: [
                    event
                    for _, event in journal(lab, "ActRefused")
                    if event["component"] == "recovery" and event["act"] == "start_elsewhere"
                ],
                10,
                "the refusal is written",
            )
            assert len(refused) <= 1
            lab.kill_child("server")
            eventually(lambda: lab.get("/hosts"), 20, "the next server answers")
            assert len(starts(lab)) == before, "nothing starts while nobody may"
        finally:
            eventually(lambda: lab.get("/hosts"), 20, "the server answers")
            command(lab, "arm", "recovery")
        eventually(lambda: moved(lab, said), 30, "the next server goes on where the last one ended")
        proven(lab, watch, before, host, said)
        command(lab, "lab", "start-host", host)
        eventually(lambda: at_rest(lab), 60, "the host is back")
        proven(lab, watch, before, host, said)
    checked(lab)


@pytest.mark.seed("order kill -9 of the node that should start a guest: still exactly once")
def test_the_node_that_should_start_them_dies_at_that_moment(lab: Lab) -> None:
    eventually(lambda: at_rest(lab), 40, "everything is up")
    host = crowded(lab)
    said, before = foretold(lab, host), len(starts(lab))
    heirs = sorted(set(said.values()))
    assert heirs
    moves = len(journal(lab, "GuestMoved"))
    nodes = {heir: lab.child(f"node-{heir}") for heir in heirs}
    with Watch(lab.directory) as watch:
        command(lab, "lab", "kill-host", host)
        eventually(lambda: len(journal(lab, "GuestMoved")) > moves, 20, "they are assigned")
        lab.kill(nodes[heirs[0]])
        eventually(lambda: lab.reborn(f"node-{heirs[0]}", nodes[heirs[0]]), 20, "the node is started again")
        eventually(lambda: moved(lab, said), 30, "they are up where they were to start")
        proven(lab, watch, before, host, said)
        command(lab, "lab", "start-host", host)
        eventually(lambda: at_rest(lab), 60, "the host is back")
        proven(lab, watch, before, host, said)
    assert len(journal(lab, "GuestMoved")) == moves + len(said)
    checked(lab)


def test_a_lab_that_was_stopped_comes_up_with_its_guests_where_they_were(lab: Lab) -> None:
    eventually(lambda: at_rest(lab), 40, "everything is up")
    before = guests(lab)
    lab.stop()
    with running(lab.directory) as again, Watch(lab.directory) as watch:
        eventually(lambda: at_rest(again), 60, "everything is up")
        assert guests(again) == before
        assert max(watch.most.values()) == 1
