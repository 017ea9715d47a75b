"""Makes a fresh lab usable: creates tokens and subscriptions, waits for every resource, prints the summary.

`python -m homeostat.lab.bootstrap --dir D`, run once at every start after the server listens. Every step may
be done again: each states what must be so. Every command line of the summary can be copied as it is.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from homeostat.kernel.client import Client
from homeostat.kernel.errors import GiveUp, HomeostatError, RetryLater
from homeostat.kernel.files import read_json
from homeostat.kernel.terminal import drop_unwritable_output
from homeostat.lab.plan import (
    HOSTS,
    PROJECTS,
    RESOURCES,
    SUBSCRIPTIONS,
    LabPlan,
    StateDirectory,
    web_services,
)
from homeostat.lab.preparation import WEBHOOK_KEY_ID, Credentials, load_or_create_credentials

_GREEN, _PLAIN = "\033[32m", "\033[0m"


def ready_summary(plan: LabPlan, *, coloured: bool, here: Path) -> str:
    """Several lines. `here` is the working directory of the person."""
    first = web_services()[0]
    ready = _short(plan.state.ready_file(first.host, first.id), here)
    call = _our_command(plan, here)
    head = f"All {len(RESOURCES)} services and guests on {len(HOSTS)} hosts are up."
    if coloured:
        head = f"{_GREEN}{head}{_PLAIN}"
    return "\n".join(
        [
            head,
            f"  server    {plan.api_url}",
            f"  balancer  {plan.balancer_url}  (in front of {', '.join(each.id for each in web_services())})",
            f"  heard     {_short(plan.state.heard_file, here)}  (what the webhook consumer received)",
            f"  logs      {_short(plan.state.logs, here)}",
            "Try, in another terminal:",
            f"  {call} console   # a link to the dashboard, valid for one minute",
            f"  {call} status",
            f"  kill -9 $(cat {ready})   # kills {first.id}; watch this terminal",
            f"  {call} fault ls",
            f"  {call} explain ID   # an ID from the output of `fault ls`",
            f"  {call} resource show {first.id}",
            f"  curl {plan.balancer_url}/",
            "Ctrl-C stops everything.",
        ]
    )


def _our_command(plan: LabPlan, here: Path) -> str:
    ours = Path(sys.executable).with_name("homeostat")
    found = shutil.which("homeostat")
    program = "homeostat" if found and Path(found).resolve() == ours.resolve() else _short(ours, here)
    if plan.state.root == here / ".homeostat":
        return program
    return f"HOMEOSTAT_DIR={_short(plan.state.root, here)} {program}"


def _short(path: Path, here: Path) -> str:
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


_PROGRESS_S = 2.0
_POLL_S = 0.2


def retry_until(act: Callable[[], Any], until_s: float) -> Any:
    """Do `act` until it succeeds; GiveUp with its last complaint at `until_s` of the monotonic clock."""
    while True:
        try:
            return act()
        except (RetryLater, GiveUp) as error:
            if isinstance(error, GiveUp) and type(error) is not GiveUp:
                raise  # what the server refuses by name it will refuse again
            if time.monotonic() >= until_s:
                raise GiveUp(f"timed out: {error}") from error
            time.sleep(_POLL_S)


def ensure_access(api: Client, plan: LabPlan, credentials: Credentials, until_s: float) -> None:
    """A token for each project, a subscription for each who must hear."""
    for project in PROJECTS:
        token = {"token": credentials.projects[project], "role": "operator", "project": project}
        retry_until(partial(api.call, "PUT", f"/tokens/{project}", token), until_s)
    for name, project in SUBSCRIPTIONS.items():
        subscription = {
            "url": plan.hearing_url(name),
            "secret": credentials.webhook_secret,
            "key_id": WEBHOOK_KEY_ID,
            "project": project,
        }
        retry_until(partial(api.call, "PUT", f"/subscriptions/{name}", subscription), until_s)


def resources_not_up(items: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The lab's resources that are not up, with their state; `missing` when the server knows none."""
    states = {str(item.get("id")): str(item.get("state")) for item in items}
    wanted = {resource.id: states.get(resource.id, "missing") for resource in RESOURCES}
    return {name: state for name, state in wanted.items() if state != "up"}


def await_resources(api: Client, plan: LabPlan, until_s: float) -> None:
    """Until all of them are up; says every 2 s what is missing. GiveUp names each and its log."""
    shown_s = time.monotonic()
    while True:
        answer = retry_until(partial(api.call, "GET", "/resources"), until_s)
        missing = resources_not_up(answer.get("items", []))
        if not missing:
            return
        now_s = time.monotonic()
        if now_s >= until_s:
            raise GiveUp("timed out:" + "".join(_complaints(plan, missing)))
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
    ports = (read_json(state.lab_file) or {}).get("ports")
    if not isinstance(ports, dict):
        raise GiveUp(f"{state.lab_file}: no ports of a lab; run `homeostat up` on this directory first")
    return LabPlan(state, ports, sys.executable)


def main() -> None:
    parser = argparse.ArgumentParser(prog="homeostat.lab.bootstrap", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument(
        "--deadline-s", type=float, default=60.0, help="deadline of the whole bootstrap, in seconds"
    )
    given = parser.parse_args()
    drop_unwritable_output("stdout", "stderr")
    state = StateDirectory(given.dir)
    until_s = time.monotonic() + given.deadline_s
    try:
        plan = read_plan(state)
        credentials = load_or_create_credentials(
            state.credentials_file, users=["server", *HOSTS], projects=PROJECTS
        )
        api = Client(plan.api_url, credentials.admin_token)
        ensure_access(api, plan, credentials, until_s)
        await_resources(api, plan, until_s)
    except HomeostatError as error:
        print(f"the lab is not up after {given.deadline_s:g} s: {error}", flush=True)
        raise SystemExit(1) from error
    print(ready_summary(plan, coloured="HOMEOSTAT_COLOUR" in os.environ, here=Path.cwd()), flush=True)


if __name__ == "__main__":
    main()
