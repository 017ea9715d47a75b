"""Rounds of kills, freezes, full disks and dead hosts on a lab, and what an outside oracle says of the story.

`run` does one thing after the other to a running lab while two others write down what they see: the prober
(truth_prober.py) what works, the reader what Homeostat shows. `judge` compares the three: nothing shown *up*
that is dead for longer than the detection interval, nothing *cleared* before it works, no key lost or sent
twice with another meaning, and each outage's bounds hold the prober's.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from running_lab import Lab, eventually

from homeostat.contracts.nouns import HostId
from homeostat.kernel.processes import Identity, is_alive, send_signal
from homeostat.lab.plan import HOSTS, RESOURCES, StateDirectory
from homeostat.lab.power import switch_off, switch_on

NANO = 1_000_000_000
FOR_EVER_NS = 2**63
LOOK_S = 0.25
WEIGHTS: Mapping[str, int] = {
    "service killed": 34,
    "service frozen": 16,
    "server killed": 20,
    "nats killed": 14,
    "node killed": 14,
    "node restarted in order": 8,
    "node frozen, a service killed": 14,
    "runner frozen, a service killed": 6,
    "server frozen": 8,
    "node disk full": 12,
    "server disk full": 10,
    "both disks full": 6,
    "host dead": 8,
    "host dead, a service dead before": 18,
    "host shut down in order": 12,
}
"""Two hundred rounds; 38 of them end with the return of a host."""


def plan(rounds: int, seed: int) -> list[str]:
    """Which kinds of rounds, in which order; `rounds` of them in the proportion of WEIGHTS."""
    whole = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]
    order = random.Random(seed)
    order.shuffle(whole)
    return [whole[at % len(whole)] for at in range(rounds)]


@contextmanager
def small_disks(root: Path) -> Iterator[None]:
    """The state directories of server and hosts on file systems of their own, which can be filled."""
    sizes = {"server": "320m", **{f"hosts/{host}": "24m" for host in HOSTS}}
    mounted: list[Path] = []
    try:
        for name, size in sizes.items():
            folder = root / name
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
            mounted.append(folder)
        yield
    finally:
        for folder in mounted:
            subprocess.run(["umount", "--lazy", folder], check=False)


class Reader(threading.Thread):
    """Asks the API what it shows, and keeps one line a change of any row."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(daemon=True)
        self._lab, self._over = lab, threading.Event()
        self.shown: list[tuple[int, int, dict[str, str]]] = []
        """When asked and answered (wall, ns), and the state of each resource."""

    def run(self) -> None:
        while not self._over.wait(LOOK_S):
            asked_ns = time.time_ns()
            answer = self._lab.get("/resources")
            if answer is not None:
                rows = {row["id"]: row["state"] for row in answer["items"]}
                self.shown.append((asked_ns, time.time_ns(), rows))

    def stop(self) -> None:
        self._over.set()
        self.join()


