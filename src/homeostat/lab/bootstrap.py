"""Makes a fresh lab usable: tokens, subscriptions, and the proof that everything it promises is up.

`python -m homeostat.lab.bootstrap --dir D`, run once at every start after the server listens. Everything it
does may be done again: it says what must be so, not what to do.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from homeostat.kernel.errors import GiveUp, HomeostatError, RetryLater
from homeostat.kernel.files import read_json
from homeostat.lab.credentials import WEBHOOK_KEY_ID, Credentials, load_or_create
from homeostat.lab.plan import HOSTS, PROJECTS, RESOURCES, SUBSCRIPTIONS, LabPlan
from homeostat.lab.settings import StateDirectory
from homeostat.lab.summary import green_summary

_PROGRESS_S = 2.0
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Api:
    """The server, as administrator."""

    url: str
    token: str

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer's object. RetryLater when the server does not answer or says 5xx, else GiveUp."""
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with _opener.open(request, data=data, timeout=5) as reply:
                said = reply.read()
                return dict(json.loads(said)) if said.strip().startswith(b"{") else {}
        except urllib.error.HTTPError as error:
            text = error.read(500).decode(errors="replace").strip()
            kind = RetryLater if error.code >= 500 or error.code == 429 else GiveUp
            raise kind(f"{method} {path}: HTTP {error.code} {text}") from error
        except (OSError, ValueError) as error:
            raise RetryLater(f"{method} {path}: {error}") from error


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Loopback needs no proxy, whatever the environment says."""


def insist(act: Callable[[], dict[str, Any]], until_s: float) -> dict[str, Any]:
    """Do `act` until it succeeds; GiveUp with its last complaint at `until_s` of the monotonic clock."""
    while True:
        try:
            return act()
        except RetryLater as error:
            if time.monotonic() >= until_s:
                raise GiveUp(f"the time is over: {error}") from error
            time.sleep(_POLL_S)


def ensure_access(api: Api, plan: LabPlan, credentials: Credentials, until_s: float) -> None:
    """A token for each project, a subscription for each who must hear."""
    for project in PROJECTS:
        token = {"token": credentials.projects[project], "role": "operator", "project": project}
        insist(partial(api.call, "PUT", f"/api/v1/tokens/{project}", token), until_s)
    for name, project in SUBSCRIPTIONS.items():
        subscription = {
            "url": plan.hearing_url(name),
            "secret": credentials.webhook_secret,
            "key_id": WEBHOOK_KEY_ID,
            "project": project,
        }
        insist(partial(api.call, "PUT", f"/api/v1/subscriptions/{name}", subscription), until_s)


def not_up(items: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The lab's resources that are not up, with their state; `missing` when the server knows none."""
    states = {str(item.get("id")): str(item.get("state")) for item in items}
    wanted = {resource.id: states.get(resource.id, "missing") for resource in RESOURCES}
    return {name: state for name, state in wanted.items() if state != "up"}


def await_resources(api: Api, plan: LabPlan, until_s: float) -> None:
    """Until all of them are up; says every 2 s what is missing. GiveUp names each and its log."""
    shown_s = time.monotonic()
    while True:
        answer = insist(partial(api.call, "GET", "/api/v1/resources"), until_s)
        missing = not_up(answer.get("items", []))
        if not missing:
            return
        now_s = time.monotonic()
        if now_s >= until_s:
            raise GiveUp("the time is over:" + "".join(_complaints(plan, missing)))
        if now_s - shown_s >= _PROGRESS_S:
            shown_s = now_s
            words = ", ".join(f"{name} {state}" for name, state in missing.items())
            print(f"{len(RESOURCES) - len(missing)} of {len(RESOURCES)} up; waiting for {words}", flush=True)
        time.sleep(_POLL_S)


def _complaints(plan: LabPlan, missing: Mapping[str, str]) -> Iterable[str]:
    for resource in RESOURCES:
        if resource.id in missing:
            log = plan.state.resource_log(resource.host, resource.id)
            node_log = plan.state.logs / f"node-{resource.host}.log"
            yield f"\n  {resource.id} is {missing[resource.id]}; see {log} and {node_log}"


def read_plan(state: StateDirectory) -> LabPlan:
    """The plan of a directory that `homeostat up` has prepared."""
    ports = (read_json(state.lab_file) or {}).get("ports")
    if not isinstance(ports, dict):
        raise GiveUp(f"{state.lab_file}: no ports of a lab; run `homeostat up` on this directory first")
    return LabPlan(state, ports, sys.executable)


def main() -> None:
    """The command line of the bootstrap."""
    parser = argparse.ArgumentParser(prog="homeostat.lab.bootstrap", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--deadline-s", type=float, default=60.0, help="seconds for all of it")
    told = parser.parse_args()
    state = StateDirectory(told.dir)
    until_s = time.monotonic() + told.deadline_s
    try:
        plan = read_plan(state)
        credentials = load_or_create(state.credentials_file, users=["server", *HOSTS], projects=PROJECTS)
        api = Api(plan.api_url, credentials.admin_token)
        insist(partial(api.call, "GET", "/healthz"), until_s)
        ensure_access(api, plan, credentials, until_s)
        await_resources(api, plan, until_s)
    except HomeostatError as error:
        print(f"the lab is not complete after {told.deadline_s:g} s: {error}", flush=True)
        raise SystemExit(1) from error
    print(green_summary(plan, coloured="HOMEOSTAT_COLOUR" in os.environ, here=Path.cwd()), flush=True)


if __name__ == "__main__":
    main()
