"""Stands in for server and nodes in the tests of `homeostat up`; NATS, services and the rest are real.

`run server --config F` answers what the bootstrap asks; `run node --config F` starts its services as daemons
with an agent's clean environment, keeps pid files, finds them again, and stops them on SIGTERM. One more
file, `<state>/refuse-to-stop`, makes nodes leave their services running, to see what `up` does then.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from homeostat.kernel.processes import Identity, identify, is_alive, send_signal
from homeostat.lab.children import processes_in_pid_files


def serve(config: dict[str, Any]) -> None:
    token = Path(config["api"]["admin_token_file"]).read_text()
    asked = Path(config["state_dir"]) / "asked.jsonl"
    hosts = Path(config["state_dir"]).parent / "hosts"

    class Answer(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def _say(self, status: int, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if self.path == "/healthz":
                self._say(200, {"status": "ok"})
            elif self.headers["Authorization"] != f"Bearer {token}":
                self._say(401, {})
            else:
                names = [path.stem for path in hosts.rglob("*.pid")]
                self._say(200, {"items": [{"id": name, "state": "up"} for name in names]})

        def do_PUT(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with asked.open("a") as file:
                file.write(json.dumps({"path": self.path, "body": body}) + "\n")
            self._say(200 if self.headers["Authorization"] == f"Bearer {token}" else 401, {})

    ThreadingHTTPServer((config["api"]["host"], config["api"]["port"]), Answer).serve_forever()


def start(resource: dict[str, Any], scratch: Path) -> Identity:
    pid_file = scratch / f"{resource['id']}.pid"
    if pid_file.exists():
        pid, ticks = map(int, pid_file.read_text().split())
        if is_alive(Identity(pid, ticks)):
            return Identity(pid, ticks)
    with open(resource["parameters"]["log_file"], "ab") as log:
        process = subprocess.Popen(
            shlex.split(resource["parameters"]["command"]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={"PATH": "/usr/bin:/bin", "HA_RSCTMP": str(scratch)},
        )
    identity = identify(process.pid)
    assert identity is not None
    pid_file.write_text(f"{identity.pid} {identity.start_ticks}\n")
    return identity


def keep(config: dict[str, Any]) -> None:
    state = Path(config["state_dir"])
    scratch = state / "runner" / "rsctmp"
    scratch.mkdir(parents=True, exist_ok=True)
    asked, wake = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(wake, b"x"))
    at_home = [each for each in config["runner"]["resources"] if each.get("home") in (None, config["host"])]
    mine = [start(resource, scratch) for resource in at_home]
    os.read(asked, 1)
    if not (state.parent.parent / "refuse-to-stop").exists():
        for identity in mine:
            send_signal(identity, signal.SIGTERM)
        while processes_in_pid_files(scratch):
            os.sched_yield()


def main() -> None:
    role, config = sys.argv[2], yaml.safe_load(Path(sys.argv[4]).read_text())
    serve(config) if role == "server" else keep(config)


main()
