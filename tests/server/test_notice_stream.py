"""The stream of a real server over HTTP: kill -9 in the middle, and a reader that only knows its last id."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import (
    Heartbeat,
    Observations,
    ResourceStatus,
    ResourceTransition,
    Subjects,
    digest,
    encode,
)
from homeostat.kernel.bus import Bus, BusSettings
from homeostat.kernel.errors import HomeostatError
from real_parts import NatsServer
from running_server import ADMIN, RunningServer, running_server

N1 = HostId("n1")


class Node:
    """A node that says again, until the server has it, that `count` services are down."""

    def __init__(self, nats: NatsServer) -> None:
        self._nats = nats
        self.count = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        asyncio.run(self._speak())

    async def _speak(self) -> None:
        bus = Bus(BusSettings(self._nats.url, "n1", "n1-secret", "test"))
        running = asyncio.create_task(bus.run())
        while not self._stop.is_set():
            beat = Heartbeat(N1, "b1", "i1", 0, digest({}))
            await bus.publish(Subjects(N1).heartbeat, encode(beat))
            fallen = tuple(ResourceTransition(fallen_level(seq), seq) for seq in range(1, self.count + 1))
            message = Observations(N1, "b1", 10**12, 1, fallen)
            await bus.publish(Subjects(N1).observations, encode(message))
            await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    def __enter__(self) -> Node:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def fallen_level(seq: int) -> ResourceStatus:
    return ResourceStatus(
        ResourceId(f"web-{seq}"),
        ResourceKind.SERVICE,
        Owner("blue"),
        "ocf:x:y",
        ResourceState.DOWN,
        "",
        seq,
        seq,
    )


@contextmanager
def tail(server: RunningServer, *arguments: str) -> Iterator[queue.Queue[dict[str, Any]]]:
    """`homeostat notice tail --json`, its lines as they come."""
    process = subprocess.Popen(
        [sys.executable, "-m", "homeostat.cli", "notice", "tail", "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "HOMEOSTAT_URL": server.url, "HOMEOSTAT_TOKEN": ADMIN},
    )
    lines: queue.Queue[dict[str, Any]] = queue.Queue()
    assert process.stdout is not None
    told = process.stdout

    def read() -> None:
        for line in told:
            lines.put(json.loads(line))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield lines
    finally:
        process.terminate()
        process.wait()
        thread.join()
        told.close()


def faults_within(server: RunningServer, count: int, within_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + within_s
    while True:
        try:
            if (
                len(server.client.call("GET", "/faults", limit=1000, kind=["resource_down"])["items"])
                >= count
            ):
                return
        except HomeostatError:
            pass
        assert time.monotonic() < deadline_s, server.said()[-3000:]
        time.sleep(0.05)


@pytest.mark.seed("order a consumer that was away misses nothing, the server killed in between")
def test_a_reader_misses_nothing_and_hears_nothing_twice_though_the_server_is_killed(
    tmp_path: Path, nats: NatsServer
) -> None:
    with running_server(tmp_path, nats) as server, Node(nats) as node:
        made = server.client.call("POST", "/subscriptions", {"name": "reader", "project": "blue"})
        assert (made["endpoints"], made["url"], made["current"]) == ([], None, [])
        with tail(server, "--subscription", "reader", "--since", str(made["seq"])) as lines:
            node.count = 5
            heard = [lines.get(timeout=120)]  # it listens
            for count in (20, 40):
                node.count = count
                faults_within(server, count - 19)
                server.kill()
                server.start()
            faults_within(server, 40)
            heard += [lines.get(timeout=120) for _ in range(39)]
        assert lines.empty()
        assert len({each["notice"] for each in heard}) == 40
        assert {each["fault"]["about"] for each in heard} == {f"resource/web-{seq}" for seq in range(1, 41)}
        assert [each["seq"] for each in heard] == sorted({each["seq"] for each in heard})
        notices = server.client.call("GET", "/notices", limit=500)["items"]
        assert {(each["state"], bool(each["reason"])) for each in notices} == {("kept", True)}
        with tail(server, "--since", str(heard[19]["seq"])) as again:
            assert [again.get(timeout=120) for _ in range(20)] == heard[20:]


def test_who_may_listen_and_what_is_refused(tmp_path: Path, nats: NatsServer) -> None:
    with running_server(tmp_path, nats) as server:
        tenant = f"hs_{'tenant':x<40}"
        server.client.call("PUT", "/tokens/tenant", {"role": "consumer", "project": "blue", "token": tenant})
        server.client.call("POST", "/subscriptions", {"name": "others", "project": "green"})
        stream = "/api/v1/notices/stream"
        assert server.status(stream, None) == 401
        assert server.status(f"{stream}?subscription=others", tenant) == 404
        assert server.status(f"{stream}?subscription=none") == 404
        assert server.status(f"{stream}?since=-1") == 422
        assert server.status(f"{stream}?sinse=1") == 422
        for event in server.client.listen("/notices/stream"):
            assert event == ("0", "open", "{}")
            break
