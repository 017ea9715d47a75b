"""A host that was reached and has what it needs: programs of ours run there, and one that stays and answers.

The one that stays makes a question a matter of one round trip; the verbs of a fault are processes of their
own. Not a place of retries: a link that is over stays so.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncssh

from homeostat.drills.transports.meaning import error_of
from homeostat.drills.transports.shipment import BOOT, shipment
from homeostat.drills.transports.ssh_connection import SshConnection, connect
from homeostat.drills.transports.ssh_settings import SshAccess
from homeostat.kernel.errors import RetryLater

ANSWER_S = 90.0
"""Longer than any verb: one looks at its effect for a minute at most."""
RESTART_S = 130.0
"""Longer than any program of a host may take."""
_FLAGS = ("-I", "-S")

Answer = dict[str, Any]


class SshLink:
    """To one host. Made by `open_link`."""

    def __init__(self, host: str, access: SshAccess, connection: SshConnection, folder: str) -> None:
        self.host, self.folder = host, folder
        self._access, self._connection = access, connection
        self._serving: asyncssh.SSHClientProcess[bytes] | None = None
        self._asking = asyncio.Lock()

    @property
    def closed(self) -> bool:
        """Whether it is over."""
        serving = self._serving
        return self._connection.closed or (serving is not None and serving.exit_status is not None)

    async def run(self, command: str) -> asyncssh.SSHClientProcess[bytes]:
        """Start one of our programs there."""
        file = str(self._access.permitted_file)
        return await self._connection.start([*_FLAGS, self.folder, command, self.host, file])

    async def verb(self, verb: str, record: dict[str, Any]) -> Answer:
        """One verb, in a process of its own. Kernel errors as the host says them."""
        found: Answer = await self._once("verb", verb, {"verb": verb, "record": record}, ANSWER_S)
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
        return self._read(out, process, said)

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
            return self._read(line, serving, said)

    async def close(self) -> None:
        """What stays there ends by itself when nobody holds its input."""
        await self._connection.close()

    def _read(self, out: bytes, process: asyncssh.SSHClientProcess[bytes], said: bytes) -> Any:
        line = out.strip().rpartition(b"\n")[2]
        try:
            found = json.loads(line)
        except ValueError:
            raise self._connection.wrong(process.exit_status, said or out) from None
        if "error" in found:
            raise error_of(found["error"])
        return found["answer"]


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
    try:
        found = json.loads(line)
    except ValueError:
        raise connection.wrong(process.exit_status, said or line) from None
    if "error" in found:
        raise error_of(found["error"])
    return str(found["folder"])


async def first_line(process: asyncssh.SSHClientProcess[bytes]) -> bytes:
    """The next line of ours; what the shell's own files print is none. Empty at the end."""
    while (line := await process.stdout.readline()) and not line.startswith((b"{", b"[")):
        pass
    return line
