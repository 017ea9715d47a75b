"""The keeper's command line, for the guard and for people on its host. It prints JSON and decides nothing."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, List, Optional

from .folder import KeeperError
from .guard import LINGER_S, guard, start
from .keeping import keep
from .orders import halt, renew, resume, status, undo


def main(argv: Optional[List[str]] = None) -> int:
    """`python3 node_keeper VERB --state FOLDER`, JSON. 0 done, 1 not everything is undone, 2 not done."""
    parser = argparse.ArgumentParser(description="The undo keeper of this host.")
    verbs = ("start", "status", "renew", "undo", "halt", "resume", "keep", "guard")
    parser.add_argument("verb", choices=verbs)
    parser.add_argument("--state", type=Path, required=True, help="its folder")
    parser.add_argument("--fault", default="", help="which one: renew, undo")
    parser.add_argument("--linger", type=float, default=LINGER_S, help="seconds to stay without a fault")
    given = parser.parse_args(argv)
    answers: Dict[str, Callable[[], object]] = {
        "start": lambda: start(given.state, given.linger),
        "status": lambda: status(given.state),
        "renew": lambda: renew(given.state, given.fault),
        "undo": lambda: undo(given.state, given.fault),
        "halt": lambda: halt(given.state),
        "resume": lambda: resume(given.state),
    }
    if given.verb in ("keep", "guard"):
        (keep if given.verb == "keep" else guard)(given.state, given.linger)
        os._exit(0)  # a signal during Python's own clean-up would make a good end look like a death
    try:
        answer = answers[given.verb]()
    except (KeeperError, OSError, subprocess.SubprocessError) as error:
        print(f"undo keeper: {error}", file=sys.stderr)
        return 2
    print(json.dumps(answer))
    outcomes = answer if isinstance(answer, list) else [answer]
    return 1 if any(isinstance(one, dict) and one.get("undone") is False for one in outcomes) else 0
