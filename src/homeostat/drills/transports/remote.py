"""Transports to a host elsewhere: by its node process (tool, server, NATS, node), or by SSH where there is
none.

By node: every request has a name and a deadline. When nothing comes back it is sent again under that name,
and the node carries out no request twice. What must not be done twice (`inject`, a restart) is for the
incarnation of the node process that was heard last, and for some seconds of that host's own clock: a node
that was started again, or thawed, since does not begin it.

By SSH: our files are sent there, its own file decides. `inject` is a process there, and the undo keeper,
which was started before anything is broken, needs neither the connection nor us. `asyncssh` is imported with
the first connection (`ssh_link`), never here (a test looks).

    python -m homeostat.drills.transports.remote --config FILE

is the monitor process of a process watch there: what the watch says there is said here, stamps and all (they
come from the host; no round trip lies within what is measured); what it saw goes into the sightings file
here. SIGTERM ends it there, which is its last word. When we die, or the connection, it ends there too, by
its lease at the latest. One that does not get there ends with one line and is lost, as any monitor.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from homeostat.drills.site import SiteServer, SshAccess
from homeostat.drills.transports import port
from homeostat.kernel.client import Client, path_segment
from homeostat.kernel.config import validate
from homeostat.kernel.errors import GiveUp, RetryLater
from homeostat.kernel.files import write_json
from homeostat.kernel.terminal import errors_in_one_line
from homeostat.monitors.shipped.process_watch import WatchConfig
from homeostat.monitors.supervision import MonitorCommand

if TYPE_CHECKING:
    import asyncssh

    from homeostat.drills.transports.ssh_link import SshLink

MODULE = "homeostat.drills.transports.remote"
WATCH_STOP_S = 10.0
"""The last words of a watch on another host have to come over the network."""
_SIGHTING, _ERROR = b"[", b'{"error"'


def _watch_over_there(reached: dict[str, Any], config: WatchConfig, folder: Path) -> MonitorCommand:
    """A monitor process of ours that says here what a watch on another host says there."""
    path = folder / f"{config.name}.monitor.json"
    write_json(path, {**reached, "watch": asdict(config.checked())})
    argv = (sys.executable, "-m", MODULE, "--config", str(path))
    return MonitorCommand(config.name, argv, path, Path(config.sightings_file), WATCH_STOP_S, "sightings")


def pass_on(line: bytes, file: BinaryIO, voice: BinaryIO) -> None:
    """Pass on a line of a watch: sightings to its file, statements to `voice`. Kernel errors that it says."""
    if line.startswith(_SIGHTING):
        file.write(line)
    elif line.startswith(_ERROR):
        raise port.error_from_host(json.loads(line)["error"])
    else:
        os.fsync(file.fileno())
        voice.write(line)
        voice.flush()


SILENT_S = 10.0
"""Without a word of the node for so long, a question is given up."""
ANSWER_S = 150.0
"""Longer than anything that a node does: it kills a verb after 90 s, a program of the host after 120 s."""
BEGUN_WITHIN_S = SILENT_S
"""An act that is done once begins so soon after the question, or never: not when it was given up."""
_AGAIN_S = 0.2


@dataclass(frozen=True, slots=True)
class _Heard:
    """A node's last word: which life of it, its clock, and ours when we had it."""

    life: str
    at_ns: int
    ours_ns: int


class NodeRequester:
    """Asks one host's node process, through the server."""

    def __init__(self, host: str, client: Client) -> None:
        self.host = host
        self._client = client
        self._heard: _Heard | None = None

    async def ask(self, asked: port.HostRequest) -> Any:
        """The answer. The host's own errors; the server's; RetryLater when nobody says anything."""
        body: dict[str, Any] = {"question": uuid.uuid4().hex, "words": asked.model_dump(mode="json")}
        if port.is_once_only(asked):
            body |= await self._for_now()
        began_s = word_s = time.monotonic()
        why = "its node process says nothing; is it running, and connected to NATS?"
        while True:
            try:
                told = await self._call(body)
            except RetryLater as error:
                why = str(error)
                await asyncio.sleep(_AGAIN_S)
            else:
                if told["state"] == "answered":
                    return self._meant(told)
                if told["state"] == "taken":
                    word_s = time.monotonic()
            now_s = time.monotonic()
            if now_s - word_s > SILENT_S or now_s - began_s > ANSWER_S:
                raise RetryLater(f"{self.host}: no answer to {asked.ask} for {now_s - began_s:.0f} s: {why}")

    async def _call(self, body: dict[str, Any]) -> dict[str, Any]:
        path = f"/drills/hosts/{path_segment(self.host)}/questions"
        told: dict[str, Any] = await asyncio.to_thread(self._client.call, "POST", path, body)
        return told

    def _meant(self, told: dict[str, Any]) -> Any:
        self._heard = _Heard(told["life"], told["at_ns"], time.monotonic_ns())
        if told["refusal"] is not None:
            raise port.error_from_host(told["refusal"])
        return told["answer"]

    async def _for_now(self) -> dict[str, Any]:
        """For the life that was heard last, and for some seconds of its clock."""
        if self._heard is None:
            await self.ask(port.ClockRequest())
        heard = self._heard
        assert heard is not None
        # Its stamp is older than our having it: the moment is early by the way back, never late.
        since_ns = time.monotonic_ns() - heard.ours_ns
        return {"life": heard.life, "until_ns": heard.at_ns + since_ns + round(BEGUN_WITHIN_S * 1e9)}


