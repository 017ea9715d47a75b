"""Responds to the requests of drills in the node process: injector verbs, keeper orders, process watches.

The host's own node.yaml decides what may be broken, and is read again for each request; who asks decides
nothing. A verb is a process of its own and `inject` goes on when we die, as on a machine whose tool is
local. A watch is a child that ends when we do: nobody holds its input any more. Its lines wait here, by
number, until the tool has read them through the server.

Invariants: no undo overtakes the `inject` that it is for, or it would find nothing to undo. A watch that
nobody reads ends after `LEASE_S`, whatever became of its tool.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from homeostat.drills.node.settings import read_drilled_node
from homeostat.drills.shipped.keeper import machine
from homeostat.drills.transports import port
from homeostat.drills.transports.connections import LocalTransport
from homeostat.kernel.errors import BadInput, GiveUp, NotAllowed, NotFound, RetryLater
from homeostat.kernel.processes import die_with_parent
from homeostat.monitors.shipped.process_watch import parse_watch_config

LEASE_S = 10.0
"""A tool reads five times a second. Shorter, and a server that starts again ends watches; longer, and one of
a dead tool costs this host its looks for as long."""
AT_ONCE_MAX = 16
UNREAD_MAX = 20_000
"""Lines, about 1 MB: a watch that is read has some."""
LINES_MAX = 2_000
"""Of one answer."""
_PROGRAM = "from homeostat.drills.shipped.main import watch; watch()"
_END_S = 3.0


class NodeWatches:
    """All of this host. Used from one event loop, in the main thread: the children end with that."""

    def __init__(self, host: str, lease_s: float = LEASE_S) -> None:
        self._host, self._lease_s = host, lease_s
        self._watches: dict[str, _Watch] = {}

    async def begin(self, name: str, config: dict[str, Any]) -> None:
        """Watch; the same again changes nothing. BadInput, RetryLater."""
        if name in self._watches:
            return
        if len(self._watches) >= AT_ONCE_MAX:
            raise RetryLater(f"{self._host}: {AT_ONCE_MAX} watches run there; wait until some have ended")
        checked = parse_watch_config(json.dumps(config))
        watch = self._watches[name] = _Watch(self._host, name)
        try:
            await watch.start(json.dumps({**config, "name": checked.name}).encode() + b"\n")
        except BaseException:
            del self._watches[name]
            raise
        watch.owner = asyncio.create_task(self._own(watch), name=f"watch {name}")

    def seen(self, name: str, after: int) -> dict[str, Any]:
        """Lines after number `after`, and whether there will be no more. NotFound, GiveUp."""
        watch = self._watch(name)
        watch.read.set()
        return watch.lines_after(after)

    def end(self, name: str) -> None:
        """It says its last word, which is still to be read. NotFound."""
        self._watch(name).let_go()

    async def close(self) -> None:
        owners = [each.owner for each in self._watches.values() if each.owner is not None]
        for owner in owners:
            owner.cancel()
        await asyncio.gather(*owners, return_exceptions=True)

    def _watch(self, name: str) -> _Watch:
        if name not in self._watches:
            raise NotFound(
                f"{self._host}: there is no watch {name}; it ended, or its node process was started again"
            )
        return self._watches[name]

    async def _own(self, watch: _Watch) -> None:
        """Until nobody reads it, or it has been read to its end."""
        try:
            while not watch.finished:
                watch.read.clear()
                async with asyncio.timeout(self._lease_s):
                    await watch.read.wait()
        except TimeoutError:
            pass
        finally:
            try:
                await watch.kill()
            finally:
                del self._watches[watch.name]


class _Watch:
    """One child, and what it said."""

    def __init__(self, host: str, name: str) -> None:
        self.name = name
        self.read = asyncio.Event()
        self.owner: asyncio.Task[None] | None = None
        self._host = host
        self._process: asyncio.subprocess.Process | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._lines: list[str] = []
        self._dropped = 0
        self._overrun = False
        self.finished = False

    async def start(self, config: bytes) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _PROGRAM,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=die_with_parent(),
        )
        assert self._process.stdin is not None
        # No argument: a pattern among the arguments of a process of ours would match it.
        self._process.stdin.write(config)
        self._hearing = asyncio.create_task(self._hear(), name=f"watch {self.name} hears")

    async def _hear(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if len(self._lines) >= UNREAD_MAX:
                self._overrun = True
                self.let_go()
                continue
            self._lines.append(line.decode(errors="replace"))

    def lines_after(self, after: int) -> dict[str, Any]:
        """What was read before is dropped."""
        if self._overrun:
            raise GiveUp(f"{self._host}: watch {self.name} said more than was read: {UNREAD_MAX} lines wait")
        known = self._dropped + len(self._lines)
        if not self._dropped <= after <= known:
            raise BadInput("after", after, f"{self._dropped} to {known}: what was read before is gone")
        del self._lines[: after - self._dropped]
        self._dropped = after
        found = self._lines[:LINES_MAX]
        over = self._hearing is not None and self._hearing.done() and len(found) == len(self._lines)
        self.finished = over and not found
        return {"lines": found, "over": over}

    def let_go(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.close()

    async def kill(self) -> None:
        """In order, else at once."""
        assert self._process is not None and self._hearing is not None
        self.let_go()
        await asyncio.wait({self._hearing}, timeout=_END_S)
        if self._process.returncode is None and not self._hearing.done():
            self._process.kill()
        await self._process.wait()
        await self._hearing


_LOOK_AGAIN_S = 0.05


class DrillResponder:
    """Of one node process. `orders` is a folder of our own: what a question that was cut off left, goes."""

    def __init__(self, host: str, config: Path, orders: Path) -> None:
        self._host, self._config, self._orders = host, config, orders
        self._here = LocalTransport(host, config, orders)
        self._watches = NodeWatches(host)
        self._injecting: list[str] = []
        shutil.rmtree(orders, ignore_errors=True)

    async def answer(self, words: Mapping[str, Any]) -> Any:
        """One question. Kernel errors."""
        match asked := port.parse_request(dict(words)):
            case port.VerbRequest():
                return await self._verb(asked)
            case port.WatchRequest():
                self._refuse_unless_on()
                return await self._watches.begin(asked.watch, asked.config)
            case port.WatchLinesRequest():
                return self._watches.seen(asked.watch, asked.after)
            case port.UnwatchRequest():
                return self._watches.end(asked.watch)
            case _:  # what every host answers alike, however it is reached
                if isinstance(asked, port.HoldsRequest):
                    self._refuse_unless_on()
                return await self._here.call(asked.ask, asked.model_dump(exclude={"ask"}))

    async def close(self) -> None:
        await self._watches.close()

    async def _verb(self, asked: port.VerbRequest) -> Any:
        """Its section. Two tools that ask for the same at once have files of their own."""
        folder = self._orders / uuid.uuid4().hex
        if asked.verb == "undo":
            await self._known_to_the_keeper(asked.fault)
        elif asked.verb == "inject":
            self._injecting.append(asked.fault)
        try:
            record = await LocalTransport(self._host, self._config, folder).verb(asked.verb, asked.record)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if asked.verb == "inject":
                self._injecting.remove(asked.fault)
        return record[asked.verb]

    async def _known_to_the_keeper(self, fault: str) -> None:
        """Until a fault that is being injected here is the keeper's, or is not being injected any more."""
        known = machine.Folder(read_drilled_node(self._config).keeper)
        while fault in self._injecting:
            if known.ledger(fault).exists() or known.outcome(fault).exists():
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _refuse_unless_on(self) -> None:
        """What is no verb of an injector shows things of this host, too."""
        if not read_drilled_node(self._config).drills.enabled:
            remedy = "to permit it, set `enabled: true` there"
            raise NotAllowed(f"{self._host}: drills.enabled is false in its node.yaml; {remedy}")
