"""The page in a real browser: readable on a phone and on a wide screen, light and dark, and silent."""

from __future__ import annotations

from pathlib import Path

from played_run import Played, finished, sampled
from playwright.sync_api import Page, sync_playwright

from engines import CHROMIUM, needs
from homeostat.drills.reports.model import report_of
from homeostat.drills.reports.renderings import html_page
from homeostat.drills.reports.trends import repeats_of
from homeostat.drills.verdicts.evaluation import verify

HIDDEN_TEXT = """() => [...document.querySelectorAll('svg text, h1, td')].filter(each => {
  const box = each.getBoundingClientRect();
  return box.width > 0 && (box.left < 0 || box.right > innerWidth);
}).map(each => each.textContent)"""


def contrast(page: Page, selector: str) -> float:
    """Of the text's colour against the page's ground, as WCAG reckons it."""
    found: float = page.evaluate(
        """selector => {
  const light = colour => colour.match(/[0-9.]+/g).slice(0, 3).map(Number).map(each => each / 255)
    .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, at) => sum + each * [0.2126, 0.7152, 0.0722][at], 0);
  const text = light(getComputedStyle(document.querySelector(selector)).color);
  const ground = light(getComputedStyle(document.body).backgroundColor);
  return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
}""",
        selector,
    )
    return found


@needs("chromium")
def test_nothing_overflows_and_everything_can_be_read(tmp_path: Path) -> None:
    endless = Played(samples={"web": sampled(3_000, 8_100), "web-there": sampled(3_000, 99_000)})
    reports = [
        report_of(verify(finished(tmp_path / str(at), each))) for at, each in enumerate((Played(), endless))
    ]
    (tmp_path / "page.html").write_text(html_page(reports, repeats_of(reports)))
    said: list[str] = []
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        for width in (400, 1600):
            for scheme in ("light", "dark"):
                context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
                page = context.new_page()
                page.on("console", lambda message: said.append(message.text))
                page.on("request", lambda request: said.append(request.url))
                page.goto((tmp_path / "page.html").as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") == width
                assert page.evaluate(HIDDEN_TEXT) == []
                for selector in ("h1", ".soft", ".PASS", ".FAIL", "td"):
                    assert contrast(page, selector) >= 4.5, (selector, scheme)
                context.close()
        chromium.close()
    assert set(said) == {(tmp_path / "page.html").as_uri()}
