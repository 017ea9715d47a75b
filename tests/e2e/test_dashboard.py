"""The dashboard of a running lab, in a real browser."""

from __future__ import annotations

import os
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from browser import Browser, chromium, link
from playwright.sync_api import Page, expect
from running_lab import Lab, eventually

from engines import needs

pytestmark = [pytest.mark.e2e, needs("chromium")]

PAGES = ("", "faults", "drills", "journal", "subscriptions", "silences")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(autouse=True)
def no_console_errors(browser: Browser) -> Iterator[None]:
    """Whatever a test does, the pages themselves must not complain."""
    browser.errors.clear()
    yield
    assert browser.errors == []


def viewer_of(lab: Lab, project: str) -> str:
    """A new token that may only look."""
    body = {"role": "viewer", "project": project}
    return str(lab.client.call("PUT", f"/tokens/{project}-eyes", body)["token"])


def home(lab: Lab) -> str:
    return f"{lab.client.url}/console/"


def is_live(page: Page) -> None:
    expect(page.locator("#link")).to_have_attribute("data-state", "on")


def kill(lab: Lab, name: str) -> None:
    before = eventually(lambda: lab.service(name), 10, f"{name} has a process")
    lab.kill(before)
    eventually(lambda: lab.restarted(name, before), 20, f"{name} runs again")


def fault_of(lab: Lab, name: str) -> str:
    """The newest fault of a resource; there is one."""

    def found() -> str:
        rows = [row for row in lab.read("/faults")["items"] if row["about"] == f"resource/{name}"]
        return str(rows[0]["id"]) if rows else ""

    return eventually(found, 10, f"{name} had a fault")


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.seed("order a one-time link logs in once")
def test_a_link_logs_in_once_and_without_one_nobody_gets_in(lab: Lab, browser: Browser) -> None:
    url = link(lab)
    context = browser.driven.new_context()
    page = context.new_page()
    page.goto(url)
    page.wait_for_url("**/console/")
    cookie = context.cookies()[0]
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/console")
    context.close()
    assert status_of(url) == 401
    for path in (*PAGES, "figures", "events", "faults/f-1"):
        assert status_of(home(lab) + path) == 401, path


@pytest.mark.seed("order a killed service: its fault appears on the open page without reload, and clears")
def test_a_fault_appears_on_the_open_page_and_clears(lab: Lab, browser: Browser) -> None:
    with browser.visit(lab) as page:
        is_live(page)
        page.evaluate(
            """() => {
              const said = document.getElementById("said");
              window.sameDocument = true; window.shift = 0; window.opened = 0; window.said = [];
              new PerformanceObserver((list) => {
                for (const each of list.getEntries()) window.shift += each.value;
              }).observe({type: "layout-shift", buffered: true});
              new MutationObserver(() => {
                if (document.querySelector(".reserved [href*='/faults/']")) window.opened += 1;
              }).observe(document.getElementById("live"), {childList: true, subtree: true});
              new MutationObserver(() => window.said.push(said.textContent))
                .observe(said, {childList: true, characterData: true, subtree: true});
            }"""
        )
        shift = page.evaluate("window.shift")
        for _ in range(3):  # dies again while it is being cleared: the same fault, open for longer
            kill(lab, "guest-n3-a")
        fault = fault_of(lab, "guest-n3-a")
        row = page.locator(f"#r-{fault}")
        expect(row).to_be_visible(timeout=20_000)
        expect(page.locator("li", has=row).locator(".state")).to_have_text("cleared")
        assert page.evaluate("window.opened") > 0, "it was never shown among the open faults"
        said = page.evaluate("window.said")
        assert any("resource/guest-n3-a" in words for words in said), said
        assert said[-1].endswith("No fault is open.")
        assert page.evaluate("window.sameDocument"), "the page was loaded again"
        assert page.evaluate("window.shift") - shift < 0.05
        page.wait_for_function(
            "document.querySelector('#chart-words').textContent.includes('longest outage')"
        )


