"""The node process of one host: a small supervisor of roles, their observations, and the link to the
server.

It is not the parent of any service or guest, and it decides nothing about them; the roles do. It runs its
roles whether or not NATS and the server are there. Neither FastAPI nor SQLAlchemy is imported here.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from homeostat.drills.node.settings import keeper_folder
from homeostat.drills.shipped.keeper import daemon, machine
from homeostat.fleet.responder import NodeEnd, RequestResponder
from homeostat.fleet.rpc import RpcCall, VerbTable
from homeostat.kernel.bus import Bus, BusSettings
from homeostat.kernel.config import load
from homeostat.kernel.errors import RetryLater
from homeostat.kernel.files import hold_lock
from homeostat.kernel.loops import Task, run_tasks
from homeostat.kernel.terminal import configure_logging, errors_in_one_line
from homeostat.node.facts import HostFactsReporter, read_host_facts
from homeostat.node.link import LinkSettings, NodeLink
from homeostat.node.observations import ObservationStore
from homeostat.node.roles import RoleCommand, RoleProcess, RoleProtocol
from homeostat.node.runner_protocol import RunnerProtocol
from homeostat.node.settings import NodeSettings
from homeostat.resources.settings import offers_of

if TYPE_CHECKING:
    from homeostat.drills.node.responder import DrillResponder

_log = structlog.get_logger("node")


@dataclass(frozen=True, slots=True)
class NodeRole:
    """A role of a node: its command, and what makes the protocol that it speaks, None when it speaks none."""

    command: RoleCommand
    protocol: Callable[[ObservationStore, NodeLink], RoleProtocol] | None = None


@dataclass(frozen=True, slots=True)
class _NodeDependencies:
    """What a node is made of."""

    store: ObservationStore
    bus: Bus
    link: NodeLink
    requests: RequestResponder
    drills: LazyDrillAnswers
    facts: HostFactsReporter
    roles: tuple[RoleProcess, ...]


class LazyDrillAnswers:
    """Answers to drills. What they need is loaded with the first question: most nodes are never drilled."""

    def __init__(self, settings: NodeSettings, config: Path) -> None:
        self._settings, self._config = settings, config
        self._answers: DrillResponder | None = None

    async def answer(self, call: RpcCall) -> Any:
        """One request. Kernel errors."""
        if self._answers is None:
            module = await asyncio.to_thread(import_module, "homeostat.drills.node.responder")
            if self._answers is None:  # another question may have been faster
                orders = self._settings.state_dir.absolute() / "asked"
                self._answers = module.DrillResponder(self._settings.host, self._config, orders)
        return await self._answers.answer(call.arguments)

    async def close(self) -> None:
        """What runs here for a drill elsewhere ends."""
        if self._answers is not None:
            await self._answers.close()


def main(config: Path) -> None:
    """Run a node until it is stopped. BadInput, AlreadyRunning."""
    settings = load(NodeSettings, config)
    configure_logging(settings.log_level)
    asyncio.run(run(settings, node_roles(settings, config), config.absolute()))


async def run(settings: NodeSettings, roles: Sequence[NodeRole], config: Path) -> None:
    """Run the node until SIGTERM or SIGINT: roles stop first, what they report is sent, then goodbye.

    A second signal stops at once. AlreadyRunning when another process has this state directory.
    """
    taken = "{path}: a node already runs here, pid {pid}; stop it, or give this node another state_dir"
    with hold_lock(settings.state_dir / "node.lock", taken):
        parts = _build(settings, roles, config)
        asked, stopping = asyncio.Event(), asyncio.Event()
        _handle_signals(asked, stopping)
        try:
            await parts.link.listen()
            await parts.requests.listen()
            await parts.facts.listen()
            await run_tasks(
                [
                    Task("bus", parts.bus.run, forever=True),
                    Task("undo keeper", lambda: restart_undo_keeper(keeper_folder(settings.state_dir))),
                    *parts.link.tasks(),
                    *parts.facts.tasks(),
                    Task("requests", parts.requests.run, forever=True),
                    *(Task(f"role.{role.name}", role.run) for role in parts.roles),
                    Task("stop", lambda: _stop_in_order(settings, parts, asked, stopping)),
                ],
                stopping=stopping,
            )
        finally:
            await parts.drills.close()
            parts.store.close()


async def restart_undo_keeper(folder: Path) -> None:
    """See that the undo keeper lives when a fault is open: host, guard and keeper may all have died since.

    Whatever node.yaml permits now: what is broken must be undone.
    """
    faults = machine.Folder(folder).open_faults()
    if not faults:
        return
    try:
        life = await asyncio.to_thread(daemon.start, folder)
        _log.warning("still broken by a drill; the undo keeper has it", faults=faults, keeper=life["pid"])
    except machine.KeeperError as error:
        raise RetryLater(str(error)) from error


def node_roles(settings: NodeSettings, config: Path) -> tuple[NodeRole, ...]:
    module = "homeostat.resources.node.main"
    argv = (sys.executable, "-m", module, "--config", str(config.resolve()))
    return (NodeRole(RoleCommand("runner", argv, settings.runner_stop_s), RunnerProtocol.on_link),)


def _build(settings: NodeSettings, roles: Sequence[NodeRole], config: Path) -> _NodeDependencies:
    nats = settings.nats
    bus = Bus(
        BusSettings(
            url=nats.url,
            user=nats.user,
            password=nats.password(),
            name=f"node {settings.host}",
            ping_interval_s=nats.ping_interval_s,
            inbox_prefix=f"to.{settings.host}.inbox",
        )
    )
    store = ObservationStore(settings.state_dir / "observations.db", settings.unacknowledged_max)
    link = NodeLink(
        LinkSettings(settings.host, settings.heartbeat_s, offers=offers_of(settings.runner)), bus, store
    )
    processes = tuple(
        RoleProcess(role.command, role.protocol and role.protocol(store, link)) for role in roles
    )
    drills = LazyDrillAnswers(settings, config)
    verbs = VerbTable(undotted="drills")
    verbs.add("drills", drills.answer)
    requests = RequestResponder(NodeEnd(settings.host, link.incarnation, link.current), verbs.respond, bus)
    _log.info("node", host=settings.host, pid=os.getpid(), boot=store.boot, incarnation=link.incarnation)
    facts = HostFactsReporter(
        settings.host,
        link.incarnation,
        bus,
        link.current,
        lambda: asyncio.to_thread(read_host_facts, settings.state_dir),
    )
    link.on_resync(facts.say_again)
    return _NodeDependencies(store, bus, link, requests, drills, facts, processes)


def _handle_signals(asked: asyncio.Event, stopping: asyncio.Event) -> None:
    def heed(number: signal.Signals) -> None:
        if asked.is_set():
            _log.warning("second signal: exiting now", signal=number.name)
            stopping.set()
        else:
            _log.info("stopping", signal=number.name)
            asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, heed, number)


async def _stop_in_order(
    settings: NodeSettings, parts: _NodeDependencies, asked: asyncio.Event, stopping: asyncio.Event
) -> None:
    """Roles first, then what they still had to say, then goodbye, then everything else."""
    await asked.wait()
    await asyncio.gather(*(role.stop() for role in parts.roles))
    if parts.bus.connected:
        if not await parts.link.drain(settings.goodbye_s):
            _log.warning("the server has not acknowledged everything; it is sent after the next start")
        await parts.link.goodbye()
    stopping.set()


if __name__ == "__main__":
    with errors_in_one_line():
        main(Path(sys.argv[1]))
