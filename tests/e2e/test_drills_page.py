"""The pages of drills in a real browser, over a running server with a history."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, chromium
from playwright.sync_api import Page, expect

from drill_reports import report
from engines import needs
from homeostat.kernel.client import Client
from real_parts import NatsServer
from running_server import RunningServer, running_server

pytestmark = [pytest.mark.e2e, needs("chromium")]

FOCUSABLE = "a[href], button, select, input:not([type=hidden])"
DEVIATION = "nova's driver is its own fake one"
BOUNDS = ((380, 421), (410, 450), (5_900, 6_000), (300, 340), (1_200, 1_290), (390, 433))


def drill(server: RunningServer, run: str, name: str = "service-down", site: str = "lab") -> None:
    body = {"run": run, "drill": name, "site": site, "hosts": ["n1"], "resources": ["web-n1"]}
    server.client.call("POST", "/drills/runs", body)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder: Path = tmp_path_factory.mktemp("drills")
    nats = NatsServer(folder)
    nats.start()
    try:
        with running_server(folder, nats) as running:
            for number, (lower_ms, upper_ms) in enumerate(BOUNDS):
                run = f"r-20261121-{number:04}"
                drill(running, run)
                told = report(run, lower_ms=lower_ms, upper_ms=upper_ms) | {"deviations": [DEVIATION]}
                running.client.call("PUT", f"/drills/runs/{run}/report", told)
            drill(running, "r-now", "cpu-overload")
            yield running
    finally:
        nats.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@contextmanager
def visit(browser: Browser, server: RunningServer, **how: Any) -> Iterator[Page]:
    browser.errors.clear()
    with browser.visit(server, **how) as page:  # type: ignore[arg-type]
        yield page
    assert browser.errors == []


@pytest.mark.seed("order dashboard page of drills: verdicts, outages over time, a run's report")
def test_the_list_leads_to_a_run_with_its_rows_bounds_and_layers(
    server: RunningServer, browser: Browser
) -> None:
    with visit(browser, server) as page:
        page.get_by_role("link", name="Drills").click()
        rows = page.locator("table.drilllist tbody tr")
        expect(rows).to_have_count(len(BOUNDS) + 1)
        expect(rows.first.locator(".state")).to_have_text("running")
        expect(rows.nth(4).locator(".state")).to_have_text("FAIL")
        picture = page.get_by_role("img", name="6 runs; newest 390 ms to 433 ms, PASS")
        expect(picture.locator("rect")).to_have_count(len(BOUNDS))
        expect(picture.locator("rect.fail")).to_have_count(1)
        expect(page.locator(".trend p")).to_contain_text("5 of 6 runs passed")
        page.locator("#d-r-20261121-0002").click()
        expect(page.locator("dl.facts .state")).to_have_text("FAIL")
        expect(page.get_by_text(f"deviation: {DEVIATION}")).to_be_visible()
        row = page.locator("table.rows tbody tr").first
        expect(row).to_contain_text("outage of web")
        expect(row).to_contain_text("[5.90 s, 6.00 s]")
        expect(row).to_contain_text("< 5.00 s")
        expect(page.locator(".layers svg rect.sure")).to_have_count(2)
        expect(page.locator(".layers")).to_contain_text("noticed by us 44 ms")
        page.goto(f"{server.url}/console/drills/r-now")
        expect(page.locator("#live")).to_contain_text("The report appears when it ends")


def test_an_open_page_shows_the_halt_and_the_verdict_without_reload(
    server: RunningServer, browser: Browser
) -> None:
    with visit(browser, server) as page:
        page.goto(f"{server.url}/console/drills")
        expect(page.locator("#link")).to_have_attribute("data-state", "on")
        page.evaluate("window.same = true")
        server.client.call("POST", "/drills/halt", {"why": "smoke in rack 4"})
        expect(page.locator(".headline")).to_contain_text("by admin: smoke in rack 4")
        server.client.call("POST", "/drills/resume")
        expect(page.locator(".headline")).to_have_count(0)
        assert page.evaluate("window.same"), "the page was loaded again"


def test_the_keyboard_stays_where_it_was_when_the_list_is_redrawn(
    server: RunningServer, browser: Browser
) -> None:
    with visit(browser, server) as page:
        page.goto(f"{server.url}/console/drills")
        expect(page.locator("#link")).to_have_attribute("data-state", "on")
        without_an_id = page.locator(".trend a").first
        without_an_id.focus()
        page.evaluate("window.before = document.activeElement")
        server.client.call("POST", "/drills/halt", {"why": "smoke in rack 4"})
        expect(page.locator(".headline")).to_contain_text("smoke in rack 4")
        assert not page.evaluate("window.before.isConnected"), "nothing was redrawn"
        expect(without_an_id).to_be_focused()
        server.client.call("POST", "/drills/resume")
        expect(page.locator(".headline")).to_have_count(0)
        expect(without_an_id).to_be_focused()


def test_a_tenant_sees_its_own_drills_only(server: RunningServer, browser: Browser) -> None:
    made = server.client.call("PUT", "/tokens/eyes", {"role": "viewer", "project": "blue"})["token"]
    with visit(browser, server, token=made) as page:
        page.goto(f"{server.url}/console/drills")
        expect(page.locator("#live")).to_contain_text("No runs yet")
        assert page.request.get(f"{server.url}/console/drills/r-now").status == 404
    assert Client(server.url, made).call("GET", "/drills/trends")["items"] == []


@pytest.mark.seed("order dashboard page of drills works at 400 and 1600 px, light and dark, by keyboard")
@pytest.mark.parametrize(
    ("width", "scheme"), [(400, "light"), (400, "dark"), (1600, "light"), (1600, "dark")]
)
def test_it_fits_and_the_keyboard_reaches_everything(
    server: RunningServer, browser: Browser, width: int, scheme: str, tmp_path: Path
) -> None:
    with visit(browser, server, width=width, scheme=scheme) as page:
        for path in ("drills", "drills/r-20261121-0002", "drills/r-now"):
            page.goto(f"{server.url}/console/{path}")
            expect(page.locator("#link")).to_have_attribute("data-state", "on")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            wanted = page.locator(FOCUSABLE).count()
            reached = set()
            for _ in range(wanted):
                page.keyboard.press("Tab")
                reached.add(
                    page.evaluate(
                        f"[...document.querySelectorAll({FOCUSABLE!r})].indexOf(document.activeElement)"
                    )
                )
            assert reached == set(range(wanted)), path
            page.screenshot(path=tmp_path / f"{path.replace('/', '-')}.png", full_page=True)


@pytest.mark.seed("order drill halt and resume from the dashboard")
@pytest.mark.parametrize(("run", "path"), [("r-one", "drills"), ("r-two", "drills/r-two")])
def test_a_person_halts_all_drills_and_lets_them_begin_again(
    server: RunningServer, browser: Browser, run: str, path: str
) -> None:
    with visit(browser, server) as page:
        drill(server, run, site=run)
        page.goto(f"{server.url}/console/{path}")
        page.get_by_role("button", name="Halt all drills").click()
        assert page.url.endswith(path), "not without a reason"
        page.get_by_label("why").fill("smoke in rack 4")
        page.get_by_role("button", name="Halt all drills").click()
        expect(page.locator(".headline")).to_contain_text("by admin: smoke in rack 4")
        assert page.url.endswith("/console/drills")
        told = server.client.call("POST", f"/drills/runs/{run}/renew")
        assert told == {"stop": "halted by admin: smoke in rack 4"}
        assert server.client.call("GET", "/drills/runs")["halt"]["why"] == "smoke in rack 4"
        page.get_by_role("button", name="Resume drills").click()
        expect(page.locator(".headline")).to_have_count(0)
        assert server.client.call("GET", "/drills/runs")["halt"] is None
        for act in ("halt", "resume"):
            answer = page.request.post(f"{server.url}/console/drills/{act}", form={"why": "x", "csrf": "x"})
            assert answer.status == 403 and "CSRF" in answer.text()
        assert server.client.call("GET", "/drills/runs")["halt"] is None


def test_who_may_only_look_has_no_button_and_what_another_halted_stays(
    server: RunningServer, browser: Browser
) -> None:
    roles = {role: {"role": role, "project": "blue"} for role in ("viewer", "operator")}
    tokens = {
        role: server.client.call("PUT", f"/tokens/{role}", body)["token"] for role, body in roles.items()
    }
    server.client.call("POST", "/drills/halt", {"why": "secret reasons"})
    try:
        for role, halts in (("viewer", 0), ("operator", 1)):
            with visit(browser, server, token=tokens[role]) as page:
                page.goto(f"{server.url}/console/drills")
                expect(page.locator(".headline")).to_contain_text(
                    "or the token that halted them, can resume them"
                )
                expect(page.get_by_role("button", name="Halt all drills")).to_have_count(halts)
                expect(page.get_by_role("button", name="Resume drills")).to_have_count(0)
                expect(page.locator("#live")).not_to_contain_text("secret reasons")
                csrf = page.locator("input[name=csrf]").first.input_value()
                answer = page.request.post(f"{server.url}/console/drills/resume", form={"csrf": csrf})
                assert answer.status == 403
        assert server.client.call("GET", "/drills/runs")["halt"]["why"] == "secret reasons"
    finally:
        server.client.call("POST", "/drills/resume")
