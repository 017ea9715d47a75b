"""Every page of the dashboard, with a fault of every kind about every shape of subject."""

from __future__ import annotations

import http.cookiejar
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from homeostat.components import catalogue
from homeostat.contracts.events.faults import FaultRaised
from homeostat.contracts.faults import Fault, FaultState
from homeostat.contracts.nouns import FLEET_SUBJECT, FaultId, FaultKind, Owner, Severity, fault_subject
from homeostat.faults.store import fault_raised
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.database import open_engine
from homeostat.kernel.journal import EventIndex, NewEvent, Submission
from homeostat.migrations import upgrade
from real_parts import NatsServer
from running_server import RunningServer, running_server

SUBJECTS = ("resource/web", "host/n7", "node/n7", FLEET_SUBJECT)
PAGES = (
    "",
    "faults",
    "journal",
    "subscriptions",
    "silences",
    *(f"faults?state={each}" for each in FaultState),
)


def submission(number: int, kind: FaultKind, about: str, state: FaultState) -> Submission:
    fault, now_ns = FaultId(f"f-{number:012x}"), time.time_ns()
    raised = Fault(
        fault,
        kind,
        Severity.MAJOR,
        about,
        Owner("infrastructure"),
        "planted",
        state,
        EventIndex(0),
        "t",
        now_ns,
        None,
    )
    if state is not FaultState.OPEN:
        raised = replace(raised, up_ns=now_ns)
    if state is FaultState.CLEARED:
        raised = replace(raised, cleared_ns=now_ns, cleared_reason="right again")
    event = FaultRaised(fault, kind, Severity.MAJOR, about, raised.owner, "planted", now_ns)
    draft = NewEvent(event, fault_subject(fault), now_ns, "server", "t", None)
    return Submission("faults", (draft,), (fault_raised(raised),))


@pytest.fixture
async def planted(tmp_path: Path) -> list[str]:
    """The ids of faults of each kind, subject and state, in the database of the server that starts next."""
    url = f"sqlite:///{tmp_path}/homeostat.db"
    upgrade(url)
    engine = open_engine(url)
    appender = Appender(engine, catalogue(), epoch=None, settings=AppenderSettings(), clock=SystemClock())
    appender.start()
    wanted = [(kind, about, state) for kind in FaultKind for about in SUBJECTS for state in FaultState]
    for number, (kind, about, state) in enumerate(wanted):
        await appender.append(submission(number, kind, about, state))
    await appender.close()
    engine.dispose()
    return [f"f-{number:012x}" for number in range(len(wanted))]


@pytest.fixture
def server(planted: list[str], tmp_path: Path, nats: NatsServer) -> Iterator[RunningServer]:
    assert planted
    with running_server(tmp_path, nats) as started:
        yield started


def test_no_kind_of_fault_breaks_a_page(server: RunningServer, planted: list[str]) -> None:
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    )
    opener.open(server.url + server.client.call("POST", "/console-links")["path"]).read()
    broken = []
    for path in (*PAGES, *(f"faults/{fault}" for fault in planted)):
        try:
            with opener.open(f"{server.url}/console/{path}", timeout=10) as answer:
                shown = answer.read().decode()
        except urllib.error.HTTPError as error:
            broken.append((path, error.code))
            continue
        if path in ("", "faults"):
            assert ">fleet</a>" in shown, f"/{path} does not say that the fault is about the fleet"
    assert broken == []
