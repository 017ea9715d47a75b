"""What runs on a host that is reached by SSH alone: the injectors' verbs, the keeper's words, the watch. A
node process runs the watch, too, by itself (`node_watches`).

    python3 -I -S FOLDER verb|restart|serve|watch HOST FILE

FOLDER is what was sent, FILE the host's own word on what may be broken here; it is read again for every verb.
Whichever it is, a keeper is there again when a fault is open.
Orders come on standard input and never as arguments: a pattern in an argument would match ourselves. Answers
are lines of JSON, `{"answer": ...}` or `{"error": {"kind", "message"}}`. Standard library only, python3.9.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict

from homeostat.drills import node_keeper as keeper
from homeostat.drills.injectors.node_holder import holds
from homeostat.drills.injectors.node_restarting import restart
from homeostat.drills.injectors.permitted import Permitted, read_permitted, read_profiles
from homeostat.drills.injectors.record import healed
from homeostat.drills.injectors.verbs import run_verb
from homeostat.drills.injectors.words import Words
from homeostat.drills.transports.node_boot import Unfit, words_of
from homeostat.kernel.errors import BadInput, GiveUp, HomeostatError, NotAllowed
from homeostat.monitors.node_process_watch import ProcessWatch, config_of

FOLDER = Path(__file__).parents[3]
PROFILES = Path(__file__).with_name("profiles.json")


def permitted(host: str, file: str) -> Permitted:
    """What this host's own file permits now. NotAllowed, BadInput."""
    given = words_of(host, file)
    words = Words({name: value for name, value in given.items() if name != "state_dir"})
    found = read_permitted(host, file, FOLDER.parent.parent, words)
    shipped = read_profiles(Words(json.loads(PROFILES.read_text())))
    return Permitted(**{**vars(found), "shipped": shipped})


def serve(host: str, file: str) -> None:
    """Answer questions, one a line, until nobody asks any more."""
    for line in sys.stdin:
        _answer(functools.partial(_served, json.loads(line), host, file))


def _served(asked: Dict[str, Any], host: str, file: str) -> object:
    what = asked["ask"]
    if what == "clock":
        return keeper.now_ns()
    if what == "holds":
        return holds(permitted(host, file), asked["profile"], asked["how"], (asked["name"], asked["port"]))
    root = FOLDER.parent.parent / "keeper"
    if what == "status":
        return keeper.status(root)
    if what == "renew":
        return keeper.renew(root, asked["fault"])
    if what == "heal":
        return [healed(root, fault) for fault in keeper.status(root)["open"]]
    raise BadInput("ask", what, "clock, holds, status, renew or heal")


def verb(host: str, file: str) -> None:
    """One verb of one fault."""
    given = json.loads(sys.stdin.read())
    _answer(lambda: run_verb(given["verb"], given["record"], permitted(host, file)))


def start_again(host: str, file: str) -> None:
    """Start what is down, by a program of the host's own file."""
    given = json.loads(sys.stdin.read())
    _answer(lambda: restart(permitted(host, file), given["profile"]))


def watch() -> None:
    """Statements and sightings on standard output; ends when standard input does."""
    try:
        config = config_of(sys.stdin.buffer.readline().decode())
    except HomeostatError as error:
        _say({"error": _shown(error)})
        return
    with open(os.dup(1), "wb", buffering=0) as out:
        watching = ProcessWatch(config, out, out.fileno(), leash_fd=0)

        def stop(_number: int, _frame: object) -> None:
            watching.stopping = True

        signal.signal(signal.SIGTERM, stop)
        watching.run()


def _answer(find: Callable[[], object]) -> None:
    try:
        _say({"answer": find()})
    except Unfit as error:
        _say({"error": {"kind": error.args[0], "message": error.args[1]}})
    except HomeostatError as error:
        _say({"error": _shown(error)})
    except keeper.Refused as error:
        _say({"error": _shown(NotAllowed(str(error)))})
    except (keeper.KeeperError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        _say({"error": _shown(GiveUp(str(error) or type(error).__name__))})


def _shown(error: HomeostatError) -> Dict[str, Any]:
    parts: Dict[str, Any] = {}
    if isinstance(error, BadInput):
        parts = {"field": error.field, "accepted": error.accepted}
        parts["value"] = error.value if error.value is None else str(error.value)
    return {"kind": type(error).__name__, "message": str(error), **parts}


def _say(said: object) -> None:
    try:
        print(json.dumps(said), flush=True)
    except BrokenPipeError:  # nobody hears it any more; what was done is the keeper's
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def keep_again() -> None:
    """A keeper when a fault is open and none lives: after a reboot of this host nobody else starts one.

    Whatever the host's file permits now: what is broken must be undone.
    """
    root = FOLDER.parent.parent / "keeper"
    found = keeper.status(root)
    if found["open"] and found["keeper"] is None:
        with contextlib.suppress(keeper.KeeperError, OSError, subprocess.SubprocessError):
            keeper.start(root)  # else the next question tries it again


def main() -> int:
    """The command."""
    command, host, file = sys.argv[1:4]
    keep_again()
    if command == "verb":
        verb(host, file)
    elif command == "restart":
        start_again(host, file)
    elif command == "serve":
        serve(host, file)
    elif command == "watch":
        watch()
    else:
        return 2
    return 0
