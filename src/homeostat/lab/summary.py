"""What `homeostat up` says when everything is up: where things are, and what to try.

Pure but for looking up how this shell would call us. Every line to try can be copied as it is.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from homeostat.lab.plan import HOSTS, RESOURCES, LabPlan, web_services

_GREEN, _PLAIN = "\033[32m", "\033[0m"


def green_summary(plan: LabPlan, *, coloured: bool, here: Path) -> str:
    """Several lines. `here` is the working directory of the person."""
    first = web_services()[0]
    ready = _short(plan.state.ready_file(first.host, first.id), here)
    call = _call(plan, here)
    head = f"All {len(RESOURCES)} services and guests on {len(HOSTS)} hosts are up."
    if coloured:
        head = f"{_GREEN}{head}{_PLAIN}"
    return "\n".join(
        [
            head,
            f"  server    {plan.api_url}",
            f"  balancer  {plan.balancer_url}  (before {', '.join(each.id for each in web_services())})",
            f"  heard     {_short(plan.state.heard_file, here)}  (what the webhook consumer got)",
            f"  logs      {_short(plan.state.logs, here)}",
            "Try, in another terminal:",
            f"  {call} console   # a link to the dashboard, good for one minute",
            f"  {call} status",
            f"  kill -9 $(cat {ready})   # {first.id} dies; watch this terminal",
            f"  {call} fault ls",
            f"  {call} explain ID   # an ID from the line before",
            f"  {call} resource show {first.id}",
            f"  curl {plan.balancer_url}/",
            "Ctrl-C stops everything.",
        ]
    )


def _call(plan: LabPlan, here: Path) -> str:
    ours = Path(sys.executable).with_name("homeostat")
    found = shutil.which("homeostat")
    program = "homeostat" if found and Path(found).resolve() == ours.resolve() else _short(ours, here)
    if plan.state.root == here / ".homeostat":
        return program
    return f"HOMEOSTAT_DIR={_short(plan.state.root, here)} {program}"


def _short(path: Path, here: Path) -> str:
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
