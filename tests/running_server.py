"""A server process of our own: `python -m homeostat.server.main` SQLite, a real NATS, ended by its pid."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from homeostat.kernel.client import Client
from real_parts import PATIENCE, NatsServer, free_port

ADMIN = "hs_" + "a" * 43


class RunningServer:
    """One server process in a folder; started and killed as often as a test likes."""

    def __init__(self, folder: Path, nats: NatsServer, **settings: dict[str, Any]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / "server.log"
        self._config = folder / "server.yaml"
        (folder / "nats.password").write_text("server-secret")
        (folder / "admin.token").write_text(ADMIN)
        api = {"port": self.port, "admin_token_file": str(folder / "admin.token"), **settings.pop("api", {})}
        whole = {
            "state_dir": str(folder / "server"),
            "database_url": f"sqlite:///{folder}/homeostat.db",
            "nats": {"url": nats.url, "user": "server", "password_file": str(folder / "nats.password")},
            "store": {"ballast_bytes": 0},
            "api": api,
            **settings,
        }
        self._config.write_text(yaml.safe_dump(whole))
        self._process: subprocess.Popen[bytes] | None = None
        self.program: tuple[str, ...] = ("-m", "homeostat.server.main")

    @property
    def client(self) -> Client:
        return Client(self.url, ADMIN)

    def start(self) -> None:
        """Start, and return when nothing is wrong with it but that no node speaks."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self.program, str(self._config)], stdout=log, stderr=log
            )
        deadline_s = time.monotonic() + 30 * PATIENCE
        while not self._is_ready():
            assert self._process.poll() is None, self.said()
            assert time.monotonic() < deadline_s, self.said()
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        status, text = self.get("/healthz", None)
        return status == 200 or (status == 503 and json.loads(text)["impairments"] == ["no_node_heard"])

    def get(self, path: str, token: str | None = ADMIN) -> tuple[int, str]:
        """Status and body; (0, "") while nobody answers."""
        request = urllib.request.Request(self.url + path)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def status(self, path: str, token: str | None = ADMIN) -> int:
        """Only the status."""
        return self.get(path, token)[0]

    def said(self) -> str:
        """Its log."""
        return self._log.read_text()

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def running_server(folder: Path, nats: NatsServer, **settings: dict[str, Any]) -> Iterator[RunningServer]:
    """A healthy server for one block."""
    server = RunningServer(folder, nats, **settings)
    try:
        server.start()
        yield server
    finally:
        server.kill()
