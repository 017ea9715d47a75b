"""A real SSH server on loopback with keys and configuration of its own, and a host behind it."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broken_host import KINDS, BrokenHost, until

from engines import needs
from homeostat.drills.site import SshAccess, SshHop
from homeostat.drills.transports.remote import SshTransport

SSHD = "/usr/sbin/sshd"
SEPARATION = Path("/run/sshd")
CONFIGURATION = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
LogLevel ERROR
"""

needs_sshd = needs("sshd")


def key_pair(path: Path) -> Path:
    """A new key; the path of its private half."""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return path


@dataclass(frozen=True)
class RealSshd:
    """One that runs."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def know(self, public_key: Path) -> None:
        """Write the file of known hosts."""
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public_key.read_text()}")

    def hop(self, **more: Any) -> dict[str, Any]:
        """How it is reached."""
        files = {"key_file": self.folder / "user_key", "known_hosts_file": self.known_hosts}
        return {"address": "127.0.0.1", "port": self.port, "user": getpass.getuser(), **files, **more}

    def sessions(self) -> list[int]:
        """The processes of its connections."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


@contextmanager
def real_sshd(folder: Path) -> Iterator[RealSshd]:
    """A server that lets in whoever runs this test, by one key."""
    folder.mkdir()
    key_pair(folder / "host_key")
    key_pair(folder / "user_key")
    port = _free_port()
    (folder / "sshd_config").write_text(CONFIGURATION.format(port=port, folder=folder))
    if os.geteuid() == 0:
        # As Debian's own start of sshd makes it, empty. It stays: a test beside us may be using it.
        SEPARATION.mkdir(mode=0o755, exist_ok=True)
    with (folder / "log").open("wb") as log:
        argv = [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=log)
    try:
        server = RealSshd(folder, port, process)
        server.know(folder / "host_key.pub")
        until(lambda: process.poll() is not None or _answers(port), "an answer of sshd")
        assert process.poll() is None, (folder / "log").read_text()
        yield server
        until(lambda: not server.sessions(), "the end of all connections")
    finally:
        process.terminate()
        process.wait()


@dataclass
class SshHost:
    """A host that has only python3, and its own word on what may be broken."""

    broken: BrokenHost
    server: RealSshd
    transport: SshTransport

    @property
    def permitted(self) -> Path:
        return self.broken.root / "drills.json"

    @property
    def state(self) -> Path:
        return self.broken.root / "state"

    def permit(self, **words: Any) -> None:
        """Write the host's own file."""
        given = {"enabled": True, "injectors": list(KINDS), "writable_paths": [str(self.broken.root)]}
        self.permitted.write_text(json.dumps(given | {"state_dir": str(self.state)} | words))

    def access(self, **more: Any) -> SshAccess:
        """The ssh block of the site file."""
        given = self.server.hop(
            permitted_file=self.permitted, python=shutil.which("python3", path=PATH) or "python3"
        )
        return SshAccess(**(given | more))

    def order(self, injector: str, target: dict[str, Any], deadline_s: float = 30.0) -> dict[str, Any]:
        """A record with a new fault."""
        record: dict[str, Any] = json.loads(self.broken.order(injector, target, deadline_s).read_text())
        return record


PATH = "/usr/bin:/bin"
"""Where the python3 of the machine is, with nothing of ours installed."""


@contextmanager
def ssh_host(root: Path) -> Iterator[SshHost]:
    """A host that permits everything, until the end of the test."""
    broken = BrokenHost(root)
    with real_sshd(root / "sshd") as server:
        host = SshHost(broken, server, SshTransport("c1", SshAccess(**server.hop())))
        host.permit()
        host.transport = SshTransport("c1", host.access())
        try:
            yield host
        finally:
            broken.end()


def hop(server: RealSshd) -> SshHop:
    """A jump host."""
    return SshHop(**server.hop())
