"""A host that is this machine: its own node.yaml decides, and each verb is a process of its own.

The record of a fault lies as `<fault>.order` in the folder that was given. `inject` has a session of its own:
Ctrl-C at the tool does not reach it, and its keeper ends it if it must.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from homeostat.drills import node_keeper as keeper
from homeostat.drills.injectors.node_holder import holds
from homeostat.drills.injectors.node_restarting import restart
from homeostat.drills.injectors.record import healed, keepers_words
from homeostat.drills.node_settings import DrilledNode, read_drilled_node
from homeostat.drills.site import address_of
from homeostat.drills.transports.port import Verb
from homeostat.kernel.errors import (
    BadInput,
    CorruptState,
    GiveUp,
    HomeostatError,
    NotAllowed,
    NotFound,
    RetryLater,
)
from homeostat.kernel.files import read_json, write_json
from homeostat.kernel.terminal import BROKEN, DAMAGED, ERROR_PREFIX, NOT_ALLOWED, NOT_FOUND, NOT_NOW
from homeostat.monitors.node_process_watch import WatchConfig
from homeostat.monitors.supervision import MonitorCommand, process_watch

VERB_WITHIN_S = 90.0
"""No verb takes longer: the longest looks at its effect for a minute."""
_MEANT: dict[int, type[HomeostatError]] = {
    NOT_NOW: RetryLater,
    NOT_FOUND: NotFound,
    NOT_ALLOWED: NotAllowed,
    DAMAGED: CorruptState,
}


def error_of(code: int, said: str, what: str) -> HomeostatError:
    """What the injector program meant by its exit code and its one line."""
    lines = said.strip().splitlines() or [f"{what} ended with {code} and said nothing"]
    return _MEANT.get(code, GiveUp)(lines[-1].removeprefix(ERROR_PREFIX))


class LocalTransport:
    """One host of this machine."""

    def __init__(self, host: str, config: Path, folder: Path) -> None:
        self.host = host
        self._config, self._folder = config, folder

    async def verb(self, verb: Verb, record: dict[str, Any]) -> dict[str, Any]:
        """Run the injector program; see the port."""
        self._node()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{record['fault']}.order"
        # Without what an earlier run of the verb found: a crash must not look like its answer.
        write_json(path, {name: value for name, value in record.items() if name != verb})
        argv = [sys.executable, "-m", "homeostat.drills.injectors", verb]
        argv += ["--plan", str(path), "--config", str(self._config)]
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(VERB_WITHIN_S):
                _, said = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise RetryLater(f"{self.host}: {verb} was not done within {VERB_WITHIN_S:g} s") from None
        code = process.returncode or 0
        answer = read_json(path)
        if code not in (0, BROKEN) or answer is None or not isinstance(answer.get(verb), dict):
            raise error_of(code, said.decode(errors="replace"), f"{self.host}: {verb}")
        return answer

    async def renew(self, fault: str) -> None:
        """See the port."""
        with keepers_words():
            await asyncio.to_thread(keeper.renew, self._node().keeper, fault)

    async def heal(self) -> list[dict[str, Any]]:
        """See the port."""
        root = self._node().keeper
        left = await asyncio.to_thread(keeper.Folder(root).open_faults)
        return [await asyncio.to_thread(healed, root, fault) for fault in left]

    async def status(self) -> dict[str, Any]:
        """See the port."""
        return await asyncio.to_thread(keeper.status, self._node().keeper)

    async def clock_ns(self) -> int:
        """See the port. It is ours, too."""
        return keeper.now_ns()

    async def holds(self, profile: str, how: str, endpoint: str) -> bool:
        """See the port."""
        return await asyncio.to_thread(holds, self._node().permitted(), profile, how, address_of(endpoint))

    def watch(self, config: WatchConfig, folder: Path) -> MonitorCommand:
        """See the port."""
        return process_watch(config, folder)

    async def restart(self, profile: str, run: str) -> str:  # noqa: ARG002  nobody stands in between here
        """See the port."""
        return await asyncio.to_thread(restart, self._node().permitted(), profile)

    async def close(self) -> None:
        """Nothing is held."""

    def _node(self) -> DrilledNode:
        """What its node.yaml says now. BadInput for the file of another host: that one would be hit."""
        found = read_drilled_node(self._config)
        if found.host != self.host:
            raise BadInput(
                f"hosts.{self.host}.config",
                str(self._config),
                f"a node.yaml of this host, not of {found.host}",
            )
        return found
