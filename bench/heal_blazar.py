"""Blazar 18.0 itself, for `heal.py` and `punctual.py`: runs in an environment of its own that holds PyPI `blazar`.

    heal_blazar.py FOLDER       a job a line on standard input, an answer a line on standard output, both JSON

It is the released package: its models, plug-ins, event loop and database layer on SQLite. Only the edge is replaced:
nova's aggregates and servers, placement and Keystone answer at once and cost nothing, which favours the peer.

    {"do": "heal", "site": ..., "interval_min": 60}     insert the site, mark its failed hosts, heal, write the flags
    {"do": "events", ...}                               run the manager's own event loop, see `events`

In 18.0.0 the instance plug-in fails at the first reservation that it would heal (`'Reservation' object has no
attribute 'affinity'`: it is given a row where it expects the mapping of its own tests), and the flags of the whole
pass are lost with it. A job with `"repaired": true` is run with that one read put right, so that its choice of hosts can
be compared at all.

CPU is of the whole process between the mark of the first host and the last flag; statements are those that
SQLAlchemy sends, oslo.db's pings before each session included.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import resource
import sys
import threading
import time
import types
from collections import defaultdict
from pathlib import Path
from typing import Any
from unittest import mock

import sqlalchemy

logging.disable(logging.ERROR)  # it logs a line a move

from blazar import config  # noqa: E402, F401  (registers options that the plug-ins read)
from blazar.db import api as db_api  # noqa: E402
from blazar.db import utils as db_utils  # noqa: E402
from blazar.db.sqlalchemy import api as sql_api  # noqa: E402
from blazar.db.sqlalchemy import facade_wrapper, models  # noqa: E402
from blazar.manager import service as manager_service  # noqa: E402
from blazar.monitor import base as monitor_base  # noqa: E402
from blazar.notification import notifier  # noqa: E402
from blazar.plugins.instances import instance_plugin  # noqa: E402
from blazar.plugins.oshosts import host_plugin  # noqa: E402
from blazar.utils import trusts  # noqa: E402
from blazar.utils.openstack import nova, placement  # noqa: E402
from oslo_config import cfg  # noqa: E402
from oslo_utils import timeutils  # noqa: E402

CONF = cfg.CONF
SETTINGS = """
[DEFAULT]
transport_url = fake:/
[database]
connection = sqlite:///{folder}/blazar.sqlite
[oslo_messaging_notifications]
driver = noop
"""
TABLES = models.Lease.metadata


class Pool:
    """Nova's aggregates and servers as the plug-ins see them: every change succeeds at once."""

    hosts: dict[object, list[str]] = {}
    stuck_until_s: float = 0.0
    stuck: object = None

    def add_computehost(self, pool: object, hosts: str | list[str], stay_in: bool = False) -> None:  # noqa: ARG002
        """Of an aggregate."""
        self.hosts.setdefault(pool, []).extend([hosts] if isinstance(hosts, str) else hosts)

    def remove_computehost(self, pool: object, hosts: str | list[str]) -> None:
        """Of an aggregate."""
        for each in [hosts] if isinstance(hosts, str) else hosts:
            with contextlib.suppress(ValueError):
                self.hosts.setdefault(pool, []).remove(each)

    def get_computehosts(self, pool: object) -> list[str]:
        """Names."""
        return self.hosts.get(pool, [])

    def delete(self, pool: object, force: bool = True) -> None:  # noqa: ARG002
        """An aggregate."""
        self.hosts.pop(pool, None)


class Servers:
    """Nova's servers: none, but for the host whose server is not deleted before its time."""

    def list(self, search_opts: dict[str, Any], detailed: bool = True) -> list[object]:  # noqa: ARG002
        """Of a host."""
        return (
            [object()] if search_opts["host"] == Pool.stuck and time.monotonic() < Pool.stuck_until_s else []
        )

    def delete(self, server: object) -> None:
        """Is accepted."""


class Repaired:
    """What the instance plug-in reads of the database, its reservations as the mappings that it expects."""

    def __getattr__(self, name: str) -> Any:
        return getattr(db_utils, name)

    def get_reservations_by_host_ids(self, *arguments: object) -> list[dict[str, Any]]:
        """As the plug-in's own tests hand them to it."""
        found = db_utils.get_reservations_by_host_ids(*arguments)
        return [{**each.to_dict(), "computehost_allocations": each.computehost_allocations} for each in found]


