"""/metrics of a real server: who may read it, what is in it, what a real Prometheus makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engines import needs
from homeostat.contracts.nouns import SetPoint, SetPointState
from homeostat.server.metrics import tenants_together
from real_parts import NatsServer
from real_prometheus import prometheus
from running_server import ADMIN, RunningServer, running_server

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana" / "homeostat.json"
PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, shared_nats: NatsServer) -> Iterator[RunningServer]:
    """One for all tests, which only read; who kills it is the last."""
    with running_server(tmp_path_factory.mktemp("server"), shared_nats) as running:
        yield running


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Every sample by its name."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def queries() -> list[str]:
    """Every query of the dashboard, its variables replaced."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return [query.replace("$__rate_interval", "1m") for query in found]


def test_only_administrators_read_them(server: RunningServer) -> None:
    for name, role, project in (("scraper", "admin", "infrastructure"), ("tenant", "operator", "blue")):
        body = {"role": role, "project": project, "token": f"hs_{name:x<40}"}
        server.client.call("PUT", f"/tokens/{name}", body)
    assert server.status("/metrics", None) == 401
    assert server.status("/metrics", f"hs_{'tenant':x<40}") == 403
    assert server.status("/metrics", f"hs_{'scraper':x<40}") == 200


def test_they_are_open_when_the_settings_say_so(tmp_path: Path, nats: NatsServer) -> None:
    with running_server(tmp_path, nats, api={"metrics_open": True}) as server:
        assert server.status("/metrics", None) == 200
        assert server.status("/api/v1/status", None) == 401


def both(server: RunningServer) -> tuple[list[dict[str, Any]], dict[str, list[tuple[dict[str, str], float]]]]:
    """Status and metrics of one moment: nothing changed its standing between them."""
    for _ in range(100):
        rows = server.client.call("GET", "/status")["items"]
        found = samples(server.get("/metrics")[1])
        after = server.client.call("GET", "/status")["items"]
        if [row["standing"] for row in rows] == [row["standing"] for row in after]:
            break
    return after, found


def test_they_say_what_status_says_and_nothing_of_a_single_guest(server: RunningServer) -> None:
    server.client.call("PUT", "/tokens/somebody", {"role": "viewer", "project": "blue"})  # a commit
    rows, found = both(server)
    limits = {
        (labels["component"], labels["promise"]): value
        for labels, value in found["homeostat_set_point_limit"]
    }
    assert limits == {(row["component"], row["promise"]): row["limit"] for row in rows}
    standing = {
        (labels["component"], labels["promise"]): labels["standing"]
        for labels, value in found["homeostat_set_point_standing"]
        if value == 1
    }
    assert standing == {(row["component"], row["promise"]): row["standing"] for row in rows}
    assert found["homeostat_healthy"] == [({}, 1.0)]
    assert found["homeostat_append_commit_seconds_count"][0][1] >= 1
    assert found["homeostat_append_submissions_total"][0][1] >= 1
    assert found["homeostat_notices_pending"] == [({}, 0.0)]
    assert {labels["kind"] for labels, _ in found["homeostat_faults_open"]} >= {"resource_down", "agent_lost"}
    used = {label for rows in found.values() for labels, _ in rows for label in labels}
    assert used <= {
        "component",
        "promise",
        "unit",
        "standing",
        "kind",
        "agent",
        "outcome",
        "version",
        "le",
        "project",
        "reason",
    }


def test_every_metric_of_the_dashboard_and_the_page_exists_and_every_own_one_is_explained(
    server: RunningServer,
) -> None:
    text = server.get("/metrics")[1]
    families = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    names = samples(text).keys() | families
    asked = {name for query in queries() for name in re.findall(r"\b(?:homeostat|process)_\w+", query)}
    assert asked and asked <= names, asked - names
    explained = set(re.findall(r"`(homeostat_\w+)", PAGE.read_text()))
    own = {name for name in families if name.startswith("homeostat_") and not name.endswith("_created")}
    assert explained == own


def test_the_page_names_the_labels_that_they_have(server: RunningServer) -> None:
    server.client.call("PUT", "/tokens/anybody", {"role": "viewer", "project": "blue"})  # a commit
    have = {
        re.sub("_(?:bucket|count|sum)$", "", name): {label for labels, _ in rows for label in labels} - {"le"}
        for name, rows in samples(server.get("/metrics")[1]).items()
        if name.startswith("homeostat_") and not name.endswith("_created")
    }
    rows = re.findall(r"^\| `(homeostat_\w+)`[^|]*\|([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    documented = {name: set(re.findall(r"\w+", labels)) for name, labels in rows}
    assert have.items() <= documented.items()
    assert documented.keys() - have.keys() <= {"homeostat_set_point_value"}, (
        "absent while nothing is measured"
    )


@needs("prometheus")
@pytest.mark.seed("order a real Prometheus scrapes /metrics")
def test_a_real_prometheus_scrapes_them_and_answers_with_the_same_value(
    server: RunningServer, tmp_path: Path
) -> None:
    limits = {row["promise"]: row["limit"] for row in server.client.call("GET", "/status")["items"]}
    with prometheus(tmp_path / "prometheus", f"127.0.0.1:{server.port}", ADMIN) as scraper:
        rows = scraper.until("homeostat_set_point_limit")
        got = {row["metric"]["promise"]: float(row["value"][1]) for row in rows}
        assert got == limits
        assert scraper.query("up") and scraper.query("up")[0]["value"][1] == "1"
        for query in queries():
            scraper.query(query)
        server.kill()
        assert scraper.until("up == 0")


def test_of_tenants_there_is_the_worst_and_nobody_s_name() -> None:
    def row(project: str, value: float | None, state: SetPointState) -> SetPoint:
        return SetPoint("notices", "told", 1, "s", value, state, project=project)

    kept, broken, unknown = SetPointState.KEPT, SetPointState.BROKEN, SetPointState.UNKNOWN
    rows = [
        row("", 0.1, kept),
        row("blue", 0.2, kept),
        row("green", 7.0, broken),
        row("infrastructure", 0.3, kept),
        row("red", None, unknown),
    ]
    assert [(each.project, each.value, each.standing) for each in tenants_together(rows)] == [
        ("", 0.1, kept),
        ("infrastructure", 0.3, kept),
        ("tenants", 7.0, broken),
    ]
