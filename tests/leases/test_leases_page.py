"""The page of leases in a real browser: the chart, what is said of each lease, and what a project sees."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lease_site import LeaseSite, fill, lease_site
from playwright.sync_api import Page, expect

from engines import needs

sys.path.append(str(Path(__file__).parents[1] / "e2e"))
from browser import Browser, chromium

pytestmark = [pytest.mark.e2e, needs("chromium")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, sqlite_with_schema: Path) -> Iterator[LeaseSite]:
    file = shutil.copy(sqlite_with_schema, tmp_path_factory.mktemp("leases") / "homeostat.db")
    with lease_site(Path(file), 10) as started:
        started.do(fill(started))
        yield started


@contextmanager
def visit(browser: Browser, site: LeaseSite, query: str = "", **how: Any) -> Iterator[Page]:
    """The page of leases; nothing may be wrong in the browser's console."""
    browser.errors.clear()
    with browser.visit(site, **how) as page:  # type: ignore[arg-type]
        page.goto(f"{site.client.url}/console/leases{query}")
        yield page
    assert browser.errors == []


@pytest.mark.seed(
    "order page with hosts and leases as a Gantt chart, failures and moves drawn, free slots visible"
)
def test_the_chart_shows_leases_failures_holds_moves_and_free_slots(
    site: LeaseSite, browser: Browser
) -> None:
    with visit(browser, site, "?range=2d") as page:
        chart = page.get_by_role("img", name="10 hosts")
        expect(chart).to_have_accessible_name("10 hosts, 12 reserved slots, 15 free slots, 1 without a host")
        expect(chart.locator("svg.active", has_text="build-farm")).to_have_count(2)
        expect(chart.locator("svg.active", has_text="web-preview ×3")).to_have_count(1)
        expect(chart.locator("svg.missing")).to_contain_text("nightly-tests")
        expect(chart.locator("svg.failed")).to_have_count(3)
        expect(chart.locator("svg.held title")).to_have_text("held by admin: new memory")
        expect(chart.locator("svg.doubtful")).to_have_count(3)
        expect(chart.locator(".move title")).to_have_text(
            "build-farm moved from h2 to h8: host h2 failed (host_down)"
        )
        expect(chart.locator("text.name", has_text="h2")).to_contain_text("failed")
        page.get_by_role("link", name="1 week").click()
        expect(page.get_by_role("link", name="1 week")).to_have_attribute("aria-current", "true")


def test_no_bar_lies_on_another_and_none_leaves_the_chart(site: LeaseSite, browser: Browser) -> None:
    for width in (1280, 380):
        with visit(browser, site, width=width) as page:
            boxes = page.locator(".gantt svg.bar:not(.free, .failed, .held) rect").evaluate_all(
                "all => all.map(e => e.getBoundingClientRect()).map(r => [r.left, r.right, r.top])"
            )
            assert len(boxes) > 10
            for number, (left, right, top) in enumerate(boxes):
                assert left >= 0 and right <= width, boxes[number]
                assert not [
                    other
                    for other in boxes[number + 1 :]
                    if abs(other[2] - top) < 4 and other[0] < right - 3 and left < other[1] - 3
                ]
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_each_lease_has_its_health_and_its_outlook_in_words(site: LeaseSite, browser: Browser) -> None:
    with visit(browser, site) as page:
        expect(page.locator(".headline")).to_contain_text("2 leases are degraded")
        rows = page.locator("table.leaselist").first.locator("tbody tr")
        expect(rows).to_have_count(7)
        farm, night = rows.filter(has_text="build-farm"), rows.filter(has_text="nightly-tests")
        expect(farm.locator("td.wide .state").first).to_have_text("ACTIVE")
        expect(farm).to_contain_text("host h2 failed (host_down)")
        expect(night.locator(".state.bad")).to_have_text("missing")
        expect(night).to_contain_text("no other host is free")
        late = rows.filter(has_text="upgrade-rehearsal")
        expect(late.locator(".state.unsure")).to_have_text("at risk")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_written_can_be_read(site: LeaseSite, browser: Browser, scheme: str) -> None:
    """Contrast of the words in bars against the bar, by WCAG at least 4.5."""
    with visit(browser, site, scheme=scheme) as page:
        ratios = page.evaluate(
            """() => [...document.querySelectorAll('.gantt svg.bar text')].map(text => {
                const canvas = document.createElement('canvas').getContext('2d')
                const colour = value => { canvas.fillStyle = value; canvas.fillRect(0, 0, 1, 1)
                    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3) }
                const light = rgb => { const [r, g, b] = rgb.map(each => { const c = each / 255
                    return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4 })
                    return 0.2126 * r + 0.7152 * g + 0.0722 * b }
                const fill = element => light(colour(getComputedStyle(element).fill))
                const pair = [fill(text), fill(text.parentNode.querySelector('rect'))].sort()
                return (pair[1] + 0.05) / (pair[0] + 0.05) })"""
        )
        assert len(ratios) > 10 and min(ratios) >= 4.5, ratios


def test_a_project_sees_its_own_leases_and_their_hosts_only(site: LeaseSite, browser: Browser) -> None:
    with visit(browser, site, token="blue") as page:
        text = page.locator("main").inner_text()
        assert "build-farm" in text and "upgrade-rehearsal" in text
        assert not [word for word in ("green", "training", "nightly-tests", "h9", "free\n") if word in text]
        titles = page.locator(".gantt title").all_text_contents()
        assert titles and not [each for each in titles if "green" in each or each.startswith("free")]


def test_a_viewer_acknowledges_nothing_and_an_operator_does(site: LeaseSite, browser: Browser) -> None:
    with visit(browser, site, token="watch") as page:
        expect(page.get_by_text("changed", exact=True)).to_have_count(1)
        expect(page.get_by_role("button", name="Acknowledge")).to_have_count(0)
    with visit(browser, site, token="blue") as page:
        page.get_by_role("button", name="Acknowledge the changes of build-farm").click()
        page.wait_for_url("**/console/leases")
        expect(page.get_by_text("changed", exact=True)).to_have_count(0)
        expect(page.get_by_role("button", name="Acknowledge")).to_have_count(0)
    assert not site.client.call("GET", "/leases/build-farm")["degraded"]


def test_an_empty_site_says_what_to_do(tmp_path: Path, sqlite_with_schema: Path, browser: Browser) -> None:
    file = shutil.copy(sqlite_with_schema, tmp_path / "homeostat.db")
    with lease_site(Path(file), 0) as empty, visit(browser, empty) as page:
        expect(page.locator(".empty").first).to_contain_text("homeostat lease hosts add")
        expect(page.locator(".empty").last).to_contain_text("homeostat lease create")
        expect(page.locator("svg.gantt")).to_have_count(0)
