"""The script that holds a program back until keystone answers, run for real against a small server."""

from __future__ import annotations

import http.server
import subprocess
import threading
from pathlib import Path

import pytest

from testbed.node_files import Keys, node_files
from testbed.plan import CONTROLLERS, Plan, Secrets
from testbed.services import AFTER_KEYSTONE, KEYSTONE


class _Keystone(http.server.BaseHTTPRequestHandler):
    """Says that there is no back end, as haproxy does, and after three times that all is well."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(503 if len(self.asked) < 3 else 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def test_a_program_starts_when_keystone_has_answered_and_is_not_held_back_again(tmp_path: Path) -> None:
    plan = Plan(Secrets("secret", "k" * 32), network="127.0.0")
    files = node_files(plan, CONTROLLERS[0], Keys("", "", ""))
    script = tmp_path / "after-keystone"
    # What it remembers belongs to a node; here it is this test's.
    script.write_text(files[AFTER_KEYSTONE].text.replace("/run/", f"{tmp_path}/"))
    argv = ["bash", str(script), "echo", "two words", "started"]
    handler = type("Keystone", (_Keystone,), {"asked": []})
    with http.server.ThreadingHTTPServer((plan.vip, KEYSTONE.port), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
        server.shutdown()
        thread.join()
    assert done.stdout == "two words started\n"
    assert handler.asked == ["/v3", "/v3", "/v3"]
    again = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert again.stdout == "two words started\n"


def test_without_keystone_it_waits(tmp_path: Path) -> None:
    plan = Plan(Secrets("secret", "k" * 32), network="127.0.1")
    files = node_files(plan, CONTROLLERS[0], Keys("", "", ""))
    script = tmp_path / "after-keystone"
    script.write_text(files[AFTER_KEYSTONE].text.replace("/run/", f"{tmp_path}/"))
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(["bash", str(script), "echo", "started"], capture_output=True, check=True, timeout=2)
