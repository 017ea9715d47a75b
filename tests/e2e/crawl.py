"""Reads all that one token can read: every GET route of the OpenAPI document, with every id there is."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

PARAMETER = re.compile(r"\{[^}]+\}")


@dataclass(frozen=True)
class Answer:
    """What one GET got. `id` is what was put into the route's parameter, empty where it has none."""

    route: str
    id: str
    status: int
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)


class Reader:
    """One token's kept-alive connection."""

    def __init__(self, url: str, token: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def call(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """Status and text. The connection is made again when the server has closed it."""
        data = None if body is None else json.dumps(body)
        headers = self._headers | ({} if data is None else {"Content-Type": "application/json"})
        for last in (False, True):
            try:
                self._connection.request(method, path, data, headers)
                answer = self._connection.getresponse()
                if answer.headers.get_content_type() == "text/event-stream":
                    return answer.status, self._what_comes_at_once(answer)
                return answer.status, answer.read().decode()
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                self._connection.close()
                if last:
                    raise
        raise AssertionError("not reached")

    def _what_comes_at_once(self, answer: http.client.HTTPResponse) -> str:
        """Of a stream, which has no end."""
        self._connection.sock.settimeout(1.0)
        said = b""
        with suppress(TimeoutError):
            while chunk := answer.read1():
                said += chunk
        self._connection.close()
        return said.decode()

    def get(self, path: str) -> Any:
        """The body of an answer that must be a success."""
        status, text = self.call("GET", path)
        assert status == 200, (path, status, text)
        return json.loads(text)

    def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True)
class Route:
    """A GET route. `queries` are the query strings worth trying: none, each word of an enumeration, most."""

    path: str
    queries: tuple[str, ...]

    @property
    def takes_id(self) -> bool:
        return "{" in self.path

    def in_turn(self, number: int) -> tuple[str, ...]:
        """The queries for the id of this number: all of them with each would be ten thousand questions."""
        plain, *others = self.queries
        return (plain, others[number % len(others)]) if others else (plain,)

    def at(self, id: str, query: str = "") -> str:
        return PARAMETER.sub(quote(id, safe=""), self.path) + (f"?{query}" if query else "")


def get_routes(document: dict[str, Any]) -> list[Route]:
    """Every GET of the document. One with two ids in its path needs more than this file does."""
    routes = []
    for path, methods in document["paths"].items():
        if "get" not in methods:
            continue
        assert len(PARAMETER.findall(path)) < 2, f"{path}: teach crawl.py to try pairs of ids"
        queries = [""]
        for parameter in methods["get"].get("parameters", ()):
            if parameter["in"] == "query":
                queries += _worth_trying(document, parameter["name"], parameter["schema"])
        routes.append(Route(path, tuple(queries)))
    return routes


def _worth_trying(document: dict[str, Any], name: str, schema: dict[str, Any]) -> Iterator[str]:
    for option in (schema, *schema.get("anyOf", ())):
        if "$ref" in option:
            option = document["components"]["schemas"][option["$ref"].rpartition("/")[2]]
        for value in option.get("enum", ()):
            yield urlencode({name: value})
        if "maximum" in option:
            yield urlencode({name: option["maximum"]})


def crawl(reader: Reader, routes: Iterable[Route], ids: Iterable[str]) -> Iterator[Answer]:
    """Every route with every query; one that takes an id with every id, plainly and with a query in turn."""
    known = sorted(set(ids))
    for route in routes:
        for number, id in enumerate(known if route.takes_id else [""]):
            for query in route.in_turn(number) if route.takes_id else route.queries:
                status, text = reader.call("GET", route.at(id, query))
                yield Answer(route.path, id, status, text)
