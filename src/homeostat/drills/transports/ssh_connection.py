"""One SSH connection, through a jump host if need be, to hosts with a known key only.

The library's errors end here: what a person must change is NotAllowed or BadInput, what may go away by itself
is RetryLater.

No trust on first use, no password, no ~/.ssh/config, no forwarding but that of the jump.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

import asyncssh

from homeostat.drills.transports.ssh_settings import SshAccess, SshHop
from homeostat.kernel.errors import BadInput, HomeostatError, NotAllowed, RetryLater

CONNECT_S = 15.0
_KEEPALIVE_S = 5.0
_KEEPALIVES = 3
"""A connection that says nothing for that many times 5 s is over."""
_NOT_FOUND, _NOT_RUN = 127, 126


class SshConnection:
    """To one host; `asyncssh`, for those who run something there."""

    def __init__(self, host: str, access: SshAccess, through: list[asyncssh.SSHClientConnection]) -> None:
        self.host = host
        self._access, self._through = access, through

    @property
    def closed(self) -> bool:
        """Whether nothing can be run any more."""
        return self._through[-1].is_closed()

    async def start(self, argv: Sequence[str]) -> asyncssh.SSHClientProcess[bytes]:
        """Run a program there; as root with `sudo: true`. RetryLater when the connection is over."""
        access = self._access
        before = [access.sudo_program, "-n", "--"] if access.sudo else []
        try:
            return await self._through[-1].create_process(
                shlex.join([*before, access.python, *argv]), encoding=None
            )
        except (asyncssh.Error, OSError) as error:
            raise self.over(error) from error

    def over(self, error: object = None) -> RetryLater:
        """The error of a connection that ended."""
        why = f" ({error})" if error else ""
        return RetryLater(f"{self.host}: the SSH connection ended{why}; its keeper undoes what was begun")

    def wrong(self, code: int | None, said: bytes) -> HomeostatError:
        """Why a program of ours gave no answer: sudo or python3 is missing, or refuses."""
        if code is None:
            return self.over()
        lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
        line, access = lines[-1] if lines else f"exit code {code}", self._access
        python = "install Python 3.9 or later there, or name one in ssh.python"
        sudo = "or log in as root with ssh.sudo: false"
        if code in (_NOT_FOUND, _NOT_RUN):
            remedy = f"install sudo there, {sudo}" if access.sudo else python
            program = access.sudo_program if access.sudo else access.python
            return NotAllowed(f"{self.host}: {program} cannot be run there ({line}); {remedy}")
        if access.sudo and line.startswith("sudo:"):
            remedy = python if "command not found" in line else f"{access.user} needs NOPASSWD there, {sudo}"
            return NotAllowed(f"{self.host}: {line}; {remedy}")
        return RetryLater(f"{self.host}: no answer from what runs there: {line}")

    async def close(self) -> None:
        """The last hop first."""
        for each in reversed(self._through):
            each.close()
            await each.wait_closed()


async def connect(host: str, access: SshAccess) -> SshConnection:
    """Log in, through the jump host first. BadInput, NotAllowed, RetryLater."""
    through: list[asyncssh.SSHClientConnection] = []
    hops = [access.jump, access] if access.jump is not None else [access]
    try:
        for hop in hops:
            through.append(await _hop(host, hop, through[-1] if through else None))
    except BaseException:
        for each in reversed(through):
            each.abort()
            await each.wait_closed()
        raise
    return SshConnection(host, access, through)


async def _hop(
    host: str, hop: SshHop, tunnel: asyncssh.SSHClientConnection | None
) -> asyncssh.SSHClientConnection:
    known = hop.known_hosts
    if not os.access(known, os.R_OK):
        raise BadInput("ssh.known_hosts_file", str(known), f"a file with the host key of {hop.address}")
    keys = [str(hop.key_file.expanduser())] if hop.key_file is not None else ()
    try:
        return await asyncssh.connect(
            hop.address,
            hop.port,
            tunnel=tunnel or (),
            username=hop.user,
            known_hosts=str(known),
            client_keys=keys,
            agent_path=None if hop.key_file is not None else (),
            config=None,
            preferred_auth="publickey",
            connect_timeout=CONNECT_S,
            login_timeout=CONNECT_S,
            keepalive_interval=_KEEPALIVE_S,
            keepalive_count_max=_KEEPALIVES,
        )
    except asyncssh.HostKeyNotVerifiable as error:
        raise NotAllowed(f"{host}: {_unknown(hop)}") from error
    except asyncssh.PermissionDenied as error:
        key = hop.key_file or "of the agent or in ~/.ssh"
        remedy = f"add the public half of the key {key} to its authorized_keys"
        raise NotAllowed(f"{host}: {hop.shown} lets us not in; {remedy}") from error
    except asyncssh.KeyImportError as error:
        raise BadInput(
            "ssh.key_file", str(hop.key_file), f"a private key without passphrase ({error})"
        ) from error
    except FileNotFoundError as error:
        raise BadInput("ssh.key_file", str(hop.key_file), "a file that is there") from error
    except (asyncssh.Error, OSError, TimeoutError) as error:
        raise RetryLater(f"{host}: no SSH to {hop.shown}: {error or type(error).__name__}") from error


def _unknown(hop: SshHop) -> str:
    """What to do about a host key that is not the known one."""
    file, port = hop.known_hosts, "" if hop.port == 22 else f"-p {hop.port} "
    try:
        found = asyncssh.read_known_hosts(str(file)).match(hop.address, "", hop.port)
        changed = bool(found[0] or found[1])
    except (ValueError, OSError):
        changed = False
    if changed:
        entry = hop.address if hop.port == 22 else f"[{hop.address}]:{hop.port}"
        return (
            f"the host key of {hop.shown} is another one than in {file}; somebody may stand between. When "
            f"the host was installed anew: ssh-keygen -R '{entry}' -f {file}, and add the new key"
        )
    return (
        f"the host key of {hop.shown} is not in {file}; ssh-keyscan {port}{hop.address} shows it; compare "
        "it on that host with ssh-keygen -lf, then add it"
    )
