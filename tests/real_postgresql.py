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

from engines import need, postgresql_binaries
from homeostat.migrations import upgrade
from real_parts import PATIENCE


def _in_memory() -> str | None:
    """A folder that is no disk, if there is one with room: hundreds of databases are made and removed."""
    folder = Path("/dev/shm")
    if not os.access(folder, os.W_OK) or shutil.disk_usage(folder).free < 4 * 1024**3:
        return None
    return str(folder)


class PostgresqlCluster:
    """One server process with many throw-away databases."""

    def __init__(self) -> None:
        need("postgresql")
        binaries = postgresql_binaries()
        assert binaries is not None
        self._folder = Path(tempfile.mkdtemp(prefix="pg-", dir=_in_memory()))
        self._made = 0
        self._template = ""
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
        deadline_s = time.monotonic() + 30 * PATIENCE
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

    def new_database(self, template: str = "template1") -> str:
        """The URL of a fresh database: empty, or a copy of another one that nobody is connected to."""
        self._made += 1
        name = f"test{self._made}"
        with self._connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return f"postgresql+psycopg://postgres@/{name}?host={self._folder}"

    def database_with_schema(self) -> str:
        """The URL of a fresh database with our tables: the revisions run once, the others are copies."""
        if not self._template:
            url = self.new_database()
            upgrade(url)
            self._template = f"test{self._made}"
        return self.new_database(self._template)

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
        self._process.wait(timeout=120)
        shutil.rmtree(self._folder)
