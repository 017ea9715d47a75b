"""The dashboard while a host is dead: states, checkpoints, and what a tenant sees of it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from browser import Browser, chromium
from playwright.sync_api import Page, expect
from running_lab import Lab, eventually

from engines import needs

pytestmark = [pytest.mark.e2e, needs("chromium")]

OTHERS = re.compile(r"green|platform|infrastructure|on-call|web-n|guest-n.-b")


def lab_command(lab: Lab, verb: str, name: str) -> None:
    words = ("lab", verb, name, "--dir", str(lab.directory))
    subprocess.run([sys.executable, "-m", "homeostat.cli", *words], check=True, timeout=60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@dataclass(frozen=True)
class Dead:
    """A host that died, was marked, fenced and left by its guests, and the fault that everybody heard of."""

    host: str
    fault: str


@pytest.fixture
def dead(lab: Lab) -> Iterator[Dead]:
    """One on which something of blue runs: guests may be elsewhere since an earlier death."""
    eventually(lab.all_up, 60, "everything is up")
    # A host that dies again before its fault is over has the same fault.
    eventually(lambda: all(row["cleared_at"] for row in lab.read("/faults")["items"]), 60, "no fault is left")
    before = {row["id"] for row in lab.read("/faults")["items"]}
    rows = lab.read("/resources")["items"]
    name = next(str(row["host"]) for row in rows if row["owner"] == "blue")

    def told() -> Dead | None:
        new = [row for row in (lab.get("/faults") or {"items": []})["items"] if row["id"] not in before]
        found = next((str(row["id"]) for row in new if row["kind"] == "host_down"), "")
        view = lab.get(f"/faults/{found}/timeline") if found else None
        known = view and all(each["at"] for each in view["checkpoints"])
        states = {row["host"]: row for row in lab.read("/hosts")["items"]}
        here = [row["kind"] for row in lab.read("/resources")["items"] if row["host"] == name]
        done = states[name]["fenced"] and states[name]["error_at"] and here == ["service"]
        return Dead(name, found) if known and done else None

    lab_command(lab, "kill-host", name)
    try:
        found = eventually(told, 30, "everybody was told, and the guests have left")
        assert found is not None
        yield found
    finally:
        lab_command(lab, "start-host", name)
        eventually(lab.all_up, 60, "the host is back")


def host(page: Page, name: str) -> str:
    """What is said of a host on the overview."""
    return " ".join(page.locator("table.host", has=page.get_by_text(name, exact=True)).inner_text().split())


@pytest.mark.seed("order the dashboard shows a dead host, its guests in error, and its checkpoints")
def test_a_dead_host_is_seen_as_it_is_until_it_is_back(lab: Lab, browser: Browser, dead: Dead) -> None:
    browser.errors.clear()
    with browser.visit(lab) as page:
        expect(page.locator("#link")).to_have_attribute("data-state", "on")
        said = host(page, dead.host)
        assert "down fenced since" in said
        assert f"web-{dead.host} service · platform error" in said
        others = [name for name in ("n1", "n2", "n3") if name != dead.host]
        assert not any("error" in host(page, name) for name in others), "who was started elsewhere"
        page.goto(f"{lab.client.url}/console/faults/{dead.fault}")
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
        expect(page.locator(".chain")).to_contain_text(f"nothing runs on {dead.host} any more")
        hurt = lab.read(f"/faults/{dead.fault}")["affected"]
        expect(page.locator(".hurt li")).to_have_count(len(hurt))
        page.goto(f"{lab.client.url}/console/")
        page.evaluate("window.sameDocument = true")
        lab_command(lab, "start-host", dead.host)
        expect(page.locator("table.host caption", has_text=dead.host)).to_contain_text("back", timeout=40_000)
        row = page.locator("table.host tr", has=page.get_by_text(f"web-{dead.host}", exact=True))
        expect(row.locator(".state")).to_have_text("up", timeout=40_000)
        assert page.evaluate("window.sameDocument"), "the page was loaded again"
    assert browser.errors == []


@pytest.mark.seed("order every read filtered by owner: of a dead host a project sees what is its own")
def test_a_tenant_sees_its_own_part_and_no_name_of_others(lab: Lab, browser: Browser, dead: Dead) -> None:
    browser.errors.clear()
    body = {"role": "viewer", "project": "blue"}
    hurt = lab.read(f"/faults/{dead.fault}")["affected"]
    assert {row["owner"] for row in hurt} >= {"blue", "platform"}, "it is shared"
    token = str(lab.client.call("PUT", "/tokens/blue-eyes", body)["token"])
    with browser.visit(lab, token=token) as page:
        for path in (
            "",
            "faults",
            f"faults/{dead.fault}",
            "journal",
            f"journal?text={dead.host}",
            "journal?kind=HostDown",
        ):
            page.goto(f"{lab.client.url}/console/{path}")
            page.wait_for_load_state("load")
            source = page.content().replace('placeholder="resource/web-n1"', "")
            assert not OTHERS.search(source), (path, OTHERS.search(source))
        assert page.locator("#rows tr").count() >= 1, "that its host died is its business"
        page.goto(f"{lab.client.url}/console/faults/{dead.fault}")
        mine = [row["subject"].partition("/")[2] for row in hurt if row["owner"] == "blue"]
        expect(page.locator(".hurt li")).to_have_text(
            [re.compile(rf"^{name} guest · blue( · runs on n\d since [\d:]+)?$") for name in mine]
        )
        assert page.locator("table.way tbody tr").count() == 11
        assert dead.fault in page.request.get(f"{lab.client.url}/console/figures").json()["fault"]
        page.goto(f"{lab.client.url}/console/journal?kind=HostFenced")
        expect(page.get_by_text("No events found.")).to_be_visible()
    lab.client.call("DELETE", "/tokens/blue-eyes")
    assert browser.errors == []


@pytest.mark.seed("order the dashboard works at 400 and 1600 px, light and dark")
@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (400, "dark"),
        (1600, "light"),
        pytest.param(400, "light", marks=pytest.mark.slow),
        pytest.param(1600, "dark", marks=pytest.mark.slow),
    ],
)
def test_no_page_of_a_dead_host_is_wider_than_the_window(
    lab: Lab, browser: Browser, dead: Dead, width: int, scheme: str
) -> None:
    with browser.visit(lab, width=width, scheme=scheme) as page:
        for path in ("", "faults", f"faults/{dead.fault}", "journal", "subscriptions"):
            page.goto(f"{lab.client.url}/console/{path}")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
            cut = page.evaluate(
                """() => [...document.querySelectorAll("main svg.chain .lane")].filter((lane) => {
                  const [label, time] = lane.querySelectorAll("text");
                  return label.getBoundingClientRect().right > time.getBoundingClientRect().left;
                }).length"""
            )
            assert cut == 0, f"{cut} labels run into their times at {width}"