@pytest.mark.seed("order a fault's timeline as a picture")
def test_a_fault_is_a_picture_and_sentences(lab: Lab, browser: Browser) -> None:
    kill(lab, "web-n2")
    with browser.visit(lab) as page:
        page.goto(f"{home(lab)}faults/{fault_of(lab, 'web-n2')}")
        labels = page.locator("svg.chain .label")
        expect(labels.filter(has_text="notice to platform: cleared")).to_have_count(1, timeout=15_000)
        words = labels.all_text_contents()
        for wanted in ("node/n2 sees web-n2 down", "the fault is open", "node/n2: restart", "over"):
            assert wanted in words
        assert all(
            "ms" in time or " s" in time for time in page.locator("svg.chain .time").all_text_contents()
        )
        expect(page.locator("table.explain tbody tr").first).to_contain_text("web-n2 on n2 is down")


@pytest.mark.seed("order the live journal with search")
def test_the_journal_is_searched_and_grows_by_itself(lab: Lab, browser: Browser) -> None:
    kill(lab, "web-n1")
    with browser.visit(lab) as page:
        page.goto(f"{home(lab)}journal")
        page.get_by_label("kind").select_option("FaultRaised")
        page.get_by_label("text").fill("WEB-N1")
        page.get_by_role("button", name="Search").click()
        page.wait_for_url("**text=WEB-N1**")
        is_live(page)
        rows = page.locator("#rows tr")
        before = rows.count()
        assert before > 0
        assert all("web-n1" in text for text in rows.all_inner_texts())
        kill(lab, "guest-n1-a")
        kill(lab, "web-n1")
        expect(rows).to_have_count(before + 1, timeout=15_000)
        assert "resource/web-n1" in rows.first.inner_text()
        seqs = [int(each.split("-")[1]) for each in rows.evaluate_all("rows => rows.map(row => row.id)")]
        assert seqs == sorted(set(seqs), reverse=True)
        page.get_by_label("subject").fill("nothing has this name")
        page.get_by_role("button", name="Search").click()
        expect(page.get_by_text("No events found.")).to_be_visible()


@pytest.mark.seed("order subscriptions with a test button")
def test_the_test_button_sends_a_signed_notice_and_shows_the_answer(lab: Lab, browser: Browser) -> None:
    with browser.visit(lab) as page:
        page.goto(f"{home(lab)}subscriptions")
        page.get_by_role("button", name="Test green").click()
        expect(page.locator("#test-green .state")).to_have_text("answered 200")
    tested = [body for body in lab.heard("green") if body["transition"] == "test"]
    assert [body["fault"]["about"] for body in tested] == ["subscription/green"]


def test_a_subscription_that_does_not_answer_says_so(lab: Lab, browser: Browser) -> None:
    lab.client.call("PUT", "/subscriptions/nobody", {"url": "http://127.0.0.1:9/", "project": "blue"})
    try:
        with browser.visit(lab) as page:
            page.goto(f"{home(lab)}subscriptions")
            page.get_by_role("button", name="Test nobody").click()
            expect(page.locator("#test-nobody .state.bad")).to_contain_text("no answer")
    finally:
        lab.client.call("DELETE", "/subscriptions/nobody")


@pytest.mark.seed("order silences that follow topology: a section of the dashboard")
def test_something_is_silenced_and_told_again_from_the_page(lab: Lab, browser: Browser) -> None:
    with browser.visit(lab) as page:
        page.goto(f"{home(lab)}silences")
        page.locator("select[name=scope]").select_option("resource")
        page.locator("input[name=name]").fill("web-n9")
        page.locator("input[name=reason]").fill("a new disk")
        page.get_by_role("button", name="Create silence").click()
        expect(page.get_by_text("web-n9")).to_be_visible()  # the problem names it
        browser.errors.clear()  # Chromium tells of the 422
        page.goto(f"{home(lab)}silences")
        page.locator("select[name=scope]").select_option("resource")
        page.locator("input[name=name]").fill("guest-n2-a")
        page.locator("input[name=reason]").fill("a new disk")
        page.keyboard.press("Enter")
        row = page.locator("#live tr", has_text="resource guest-n2-a")
        expect(row.locator("td .state")).to_have_text("active")
        kill(lab, "guest-n2-a")
        fault = fault_of(lab, "guest-n2-a")
        expect(row).to_contain_text(re.compile("[1-9] notice"), timeout=15_000)
        row.get_by_role("button", name="End the silence of resource guest-n2-a").click()
        expect(row.locator("td .state")).to_have_text("over")
        page.goto(f"{home(lab)}faults/{fault}")
        expect(page.locator("table.explain")).to_contain_text("held back by silence s-")


