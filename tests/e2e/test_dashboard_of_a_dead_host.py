"""The dashboard while a host is dead: states, checkpoints, and what a tenant sees of it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from browser import Browser, chromium
from playwright.sync_api import Page, expect
from running_lab import Lab, eventually

pytestmark = pytest.mark.e2e

OTHERS = re.compile(r"green|platform|infrastructure|on-call|web-n|guest-n.-b")


def lab_command(lab: Lab, verb: str) -> None:
    words = ("lab", verb, "n2", "--dir", str(lab.directory))
    subprocess.run([sys.executable, "-m", "homeostat.cli", *words], check=True, timeout=60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def dead(lab: Lab) -> Iterator[str]:
    """The fault of a host that died, was marked and fenced, and of which everybody was told."""
    eventually(lab.all_up, 60, "everything is up")
    before = {row["id"] for row in lab.get("/faults")["items"]}
    lab_command(lab, "kill-host")

    def told() -> str:
        rows = [row for row in (lab.get("/faults") or {"items": []})["items"] if row["id"] not in before]
        found = next((str(row["id"]) for row in rows if row["kind"] == "host_down"), "")
        view = lab.get(f"/faults/{found}/timeline") if found else None
        known = view and all(each["at"] for each in view["checkpoints"])
        fenced = any(row["fenced"] for row in lab.get("/hosts")["items"])
        return found if known and fenced else ""

    try:
        yield eventually(told, 30, "everybody was told of a host that is fenced")
    finally:
        if "n2" in str([row["host"] for row in lab.get("/hosts")["items"] if row["state"] == "down"]):
            lab_command(lab, "start-host")
        eventually(lab.all_up, 60, "the host is back")


def host(page: Page, name: str) -> str:
    """What is said of a host on the overview."""
    return " ".join(page.locator("table.host", has=page.get_by_text(name, exact=True)).inner_text().split())


@pytest.mark.seed("order the dashboard shows a dead host, its guests in error, and its checkpoints")
def test_a_dead_host_is_seen_as_it_is_until_it_is_back(lab: Lab, browser: Browser, dead: str) -> None:
    browser.errors.clear()
    with browser.visit(lab) as page:
        expect(page.locator("#link")).to_have_attribute("data-state", "on")
        said = host(page, "n2")
        assert "down fenced since" in said
        assert said.count("error") == 3
        assert "error" not in host(page, "n1")
        page.goto(f"{lab.client.url}/console/faults/{dead}")
        rows = page.locator("table.way tbody tr")
        assert rows.count() == 11
        assert [rows.nth(at).locator("td").first.inner_text() for at in range(11)] == [
            str(at) for at in range(11)
        ]
        assert "?" not in page.locator("table.way").inner_text()
        shares = [
            float(each.rstrip(" %")) for each in page.locator("table.costs td:last-child").all_inner_texts()
        ]
        assert sum(shares) == pytest.approx(100, abs=0.5)
        assert shares == sorted(shares, reverse=True)
        expect(page.locator(".chain")).to_contain_text("nothing runs on n2 any more")
        expect(page.locator(".hurt li")).to_have_count(3)
        page.goto(f"{lab.client.url}/console/")
        page.evaluate("window.sameDocument = true")
        lab_command(lab, "start-host")
        expect(page.locator("table.host", has_text="n2").locator("caption")).to_contain_text(
            "back", timeout=40_000
        )
        expect(page.locator("table.host", has_text="web-n2").locator(".state.good")).to_have_count(
            4, timeout=40_000
        )
        assert page.evaluate("window.sameDocument"), "the page was loaded again"
    assert browser.errors == []


@pytest.mark.seed("order every read filtered by owner: of a dead host a project sees what is its own")
def test_a_tenant_sees_its_own_part_and_no_name_of_others(lab: Lab, browser: Browser, dead: str) -> None:
    browser.errors.clear()
    body = {"role": "viewer", "project": "blue"}
    token = str(lab.client.call("PUT", "/tokens/blue-eyes", body)["token"])
    with browser.visit(lab, token=token) as page:
        assert "error" in host(page, "n2")
        for path in ("", "faults", f"faults/{dead}", "journal", "journal?text=n2", "journal?kind=HostDown"):
            page.goto(f"{lab.client.url}/console/{path}")
            page.wait_for_load_state("load")
            source = page.content().replace('placeholder="resource/web-n1"', "")
            assert not OTHERS.search(source), (path, OTHERS.search(source))
        assert page.locator("#rows tr").count() >= 1, "that its host died is its business"
        page.goto(f"{lab.client.url}/console/faults/{dead}")
        expect(page.locator(".hurt li")).to_have_text(["guest-n2-a guest · blue"])
        assert page.locator("table.way tbody tr").count() == 11
        assert dead in page.request.get(f"{lab.client.url}/console/figures").json()["fault"]
        page.goto(f"{lab.client.url}/console/journal?kind=HostFenced")
        expect(page.get_by_text("Nothing fits.")).to_be_visible()
    lab.client.call("DELETE", "/tokens/blue-eyes")
    assert browser.errors == []


@pytest.mark.seed("order the dashboard works at 400 and 1600 px, light and dark")
def test_no_page_of_a_dead_host_is_wider_than_the_window(lab: Lab, browser: Browser, dead: str) -> None:
    for width in (400, 1600):
        for scheme in ("light", "dark"):
            with browser.visit(lab, width=width, scheme=scheme) as page:
                for path in ("", "faults", f"faults/{dead}", "journal", "subscriptions"):
                    page.goto(f"{lab.client.url}/console/{path}")
                    assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
                    cut = page.evaluate(
                        """() => [...document.querySelectorAll("main svg.chain .lane")].filter((lane) => {
                          const [label, time] = lane.querySelectorAll("text");
                          return label.getBoundingClientRect().right > time.getBoundingClientRect().left;
                        }).length"""
                    )
                    assert cut == 0, f"{cut} labels run into their times at {width}"
