"""A real PostgreSQL for tests: a cluster of its own on a unix socket, ended by its pid, gone afterwards.

The server refuses to run as root, so a root test run becomes the user `postgres` for it. It carries
PDEATHSIG: a test run that is killed takes it along.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest


def postgresql_binaries() -> Path | None:
    """The folder with the newest initdb of this machine, None when there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None


def engines() -> list[str]:
    """The engines that the store's contract is shown on. REQUIRE_ENGINES=all makes a missing one fail."""
    wanted = postgresql_binaries() is not None or os.environ.get("REQUIRE_ENGINES") == "all"
    return ["sqlite", "postgresql"] if wanted else ["sqlite"]


class PostgresqlCluster:
    """One server process with many throw-away databases."""

    def __init__(self) -> None:
        binaries = postgresql_binaries()
        if binaries is None:
            pytest.fail("REQUIRE_ENGINES=all, but /usr/lib/postgresql/*/bin/initdb is not there")
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._made = 0
        become = [] if os.geteuid() else ["--reuid=postgres", "--regid=postgres", "--clear-groups"]
        if become:
            shutil.chown(self._folder, "postgres", "postgres")
        run = ["setpriv", *become, "--pdeathsig=QUIT", "--"]
        data = str(self._folder / "data")
        subprocess.run(
            [*run, str(binaries / "initdb"), "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=self._folder,
        )
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *run,
                    str(binaries / "postgres"),
                    "-D",
                    data,
                    "-k",
                    str(self._folder),
                    "-c",
                    "listen_addresses=",
                ],
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        self._wait()

    def _wait(self) -> None:
        deadline_s = time.monotonic() + 30
        while True:
            try:
                self._connect("postgres").close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    pytest.fail((self._folder / "log").read_text())
                time.sleep(0.05)

    def _connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(host=str(self._folder), user="postgres", dbname=database, autocommit=True)

    def new_database(self) -> str:
        """The URL of a fresh, empty database."""
        self._made += 1
        name = f"test{self._made}"
        with self._connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://postgres@/{name}?host={self._folder}"

    def cut_connections(self) -> int:
        """End every other connection from the server's side, as a restart would; how many there were."""
        query = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        with self._connect("postgres") as connection:
            row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    def stop(self) -> None:
        """End it at once, for nothing of it is kept, and remove all it wrote."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(timeout=30)
        shutil.rmtree(self._folder)