@dataclass
class Campaign:
    """`lab` has its state on small disks. `did` is what was done, with its times."""

    lab: Lab
    seed: int
    did: list[dict[str, Any]] = field(default_factory=list)
    returns: int = 0

    def __post_init__(self) -> None:
        self.choose = random.Random(self.seed)
        self.state = StateDirectory(self.lab.directory)
        self.acts: dict[str, Callable[[], None]] = {
            "service killed": lambda: self.kill_service(self.any_resource()),
            "service frozen": self.freeze_service,
            "server killed": lambda: self.child("server", signal.SIGKILL),
            "nats killed": lambda: self.child("nats", signal.SIGKILL),
            "node killed": lambda: self.child(f"node-{self.any_host()}", signal.SIGKILL),
            "node restarted in order": lambda: self.child(f"node-{self.any_host()}", signal.SIGTERM),
            "node frozen, a service killed": self.freeze_node,
            "runner frozen, a service killed": self.freeze_runner,
            "server frozen": lambda: self.freeze("server", self.choose.uniform(1, 8)),
            "node disk full": lambda: self.fill(f"hosts/{self.any_host()}"),
            "server disk full": lambda: self.fill("server"),
            "both disks full": lambda: self.fill("server", f"hosts/{self.any_host()}"),
            "host dead": lambda: self.end_host(None),
            "host dead, a service dead before": lambda: self.end_host("service"),
            "host shut down in order": lambda: self.end_host("order"),
        }

    def run(self, kinds: list[str], until_s: float) -> None:
        """Each kind after the other, as long as the monotonic clock is before `until_s`."""
        for number, kind in enumerate(kinds, 1):
            if time.monotonic() > until_s:
                return
            began_s = time.monotonic()
            self.did.append({"round": number, "kind": kind, "at_ns": time.time_ns()})
            self.acts[kind]()
            eventually(self.settled, 120, f"round {number} ({kind}) is over: {self.did[-1]}")
            print(
                f"{number}/{len(kinds)} {kind} {time.monotonic() - began_s:.1f} s",
                file=sys.stderr,
                flush=True,
            )

    def settled(self) -> bool:
        """Everything is up and no fault of a host or resource is open: the next round can begin."""
        for host in HOSTS:  # a late leader may fence a host that was switched on already
            if self.state.off_file(host).exists():
                switch_on(self.state, host)
        faults = self.lab.get("/faults", state="open")
        return self.lab.all_up() and faults is not None and not faults["items"]

    def any_host(self) -> HostId:
        return self.choose.choice(HOSTS)

    def any_resource(self) -> str:
        return str(self.choose.choice(RESOURCES).id)

    def on(self, host: HostId) -> list[str]:
        """What runs on a host now, by where its process keeps its files."""
        return [
            str(each.id)
            for each in RESOURCES
            for path in self.lab.directory.glob(f"hosts/{host}/**/*{each.id}.pid")
            if (found := _identity(path)) is not None and is_alive(found)
        ]

    def kill_service(self, resource: str) -> None:
        found = self.lab.service(resource)
        if found is not None and send_signal(found, signal.SIGKILL):
            self.did[-1].setdefault("killed", []).append([resource, time.time_ns()])

    def freeze_service(self) -> None:
        resource = self.any_resource()
        found = self.lab.service(resource)
        if found is None or not send_signal(found, signal.SIGSTOP):
            return
        self.did[-1]["frozen"] = [resource, time.time_ns()]
        time.sleep(self.choose.uniform(1, 12))
        send_signal(found, signal.SIGCONT)

    def child(self, name: str, number: signal.Signals) -> None:
        """A signal to a child of `up`, and perhaps a service that dies at about the same moment."""
        eventually(lambda: self.lab.lives(name), 30, f"{name} is started")
        before = self.lab.child(name)
        if self.choose.random() < 0.5:
            self.kill_service(self.any_resource())
            time.sleep(self.choose.uniform(0, 0.3))
        send_signal(before, number)
        eventually(lambda: self.lab.reborn(name, before), 60, f"{name} is started again")

    def freeze(self, name: str, seconds: float) -> None:
        before = self.lab.child(name)
        send_signal(before, signal.SIGSTOP)
        try:
            if self.choose.random() < 0.5:
                self.kill_service(self.any_resource())
            time.sleep(seconds)
        finally:
            send_signal(before, signal.SIGCONT)

    def freeze_node(self) -> None:
        host = self.any_host()
        before = self.lab.child(f"node-{host}")
        send_signal(before, signal.SIGSTOP)
        try:
            for resource in self.on(host)[:1]:
                self.kill_service(resource)
            time.sleep(self.choose.uniform(1, 10))
        finally:
            send_signal(before, signal.SIGCONT)

    def freeze_runner(self) -> None:
        """What looks after services and guests of a host stands still; its node process does not."""
        host = self.any_host()
        node = psutil.Process(self.lab.child(f"node-{host}").pid)
        runners = [each for each in node.children() if "homeostat.resources.node.main" in each.cmdline()]
        for runner in runners:
            runner.suspend()
        try:
            for resource in self.on(host)[:1]:
                self.kill_service(resource)
            time.sleep(self.choose.uniform(8, 20))
        finally:
            for runner in runners:
                with suppress(psutil.NoSuchProcess):
                    runner.resume()

    def fill(self, *names: str) -> None:
        """Fill these file systems to the last byte, kill a service and a guest, make room again."""
        fillers = [self.lab.directory / name / "filler" for name in names]
        try:
            for path in fillers:
                with suppress(OSError), path.open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(65_536))
                with suppress(OSError), path.open("ab", buffering=0) as file:
                    while True:
                        file.write(b"x")
            self.did[-1]["full"] = list(names)
            hosts = [HostId(name.partition("/")[2]) for name in names if "/" in name] or [self.any_host()]
            for resource in self.on(hosts[0])[:2]:
                self.kill_service(resource)
                time.sleep(self.choose.uniform(0, 1))
            time.sleep(self.choose.uniform(2, 6))
        finally:
            for path in fillers:
                path.unlink(missing_ok=True)

    def end_host(self, before: str | None) -> None:
        """A host loses its power, and gets it back after its death was seen."""
        host = self.any_host()
        if before == "service":
            for resource in self.choose.sample(self.on(host), 1):
                self.kill_service(resource)
            time.sleep(self.choose.choice([0, 0.02, 0.1, 0.5]))
        elif before == "order":
            send_signal(self.lab.child(f"node-{host}"), signal.SIGTERM)
            time.sleep(self.choose.uniform(0.1, 0.5))
        self.did[-1]["host"] = [host, time.time_ns()]
        switch_off(self.state, host)
        eventually(lambda: self.is_down(host), 60, f"{host} is found dead")
        time.sleep(self.choose.uniform(0, 8))
        self.did[-1]["back"] = time.time_ns()
        switch_on(self.state, host)
        self.returns += 1
        eventually(lambda: self.is_back(host), 90, f"{host} is back")

    def is_back(self, host: HostId) -> bool:
        """Whether it is up. A fence on its way may have met it: then a person switches it on again."""
        switch_on(self.state, host)
        return not self.is_down(host)

    def is_down(self, host: HostId) -> bool:
        faults = self.lab.get("/faults", state="open") or {"items": []}
        return any(row["about"] == f"node/{host}" and row["kind"] == "host_down" for row in faults["items"])


