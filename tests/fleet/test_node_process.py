"""The node process as a whole: real process, real NATS, killed and stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from server_end import ServerEnd

from homeostat.kernel.bus import Bus, BusSettings
from homeostat.kernel.processes import identify
from real_parts import NatsServer, eventually

NODE = Path(__file__).with_name("fake_role_node.py")


class Node:
    """A node process of a test, started as often as the test likes."""

    def __init__(self, folder: Path, nats_url: str) -> None:
        self.folder = folder
        self.state_dir = folder / "n1"
        self.diary_file = folder / "diary"
        self.log_file = folder / "node.log"
        (folder / "password").write_text("n1-secret\n")
        self.config = folder / "node.yaml"
        self.content = {
            "host": "n1",
            "state_dir": str(self.state_dir),
            "nats": {"url": nats_url, "user": "n1", "password_file": str(folder / "password")},
            "heartbeat_s": 0.2,
            "role_stop_s": 5.0,
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        self.config.write_text(yaml.safe_dump(self.content))
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(NODE), str(self.config), str(self.diary_file), *words], stderr=log
            )
        self.processes.append(process)
        return process

    @property
    def diary(self) -> list[str]:
        return self.diary_file.read_text().splitlines() if self.diary_file.exists() else []

    @property
    def role_pids(self) -> list[int]:
        return [int(line.split()[1]) for line in self.diary if line.startswith("pid ")]

    @property
    def log(self) -> str:
        return self.log_file.read_text()


@pytest.fixture
def node(tmp_path: Path, nats: NatsServer) -> Iterator[Node]:
    node = Node(tmp_path, nats.url)
    yield node
    for process in node.processes:
        if process.poll() is None:
            process.kill()
        process.wait()


@asynccontextmanager
async def server_end(nats: NatsServer, *, answers: bool = True) -> AsyncIterator[ServerEnd]:
    bus = await Bus.connect(BusSettings(nats.url, "server", "server-secret", ping_interval_s=0.2))
    server = ServerEnd(bus, answers=answers)
    await server.listen()
    answering = asyncio.create_task(server.answer())
    try:
        yield server
    finally:
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        await bus.close()


async def ended(process: subprocess.Popen[bytes], within_s: float = 10.0) -> int:
    await eventually(lambda: process.poll() is not None, within_s, "the node ends")
    return int(process.returncode)


async def test_sigterm_stops_roles_first_then_says_goodbye(nats: NatsServer, node: Node) -> None:
    async with server_end(nats) as server:
        process = node.start("report:web:up")
        await eventually(lambda: server.seqs == [1])
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0, node.log
        await eventually(lambda: server.goodbyes)
        assert [each.level.state.value for each in server.transitions] == ["up", "stopped"]
        assert node.diary[-1] == "stopped in order"
        assert "Traceback" not in node.log and "Error" not in node.log, node.log


async def test_a_second_signal_stops_at_once(nats: NatsServer, node: Node) -> None:
    process = node.start("deaf")
    await eventually(lambda: "waits" in node.diary)
    process.send_signal(signal.SIGTERM)
    await eventually(lambda: "stopping" in node.log)
    process.send_signal(signal.SIGTERM)
    assert await ended(process, 2.0) == 0
    assert identify(node.role_pids[0]) is None


async def test_kill_9_keeps_boot_and_numbers_and_takes_the_role_along(nats: NatsServer, node: Node) -> None:
    async with server_end(nats) as server:
        first = node.start("report:web:up", "intend:web:web-1")
        await eventually(lambda: server.seqs == [1, 2])
        first.kill()
        first.wait()
        await eventually(lambda: identify(node.role_pids[0]) is None, 2.0)
        assert not server.goodbyes
        node.start("finish:web:web-1")
        await eventually(lambda: server.seqs == [1, 2, 3])
        assert len({message.boot for message in server.messages}) == 1
        incarnations = {beat.incarnation for beat in server.heartbeats}
        await eventually(lambda: len({beat.incarnation for beat in server.heartbeats}) == 2)
        assert len(incarnations) <= 2
        recalled = [line for line in node.diary if line.startswith("recalled ")]
        assert '"web-1"' in recalled[1]


async def test_roles_run_while_nats_is_down_and_their_reports_arrive_later(
    nats: NatsServer, node: Node
) -> None:
    nats.kill()
    node.start("report:web:up", "report:web:down")
    await eventually(lambda: "recorded web down" in node.diary)
    nats.start()
    async with server_end(nats) as server:
        await eventually(lambda: server.seqs == [1, 2])
    assert "Traceback" not in node.log


async def test_a_stop_without_nats_is_quick_and_clean(nats: NatsServer, node: Node) -> None:
    nats.kill()
    process = node.start("report:web:up")
    await eventually(lambda: "waits" in node.diary)
    process.send_signal(signal.SIGINT)
    assert await ended(process, 3.0) == 0, node.log
    assert node.diary[-1] == "stopped in order"


async def test_a_second_node_on_the_same_directory_is_refused(nats: NatsServer, node: Node) -> None:
    first = node.start()
    await eventually(lambda: "waits" in node.diary)
    second = node.start()
    assert await ended(second) == 1
    assert f"{node.state_dir}/node.lock: a node already runs here, pid {first.pid}; stop it" in node.log
    assert first.poll() is None
    assert len(node.role_pids) == 1


async def test_a_frozen_nats_does_not_delay_the_role(nats: NatsServer, node: Node) -> None:
    node.content["nats"] = {**node.content["nats"], "ping_interval_s": 0.1}  # type: ignore[dict-item]
    async with server_end(nats) as server:
        node.start("report:web:up")
        await eventually(lambda: server.seqs == [1])
        nats.send(signal.SIGSTOP)
        try:
            os.kill(node.role_pids[0], signal.SIGKILL)
            await eventually(lambda: len(node.role_pids) == 2 and node.diary[-1] == "waits")
        finally:
            nats.send(signal.SIGCONT)
        await eventually(lambda: server.seqs == [1, 2])


def test_neither_fastapi_nor_sqlalchemy_is_imported() -> None:
    heavy = ("fastapi", "sqlalchemy", "starlette", "uvicorn", "alembic", "psycopg", "aiohttp.web")
    loaded = "homeostat.node.main, homeostat.drills.node.responder"  # the second with the first question
    check = f"import sys, {loaded}; print([name for name in {heavy!r} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
