"""One owner per state directory: takes it, ends what a dead owner left, runs the children, leaves nothing.

    lock -> end leftovers of children.json -> prepare -> supervise -> undo what drills broke -> stop
         -> end whatever still carries our mark

Services and guests of a killed owner are left alone at the start (their nodes find them again) and are
ended at the end, when nothing of the directory may live.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from homeostat.kernel.errors import CorruptState
from homeostat.kernel.locks import only_owner
from homeostat.kernel.processes import Identity, is_alive
from homeostat.lab.children import ChildSpec
from homeostat.lab.leftovers import (
    MARK,
    end_all,
    in_pid_files,
    keepers,
    marked,
    read_children,
    write_children,
)
from homeostat.lab.screen import Screen
from homeostat.lab.settings import StateDirectory
from homeostat.lab.supervisor import StopRequests, Supervisor, Surroundings
from homeostat.lab.undoing import let_in, undo_everything

_GRACE_S = 2.0

Prepare = Callable[[Screen], Sequence[ChildSpec]]
"""Writes what the children need and says what they are. Called with the directory in our hands."""


def hold(state: StateDirectory, prepare: Prepare, screen: Screen) -> int:
    """Own the directory until asked to stop: 0 then, 1 when the start failed. No process is left either way.

    AlreadyRunning when somebody else owns it; what `prepare` raises is passed on with nothing started.
    """
    taken = f"`homeostat up` already runs on {state.root} as pid {{pid}}; stop it or choose another --dir"
    with only_owner(state.lock_file, taken):
        return _supervise(state, prepare, screen)


def _supervise(state: StateDirectory, prepare: Prepare, screen: Screen) -> int:
    stops = StopRequests()
    _take_over(state, screen)
    specs = [replace(spec, env={**spec.env, MARK: str(state.root)}) for spec in prepare(screen)]
    state.logs.mkdir(mode=0o700, exist_ok=True)

    def record(children: dict[str, Identity]) -> None:
        try:
            write_children(state.children_file, children)
        except OSError as error:
            screen.say(f"{state.children_file}: not written ({error}); the next start may find less")

    halted: list[Path] = []

    def undo() -> None:
        halted.extend(undo_everything(state, screen.say, lambda: stops.count > 1))

    code = Supervisor(specs, Surroundings(state.logs, record, screen, stops, undo)).run()
    began_s = time.monotonic()
    hurry = stops.count > 1
    for each in end_all(lambda: _everything(state), grace_s=0.0 if hurry else _GRACE_S):
        how = "killed" if each.killed else "ended"
        screen.say(f"still there, {how}: pid {each.identity.pid} {each.command}")
    let_in(halted, screen.say)
    left = _everything(state)
    if left:
        screen.say(f"NOT ended: pids {', '.join(str(each.pid) for each in left)}")
        return 1
    took_s = time.monotonic() - began_s
    screen.say(f"stopped; nothing of {state.root} runs any more (looked for {took_s:.1f} s)")
    return code


def _take_over(state: StateDirectory, screen: Screen) -> None:
    """End what children.json names. The file is only a cache: one that makes no sense is set aside."""
    try:
        recorded = set(read_children(state.children_file).values())
    except CorruptState as error:
        aside = state.children_file.with_name(f"children.json.corrupt-{time.time_ns()}")
        state.children_file.replace(aside)
        screen.say(f"{error}; set aside as {aside.name}")
        recorded = set()
    spared = in_pid_files(state.hosts)
    ended = end_all(lambda: {each for each in recorded if is_alive(each)} - spared, grace_s=0.0)
    if ended or spared:
        screen.say(
            f"took over {state.root}: {len(spared)} services and guests still run, "
            f"{len(ended)} other processes ended"
        )


def _everything(state: StateDirectory) -> set[Identity]:
    """Every living process of the directory but ourselves."""
    return marked(state.root) | in_pid_files(state.hosts) | keepers(state.hosts)