def test_endpoints_and_expiry_are_shown_and_every_endpoint_is_tried(lab: Lab, browser: Browser) -> None:
    hook = f"http://127.0.0.1:{lab.port('consumer')}/hear/blue"
    endpoints = [{"url": "http://127.0.0.1:9/"}, {"url": hook, "format": "doctor"}]
    body = {"project": "blue", "endpoints": endpoints, "expires_at": "2026-01-01T00:00:00Z"}
    lab.client.call("PUT", "/subscriptions/many", body)
    lab.client.call("PUT", "/subscriptions/streamed", {"project": "blue"})
    try:
        with browser.visit(lab) as page:
            page.goto(f"{home(lab)}subscriptions")
            row = page.get_by_role("row", name="many")
            expect(row).to_contain_text("(doctor)")
            expect(row).to_contain_text("expired")
            expect(page.get_by_role("row", name="streamed")).to_contain_text("reads the stream of notices")
            expect(page.get_by_role("button", name="Test streamed")).to_have_count(0)
            page.get_by_role("button", name="Test many").click()
            expect(page.locator("#test-many .state")).to_have_count(2)
            expect(page.locator("#test-many .state.bad").first).to_contain_text("no answer")
    finally:
        for name in ("many", "streamed"):
            lab.client.call("DELETE", f"/subscriptions/{name}")


@pytest.mark.seed("order CSRF token on writes, CSP without inline script")
def test_writes_need_the_csrf_token_and_pages_forbid_foreign_script(lab: Lab, browser: Browser) -> None:
    heard = len(lab.heard("green"))
    with browser.visit(lab) as page:
        url = f"{home(lab)}subscriptions/green/test"
        for headers in ({}, {"X-CSRF-Token": "wrong"}):
            assert page.request.post(url, headers=headers).status == 403
            assert page.request.post(f"{home(lab)}leave", headers=headers).status == 403
        assert len(lab.heard("green")) == heard
        token = page.locator("input[name=csrf]").get_attribute("value") or ""
        assert page.request.post(url, headers={"X-CSRF-Token": token}).status == 200
        style = page.locator("link[rel=stylesheet]").first.get_attribute("href") or ""
        for path in (
            *(home(lab) + each for each in PAGES),
            f"{home(lab)}faults/none",
            lab.client.url + style,
        ):
            answer = page.request.get(path)
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'self';"), path
            assert "unsafe" not in policy
            assert not re.search(r"<style|<script(?![^>]*\ssrc=)|\sstyle=|\son[a-z]+=", answer.text()), path
        assert page.request.get(f"{home(lab)}faults/none").status == 404
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_text("You are logged out.")).to_be_visible()
        assert page.request.get(home(lab)).status == 401


@pytest.mark.seed("order every read filtered by owner: a viewer of blue sees nothing of the others")
def test_a_viewer_of_blue_sees_nothing_of_the_others(lab: Lab, browser: Browser) -> None:
    kill(lab, "web-n3")
    kill(lab, "guest-n2-b")
    token, others = (
        viewer_of(lab, "blue"),
        re.compile("green|platform|infrastructure|on-call|web-n|guest-n.-b"),
    )
    with browser.visit(lab, token=token) as page:
        for path in PAGES:
            page.goto(home(lab) + path)
            is_live(page)
            page.wait_for_load_state("load")
            source = page.content().replace('placeholder="resource/web-n1"', "")
            assert not others.search(source), (path, others.search(source))
            assert "blue" in source
        assert page.request.get(f"{home(lab)}faults/{fault_of(lab, 'web-n3')}").status == 404
        shown = set(page.request.get(f"{home(lab)}figures").json()["fault"])
        rows = lab.read("/faults", limit="1000")["items"]
        assert shown <= {row["id"] for row in rows if row["owner"] == "blue"}
        csrf = page.locator("input[name=csrf]").get_attribute("value") or ""
        for name in ("blue", "green"):
            answer = page.request.post(
                f"{home(lab)}subscriptions/{name}/test", headers={"X-CSRF-Token": csrf}
            )
            assert answer.status == {"blue": 403, "green": 404}[name]
        page.goto(f"{home(lab)}journal")
        is_live(page)
        kill(lab, "web-n3")
        kill(lab, "guest-n3-a")
        row = page.locator("#rows tr", has_text="guest-n3-a").filter(has_text="FaultRaised")
        expect(row.first).to_be_visible(timeout=15_000)
        assert not others.search(page.locator("#rows").inner_text())
    lab.client.call("DELETE", "/tokens/blue-eyes")


