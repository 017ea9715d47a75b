"""Debian's Prometheus for tests: on a free loopback port, in a folder of its own, ended by its pid."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from real_parts import PATIENCE, free_port


class Prometheus:
    """One running server that scrapes one target."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self._url, self._process, self._log = url, process, log

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector of an expression; AssertionError for one that Prometheus does not accept."""
        wanted = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self._url}/api/v1/query?{wanted}", timeout=10) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return list(found["data"]["result"])

    def until(self, expression: str, within_s: float = 30.0) -> list[dict[str, Any]]:
        """The first answer of an expression that is not empty."""
        deadline_s = time.monotonic() + PATIENCE * within_s
        while True:
            assert self._process.poll() is None, self._log.read_text()
            try:
                if found := self.query(expression):
                    return found
            except OSError:
                pass
            assert time.monotonic() < deadline_s, f"{expression}: nothing; {self._log.read_text()[-2000:]}"
            time.sleep(0.05)


@contextmanager
def prometheus(folder: Path, target: str, token: str) -> Iterator[Prometheus]:
    """Prometheus scraping `target` (host:port) every 200 ms with a token."""
    binary = shutil.which("prometheus")
    assert binary, "mark the test with needs('prometheus')"
    folder.mkdir()
    (folder / "token").write_text(token)
    job = {
        "job_name": "homeostat",
        "scrape_interval": "200ms",
        "scrape_timeout": "200ms",
        "authorization": {"credentials_file": str(folder / "token")},
        "static_configs": [{"targets": [target]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [job]}))
    place = f"127.0.0.1:{free_port()}"
    log = folder / "prometheus.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={place}",
            ],
            stdout=out,
            stderr=out,
            cwd=folder,
        )
    try:
        yield Prometheus(f"http://{place}", process, log)
    finally:
        process.kill()
        process.wait()
