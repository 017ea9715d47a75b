"""Take the pictures of the dashboard in docs/images from a lab: `.venv/bin/python docs/make_screenshots.py`.

Needs Debian's `chromium`. Starts a lab of its own, lets services and a host die, and photographs what the pages say.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "e2e")]

from browser import Browser, chromium  # noqa: E402
from running_lab import Lab, eventually, running  # noqa: E402

IMAGES = ROOT / "docs" / "images"
BYTES_MAX = 150_000


def kill(lab: Lab, name: str) -> str:
    """Kill a resource, wait until it is back; the id of its fault."""
    before = lab.service(name)
    assert before is not None
    lab.kill(before)
    eventually(lambda: lab.restarted(name, before), 10, f"{name} runs again")
    about = f"resource/{name}"

    def cleared() -> str:
        rows = [row for row in lab.get("/faults")["items"] if row["about"] == about]
        return rows[0]["id"] if rows and rows[0]["state"] == "cleared" else ""

    return eventually(cleared, 10, f"the fault of {name} is cleared")


def kill_again_and_again(lab: Lab, name: str) -> None:
    """The restart after the third death waits for two seconds: time for a picture."""
    for turn in range(3):
        before = eventually(partial(lab.service, name), 10, f"{name} has a process")
        assert before is not None
        lab.kill(before)
        if turn < 2:
            eventually(partial(lab.restarted, name, before), 10, f"{name} runs again")


def take_dead_host(lab: Lab, browser: Browser) -> None:
    """A host dies: where it stands, and where the time went."""
    command(lab, "kill-host")

    def told() -> str:
        rows = [row for row in lab.get("/faults")["items"] if row["kind"] == "host_down"]
        view = lab.get(f"/faults/{rows[0]['id']}/timeline") if rows else None
        known = view and all(each["ms"] is not None for each in view["checkpoints"])
        fenced = any(row["fenced"] for row in lab.get("/hosts")["items"])
        return rows[0]["id"] if known and fenced else ""

    fault = eventually(told, 30, "everybody was told of a dead host that is fenced")
    for path, name, height in (("", "host-down", 720), (f"faults/{fault}", "host-down-fault", 800)):
        with browser.visit(lab, width=1280, height=860) as page:
            page.goto(f"{lab.client.url}/console/{path}")
            page.wait_for_selector("#link[data-state=on]")
            page.wait_for_timeout(600)
            clip = {"x": 0, "y": 0, "width": 1280, "height": height}
            page.screenshot(path=IMAGES / f"{name}.png", clip=clip)
    command(lab, "start-host")
    eventually(lab.all_up, 60, "the host is back")


def command(lab: Lab, verb: str) -> None:
    """`homeostat lab VERB n2`."""
    words = ("lab", verb, "n2", "--dir", str(lab.directory))
    subprocess.run([sys.executable, "-m", "homeostat.cli", *words], check=True)


def take(lab: Lab, browser: Browser) -> None:
    """All pictures."""
    for name in ("guest-n2-a", "web-n3", "guest-n1-b", "web-n2", "guest-n3-a", "web-n1"):
        fault = kill(lab, name)
        time.sleep(12)  # so that the chart has something to show
    with browser.visit(lab, width=1280, height=860) as page:
        page.goto(f"{lab.client.url}/console/faults/{fault}")
        page.wait_for_selector("#link[data-state=on]")
        page.screenshot(path=IMAGES / "fault.png", clip={"x": 0, "y": 0, "width": 1280, "height": 760})
    for scheme, width, name, victim in (
        ("light", 1280, "overview-light", "guest-n2-b"),
        ("dark", 1280, "overview-dark", ""),
        ("light", 400, "narrow", "guest-n3-b"),
    ):
        with browser.visit(lab, width=width, height=860, scheme=scheme) as page:
            page.wait_for_selector("#link[data-state=on]")
            page.wait_for_function("document.querySelector('#chart canvas') !== null")
            if victim:
                kill_again_and_again(lab, victim)
                page.wait_for_selector(".reserved .state.bad")
                page.wait_for_timeout(600)
            page.screenshot(path=IMAGES / f"{name}.png")
        eventually(lab.all_up, 30, "everything is up")
        eventually(lambda: not lab.get("/faults", state="clearing")["items"], 10, "nothing is wrong")


def main() -> None:
    """Into docs/images; fails when one is too big to be in a repository."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place, running(Path(place) / "state") as lab, chromium() as browser:
        take(lab, browser)
        take_dead_host(lab, browser)
    for image in sorted(IMAGES.glob("*.png")):
        size = image.stat().st_size
        print(f"{image.relative_to(ROOT)}  {size} bytes")
        assert size <= BYTES_MAX, f"{image} is above {BYTES_MAX} bytes"


if __name__ == "__main__":
    main()