def prepare(folder: Path) -> dict[str, Any]:
    """Configure the package and its database; its two plug-ins."""
    written = folder / "blazar.conf"
    written.write_text(SETTINGS.format(folder=folder))
    CONF(args=[], project="blazar", default_config_files=[str(written)])
    facade_wrapper._clear_engine()
    sql_api.setup_db()
    nova.ReservationPool = Pool
    placement.BlazarPlacementClient = mock.MagicMock()
    client = types.SimpleNamespace(servers=Servers())
    for plugin in (host_plugin.PhysicalHostPlugin, instance_plugin.VirtualInstancePlugin):
        plugin.nova = client
    trusts.create_ctx_from_trust = lambda _: contextlib.nullcontext()
    return {
        "physical:host": host_plugin.PhysicalHostPlugin(),
        "virtual:instance": instance_plugin.VirtualInstancePlugin(),
    }


Rows = dict[Any, list[dict[str, Any]]]


def _add_hosts(rows: Rows, site: dict[str, Any]) -> None:
    rows[models.ComputeHost] += [
        {
            "id": str(host["id"]), "vcpus": host["vcpus"], "memory_mb": host["memory_mb"], "local_gb": host["disk_gb"],
            "cpu_info": "{}", "hypervisor_type": "QEMU", "hypervisor_version": 1, "hypervisor_hostname": f"h{host['id']}",
            "service_name": f"h{host['id']}", "availability_zone": "nova", "trust_id": "", "reservable": True,
        }
        for host in site["hosts"]
    ]  # fmt: skip


def _add_lease(rows: Rows, reservation: dict[str, Any], now: datetime.datetime) -> None:
    """One lease with one reservation, its allocations and its two events."""
    name, starts_s, ends_s = reservation["id"], reservation["start_s"], reservation["end_s"]
    start, end = (now + datetime.timedelta(seconds=each) for each in (starts_s, ends_s))
    active, amount = starts_s <= 0, len(reservation["hosts"])
    kind = "virtual:instance" if reservation.get("demand") else "physical:host"
    rows[models.Lease].append(
        {"id": name, "name": name, "start_date": start, "end_date": end, "trust_id": "",
         "status": "ACTIVE" if active else "PENDING"}
    )  # fmt: skip
    rows[models.Reservation].append(
        {"id": f"r{name}", "lease_id": name, "resource_id": f"c{name}", "resource_type": kind,
         "status": "active" if active else "pending"}
    )  # fmt: skip
    rows[models.Event] += [
        {"id": f"s{name}", "lease_id": name, "event_type": "start_lease", "time": start,
         "status": "DONE" if active else "UNDONE"},
        {"id": f"e{name}", "lease_id": name, "event_type": "end_lease", "time": end, "status": "UNDONE"},
    ]  # fmt: skip
    if kind == "physical:host":
        wants = reservation["min_vcpus"]
        rows[models.ComputeHostReservation].append(
            {"id": f"c{name}", "reservation_id": f"r{name}", "aggregate_id": name, "resource_properties": "",
             "hypervisor_properties": json.dumps([">=", "$vcpus", str(wants)]) if wants else "",
             "count_range": f"1-{amount}", "before_end": ""}
        )  # fmt: skip
    else:
        vcpus, memory_mb, disk_gb = reservation["demand"]
        rows[models.InstanceReservations].append(
            {"id": f"c{name}", "reservation_id": f"r{name}", "vcpus": vcpus, "memory_mb": memory_mb, "disk_gb": disk_gb,
             "amount": amount, "affinity": reservation["affinity"], "resource_properties": "", "aggregate_id": name}
        )  # fmt: skip
    rows[models.ComputeHostAllocation] += [
        {"id": f"a{name}-{number}", "compute_host_id": str(host), "reservation_id": f"r{name}"}
        for number, host in enumerate(reservation["hosts"])
    ]


def fill(site: dict[str, Any], now: datetime.datetime) -> None:
    """Replace what the database holds by this site. Times of a reservation are seconds from `now`."""
    Pool.hosts = {
        each["id"]: [f"h{host}" for host in each["hosts"]]
        for each in site["reservations"]
        if each["start_s"] <= 0
    }
    rows: Rows = defaultdict(list)
    _add_hosts(rows, site)
    for each in site["reservations"]:
        _add_lease(rows, each, now)
    with facade_wrapper.session_for_write() as session:
        for table in reversed(TABLES.sorted_tables):
            session.execute(table.delete())
        for model, values in rows.items():
            session.execute(sqlalchemy.insert(model), values)


