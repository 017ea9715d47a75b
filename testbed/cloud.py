"""The cloud through its own APIs, as its administrator: asked over HTTP, with the standard library.

Not a client for anybody else. A refused or broken answer is Unanswered, which those who wait go on from.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any

from homeostat.kernel.errors import RetryLater
from testbed.plan import Plan
from testbed.services import KEYSTONE

_TIMEOUT_S = 60.0


class Unanswered(RetryLater):
    """The cloud did not answer, or with an error of its own; the text says what."""


class Cloud:
    """One login. `call` gives the body of an answer as JSON, an empty object when there is none."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._token = ""
        self.project_id = ""

    def login(self) -> None:
        """A new token of the administrator, for the project `admin`."""
        user = {"name": "admin", "domain": {"id": "default"}, "password": self._plan.secrets.password}
        scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
        identity = {"methods": ["password"], "password": {"user": user}}
        body = {"auth": {"identity": identity, "scope": scope}}
        answer, headers = self._ask("POST", self._plan.url(KEYSTONE.port, "/v3/auth/tokens"), body)
        self._token = headers["X-Subject-Token"]
        self.project_id = answer["token"]["project"]["id"]

    def call(self, method: str, port: int, path: str, body: object = None) -> dict[str, Any]:
        """One request through the common address."""
        return self._ask(method, self._plan.url(port, path), body)[0]

    def _ask(self, method: str, url: str, body: object) -> tuple[dict[str, Any], Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["X-Auth-Token"] = self._token
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                text = answer.read()
                return (json.loads(text) if text else {}), answer.headers
        except urllib.error.HTTPError as error:
            said = error.read(300).decode(errors="replace")
            raise Unanswered(f"{method} {url}: {error.code} {' '.join(said.split())}") from error
        except (OSError, HTTPException, ValueError) as error:
            raise Unanswered(f"{method} {url}: {error}") from error