def test_a_revoked_token_ends_its_sessions(lab: Lab, browser: Browser) -> None:
    with browser.visit(lab, token=viewer_of(lab, "green")) as page:
        is_live(page)
        lab.client.call("DELETE", "/tokens/green-eyes")
        assert page.request.get(home(lab)).status == 401
        browser.errors.clear()
        page.goto("about:blank")
    browser.errors.clear()


FOCUSABLE = "a[href], button, select, input:not([type=hidden])"


@pytest.mark.seed("order the dashboard works by keyboard")
@pytest.mark.parametrize(
    "path",
    [
        "subscriptions",
        *(pytest.param(each, marks=pytest.mark.slow) for each in PAGES if each != "subscriptions"),
    ],
)
def test_the_keyboard_reaches_everything_and_shows_where_it_is(lab: Lab, browser: Browser, path: str) -> None:
    with browser.visit(lab) as page:
        page.goto(home(lab) + path)
        is_live(page)
        wanted = page.evaluate(
            f"""() => [...document.querySelectorAll({FOCUSABLE!r})].map((each, at) => {{
              each.at = at; return at; }})"""
        )
        seen = []
        for _ in wanted:
            page.keyboard.press("Tab")
            at, outline, name = page.evaluate(
                """() => { const here = document.activeElement, style = getComputedStyle(here);
                  const label = here.labels && here.labels[0] ? here.labels[0].textContent : "";
                  return [here.at ?? null, style.outlineStyle + style.outlineWidth,
                          (here.textContent + label + (here.ariaLabel || "")).trim()]; }"""
            )
            seen.append(at)
            assert outline == "solid2px", f"focus is not visible on {name!r}"
            assert name, "something that can be used has no name"
        assert seen == wanted
        page.goto(home(lab) + path)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"


@pytest.mark.seed("order the dashboard works at 400 and 1600 px, light and dark")
@pytest.mark.parametrize(
    ("width", "scheme"), [(400, "light"), pytest.param(400, "dark", marks=pytest.mark.slow), (1600, "dark")]
)
def test_nothing_is_wider_than_the_window(lab: Lab, browser: Browser, width: int, scheme: str) -> None:
    if not lab.read("/faults")["items"]:
        kill(lab, "web-n1")
    fault = eventually(lambda: lab.read("/faults")["items"], 10, "there was a fault")[0]["id"]
    with browser.visit(lab, width=width, scheme=scheme) as page:
        for path in (*PAGES, f"faults/{fault}"):
            page.goto(home(lab) + path)
            is_live(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(int(each) for each in re.findall(r"\d+", ground)[:3]) > 3 * 128
        assert light == (scheme == "light")


def test_an_open_page_outlives_a_kill_of_the_server(lab: Lab, browser: Browser) -> None:
    with browser.visit(lab) as page:
        is_live(page)
        lab.kill_child("server")
        expect(page.locator("#link")).to_have_attribute("data-state", "lost", timeout=10_000)
        expect(page.locator("#link")).to_have_attribute("data-state", "on", timeout=30_000)
        kill(lab, "guest-n1-b")
        expect(page.locator(f"#r-{fault_of(lab, 'guest-n1-b')}")).to_be_visible(timeout=20_000)
    browser.errors.clear()  # Chromium tells of each connection that was refused


@pytest.mark.seed("order an open page says that its server hears nothing")
def test_an_open_page_says_so_while_its_server_hears_nothing(lab: Lab, browser: Browser) -> None:
    nats = lab.child("nats")
    with browser.visit(lab) as page:
        page.goto(f"{home(lab)}faults")
        is_live(page)
        said = page.locator("#health .impaired")
        expect(said).to_have_count(0)
        os.kill(nats.pid, signal.SIGSTOP)
        try:
            expect(said).to_contain_text("the server cannot hear", timeout=60_000)
        finally:
            os.kill(nats.pid, signal.SIGCONT)
        expect(said).to_have_count(0, timeout=60_000)
