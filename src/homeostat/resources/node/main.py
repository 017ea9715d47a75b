"""Parses the meta-data of an OCF agent and warns where a configuration falls below what it advertises.

Meta-data is a hint by the agent's author, so what it says makes warnings, never errors. The document is
bounded and declares no entities of its own; anything else is BadInput.

The role `runner`: starts, watches and restarts the OCF resources of its host. A process of its own.

`python -m homeostat.resources.node.main --config node.yaml`, child of the node process. It has no network
and no store: it reports on stdout and acts once the node has answered. It may be killed at any moment; its
resources are not its children and are found again. Exit codes: 0 told to end, 1 broken pipe, 2 bad config.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from homeostat.contracts.nouns import ResourceId, ResourceState
from homeostat.contracts.roles import Recalled
from homeostat.contracts.wire import Finish, Intent, Outcome, ResourceStatus
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.config import load
from homeostat.kernel.errors import BadInput, HomeostatError
from homeostat.kernel.terminal import drop_unwritable_output
from homeostat.resources.model import RunAction
from homeostat.resources.node.agents import Scratch, run_action
from homeostat.resources.node.guests import MovableGuest, StoredGuest, finish, unless
from homeostat.resources.node.pipe import NodePipe, ReportSubject, StateChange
from homeostat.resources.node.resource import RunnerContext, SupervisedResource, call_for
from homeostat.resources.ocf import ActionOutcome, MetaData, parse_meta_data
from homeostat.resources.settings import NodeFile, ResourceSettings, check_installed


def warnings_of(resource: ResourceSettings, advertised: MetaData) -> list[str]:
    """One line for each timeout below the advertised one and each required parameter that is missing."""
    lines = []
    configured = {
        "start": resource.operations.start.timeout_s,
        "stop": resource.operations.stop.timeout_s,
        "monitor": resource.operations.monitor.timeout_s,
    }
    for verb, timeout_s in configured.items():
        wanted = [a.timeout_s for a in advertised.actions if a.name == verb and a.timeout_s is not None]
        if wanted and timeout_s < min(wanted):
            lines.append(
                f"resources.{resource.id}.operations.{verb}.timeout_s: {timeout_s:g} is less than the "
                f"{min(wanted):g} s that {resource.agent} advises; raise it to at least that"
            )
    lines += [
        f"resources.{resource.id}.parameters.{parameter.name}: missing, and {resource.agent} requires it"
        for parameter in advertised.parameters
        if parameter.required and parameter.name not in resource.parameters
    ]
    return lines


_log = logging.getLogger(__name__)
_META_DATA_S = 10.0
_NOT_CONFIGURED = "not_configured: it is no longer in this node's configuration; nobody watches it"


def main() -> int:
    parser = argparse.ArgumentParser(prog="homeostat-runner", description="keeps the resources of one host")
    parser.add_argument("--config", type=Path, required=True, help="node.yaml")
    arguments = parser.parse_args()
    drop_unwritable_output("stderr")
    logging.basicConfig(level=logging.INFO, format="runner %(levelname)s %(message)s", stream=sys.stderr)
    try:
        node = load(NodeFile, arguments.config)
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
    loop.add_signal_handler(signal.SIGTERM, finish, asked)
    # Ctrl-C in a terminal reaches every process of the group; what it means is the node's to say.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    try:
        check_installed(node.runner)
    except BadInput as error:
        _log.error("%s", error)
    scratch.prepare()
    line = await NodePipe.on_stdio()
    recalled = await unless(leave, line.recalled())
    if recalled is None:
        return 0
    around = RunnerContext(node.runner, scratch, line, stop, SystemClock())
    line.seen_ns = around.seen_ns
    listening = asyncio.create_task(line.listen(), name="listen")
    keeping = asyncio.create_task(_keep_all(around, recalled), name="keep all")
    pulses = (
        asyncio.create_task(around.pulse.run(around.clock), name="pulse"),
        asyncio.create_task(line.pulse(), name="pulse of the line"),
    )
    ends: set[asyncio.Future[None]] = {listening, keeping, leave}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in (listening, keeping):
            if task.done():
                task.result()
    finally:
        for task in (listening, keeping, *pulses):
            task.cancel()
        await asyncio.gather(listening, keeping, *pulses, return_exceptions=True)
    return 0


async def _keep_all(around: RunnerContext, recalled: Recalled) -> None:
    """One task a resource; ends when `stop` was asked and each has been stopped."""
    levels = {level.resource: level for level in recalled.levels}
    around.line.expect({*levels, *(ResourceId(each.id) for each in around.settings.resources)})
    async with asyncio.TaskGroup() as group:
        for resource in around.settings.resources:
            name = ResourceId(resource.id)
            level = levels.pop(name, None)
            act = recalled.open_intents.get(name)
            if resource.movable:
                guest = MovableGuest(resource, around, StoredGuest(level, act))
                group.create_task(guest.heed(), name=f"heed {name}")
                continue
            kept = SupervisedResource(resource, around)
            group.create_task(kept.keep(level.state if level else None, act), name=f"keep {name}")
        for level in levels.values():
            act = recalled.open_intents.get(level.resource)
            group.create_task(_let_go(around, level, act), name=f"let go {level.resource}")
        advising = group.create_task(_advise(around), name="advise")
        await around.stop
        advising.cancel()


async def _let_go(around: RunnerContext, level: ResourceStatus, act: Intent | None) -> None:
    """Say once of a resource that left the configuration that nobody watches it, and close its open act."""
    finished = Finish(act.action, Outcome.UNKNOWN, 0.0, _NOT_CONFIGURED) if act else None
    if finished is not None or level.state not in (ResourceState.UNKNOWN, ResourceState.STOPPED):
        seen = around.clock.wall_ns(), around.clock.mono_ns()
        news = StateChange(ResourceState.UNKNOWN, _NOT_CONFIGURED, *seen, finished=finished)
        await around.line.tell(ReportSubject.of(level), news)
    around.line.looked(level.resource)


async def _advise(around: RunnerContext) -> None:
    """One warning line for each setting below what the resource's agent advertises."""
    for resource in around.settings.resources:
        call = call_for(resource, around.settings, RunAction("meta-data", _META_DATA_S))
        try:
            result = await run_action(call, around.scratch, around.settings.ocf_root)
            if result.answer is not ActionOutcome.OK:
                _log.warning("%s: meta-data of %s: %s", resource.id, resource.agent, result.detail)
                continue
            for line in warnings_of(resource, parse_meta_data(result.stdout.encode())):
                _log.warning("%s", line)
        except (BadInput, OSError) as error:
            _log.warning("%s: %s", resource.id, error)


if __name__ == "__main__":
    sys.exit(main())
