"""The cloud of `bench/notice.py`: NATS, a real server on SQLite, hosts that are played, consumers.

A played host speaks the real wire protocol over the real NATS (heartbeats, levels, observations) and has a
TCP listener for the server's outside probes. It dies by closing that listener and falling silent. Everything
that is measured is the product: the server process with its own settings file, its disk, its sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from homeostat.components import catalogue
from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import (
    Heartbeat,
    Observations,
    ResourceStatus,
    ResourceTransition,
    Snapshot,
    Subjects,
    digest,
    encode,
)
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.bus import Bus, BusSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.database import open_engine
from homeostat.kernel.journal import Submission
from homeostat.kernel.processes import die_with_parent
from homeostat.lab.preparation import find_nats_server
from homeostat.migrations import upgrade
from homeostat.node.link import batches
from homeostat.notices.model import Endpoint, Subscription
from homeostat.notices.store import insert_subscription

BEAT_S = 0.1
SETTINGS = {
    "fleet": {
        "sweep_s": 0.05, "probe_interval_s": 0.1, "probe_timeout_s": 0.2, "probe_failures": 3,
        "host_silent_after_s": 0.35, "lost_after_s": 2.0,
    },
    "faults": {"clear_after_s": 0.05, "host_clear_after_s": 0.05},
    "notices": {"allowed_networks": ["127.0.0.0/8"], "subscriptions_max": 100_000},
    "log_level": "warning",
}  # fmt: skip
"""Faster detection and all-clear than the defaults, so that a host dies every half second: neither is measured."""
PASSWORD = "bench-" + "x" * 20


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Heard:
    """One request that a consumer has read. `wall_ns` is CLOCK_REALTIME, `boot_ns` CLOCK_BOOTTIME."""

    port: int
    wall_ns: int
    boot_ns: int
    size: int
    alerts: int
    key: str

    @property
    def fault(self) -> str:
        """The fault that our notice was about."""
        return self.key.split(":")[1]


class Consumers:
    """What the consumer process says."""

    def __init__(self, ports: tuple[int, ...]) -> None:
        self.ports = ports
        self.heard: list[Heard] = []
        self._more = asyncio.Event()
        self._ahead_ns: tuple[int, int] | None = None
        # Counted as they come: looking through thousands for each new one would take a core from who is measured.
        self._ends: Counter[str] = Counter()
        self._alerts: Counter[int] = Counter()

    @property
    def stepped_ns(self) -> int:
        """How far CLOCK_REALTIME ran away from CLOCK_BOOTTIME between two requests, at most."""
        return 0 if self._ahead_ns is None else self._ahead_ns[1] - self._ahead_ns[0]

    def take(self, line: bytes) -> None:
        """One line of it."""
        port, wall_ns, boot_ns, size, alerts, key = line.decode().split()
        self.heard.append(Heard(int(port), int(wall_ns), int(boot_ns), int(size), int(alerts), key))
        self._ends[key[max(0, key.rfind(":")) :]] += 1
        self._alerts[int(port)] += int(alerts)
        ahead_ns = int(wall_ns) - int(boot_ns)
        least, most = self._ahead_ns or (ahead_ns, ahead_ns)
        self._ahead_ns = min(least, ahead_ns), max(most, ahead_ns)
        self._more.set()

    def forget(self) -> None:
        """Begin anew."""
        self.heard.clear()
        self._ends.clear()
        self._alerts.clear()

    async def until(self, count: int, end: str, within_s: float = 60.0) -> list[Heard]:
        """`count` requests whose key ends so, since `forget`."""
        try:
            async with asyncio.timeout(within_s):
                while self._ends[end] < count:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise SystemExit(f"bench: {self._ends[end]} of {count} {end} within {within_s:g} s") from None
        return [each for each in self.heard if each.key.endswith(end)]

    async def alerts(self, port: int, count: int, within_s: float = 60.0) -> Heard:
        """The request with which one consumer has heard of so many alerts."""
        try:
            async with asyncio.timeout(within_s):
                while self._alerts[port] < count:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise SystemExit(f"bench: {self._alerts[port]} of {count} alerts within {within_s:g} s") from None
        total = 0
        for each in self.heard:
            total += each.alerts if each.port == port else 0
            if total >= count:
                return each
        raise AssertionError("counted, but not there")


@asynccontextmanager
async def consumers(count: int) -> AsyncIterator[Consumers]:
    """The consumer process, with so many endpoints."""
    with child([sys.executable, str(Path(__file__).with_name("notice_consumer.py")), str(count)]) as process:
        reader = asyncio.StreamReader(limit=2**20)
        assert process.stdout is not None
        way, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stdout
        )
        found = Consumers(tuple(int(each) for each in (await reader.readline()).split()))

        async def read() -> None:
            while line := await reader.readline():
                found.take(line)

        reading = asyncio.create_task(read())
        try:
            yield found
        finally:
            reading.cancel()
            way.close()


@contextmanager
def child(
    argv: list[str], log: Path | None = None, *, patience_s: float = 10.0
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with this block, and with us however we end."""
    with contextlib.ExitStack() as open_files:
        out = open_files.enter_context(log.open("ab")) if log else subprocess.PIPE
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out if log else None,
            start_new_session=True, preexec_fn=die_with_parent(signal.SIGKILL),
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@dataclass
class Host:
    """A played host. Its guests are made once; `owners` are theirs, in turn."""

    name: str
    guests: int
    owners: tuple[str, ...]
    port: int = field(default_factory=free_port)
    alive: bool = False
    seq: int = 0
    levels: dict[ResourceId, ResourceStatus] = field(default_factory=dict)
    digest: str = ""
    server: asyncio.Server | None = None
    first: int = 0

    def __post_init__(self) -> None:
        for number in range(self.guests):
            self._set(
                ResourceId(f"{self.name}-{number:05}"),
                ResourceState.UP,
                self.owners[number % len(self.owners)],
            )
        self._digest()
        self.first = self.seq + 1  # the transitions that made these levels can no longer be had

    def change(self, state: ResourceState) -> list[ResourceTransition]:
        """All guests change at once; stamped now."""
        changed = []
        for resource, level in self.levels.items():
            mono_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            changed.append(ResourceTransition(self._set(resource, state, level.owner), mono_ns))
        self._digest()
        return changed

    def _set(self, resource: ResourceId, state: ResourceState, owner: str) -> ResourceStatus:
        self.seq += 1
        level = ResourceStatus(
            resource, ResourceKind.GUEST, Owner(owner), "ocf:homeostat:process", state, "as played",
            time.time_ns(), self.seq,
        )  # fmt: skip
        self.levels[resource] = level
        return level

    def _digest(self) -> None:
        self.digest = digest({resource: level.state for resource, level in self.levels.items()})


