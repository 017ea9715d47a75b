"""Debian's own Chromium, driven by Playwright. No browser is ever downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from playwright.sync_api import Browser as Driven
from playwright.sync_api import Page, sync_playwright
from running_lab import Lab

from engines import CHROMIUM, need
from homeostat.kernel.client import Client

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def link(lab: Lab, token: str | None = None) -> str:
    """A one-time link for the administrator, or for whoever has this token."""
    client = lab.client if token is None else Client(lab.client.url, token)
    return client.url + str(client.call("POST", "/console-links")["path"])


@dataclass
class Browser:
    """One Chromium for many visits. `errors` is what its console complained of, of all visits."""

    driven: Driven
    errors: list[str] = field(default_factory=list)

    @contextmanager
    def visit(
        self,
        lab: Lab,
        *,
        token: str | None = None,
        width: int = 1280,
        height: int = 800,
        scheme: str = "light",
    ) -> Iterator[Page]:
        """Somebody with a fresh browser, logged in and on the overview."""
        context = self.driven.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
        )
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        try:
            page.goto(link(lab, token))
            page.wait_for_url("**/console/")
            yield page
        finally:
            context.close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start it, and end it."""
    need("chromium")
    with sync_playwright() as playwright:
        driven = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield Browser(driven)
        finally:
            driven.close()
