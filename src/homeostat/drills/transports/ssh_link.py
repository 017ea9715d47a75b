"""SSH to one host: the login, through a jump host if need be, and our programs that are sent there and run.

Only hosts with a known key: no trust on first use, no password, no ~/.ssh/config, no forwarding but that of
the jump. The library's errors end here: what a person must change is NotAllowed or BadInput, what may go
away by itself is RetryLater. One program stays and answers, so that a request is a matter of one round trip;
the verbs of a fault are processes of their own. Not a place of retries: a link that is over stays so.

The `Shipment` is our own files as one zip with a digest: files, and no archive that runs by itself, since the
undo keeper must start itself again by its own path, and a person on that host must be able to run it.
Everything in it is standard library, for python3.9.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shlex
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import asyncssh

from homeostat.drills.node.settings import shipped_profiles
from homeostat.drills.shipped.boot import digest_of
from homeostat.drills.site import SshAccess, SshHop
from homeostat.drills.transports.port import error_from_host
from homeostat.kernel.errors import BadInput, HomeostatError, NotAllowed, RetryLater

PACKAGE = Path(__file__).parents[2]
BOOT = PACKAGE / "drills" / "shipped" / "boot.py"
MODULES = (
    "__init__.py",
    "drills/__init__.py",
    *sorted(str(path.relative_to(PACKAGE)) for path in (PACKAGE / "drills" / "shipped").rglob("*.py")),
    "kernel/__init__.py",
    "kernel/errors.py",
    "kernel/processes.py",
    "kernel/redaction.py",
    "monitors/__init__.py",
    *sorted(str(path.relative_to(PACKAGE)) for path in (PACKAGE / "monitors" / "shipped").rglob("*.py")),
)
"""The two folders called `shipped`, and the little of the kernel that they stand on."""
_MAIN = b"from homeostat.drills.shipped.main import main\n\nraise SystemExit(main())\n"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Shipment:
    """A zip, and the digest of what is in it."""

    body: bytes
    digest: str


@cache
def shipment() -> Shipment:
    """The same bytes from the same files."""
    files = {f"homeostat/{name}": (PACKAGE / name).read_bytes() for name in MODULES}
    files["homeostat/drills/shipped/profiles.json"] = json.dumps(shipped_profiles(), sort_keys=True).encode()
    files["__main__.py"] = _MAIN
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), content, zipfile.ZIP_DEFLATED)
    return Shipment(body.getvalue(), digest_of(files))


CONNECT_S = 15.0
_KEEPALIVE_S = 5.0
_KEEPALIVES = 3
"""A connection that says nothing for that many times 5 s is over."""
_NOT_FOUND, _NOT_RUN = 127, 126

SshReply = dict[str, Any]


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
        why = f" ({error})" if error else ""
        return RetryLater(f"{self.host}: the SSH connection ended{why}; its keeper undoes what was begun")

    def read(self, out: bytes, process: asyncssh.SSHClientProcess[bytes], said: bytes) -> SshReply:
        """The last line that a program of ours wrote. Kernel errors as the host says them."""
        try:
            found: SshReply = json.loads(out.strip().rpartition(b"\n")[2])
        except ValueError:
            raise self._wrong(process.exit_status, said or out) from None
        if "error" in found:
            raise error_from_host(found["error"])
        return found

    def _wrong(self, code: int | None, said: bytes) -> HomeostatError:
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
        raise NotAllowed(f"{host}: {hop.shown} refuses the login; {remedy}") from error
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


ANSWER_S = 90.0
"""Longer than any verb: one looks at its effect for a minute at most."""
RESTART_S = 130.0
"""Longer than any program of a host may take."""
_FLAGS = ("-I", "-S")


class SshLink:
    """To one host. Made by `open_link`."""

    def __init__(self, host: str, access: SshAccess, connection: SshConnection, folder: str) -> None:
        self.host, self.folder = host, folder
        self._access, self._connection = access, connection
        self._serving: asyncssh.SSHClientProcess[bytes] | None = None
        self._asking = asyncio.Lock()

    @property
    def closed(self) -> bool:
        serving = self._serving
        return self._connection.closed or (serving is not None and serving.exit_status is not None)

    async def run(self, command: str) -> asyncssh.SSHClientProcess[bytes]:
        file = str(self._access.permitted_file)
        return await self._connection.start([*_FLAGS, self.folder, command, self.host, file])

    async def verb(self, verb: str, record: dict[str, Any]) -> SshReply:
        """One verb, in a process of its own. Kernel errors as the host says them."""
        found: SshReply = await self._once("verb", verb, {"verb": verb, "record": record}, ANSWER_S)
        return found

    async def restart(self, profile: str) -> Any:
        """Start a service there, in a process of its own: it may take its time."""
        return await self._once("restart", f"the restart of {profile}", {"profile": profile}, RESTART_S)

    async def _once(self, command: str, what: str, order: dict[str, Any], within_s: float) -> Any:
        """One of our programs to its end; kernel errors as the host says them."""
        process = await self.run(command)
        try:
            async with asyncio.timeout(within_s):
                out, said = await process.communicate(json.dumps(order).encode())
        except TimeoutError:
            raise RetryLater(f"{self.host}: {what} was not done within {within_s:g} s") from None
        except (asyncssh.Error, OSError) as error:
            raise self._connection.over(error) from error
        return self._connection.read(out, process, said)["answer"]

    async def ask(self, what: str, **more: object) -> Any:
        """Ask the one that stays. RetryLater when it does not answer."""
        async with self._asking:
            if self._serving is None:
                self._serving = await self.run("serve")
            serving = self._serving
            try:
                async with asyncio.timeout(ANSWER_S):
                    serving.stdin.write(json.dumps({"ask": what, **more}).encode() + b"\n")
                    line = await first_line(serving)
            except TimeoutError:
                # A late answer must not be taken for that of the next question.
                await self.close()
                raise RetryLater(f"{self.host}: no answer within {ANSWER_S:g} s") from None
            except BaseException as error:
                serving.close()
                self._serving = None
                if isinstance(error, asyncssh.Error | OSError):
                    raise self._connection.over(error) from error
                raise
            said = b"" if line else await serving.stderr.read()
            return self._connection.read(line, serving, said)["answer"]

    async def close(self) -> None:
        """What stays there ends by itself when nobody holds its input."""
        await self._connection.close()


async def open_link(host: str, access: SshAccess) -> SshLink:
    """Log in, see what is permitted there, send what is missing. BadInput, NotAllowed, RetryLater."""
    connection = await connect(host, access)
    try:
        async with asyncio.timeout(ANSWER_S):
            return SshLink(host, access, connection, await _boot(host, access, connection))
    except TimeoutError:
        await connection.close()
        raise RetryLater(f"{host}: python3 there did not answer within {ANSWER_S:g} s") from None
    except BaseException:
        await connection.close()
        raise


async def _boot(host: str, access: SshAccess, connection: SshConnection) -> str:
    """The folder there with what was sent."""
    sent = shipment()
    argv = [*_FLAGS, "-c", BOOT.read_text(), host, str(access.permitted_file), sent.digest]
    process = await connection.start(argv)
    try:
        line = await first_line(process)
        if line.startswith(b'{"needed"'):
            process.stdin.write(sent.body)
            process.stdin.write_eof()
            line = await first_line(process)
        else:
            process.stdin.write_eof()
        said = await process.stderr.read()
        await process.wait()
    except (asyncssh.Error, OSError) as error:
        raise connection.over(error) from error
    return str(connection.read(line, process, said)["folder"])


async def first_line(process: asyncssh.SSHClientProcess[bytes]) -> bytes:
    """The next line of ours; what the shell's own files print is none. Empty at the end."""
    while (line := await process.stdout.readline()) and not line.startswith((b"{", b"[")):
        pass
    return line
