"""python-blazarclient as people use it: its commands as processes, against the listener of a lab.

A start of the client takes a second. Where that tells nothing, one process of it runs command after command.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from running_lab import Lab, choose_ports, running

from homeostat.kernel.client import Client
from homeostat.lab.preparation import is_free
from real_parts import PATIENCE

PROGRAMS = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Output:
    """What a command said. Its log goes to `err`."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What `-f json` printed, behind the line of a `create`."""
        text = self.out
        begin = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=0)
        return json.loads(text[begin:])

    @property
    def error(self) -> str:
        """The error of a command that failed, which must be one line."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("ERROR: ")]
        assert self.code != 0
        return line.removeprefix("ERROR: ")


_LOOP = """
import contextlib, io, json, logging, sys
from blazarclient import shell
answers = sys.stdout
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    logging.getLogger("").handlers.clear()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = shell.main(json.loads(line))
        except SystemExit as end:
            code = end.code
    print(json.dumps([code or 0, out.getvalue(), err.getvalue()]), file=answers, flush=True)
"""


class ClientProcess:
    """One process that runs commands of `blazar` as they are asked for."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_bare(),
        )

    def run(self, words: Sequence[str]) -> Output:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return Output(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        with self._process:  # it closes the pipes, which ends the loop, and waits
            pass


@dataclass(frozen=True, slots=True)
class BlazarClient:
    """The client with a way to say who calls. Without `process`, each command is a process of its own."""

    url: str
    authentication: tuple[str, ...]
    process: ClientProcess | None = None

    def blazar(self, *words: str) -> Output:
        """`blazar WORDS`."""
        return self._run("blazar", *words)

    def openstack(self, *words: str) -> Output:
        """`openstack reservation WORDS`."""
        return self._run("openstack", "reservation", *words)

    def done(self, *words: str) -> Output:
        """`blazar WORDS`, which must succeed."""
        found = self.blazar(*words)
        assert found.code == 0, found.err
        return found

    def shown(self, *words: str) -> Any:
        """What a command of `blazar` shows."""
        return self.done(*words, "-f", "json").json

    def script(self, text: str) -> Any:
        """What a Python program prints as JSON; `url`, `token` and `name` are there as variables."""
        given = {"url": self.url, "token": self.authentication[-1], "name": self.authentication[-3]}
        lines = "\n".join(f"{name} = {value!r}" for name, value in given.items())
        argv = [sys.executable, "-c", f"import json\n{lines}\n{text}"]
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=60 * PATIENCE, check=False, env=_bare()
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def _run(self, program: str, *words: str) -> Output:
        options = ("--os-endpoint", self.url, *self.authentication, *words)
        if self.process is not None and program == "blazar":
            return self.process.run(options)
        argv = [str(PROGRAMS / program), *options]
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=60 * PATIENCE, check=False, env=_bare()
        )
        return Output(done.returncode, done.stdout, done.stderr)


def _bare() -> dict[str, str]:
    """The environment without anything that these programs read."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "BLAZAR_"))}


def admin_token(url: str, token: str, process: ClientProcess | None = None) -> BlazarClient:
    """X-Auth-Token."""
    return BlazarClient(url, ("--os-auth-type", "admin_token", "--os-token", token), process)


def http_basic(url: str, name: str, token: str, process: ClientProcess | None = None) -> BlazarClient:
    """Authorization: Basic."""
    words = ("--os-auth-type", "http_basic", "--os-username", name, "--os-password", token)
    return BlazarClient(url, words, process)


@dataclass(frozen=True, slots=True)
class BlazarLab:
    """A lab that answers Blazar's clients."""

    lab: Lab
    url: str

    def token(self, name: str, role: str, project: str) -> str:
        """A new token of a project."""
        body = {"role": role, "project": project}
        return str(self.lab.client.call("PUT", f"/tokens/{name}", body)["token"])

    @property
    def admin(self) -> str:
        return str(Client.find(self.lab.directory).token)


@contextmanager
def blazar_lab(directory: Path, **settings: object) -> Iterator[BlazarLab]:
    """A lab of its own with the listener, and with these settings of leases."""
    choose_ports(directory)
    port = next(port for port in iter(lambda: random.randrange(20_000, 32_000), 0) if is_free(port))
    wanted = {"leases": {"blazar": {"enabled": True, "port": port}, **settings}}
    (directory / "server.local.yaml").write_text(yaml.safe_dump(wanted))
    with running(directory) as lab:
        yield BlazarLab(lab, f"http://127.0.0.1:{port}/v1")