class NodeTransport(port.HostTransport):
    """One host."""

    def __init__(self, host: str, server: SiteServer) -> None:
        """BadInput names the token file."""
        super().__init__(host)
        self._server = server
        self._asking = NodeRequester(host, Client.with_token_of(server.url, server.token_file))

    async def call(self, order: str, given: Mapping[str, Any]) -> Any:
        """See the port. The server lets a restart through only for a run announced for this host."""
        asked = port.parse_request({"ask": order, **given})
        if isinstance(asked, port.RestartRequest):
            # The host may have been off since it was heard last: whoever is there now is meant.
            await self._asking.ask(port.ClockRequest())
        return await self._asking.ask(asked)

    def watch(self, config: WatchConfig, folder: Path) -> MonitorCommand:
        """See the port. A process of ours reads through the server what is said there, and says it here."""
        reached = {"host": self.host, "server": self._server.model_dump(mode="json")}
        return _watch_over_there(reached, config, folder)


READ_S = 0.2
"""Between two readings. A watch says something every half second, and is lost after two."""


async def follow_by_node(
    given: dict[str, Any], stopping: asyncio.Event, file: BinaryIO, voice: BinaryIO
) -> None:
    """Until the watch there has ended and all of it was read. Kernel errors."""
    server = validate(SiteServer, given["server"])
    asking = NodeRequester(given["host"], Client.with_token_of(server.url, server.token_file))
    watch, read, let_go, over = uuid.uuid4().hex, 0, False, False
    # The file with what it saw is ours, and not known there.
    await asking.ask(port.WatchRequest(watch=watch, config={**given["watch"], "sightings_file": "-"}))
    while not over:
        told = await asking.ask(port.WatchLinesRequest(watch=watch, after=read))
        for line in told["lines"]:
            pass_on(line.encode(), file, voice)
        read, over = read + len(told["lines"]), told["over"]
        if stopping.is_set() and not let_go and not over:
            let_go = True
            await asking.ask(port.UnwatchRequest(watch=watch))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.0 if over else READ_S):
                await (asyncio.sleep(READ_S) if let_go else stopping.wait())


class SshTransport(port.HostTransport):
    """One host. It connects when it is first asked, and again when the connection is over."""

    def __init__(self, host: str, access: SshAccess) -> None:
        super().__init__(host)
        self._access = access
        self._link: SshLink | None = None
        self._linking = asyncio.Lock()

    async def call(self, order: str, given: Mapping[str, Any]) -> Any:
        link = await self._linked()
        if order == "verb":
            return await link.verb(given["verb"], given["record"])
        if order == "restart":
            return await link.restart(given["profile"])
        return await link.ask(order, **given)

    def watch(self, config: WatchConfig, folder: Path) -> MonitorCommand:
        """See the port. A process of ours, with a connection of its own, says here what is said there."""
        reached = {"host": self.host, "ssh": self._access.model_dump(mode="json")}
        return _watch_over_there(reached, config, folder)

    async def close(self) -> None:
        if self._link is not None:
            await self._link.close()
            self._link = None

    async def _linked(self) -> SshLink:
        from homeostat.drills.transports.ssh_link import open_link

        async with self._linking:
            if self._link is not None and self._link.closed:
                await self.close()
            if self._link is None:
                self._link = await open_link(self.host, self._access)
            return self._link


async def follow_by_ssh(
    given: dict[str, Any], stopping: asyncio.Event, file: BinaryIO, voice: BinaryIO
) -> None:
    """Until the watch there has ended. Kernel errors when it cannot be there, or ended without a word."""
    import asyncssh

    from homeostat.drills.transports.ssh_link import first_line, open_link

    link = await open_link(given["host"], validate(SshAccess, given["ssh"]))
    try:
        process = await link.run("watch")
        process.stdin.write(json.dumps(given["watch"]).encode() + b"\n")
        letting_go = asyncio.create_task(_let_go(process, stopping), name="let go of the watch")
        try:
            while line := await first_line(process):
                pass_on(line, file, voice)
        finally:
            letting_go.cancel()
    except (asyncssh.Error, OSError) as error:
        raise GiveUp(f"{given['host']}: the watch is over: {error}") from error
    finally:
        await link.close()


async def _let_go(process: asyncssh.SSHClientProcess[bytes], stopping: asyncio.Event) -> None:
    await stopping.wait()
    process.stdin.write_eof()


def main() -> None:
    """The command of the monitor process: 0 after the last word, which SIGTERM asks for."""
    parser = argparse.ArgumentParser(prog=MODULE, description="one watch on another host")
    parser.add_argument(
        "--config", type=Path, required=True, help="the host, its access and the watch as JSON"
    )
    given = json.loads(parser.parse_args().config.read_text())
    follow = follow_by_ssh if "ssh" in given else follow_by_node

    async def run(file: BinaryIO) -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        await follow(given, stopping, file, sys.stdout.buffer)

    with errors_in_one_line(), Path(given["watch"]["sightings_file"]).open("ab", buffering=0) as file:
        asyncio.run(run(file))


if __name__ == "__main__":
    main()