class Cloud:
    """All played hosts, on one connection."""

    def __init__(self, hosts: list[Host], bus: Bus) -> None:
        self.hosts, self._bus = {host.name: host for host in hosts}, bus
        self._wanted: asyncio.Queue[str] = asyncio.Queue()

    async def run(self) -> None:
        """Beat and answer for ever."""
        await self._bus.subscribe(
            "to.*.resync", lambda subject, _: self._wanted.put_nowait(subject.split(".")[1])
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat())
            while True:
                await self._picture(self.hosts[await self._wanted.get()])

    async def revive(self, host: Host) -> None:
        """It listens and speaks again."""
        host.server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", host.port)
        host.alive = True
        await self._speak(host)

    async def kill(self, host: Host) -> None:
        """It refuses connections and is silent."""
        host.alive = False
        assert host.server is not None
        host.server.close()

    async def report(self, host: Host, changed: list[ResourceTransition]) -> None:
        """Say what changed, as a node would: as few messages as they fit into."""
        for batch in batches(changed):
            message = Observations(
                HostId(host.name), "boot", time.clock_gettime_ns(time.CLOCK_BOOTTIME), host.first, batch
            )
            await self._bus.publish(Subjects(HostId(host.name)).observations, encode(message))

    async def _speak(self, host: Host) -> None:
        beat = Heartbeat(HostId(host.name), "boot", "life", host.seq, host.digest, host.first)
        await self._bus.publish(Subjects(HostId(host.name)).heartbeat, encode(beat))

    async def _beat(self) -> None:
        while True:
            for host in self.hosts.values():
                if host.alive:
                    await self._speak(host)
                await asyncio.sleep(BEAT_S / len(self.hosts))

    async def _picture(self, host: Host) -> None:
        parts = list(batches(tuple(host.levels.values()))) or [()]
        for number, levels in enumerate(parts, 1):
            message = Snapshot(
                HostId(host.name), "boot", "life", host.seq, levels, host.first, (), number, len(parts)
            )
            await self._bus.publish(Subjects(HostId(host.name)).levels, encode(message))
            await self._bus.flush()


@dataclass
class Server:
    """The server process under test."""

    pid: int
    database: Path
    cloud: Cloud

    def stamps(self, faults: set[str]) -> dict[str, int]:
        """When these faults were decided, CLOCK_REALTIME in ns: the stamp of FaultRaised in the journal.

        For a dead host that is the moment at which the server began to weigh the evidence that convicts it,
        for a resource the moment that its node gave.
        """
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT subject, at_ns FROM journal WHERE kind = 'FaultRaised'")
            return {subject[6:]: at_ns for subject, at_ns in rows if subject[6:] in faults}

    def cpu_s(self) -> float:
        """User and system seconds so far."""
        return float(sum(psutil.Process(self.pid).cpu_times()[:2]))

    def memory_mb(self) -> float:
        """Resident."""
        return float(psutil.Process(self.pid).memory_info().rss) / 1e6