def heal(job: dict[str, Any], plugins: dict[str, Any], statements: list[int]) -> dict[str, Any]:
    """Mark, heal, write the flags; where every reservation is afterwards."""
    site = job["site"]
    CONF.set_override("healing_interval", job["interval_min"], group="physical:host")
    fill(site, timeutils.utcnow())
    instance_plugin.db_utils = Repaired() if job["repaired"] else db_utils
    failed = [db_api.host_get(str(host)) for host in site["failed"]]
    monitor = plugins["physical:host"].monitor
    statements[0], cpu_s, wall_s = 0, time.process_time(), time.perf_counter()
    error, flags = None, {}
    try:
        flags = monitor._handle_failures(failed)
        monitor_base.BaseMonitor([])._update_flags(flags)
    except Exception as caught:  # as its `call_monitor_plugin` does, which logs it and goes on
        error = f"{type(caught).__name__}: {caught}"
    cpu_s, wall_s, sent = time.process_time() - cpu_s, time.perf_counter() - wall_s, statements[0]
    places: dict[str, list[int]] = {each["id"]: [] for each in site["reservations"]}
    with facade_wrapper.session_for_read() as session:
        for allocation in session.query(models.ComputeHostAllocation):
            places[allocation.reservation_id[1:]].append(int(allocation.compute_host_id))
    missing = sum(len(each["hosts"]) - len(places[each["id"]]) for each in site["reservations"])
    return {"cpu_s": cpu_s, "wall_s": wall_s, "statements": sent, "missing": missing, "places": places, "error": error,
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
            "flags": {name[1:]: sorted(found) for name, found in flags.items()}}  # fmt: skip


def events(job: dict[str, Any], plugins: dict[str, Any]) -> dict[str, Any]:
    """The manager's own timer, every 10 s, until every lease has started or `until_s` is over.

    A start is when `on_start` of the plug-in is called; it is late by what lies between that and its time. The
    server of the host of `job["stuck"]` is deleted `hang_s` after the run began.
    """
    zero = timeutils.utcnow() + datetime.timedelta(seconds=job["lead_s"])
    fill(job["site"], zero)
    zero_s = time.monotonic() + (zero - timeutils.utcnow()).total_seconds()
    Pool.stuck, Pool.stuck_until_s = job["stuck"], zero_s + job["hang_s"]
    started: dict[str, float] = {}
    begin = plugins["physical:host"].on_start
    wanted = {
        each["id"]: each["start_s"]
        for each in job["site"]["reservations"]
        if 0 < each["start_s"] < job["horizon_s"]
    }
    finished = threading.Event()

    def on_start(resource: str) -> None:
        started[resource[1:]] = time.monotonic() - zero_s
        begin(resource)
        if len(started) == len(wanted):
            finished.set()

    with mock.patch.object(manager_service.ManagerService, "_get_plugins", lambda _: plugins):
        manager = manager_service.ManagerService()
    manager.resource_actions["physical:host"]["on_start"] = on_start
    manager.tg.add_timer_args(
        manager_service.EVENT_INTERVAL, manager._process_events, stop_on_exception=False
    )
    if time.monotonic() > zero_s:
        raise SystemExit("bench: the first moment was over before the manager ran; lead_s is too short")
    cpu_s = time.process_time()
    finished.wait(job["lead_s"] + job["until_s"])
    cpu_s = time.process_time() - cpu_s
    manager.tg.stop()
    late_s = [round(started[name] - at_s, 4) for name, at_s in wanted.items() if name in started]
    return {"late_s": late_s, "never": len(wanted) - len(late_s), "cpu_s": cpu_s}


def main(folder: Path) -> None:
    """Answer until standard input ends."""
    plugins = prepare(folder)
    notifier.init()
    statements = [0]
    engine = facade_wrapper._get_facade().writer.get_engine()

    def count(*_: object) -> None:
        statements[0] += 1

    sqlalchemy.event.listen(engine, "before_cursor_execute", count)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        found = heal(job, plugins, statements) if job["do"] == "heal" else events(job, plugins)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
