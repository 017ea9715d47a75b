"""The role `runner`: starts, watches and restarts the OCF resources of its host. A process of its own.

`python -m homeostat.resources.node_runner --config node.yaml`, child of the node process. It has no network
and no store: it reports on stdout and acts once the node has answered. It may be killed at any moment; its
resources are not its children and are found again. Exit codes: 0 told to end, 1 broken line, 2 bad config.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from homeostat.contracts.nouns import ResourceId, ResourceState
from homeostat.contracts.roles import Recalled
from homeostat.contracts.wire import Finish, Intent, Outcome, ResourceLevel
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.errors import BadInput, HomeostatError
from homeostat.resources.model import Run
from homeostat.resources.node_agents import run_action
from homeostat.resources.node_guests import MovableGuest, Remembered
from homeostat.resources.node_line import About, News, NodeLine
from homeostat.resources.node_metadata import advice, parse
from homeostat.resources.node_resource import KeptResource, Surroundings, call_for
from homeostat.resources.node_scratch import Scratch
from homeostat.resources.ocf import Answer
from homeostat.resources.settings import NodeFile, check_installed, read_node_file

_log = logging.getLogger(__name__)
_META_DATA_S = 10.0
_NOT_CONFIGURED = "not_configured: it is no longer in this node's configuration; nobody watches it"


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="homeostat-runner", description="keeps the resources of one host")
    parser.add_argument("--config", type=Path, required=True, help="node.yaml")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="runner %(levelname)s %(message)s", stream=sys.stderr)
    try:
        node = read_node_file(arguments.config)
    except BadInput as error:
        _log.error("%s", error)
        return 2
    scratch = Scratch(node.state_dir)
    os.chdir("/")
    try:
        return asyncio.run(_serve(node, scratch))
    except (HomeostatError, OSError) as error:
        _log.error("%s", error)
        return 1


async def _serve(node: NodeFile, scratch: Scratch) -> int:
    """Keep all resources until the line ends, SIGTERM says leave, or all are stopped."""
    loop = asyncio.get_running_loop()
    leave: asyncio.Future[None] = loop.create_future()
    stop: asyncio.Future[None] = loop.create_future()
    asked = stop if node.runner.on_stop == "stop" else leave
    loop.add_signal_handler(signal.SIGTERM, _set, asked)
    # Ctrl-C in a terminal reaches every process of the group; what it means is the node's to say.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    try:
        check_installed(node.runner)
    except BadInput as error:
        _log.error("%s", error)
    scratch.prepare()
    line = await NodeLine.on_stdio()
    recalled = await _unless(leave, line.recalled())
    if recalled is None:
        return 0
    around = Surroundings(node.runner, scratch, line, stop, SystemClock())
    listening = asyncio.create_task(line.listen(), name="listen")
    keeping = asyncio.create_task(_keep_all(around, recalled), name="keep all")
    ends: set[asyncio.Future[None]] = {listening, keeping, leave}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in (listening, keeping):
            if task.done():
                task.result()
    finally:
        for task in (listening, keeping):
            task.cancel()
        await asyncio.gather(listening, keeping, return_exceptions=True)
    return 0


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _unless(
    leave: asyncio.Future[None], first: Coroutine[Any, Any, Recalled | None]
) -> Recalled | None:
    """The first line, unless the runner is told to leave while it waits for it."""
    waiting = asyncio.ensure_future(first)
    ends: set[asyncio.Future[Any]] = {waiting, leave}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else None
    finally:
        waiting.cancel()


async def _keep_all(around: Surroundings, recalled: Recalled) -> None:
    """One task a resource; ends when `stop` was asked and each has been stopped."""
    levels = {level.resource: level for level in recalled.levels}
    async with asyncio.TaskGroup() as group:
        for resource in around.settings.resources:
            name = ResourceId(resource.id)
            level = levels.pop(name, None)
            act = recalled.open_intents.get(name)
            if resource.movable:
                guest = MovableGuest(resource, around, Remembered(level, act))
                group.create_task(guest.heed(), name=f"heed {name}")
                continue
            kept = KeptResource(resource, around)
            group.create_task(kept.keep(level.state if level else None, act), name=f"keep {name}")
        for level in levels.values():
            act = recalled.open_intents.get(level.resource)
            group.create_task(_let_go(around, level, act), name=f"let go {level.resource}")
        advising = group.create_task(_advise(around), name="advise")
        await around.stop
        advising.cancel()


async def _let_go(around: Surroundings, level: ResourceLevel, act: Intent | None) -> None:
    """Say once of a resource that left the configuration that nobody watches it, and close its open act."""
    finished = Finish(act.action, Outcome.UNKNOWN, 0.0, _NOT_CONFIGURED) if act else None
    if finished is None and level.state in (ResourceState.UNKNOWN, ResourceState.STOPPED):
        return
    seen = around.clock.wall_ns(), around.clock.mono_ns()
    news = News(ResourceState.UNKNOWN, _NOT_CONFIGURED, *seen, finished=finished)
    await around.line.tell(About.of(level), news)


async def _advise(around: Surroundings) -> None:
    """One warning line for each setting below what the resource's agent advertises."""
    for resource in around.settings.resources:
        call = call_for(resource, around.settings, Run("meta-data", _META_DATA_S))
        try:
            result = await run_action(call, around.scratch, around.settings.ocf_root)
            if result.answer is not Answer.OK:
                _log.warning("%s: meta-data of %s: %s", resource.id, resource.agent, result.detail)
                continue
            for line in advice(resource, parse(result.stdout.encode())):
                _log.warning("%s", line)
        except (BadInput, OSError) as error:
            _log.warning("%s: %s", resource.id, error)


if __name__ == "__main__":
    sys.exit(main())