def _identity(path: Path) -> Identity | None:
    try:
        words = path.read_text().split()
        return Identity(int(words[0]), int(words[1]))
    except (OSError, ValueError, IndexError):
        return None


@contextmanager
def prober(state: Path, log: Path) -> Iterator[None]:
    """The independent prober beside a lab."""
    argv = [sys.executable, str(Path(__file__).with_name("truth_prober.py")), str(state), str(log)]
    process = subprocess.Popen(argv)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


@dataclass(frozen=True)
class TrueOutage:
    """From `died` to `back`, each as the earliest and the latest moment that it can have been (wall, ns)."""

    died: tuple[int, int]
    back: tuple[int, int]

    @property
    def bounds_ms(self) -> tuple[float, float]:
        return max(0, self.back[0] - self.died[1]) / 1e6, (self.back[1] - self.died[0]) / 1e6


def true_outages(log: Path) -> dict[str, list[TrueOutage]]:
    """What the prober saw of each resource; one that has not ended goes on for ever."""
    found: dict[str, list[TrueOutage]] = defaultdict(list)
    died: dict[str, tuple[int, int]] = {}
    for line in map(json.loads, log.read_text().splitlines()):
        if "works" not in line:
            continue
        name, moment = line["resource"], (line["old_ns"][0], line["new_ns"][1])
        if not line["works"]:
            died[name] = moment
        elif name in died:
            found[name].append(TrueOutage(died.pop(name), moment))
    for name, since in died.items():
        found[name].append(TrueOutage(since, (FOR_EVER_NS, FOR_EVER_NS)))
    return found


