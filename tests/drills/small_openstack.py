"""A small OpenStack over HTTP, for the real client: identity, images, compute, network and volumes.

It knows what operations ask of those, and can be slow, refuse, fail to build, fall silent or lose an answer.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

TOKEN, PROJECT = "a-token-of-the-test", "5ca1ab1e000000000000000000000000"
BEGINS = {"server": "BUILD", "image": "queued", "volume": "creating", "network": "ACTIVE", "router": "ACTIVE"}
ENDS = {"server": "ACTIVE", "image": "active", "volume": "available", "network": "ACTIVE", "router": "ACTIVE"}
PLACES = {
    "/compute/v2.1/servers": "server",
    "/compute/v2.1/flavors": "flavor",
    "/image/v2/images": "image",
    "/network/v2.0/networks": "network",
    "/network/v2.0/routers": "router",
    "/volume/v3/volumes": "volume",
}
SERVICES = {"compute": "/compute/v2.1", "image": "/image", "network": "/network", "volumev3": "/volume/v3"}


@dataclass
class SmallOpenstack:
    """What it is and does; a test changes it while it runs."""

    port: int = 0
    things: dict[str, dict[str, dict[str, Any]]] = field(
        default_factory=lambda: {what: {} for what in PLACES.values()}
    )
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of every request."""
    looks: int = 2
    """So many looks until it is built, and until a deleted one is gone."""
    refuses: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    """By method and thing: status and message."""
    fails: dict[str, str] = field(default_factory=dict)
    """By thing: built to ERROR, with this fault."""
    silent: set[tuple[str, str]] = field(default_factory=set)
    """Never answers these. What it is asked to make is made all the same, what to delete is not."""
    held: set[tuple[str, str]] = field(default_factory=set)
    """What is asked for is made when it is no longer held, whether the client still waits or not."""
    hears: Callable[[str], None] = lambda name: None
    """Told each name that it is asked to make."""
    services: Mapping[str, str] = field(default_factory=lambda: dict(SERVICES))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def names(self, what: str) -> list[str]:
        """Of everything that is there."""
        return sorted(each["name"] for each in self.things[what].values())

    def everything(self) -> list[str]:
        """Every name of every kind."""
        return sorted(name for what in self.things for name in self.names(what))

    def requests(self, method: str, what: str) -> int:
        """How often it was asked for."""
        return sum(1 for each in self.asked if each == (method, what))

    def clouds_file(self, folder: Path) -> Path:
        """clouds.yaml of a cloud `small`."""
        auth = {"auth_url": f"{self.url}/identity/v3", "username": "u", "password": "planted-secret"}
        auth |= {"project_name": "p", "user_domain_name": "Default", "project_domain_name": "Default"}
        cloud = {"auth": auth, "region_name": "one", "identity_api_version": 3}
        path = folder / "clouds.yaml"
        path.write_text(yaml.safe_dump({"clouds": {"small": cloud}}))
        return path

    def app(self) -> web.Application:
        """Its routes."""
        app = web.Application(client_max_size=1 << 24)
        app.router.add_get("/identity/v3", self._identity)
        app.router.add_post("/identity/v3/auth/tokens", self._token)
        for path in ("/compute/v2.1", "/image", "/network", "/volume/v3"):
            app.router.add_get(path, self._versions)
            app.router.add_get(f"{path}/", self._versions)
        app.router.add_put("/image/v2/images/{id}/file", self._upload)
        for path in PLACES:
            app.router.add_post(path, self._create)
            app.router.add_get(path, self._list)
            app.router.add_get(f"{path}/detail", self._list)
            app.router.add_get(f"{path}/{{id}}", self._show)
            app.router.add_delete(f"{path}/{{id}}", self._delete)
        return app

    async def _identity(self, request: web.Request) -> web.Response:
        links = [{"rel": "self", "href": f"{self.url}/identity/v3/"}]
        return web.json_response({"version": {"id": "v3.14", "status": "stable", "links": links}})

    async def _token(self, request: web.Request) -> web.Response:
        given = (await request.json())["auth"]["identity"]["password"]["user"]
        if given["password"] != "planted-secret":
            return _error(401, "The request you have made requires authentication.")
        catalog = [
            {
                "type": kind,
                "name": kind,
                "id": kind,
                "endpoints": [
                    {
                        "interface": "public",
                        "url": self.url + path,
                        "region_id": "one",
                        "region": "one",
                        "id": kind,
                    }
                ],
            }
            for kind, path in self.services.items()
        ]
        domain = {"id": "default", "name": "Default"}
        token = {
            "methods": ["password"],
            "expires_at": "2099-01-01T00:00:00.000000Z",
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "user": {"id": "u", "name": "u", "domain": domain},
            "project": {"id": PROJECT, "name": "p", "domain": domain},
            "catalog": catalog,
            "roles": [],
        }
        return web.json_response({"token": token}, status=201, headers={"X-Subject-Token": TOKEN})

    async def _versions(self, request: web.Request) -> web.Response:
        path = request.path.rstrip("/")
        if path == "/compute/v2.1":
            return web.json_response({"version": self._version("v2.1", path, "2.96", "2.1")})
        given = {"/image": ("v2.17", "/image/v2"), "/network": ("v2.0", "/network/v2.0")}
        if path in given:
            return web.json_response({"versions": [self._version(*given[path])]})
        return web.json_response({"versions": [self._version("v3.0", path, "3.71", "3.0")]})

    def _version(self, id: str, path: str, version: str = "", min_version: str = "") -> dict[str, Any]:
        links = [{"rel": "self", "href": f"{self.url}{path}/"}]
        return {"id": id, "status": "CURRENT", "version": version, "min_version": min_version, "links": links}

    async def _before(self, request: web.Request) -> tuple[str, web.Response | None]:
        """Which thing it is about, and the answer when it is a refusal."""
        path = request.path.removesuffix("/detail").removesuffix("/" + request.match_info.get("id", "?"))
        what = PLACES[path]
        self.asked.append((request.method, what))
        if request.headers.get("X-Auth-Token") != TOKEN:
            return what, _error(401, "The request you have made requires authentication.")
        if (refused := self.refuses.get((request.method, what))) is not None:
            return what, _error(*refused)
        return what, None

    async def _create(self, request: web.Request) -> web.Response:
        what, refused = await self._before(request)
        if refused is not None:
            return refused
        body = await request.json()
        given = body if what == "image" else body[what]
        if what == "server" and not (
            given["networks"] == "none"
            and given["imageRef"] in self.things["image"]
            and given["flavorRef"] in self.things["flavor"]
        ):
            return _error(400, "A server is made of an image and a flavor, and here without networks.")
        self.hears(given["name"])
        made = asyncio.create_task(self._make(what, given))
        if ("POST", what) in self.silent:
            await asyncio.Event().wait()
        thing = await asyncio.shield(made)
        return web.json_response(thing if what == "image" else {what: thing}, status=201)

    async def _make(self, what: str, given: dict[str, Any]) -> dict[str, Any]:
        """Made even if the client has gone: a service does not notice."""
        while ("POST", what) in self.held:  # noqa: ASYNC110  another thread lets it go
            await asyncio.sleep(0.02)
        thing = {**given, "id": str(uuid.uuid4()), "looks": 0, "deleted": False}
        if what != "flavor":
            thing["status"] = BEGINS[what]
        self.things[what][thing["id"]] = thing
        return thing

    async def _upload(self, request: web.Request) -> web.Response:
        thing = self.things["image"][request.match_info["id"]]
        thing["content"] = (await request.read()).hex()
        thing["status"] = "saving"
        return web.Response(status=204)

    async def _list(self, request: web.Request) -> web.Response:
        what, refused = await self._before(request)
        if refused is not None:
            return refused
        name = request.query.get("name", "")
        found = [self._seen(what, each) for each in tuple(self.things[what].values())]
        there = [each for each in found if each is not None and name in each["name"]]
        return web.json_response({f"{what}s": there})

    async def _show(self, request: web.Request) -> web.Response:
        what, refused = await self._before(request)
        if refused is not None:
            return refused
        thing = self.things[what].get(request.match_info["id"])
        seen = self._seen(what, thing) if thing else None
        if seen is None:
            return _error(404, f"{what} could not be found.")
        return web.json_response(seen if what == "image" else {what: seen})

    async def _delete(self, request: web.Request) -> web.Response:
        what, refused = await self._before(request)
        if refused is not None:
            return refused
        if ("DELETE", what) in self.silent:
            await asyncio.Event().wait()
        if (thing := self.things[what].get(request.match_info["id"])) is None:
            return _error(404, f"{what} could not be found.")
        if not thing["deleted"]:
            thing["deleted"], thing["looks"] = True, 0
        if what in ("image", "flavor"):
            del self.things[what][thing["id"]]
        return web.Response(status=204)

    def _seen(self, what: str, thing: dict[str, Any]) -> dict[str, Any] | None:
        """As this look finds it; None, and gone, when a deleted one was looked at often enough."""
        thing["looks"] += 1
        if thing["deleted"] and thing["looks"] > self.looks:
            self.things[what].pop(thing["id"], None)
            return None
        if not thing["deleted"] and what != "flavor" and thing["looks"] >= self.looks:
            failed = self.fails.get(what)
            thing["status"] = ENDS[what] if failed is None else "ERROR"
            if failed:
                thing["fault"] = {"message": failed, "code": 500}
        return {name: value for name, value in thing.items() if name not in ("looks", "deleted", "content")}


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"code": status, "message": message}}, status=status)


@contextmanager
def small_openstack() -> Iterator[SmallOpenstack]:
    """It answers on a port of its own until the end."""
    made, loop = SmallOpenstack(), asyncio.new_event_loop()
    ready = threading.Event()
    ends: list[asyncio.Event] = []

    async def serve() -> None:
        ends.append(asyncio.Event())
        runner = web.AppRunner(made.app(), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.port = runner.addresses[0][1]
        ready.set()
        await ends[0].wait()
        await runner.cleanup()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(10)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(ends[0].set)
        thread.join()
        loop.close()
