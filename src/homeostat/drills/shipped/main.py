"""Main program on a host reached by SSH alone: injector verbs, keeper orders, service restarts, process
watch.

    python3 -I -S FOLDER verb|restart|serve|watch HOST FILE

FOLDER is what was sent, FILE the host's own word on what may be broken here; it is read again for every
verb. Whichever it is, the undo keeper is started again when a fault is open. A node process runs the watch,
too, by itself (`drills.node.responder`). Orders come on standard input and never as arguments: a pattern in
an argument would match ourselves. Answers are lines of JSON, `{"answer": ...}` or `{"error": {"kind",
"message"}}`. Standard library only, python3.9.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict

from homeostat.drills.shipped.boot import Unfit, words_of
from homeostat.drills.shipped.injectors import run_verb
from homeostat.drills.shipped.keeper import daemon, machine, orders
from homeostat.drills.shipped.permissions import FieldReader, HostPermissions, read_permissions, read_profiles
from homeostat.drills.shipped.services import answer_order
from homeostat.kernel.errors import BadInput, GiveUp, HomeostatError, NotAllowed
from homeostat.monitors.shipped.process_watch import ProcessWatch, parse_watch_config

FOLDER = Path(__file__).parents[3]
KEEPER = FOLDER.parent.parent / "keeper"
PROFILES = Path(__file__).with_name("profiles.json")


def permissions_of(host: str, file: str) -> HostPermissions:
    """What this host's own file permits now. NotAllowed, BadInput."""
    given = words_of(host, file)
    words = FieldReader({name: value for name, value in given.items() if name != "state_dir"})
    found = read_permissions(host, file, FOLDER.parent.parent, words)
    shipped = read_profiles(FieldReader(json.loads(PROFILES.read_text())))
    return HostPermissions(**{**vars(found), "shipped": shipped})


def serve(host: str, file: str) -> None:
    """Answer questions, one a line, until nobody asks any more."""
    for line in sys.stdin:
        asked = json.loads(line)
        _order(asked["ask"], asked, host, file)


def _order(order: str, given: Dict[str, Any], host: str, file: str) -> None:
    _answer(lambda: answer_order(order, given, KEEPER, lambda: permissions_of(host, file)))


def verb(host: str, file: str) -> None:
    given = json.loads(sys.stdin.read())
    _answer(lambda: run_verb(given["verb"], given["record"], permissions_of(host, file)))


def restart_service(host: str, file: str) -> None:
    """Start what is down, by a program of the host's own file."""
    _order("restart", json.loads(sys.stdin.read()), host, file)


def watch() -> None:
    """Statements and sightings on standard output; ends when standard input does."""
    try:
        config = parse_watch_config(sys.stdin.buffer.readline().decode())
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
    except machine.KeeperRefusal as error:
        _say({"error": _shown(NotAllowed(str(error)))})
    except (machine.KeeperError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
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


def revive_keeper() -> None:
    """A keeper when a fault is open and none lives: after a reboot of this host nobody else starts one.

    Whatever the host's file permits now: what is broken must be undone.
    """
    found = orders.status(KEEPER)
    if found["open"] and found["keeper"] is None:
        with contextlib.suppress(machine.KeeperError, OSError, subprocess.SubprocessError):
            daemon.start(KEEPER)  # else the next question tries it again


def main() -> int:
    command, host, file = sys.argv[1:4]
    revive_keeper()
    if command == "verb":
        verb(host, file)
    elif command == "restart":
        restart_service(host, file)
    elif command == "serve":
        serve(host, file)
    elif command == "watch":
        watch()
    else:
        return 2
    return 0
