"""What is said while the cloud comes up, and when it does not: read from what a real HTTP server answers."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from homeostat.kernel.errors import RetryLater
from testbed.balancing import STATS_PORT
from testbed.cloud import Cloud, Unanswered
from testbed.failures import TestbedFailed
from testbed.plan import CONTROLLERS, Plan, Secrets
from testbed.readiness import backends, missing_apis, read_stats, until_answered, wait_for_apis
from testbed.services import APIS

PLAN = Plan(Secrets("secret", "k" * 32), network="127.0.0")
"""Its controllers have addresses of this machine's loopback."""


def _stats(down: str = "") -> str:
    rows = ["# pxname,svname,status,check_status,check_code,"]
    for api in APIS:
        rows.append(f"{api.name},FRONTEND,OPEN,,,")
        for node in CONTROLLERS:
            dead = f"{api.name}@{node.name}" == down
            rows.append(f"{api.name},{node.name},{'DOWN,L7STS,503' if dead else 'UP,L7OK,300'},")
        rows.append(f"{api.name},BACKEND,UP,,,")
    return "\n".join([*rows, "stats,BACKEND,UP,,,"]) + "\n"


@pytest.fixture
def balancer() -> Iterator[list[str]]:
    """haproxy's page of the second controller; the first element is what it says."""
    said = [_stats()]

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said[0].encode())

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer((PLAN.address(CONTROLLERS[1]), STATS_PORT), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield said
        server.shutdown()
        thread.join()


def test_only_back_ends_are_read_and_all_are_there() -> None:
    seen = read_stats(_stats())
    assert len(seen) == len(APIS) * len(CONTROLLERS)
    assert missing_apis(seen) == []


def test_a_back_end_that_was_never_asked_is_not_up() -> None:
    seen = read_stats(
        _stats()
        .replace("UP,L7OK,300", "UP,INI,")
        .replace("glance-api,ctl1,UP,INI,", "glance-api,ctl1,UP,* L7OK,300")
    )
    assert [f"{each.service}@{each.node}" for each in seen if each.up] == ["glance-api@ctl1"]


def test_nothing_is_up_when_no_balancer_answers() -> None:
    assert backends(PLAN) == []
    assert len(missing_apis([])) == len(APIS) * len(CONTROLLERS)


def test_the_other_balancer_is_asked_when_the_first_does_not_answer(balancer: list[str]) -> None:
    assert missing_apis(backends(PLAN)) == []


def test_each_api_is_told_once_when_it_is_up(balancer: list[str]) -> None:
    balancer[0] = _stats(down="glance-api@ctl1")
    told: list[str] = []

    def say(text: str) -> None:
        told.append(text)
        balancer[0] = _stats()

    wait_for_apis(PLAN, [], 30, say)
    assert len(told) == len(set(told)) == 13


def test_a_failure_names_service_node_and_check(balancer: list[str]) -> None:
    balancer[0] = _stats(down="glance-api@ctl1")
    with pytest.raises(
        TestbedFailed, match="glance-api@ctl1: DOWN L7STS 503; the node does not run"
    ) as failed:
        wait_for_apis(PLAN, [], 0, lambda _: None)
    assert "ctl2" not in str(failed.value)


def test_a_cloud_that_does_not_answer_may_be_asked_again() -> None:
    with pytest.raises(Unanswered, match=r"POST http://127\.0\.0\.100:5000/v3/auth/tokens: "):
        until_answered(Cloud(PLAN).login, 0)
    tried = []

    def second_time() -> None:
        tried.append(1)
        if len(tried) < 2:
            raise RetryLater("not yet")

    until_answered(second_time, 30)
    assert len(tried) == 2
