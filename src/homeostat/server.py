"""The control plane's composition root: every part, in the order in which it is made. No decisions here."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from functools import partial
from pathlib import Path

import structlog
import uvloop

from homeostat.acting import acting_of
from homeostat.contracts.events.fleet import LoopCrashed
from homeostat.contracts.nouns import INFRASTRUCTURE
from homeostat.drilling import drilling_of
from homeostat.faults.loop import FaultPath
from homeostat.faults.parts import Parts
from homeostat.fleet.settings import FleetSettings
from homeostat.http_api import bind, listen
from homeostat.kernel import pauses
from homeostat.kernel.access import Role
from homeostat.kernel.appender import Appender
from homeostat.kernel.bus import Bus, BusSettings
from homeostat.kernel.clock import Clock, SystemClock
from homeostat.kernel.config import load
from homeostat.kernel.errors import BadInput
from homeostat.kernel.http import Callers
from homeostat.kernel.journal import Draft, Submission
from homeostat.kernel.logs import configure
from homeostat.kernel.loops import LoopLag, Task, run_tasks
from homeostat.kernel.positional_log import open_log
from homeostat.kernel.terminal import errors_in_one_line
from homeostat.leadership import open_store
from homeostat.monitors.probes import OutsideProbes, targets
from homeostat.nats_settings import secret_in
from homeostat.overview import Shown, api_of, health_of
from homeostat.retention import Retention
from homeostat.settings import ServerSettings
from homeostat.telling import dead_man_of, open_telling
from homeostat.tokens_api import Registry
from homeostat.web.live import Tail

log = structlog.get_logger("server")

ADMIN_TOKEN = "admin"


def main(settings: ServerSettings) -> None:
    """Run the server until SIGTERM or SIGINT."""
    configure(settings.log_level)
    uvloop.run(serve(settings))


async def serve(settings: ServerSettings) -> None:
    """Make the parts, run the loops, take everything down again."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    clock, lag = SystemClock(), LoopLag()
    nats = settings.nats
    bus = Bus(BusSettings(nats.url, nats.user, nats.password(), "homeostat server", nats.ping_interval_s))
    async with open_store(settings, clock) as store, open_telling(settings, store, clock) as telling:
        listener = bind(settings.api.host, settings.api.port)  # a standby must not seem to answer
        log.info("leading", epoch=store.leader.epoch, database=store.leader.engine.dialect.name)
        registry = Registry(store.appender, store.readers, Callers(store.readers, clock), clock)
        await _let_administrator_in(settings, registry)
        outside = _outside_probes(settings.fleet, clock)
        path = FaultPath(
            Parts(
                appender=store.appender,
                readers=store.readers,
                bus=bus,
                clock=clock,
                herald=telling.herald,
                faults=settings.faults,
                fleet=settings.fleet,
                epoch=store.leader.epoch,
                own_lag_s=lambda: lag.worst_s,
                probed=lambda: outside.latest,
                probe_stale_s=outside.stale_s,
                doctor_log=_doctor_log(settings.faults.doctor_log_file),
                term_left_s=store.leader.left_s,
            )
        )
        acting = await acting_of(settings, store, path, clock)
        drilling = drilling_of(store, telling.known_drills, path, bus, clock)
        await path.listen()
        await drilling.relay.listen()
        await path.load()
        pauses.shorten()
        health = partial(health_of, store, path)
        dead_man = dead_man_of(settings, store.leader.epoch, clock, health)
        tail = Tail(store.journal)
        retention = Retention(store.appender, store.readers, clock, settings.retention)
        shown = Shown(store, telling, path, outside, acting, drilling, registry, dead_man, lag, tail)
        app = api_of(settings, shown)
        await run_tasks(
            [
                *([] if dead_man is None else [Task("dead man", dead_man.run, forever=True)]),
                Task("loop lag", lag.run, forever=True),
                Task("term", store.leader.keep, forever=True),
                Task("bus", bus.run, forever=True),
                Task("fault path", path.run, forever=True),
                Task("outside probes", outside.run, forever=True),
                Task("marking", acting.marker.run, forever=True),
                Task("aftermath", acting.aftermath.run, forever=True),
                Task("placing", acting.placing.run, forever=True),
                Task("drill claims", drilling.register.run, forever=True),
                Task("delivery", telling.delivery.run, forever=True),
                Task("retention", retention.run, forever=True),
                Task("open pages", tail.run, forever=True),
                Task("api", lambda: listen(app, listener), forever=True),
            ],
            stopping=stopping,
            on_crash=partial(_record_crash, store.appender, clock),
        )


def _outside_probes(settings: FleetSettings, clock: Clock) -> OutsideProbes:
    probed, unprobed = targets(settings.hosts)
    for host, why in unprobed.items():
        log.warning("not probed from outside; it will never be host_down", host=host, reason=why)
    return OutsideProbes(probed, settings, clock)


def _doctor_log(file: Path | None) -> logging.Logger | None:
    if file is None:
        return None
    try:
        return open_log(file)
    except OSError as error:
        raise BadInput(
            "faults.doctor_log_file", str(file), f"a file that can be written ({error})"
        ) from error


async def _record_crash(appender: Appender, clock: Clock, name: str, error: BaseException) -> None:
    at_ns = clock.wall_ns()
    event = LoopCrashed(name, f"{type(error).__name__}: {error}"[:500])
    draft = Draft(event, f"loop/{name}", at_ns, "server", f"loop/{name}/{at_ns}")
    await appender.append(Submission("server", (draft,)))


async def _let_administrator_in(settings: ServerSettings, registry: Registry) -> None:
    file = settings.api.admin_token_file
    if file is not None:
        token = secret_in(file, "api.admin_token_file")
        await registry.issue(ADMIN_TOKEN, Role.ADMIN, INFRASTRUCTURE, token)


if __name__ == "__main__":
    with errors_in_one_line():
        main(load(ServerSettings, Path(sys.argv[1])))
