"""Node process, its real runner and a real service: killed, left alone, found again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml
from server_end import ServerEnd

from homeostat.kernel.bus import Bus, BusSettings
from homeostat.kernel.processes import identify
from real_parts import NatsServer, eventually


async def test_a_service_is_kept_through_its_own_death_and_that_of_the_node(
    nats: NatsServer, tmp_path: Path
) -> None:
    pid_file = tmp_path / "service.pid"
    script = tmp_path / "service.sh"
    script.write_text(f"#!/bin/sh\necho $$ > {pid_file}.new\nmv {pid_file}.new {pid_file}\nexec sleep 600\n")
    script.chmod(0o755)
    (tmp_path / "password").write_text("n1-secret")
    config = tmp_path / "node.yaml"
    resource = {
        "id": "web-n1",
        "agent": "ocf:homeostat:process",
        "owner": "platform",
        "parameters": {"command": str(script), "ready_file": str(pid_file)},
    }
    content = {
        "host": "n1",
        "state_dir": str(tmp_path / "n1"),
        "nats": {"url": nats.url, "user": "n1", "password_file": str(tmp_path / "password")},
        "runner": {"on_stop": "leave", "resources": [resource]},
    }
    config.write_text(yaml.safe_dump(content))

    def start() -> subprocess.Popen[bytes]:
        with (tmp_path / "node.log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "homeostat.node.main", str(config)], stderr=log)

    def state() -> str:
        return server.transitions[-1].level.state.value if server.transitions else ""

    bus = await Bus.connect(BusSettings(nats.url, "server", "server-secret"))
    server = ServerEnd(bus)
    await server.listen()
    answering = asyncio.create_task(server.answer())
    process = start()
    try:
        await eventually(lambda: state() == "up", 20, "the service is started")
        first = int(pid_file.read_text())
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: identify(first) is None and state() == "up" and len(_ends(server)) >= 2, 20)
        second = int(pid_file.read_text())
        assert second != first
        downs = [each for each in server.transitions if each.level.state.value == "down"]
        assert downs and downs[-1].intended is not None, "the act was written down before it was done"

        process.kill()
        process.wait()
        assert identify(second) is not None, "kill -9 of the node leaves the service alone"
        beats = {beat.incarnation for beat in server.heartbeats}
        process = start()
        await eventually(lambda: {beat.incarnation for beat in server.heartbeats} - beats, 20)
        assert int(pid_file.read_text()) == second and identify(second) is not None, "not restarted"
        ends = len(_ends(server))
        os.kill(second, signal.SIGKILL)
        await eventually(lambda: len(_ends(server)) > ends and state() == "up", 20, "found again, so kept")
        third = int(pid_file.read_text())
        assert third not in (first, second)

        process.send_signal(signal.SIGTERM)
        await eventually(lambda: process.poll() is not None, 20)
        assert process.returncode == 0, (tmp_path / "node.log").read_text()
        assert int(pid_file.read_text()) == third
        assert identify(third) is not None, "on_stop is leave"
        assert server.goodbyes
    finally:
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        await bus.close()
        if process.poll() is None:
            process.kill()
        process.wait()
        if pid_file.exists() and identify(int(pid_file.read_text())) is not None:
            os.kill(int(pid_file.read_text()), signal.SIGKILL)


def _ends(server: ServerEnd) -> list[str]:
    return [each.finished.action for each in server.transitions if each.finished is not None]