def unseen(log: Path) -> dict[str, list[tuple[int, int]]]:
    """Where the prober was late: nothing is known of a resource there."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for line in map(json.loads, log.read_text().splitlines()):
        if "gap_ns" in line:
            found[line["resource"]].append(tuple(line["gap_ns"]))
    return found


@dataclass
class Judgement:
    """`wrong` is what breaks a promise; `figures` what is said in the report."""

    wrong: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def judge(lab: Lab, reader: Reader, log: Path, detection_s: float) -> Judgement:
    """Compare what was shown and told with what was true."""
    found = Judgement()
    truth = true_outages(log)
    _shown_up(found, reader, truth, detection_s)
    _told(found, lab, truth)
    _bounds(found, lab, truth, unseen(log))
    return found


def _shown_up(
    found: Judgement, reader: Reader, truth: Mapping[str, list[TrueOutage]], detection_s: float
) -> None:
    longest: dict[str, float] = {}
    for asked_ns, answered_ns, rows in reader.shown:
        for name, state in rows.items():
            if state != "up":
                continue
            for outage in truth.get(name, ()):
                if outage.died[1] < asked_ns and answered_ns < outage.back[0]:
                    since_s = (asked_ns - outage.died[1]) / 1e9
                    key = f"{name} dead at {outage.died[1]}"
                    longest[key] = max(since_s, longest.get(key, 0.0))
    found.figures["looks"] = len(reader.shown)
    found.figures["longest shown up while dead, s"] = round(max(longest.values(), default=0.0), 2)
    found.wrong += [
        f"{key}: shown up {since_s:.1f} s later" for key, since_s in longest.items() if since_s > detection_s
    ]


def _told(found: Judgement, lab: Lab, truth: Mapping[str, list[TrueOutage]]) -> None:
    """Nothing is told as right while it does not work; each key has one meaning, each fault one beginning."""
    meaning: dict[str, str] = {}
    order: dict[tuple[str, str], list[str]] = defaultdict(list)
    at_home = {f"node/{each.host}": str(each.id) for each in RESOURCES if not each.movable}
    for line in (lab.directory / "heard.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["status"] != 200:
            found.wrong.append(f"refused: {entry}")
            continue
        body = entry["body"]
        key, fault = body["notice"], body["fault"]
        said = f"{fault['id']} {body['transition']}"
        if meaning.setdefault(key, said) != said:
            found.wrong.append(f"key {key} says {meaning[key]} and {said}")
        order[key.split(":")[0], fault["id"]].append(body["transition"])
        if body["transition"] != "cleared" or fault["kind"] not in ("resource_down", "host_down"):
            continue
        name = at_home.get(fault["about"], fault["about"].removeprefix("resource/"))
        # A host's is the moment of its return; that its service works again is what the telling says.
        is_host = fault["kind"] == "host_down"
        at_ns = entry["received_at_ns"] if is_host else _moment(fault["cleared_at"])
        for outage in truth.get(name, ()):
            if outage.died[1] < at_ns - is_host * NANO and at_ns < outage.back[0]:
                late_s = (outage.back[0] - at_ns) / 1e9
                found.wrong.append(f"{name}: {fault['kind']} {said}, {late_s:.3f} s before it works")
    for (subscription, fault_id), transitions in order.items():
        once = list(dict.fromkeys(transitions))  # a key may come again
        if once[0] not in ("raised", "superseded") or "cleared" in once[:-1]:
            found.wrong.append(f"{subscription}: fault {fault_id} told {transitions}")
        if once[-1] == "raised":
            found.wrong.append(f"{subscription}: the end of fault {fault_id} was never told")
    found.figures["notices"] = sum(map(len, order.values()))


def _moment(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * NANO)


def all_faults(lab: Lab) -> list[dict[str, Any]]:
    """The faults of the lab, newest first; a thousand, which is more than a campaign makes."""
    items: list[dict[str, Any]] = lab.client.call("GET", "/faults", limit="1000")["items"]
    return items


def _said(lab: Lab) -> Iterator[tuple[str, str, int, float | None, float | None]]:
    """Fault, resource, when it began (wall, ns) and bounds of each outage that Homeostat speaks of."""
    for fault in all_faults(lab):
        raised_ns = _moment(fault["raised_at"])
        if fault["about"].startswith("resource/") and fault["state"] == "cleared":
            name = fault["about"].removeprefix("resource/")
            yield fault["id"], name, raised_ns, fault["outage_lower_ms"], fault["outage_upper_ms"]
        for each in fault["affected"]:
            if (back := each["recovered"]) is not None:
                name = each["subject"].removeprefix("resource/")
                yield fault["id"], name, raised_ns, back["outage_lower_ms"], back["outage_upper_ms"]


def _bounds(
    found: Judgement,
    lab: Lab,
    truth: Mapping[str, list[TrueOutage]],
    gaps: Mapping[str, list[tuple[int, int]]],
) -> None:
    """Each outage with bounds holds the truth of the prober."""
    counts: Counter[str] = Counter({"outages compared": 0, "bounds held": 0})
    for fault, name, raised_ns, lower_ms, upper_ms in _said(lab):
        if lower_ms is None and upper_ms is None:
            counts["outages without bounds"] += 1
            continue
        near = [
            each for each in truth.get(name, ()) if each.died[0] - NANO <= raised_ns <= each.back[1] + NANO
        ]
        if len(near) != 1 or any(a < near[0].back[1] and near[0].died[0] < b for a, b in gaps.get(name, ())):
            counts["outages that the prober cannot tell apart"] += 1
            continue
        counts["outages compared"] += 1
        counts["of them without an upper bound"] += upper_ms is None
        low, high = near[0].bounds_ms
        if (lower_ms or 0.0) <= high and (upper_ms is None or low <= upper_ms):
            counts["bounds held"] += 1
        else:
            print(f"{fault} {name}: said [{lower_ms}, {upper_ms}], is [{low:.0f}, {high:.0f}]", flush=True)
    found.figures |= counts
    compared, held = counts["outages compared"], counts["bounds held"]
    if not compared or held < 0.99 * compared:
        found.wrong.append(f"{compared - held} of {compared} outages are not within their bounds")
    if counts["of them without an upper bound"] > compared / 3:
        found.wrong.append("most outages have no upper bound: nothing is compared")


ROUNDS = int(os.environ.get("ROUNDS", "14"))
"""Of a test run; the whole campaign has 200."""
