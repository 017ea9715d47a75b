"""A small keystone, and an API that only answers with its token. Real HTTP, in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from aiohttp import web

TOKEN, PROJECT_ID, PASSWORD = "gAAAA-the-token", "0a1b2c3d", "pass-of-admin"


class SmallKeystone:
    """What was asked, and what is answered."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.port = 0
        self.tokens_issued = 0
        self.asked: list[tuple[str, str | None]] = []
        """Path and token of each request to the API."""
        self.lasts_until = "2099-01-01T00:00:00.000000Z"
        self.holds = False
        """Keystone answers no more."""
        self._ending = asyncio.Event()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/v3", self._version)
        app.router.add_post("/v3/auth/tokens", self._issue)
        app.router.add_get("/{path:.*}", self._api)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        self._runner = runner
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]

    async def stop(self) -> None:
        self._ending.set()
        await self._runner.cleanup()

    async def _version(self, request: web.Request) -> web.Response:
        link = {"rel": "self", "href": f"http://127.0.0.1:{self.port}/v3/"}
        return web.json_response({"version": {"id": "v3.14", "status": "stable", "links": [link]}})

    async def _issue(self, request: web.Request) -> web.Response:
        if self.holds:
            await self._ending.wait()
        given = (await request.json())["auth"]["identity"]["password"]["user"]
        if given["password"] != PASSWORD:
            return web.json_response({"error": {"code": 401, "message": "not you"}}, status=401)
        self.tokens_issued += 1
        domain = {"id": "default", "name": "Default"}
        token = {
            "methods": ["password"],
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "expires_at": self.lasts_until,
            "project": {"id": PROJECT_ID, "name": "admin", "domain": domain},
            "user": {"id": "u", "name": "admin", "domain": domain},
            "roles": [],
            "catalog": [],
        }
        return web.json_response({"token": token}, status=201, headers={"X-Subject-Token": TOKEN})

    async def _api(self, request: web.Request) -> web.Response:
        token = request.headers.get("X-Auth-Token")
        self.asked.append((request.path, token))
        good = token == TOKEN and f"/{PROJECT_ID}/" in request.path
        return web.json_response({"servers": []}, status=200 if good else 401)

    def clouds_file(self, folder: Path, password: str = PASSWORD) -> Path:
        """clouds.yaml with one cloud, `testbed`."""
        auth = {
            "auth_url": f"http://127.0.0.1:{self.port}/v3",
            "username": "admin",
            "password": password,
            "project_name": "admin",
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }
        path = folder / "clouds.yaml"
        path.write_text(yaml.safe_dump({"clouds": {"testbed": {"auth": auth, "identity_api_version": 3}}}))
        return path


@contextmanager
def small_keystone() -> Iterator[SmallKeystone]:
    """One that answers until the end."""
    made = SmallKeystone()
    thread = threading.Thread(target=made.loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(made.start(), made.loop).result(30)
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(made.stop(), made.loop).result(30)
        made.loop.call_soon_threadsafe(made.loop.stop)
        thread.join()
        made.loop.close()


def words_of(path: Path) -> str:
    """Everything in the files below a folder."""
    found = (each for each in path.rglob("*") if each.is_file())
    return json.dumps([each.read_text(errors="replace") for each in found])