@asynccontextmanager
async def running(
    folder: Path, hosts: list[Host], subscriptions: list[tuple[str, str, int]]
) -> AsyncIterator[Server]:
    """A server that knows all of these hosts and their guests. A subscription: name, owner, consumer's port."""
    folder.mkdir()
    port, database = free_port(), folder / "homeostat.db"
    users = [("server", "to.>", "node.>"), ("nodes", "node.>", "to.>")]
    lines = [
        f'{{user: {who}, password: "{PASSWORD}", permissions: {{publish: ["{says}"], subscribe: ["{hears}"]}}}}'
        for who, says, hears in users
    ]
    (folder / "nats.conf").write_text(
        f'listen: "127.0.0.1:{port}"\nauthorization {{ users: [{", ".join(lines)}] }}\n'
    )
    (folder / "password").write_text(PASSWORD)
    api = free_port()
    settings = {
        **SETTINGS,
        "fleet": {
            **SETTINGS["fleet"],  # type: ignore[dict-item]
            "hosts": [
                {"host": each.name, "address": "127.0.0.1", "tcp_port": each.port, "probe": "tcp", "refused_means": "dead"}
                for each in hosts
            ],
        },
        "state_dir": str(folder / "server"),
        "database_url": f"sqlite:///{database}",
        "nats": {"url": f"nats://127.0.0.1:{port}", "user": "server", "password_file": str(folder / "password")},
        "api": {"port": api},
    }  # fmt: skip
    (folder / "server.yaml").write_text(yaml.safe_dump(settings))
    await _subscribe(database, subscriptions)
    url = f"nats://127.0.0.1:{port}"
    with child([str(find_nats_server().path), "-c", str(folder / "nats.conf")], folder / "nats.log"):
        argv = [
            sys.executable,
            "-m",
            "homeostat.cli",
            "run",
            "server",
            "--config",
            str(folder / "server.yaml"),
        ]
        if profile := os.environ.get("PROFILE"):
            argv = [*profile.split(), *argv]
        bus = await Bus.connect(BusSettings(url, "nodes", PASSWORD, "bench"))
        try:
            with child(argv, folder / "server.log", patience_s=30) as process:
                cloud = Cloud(hosts, bus)
                playing = asyncio.create_task(cloud.run())
                try:
                    await asyncio.sleep(0)
                    for host in hosts:
                        await cloud.revive(host)
                    await _known(database, sum(each.guests for each in hosts), process, folder / "server.log")
                    yield Server(process.pid, database, cloud)
                finally:
                    playing.cancel()
                    await asyncio.gather(playing, return_exceptions=True)
                    for host in hosts:
                        if host.server is not None:
                            host.server.close()
        finally:
            await bus.close()


async def _subscribe(database: Path, subscriptions: list[tuple[str, str, int]]) -> None:
    url = f"sqlite:///{database}"
    await asyncio.to_thread(upgrade, url)
    engine = open_engine(url)
    appender = Appender(engine, catalogue(), epoch=None, settings=AppenderSettings(), clock=SystemClock())
    appender.start()
    rows = [
        Subscription(
            name,
            Owner(owner),
            (Endpoint(1, f"http://127.0.0.1:{port}/notices"),),
            "s" * 32,
            "bench",
            time.time_ns(),
        )
        for name, owner, port in subscriptions
    ]
    for start in range(0, len(rows), 1000):
        changes = tuple(insert_subscription(row) for row in rows[start : start + 1000])
        await appender.append(Submission("bench", changes=changes))
    await appender.close()
    engine.dispose()


async def _known(database: Path, guests: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server knows them all, and has had time to look at everybody."""
    until_s, shown = time.monotonic() + 120, -1
    while True:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            known = connection.execute("SELECT count(*) FROM resource").fetchone()[0]
        if known != shown:
            print(f"  the server knows {known} of {guests} guests", file=sys.stderr)
            shown = known
        if known >= guests:
            await asyncio.sleep(2.0)
            return
        if process.poll() is not None or time.monotonic() > until_s:
            raise SystemExit(f"bench: the server knows {known} of {guests} guests\n{log.read_text()[-2000:]}")
        await asyncio.sleep(0.1)


@contextmanager
def burning(processes: int) -> Iterator[None]:
    """So many processes that never rest."""
    with contextlib.ExitStack() as all_of_them:
        for _ in range(processes):
            all_of_them.enter_context(child([sys.executable, "-c", "while True: pass"]))
        yield
