"""Plug-ins of other packages: found by a real entry point, made from the settings; the example is one."""

from __future__ import annotations

import importlib
import json
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from lease_parts import SetClock
from monitor_parts import monitor_loops, monitored

from homeostat.contracts.events.faults import FaultInjected
from homeostat.contracts.nouns import HostId
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.errors import BadInput
from homeostat.leases.monitor_loop import HostMonitor
from homeostat.leases.monitor_plugins import load_monitors
from homeostat.leases.monitoring import ENTRY_POINTS, HostOutcome, PollingMonitor, PushMonitor
from homeostat.leases.settings import LeasesSettings
from homeostat.sim.database import SimDatabase

EXAMPLE = Path(__file__).parents[2] / "examples" / "lease_monitor"
H1, H2, H3 = map(HostId, ("h1", "h2", "h3"))
ADMIN = Caller("admin", Role.ADMIN, "infrastructure")


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, as packages are installed into one."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def install(folder: Path, project: dict[str, object], modules: dict[str, str]) -> None:
    """What an installer writes: the modules, and the project's name and entry points beside them."""
    for name, text in modules.items():
        (folder / name).write_text(text)
    info = folder / f"{str(project['name']).replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups: dict[str, dict[str, str]] = project["entry-points"]  # type: ignore[assignment]
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in group_of.items())
        for group, group_of in groups.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    importlib.invalidate_caches()


def install_example(folder: Path) -> None:
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    install(folder, project, {"status_page_monitor.py": (EXAMPLE / "status_page_monitor.py").read_text()})


def install_text(folder: Path, text: str) -> None:
    project = {"name": "p", "version": "1", "entry-points": {ENTRY_POINTS: {"mine": "mine_module:make"}}}
    install(folder, project, {"mine_module.py": text})


def settings(name: str, **fields: object) -> LeasesSettings:
    return LeasesSettings.model_validate({"monitors": {name: fields}})


def loaded(name: str, **fields: object) -> HostMonitor:
    (found,) = load_monitors(settings(name, **fields))
    return found


async def test_the_example_is_found_by_its_entry_point_and_reads_a_file(
    site_packages: Path, tmp_path: Path
) -> None:
    install_example(site_packages)
    page = tmp_path / "hosts.json"
    page.write_text('{"h1": "ok", "h2": "power supply", "strange": "ok"}')
    monitor = loaded("status-page", options={"page": str(page)}, polling_interval=7)
    assert monitor.polling_interval_s == 7.0 and monitor.push is not None
    assert isinstance(monitor.source, PollingMonitor) and isinstance(monitor.push, PushMonitor)
    said = await monitor.source.poll((H1, H2, H3))
    assert [(each.host, each.outcome, each.reason) for each in said] == [
        (H1, HostOutcome.RECOVERED, "the page says ok"),
        (H2, HostOutcome.FAILED, "power supply"),
    ]
    assert loaded("status-page", options={"page": "x"}).polling_interval_s == 30.0, "the plug-in's own"


class Page(BaseHTTPRequestHandler):
    """Answers what the test put into the server."""

    def do_GET(self) -> None:
        code, body = self.server.answer  # type: ignore[attr-defined]
        self.send_response(code)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def page_server() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        ((200, b'{"h1": "fan"}'), ""),
        ((500, b""), "HTTPError: HTTP Error 500: Internal Server Error"),
        ((200, b"[]"), "ValueError: the page must be a JSON object of host names and texts"),
        ((200, b"<html>"), "JSONDecodeError: Expecting value"),
    ],
)
async def test_the_example_reads_a_url_and_an_error_accuses_nobody(
    site_packages: Path, page_server: HTTPServer, answer: tuple[int, bytes], trouble: str
) -> None:
    install_example(site_packages)
    page_server.answer = answer  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{page_server.server_port}/hosts.json"
    monitor = loaded("status-page", options={"page": url, "complete": True})
    verdicts = await monitor.look((H1, H2), SetClock())
    assert monitor.state.trouble.startswith(trouble) and bool(monitor.state.trouble) == bool(trouble)
    assert [(each.host, each.outcome) for each in verdicts] == (
        [] if trouble else [(H1, HostOutcome.FAILED), (H2, HostOutcome.ABSENT)]
    )


@pytest.mark.looptime
async def test_the_example_runs_in_a_server_beside_what_it_is_told(
    site_packages: Path, tmp_path: Path
) -> None:
    install_example(site_packages)
    page = tmp_path / "hosts.json"
    page.write_text(json.dumps({"h1": "ok", "h2": "ok"}))
    disk = SimDatabase.in_memory()
    try:
        push_alone = {"enable_polling_monitor": False, "options": {"page": str(page)}}
        async with monitored(disk, lambda _: loaded("status-page", **push_alone)) as site:
            await site.at(1)
            await site.fleet.tell(FaultInjected(H1, "power off", 1, "operator"))
            await site.fleet.tell(FaultInjected(H2, "disk full", 1, "operator"))
            await site.at(2)
            assert site.state("h1") == "failed" and site.state("h2") == "reservable"
            row = site.service.keeper.book.hosts[H1]
            assert row.reason == "status-page: powered off on purpose"
    finally:
        disk.close()


def test_a_name_that_nobody_has_is_refused_and_names_those_that_are_there(site_packages: Path) -> None:
    install_example(site_packages)
    with pytest.raises(BadInput, match="known here: status-page"):
        loaded("nagios")


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("import not_there_at_all", "ModuleNotFoundError"),
        ("def make(options): raise ValueError('no url')", "ValueError: no url"),
        ("def make(options): return 7", "int, which lacks topics, event_types"),
        (
            "class make:\n    polling_interval_s = 'soon'\n    lists_all = healing_interval_s = None\n"
            "    def __init__(self, options): pass\n    async def poll(self, hosts): return []",
            "could not convert string to float",
        ),
    ],
    ids=["import", "raises", "no plug-in", "no interval"],
)
async def test_one_that_cannot_be_made_is_a_monitor_that_says_nothing(
    site_packages: Path, text: str, trouble: str
) -> None:
    install_text(site_packages, text)
    monitor = loaded("mine")
    assert monitor.runs and await monitor.look((H1,), SetClock()) == []
    assert "cannot be made" in monitor.state.trouble and trouble in monitor.state.trouble


@pytest.mark.looptime
@pytest.mark.seed("order leases: push on and polling off is warned of")
async def test_status_names_silent_monitors_and_failures_that_nobody_would_notice(
    site_packages: Path,
) -> None:
    from lease_parts import SetClock

    install_text(site_packages, "def make(options): raise ValueError('no url')")
    given = LeasesSettings.model_validate(
        {"monitors": {"mine": {}}, "physical:host": {"enable_polling_monitor": False}}
    )
    (monitor,) = load_monitors(given)
    await monitor.look((H1,), SetClock())
    disk = SimDatabase.in_memory()
    try:
        async with monitored(disk) as site:
            loops = monitor_loops(site.service, disk, [monitor], given.warnings())
            silent, unnoticed = await loops.set_points(ADMIN)
            assert (silent.value, silent.standing.value) == (1, "broken") and "no url" in silent.detail
            assert unnoticed.standing.value == "unknown" and "physical:host: push is on" in unnoticed.detail
            assert await loops.set_points(Caller("c", Role.CONSUMER, "alpha")) == ()
            (kept,) = await site.loops.set_points(ADMIN)
            assert kept.standing.value == "kept"
    finally:
        disk.close()
