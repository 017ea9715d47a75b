"""The steps of an undo: what each says, when the undo begins, and how one is undone or verified.

A step is data of a fixed list of kinds, never a command line, and is written into the ledger before the act
that it undoes. The undo begins a margin before its deadline (a tenth of it, at most 2 s; for programs as
long as they say), so that it ends within it. Which steps, in which order and when is decided in `daemon`.

Each kind of step has one way to be undone and one to see that it is. Network rules are known by a name or
handle of our own and looked for before they are removed; a network namespace is known by its inode: one that
is gone took everything with it. Of programs only those run that this host permitted by name, with the name
of a host put in and nothing else, each with a time-out; the keeper shows meanwhile that it lives.

Invariants: what is already undone is left alone, so a step may be undone any number of times; whatever goes
wrong is a result, nothing is raised.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from .machine import (
    Folder,
    Ledger,
    Process,
    boot_id,
    now_ns,
    process_in,
    read,
    send,
    stat_of,
    sync_folder,
    within,
    write,
)

Step = Dict[str, Any]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:-]{0,62}\Z")
"""A name in the words of a tool: never an option, never a path."""


def name_in(step: Step, field: str) -> str:
    """A word of a step that goes to a tool. ValueError when it is no name."""
    value = str(step[field])
    if not NAME.match(value):
        raise ValueError(f"{field}: {value!r} is no name")
    return value


def step_cont(process: Process) -> Step:
    """A process that is about to be stopped goes on."""
    return {"kind": "cont", **process._asdict()}


def step_kill(process: Process) -> Step:
    return {"kind": "kill", **process._asdict()}


def step_remove(path: str, inode: Optional[int]) -> Step:
    """A file of ours is removed. Without an inode (not yet known) only while it is empty."""
    return {"kind": "remove", "path": path, "inode": inode}


def step_qdisc(netns: Optional[int], device: str, handle: str) -> Step:
    """A root queueing discipline with our handle (`8a01:`) is taken from a device."""
    return {"kind": "qdisc", "netns": netns, "device": device, "handle": handle}


def step_table(netns: Optional[int], table: str) -> Step:
    """Our own nftables table of family inet is dropped."""
    return {"kind": "table", "netns": netns, "table": table}


def step_chain(netns: Optional[int], command: str, chain: str) -> Step:
    """Our own chain of iptables or ip6tables, and the jumps to it."""
    return {"kind": "chain", "netns": netns, "command": command, "chain": chain}


def step_program(name: str, host: str, seen_by: str, says: str, takes_s: float = 0.0) -> Step:
    """A program that this machine permits is run for a host; it is undone when `seen_by` prints `says`.

    `takes_s`: so long before the deadline the undo begins, at most half of it.
    """
    step = {"kind": "program", "name": name, "host": host, "seen_by": seen_by, "says": says}
    return {**step, "takes_s": takes_s}


def step_nothing(why: str) -> Step:
    """Nothing is put back, because coming back is what is measured."""
    return {"kind": "nothing", "why": why}


DEADLINE_S = 30.0


def due_ns(ledger: Ledger, renewed_ns: Optional[int], at_ns: int) -> int:
    """When the undo begins: a margin before the deadline, so that it ends in it.

    A renewal from the future counts as one of now. Pure.
    """
    last_ns = max(int(ledger["armed_ns"]), min(renewed_ns or 0, at_ns))
    return last_ns + int((float(ledger["deadline_s"]) - margin_s(ledger)) * 1e9)


def margin_s(ledger: Ledger) -> float:
    """How long the undo may take: a tenth of the deadline, at most 2 s; with programs what they say. Pure."""
    deadline_s = float(ledger["deadline_s"])
    takes_s = sum(float(step.get("takes_s", 0.0)) for step in ledger.get("steps", []) if "takes_s" in step)
    return max(min(2.0, deadline_s / 10), min(takes_s, deadline_s / 2))


class StepKind(NamedTuple):
    """How a step is undone (`undone` or `already`), and how it is seen that it is."""

    undo: Callable[[Step], str]
    verify: Callable[[Step], bool]


_TOOL_S = 5.0


def entering(netns: Optional[int]) -> Optional[List[str]]:
    """How to run a command in a network namespace known by its inode; None when it is gone."""
    if netns is None or os.stat("/proc/self/ns/net").st_ino == netns:
        return []
    for path in (*Path("/run/netns").glob("*"), *Path("/proc").glob("[0-9]*/ns/net")):
        with contextlib.suppress(OSError):
            if os.stat(path).st_ino == netns:
                return ["nsenter", f"--net={path}"]
    return None


def run_tool(netns: Optional[int], *argv: str) -> Optional[str]:
    """What the tool prints; None when the namespace is gone. OSError when the tool fails."""
    prefix = entering(netns)
    if prefix is None:
        return None
    done = subprocess.run(
        [*prefix, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        timeout=_TOOL_S, universal_newlines=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _qdisc_gone(step: Step) -> bool:
    device, handle = name_in(step, "device"), name_in(step, "handle")
    links = (run_tool(step["netns"], "ip", "-o", "link", "show") or "").splitlines()
    if device not in [line.split(":")[1].strip().split("@")[0] for line in links]:
        return True
    shown = run_tool(step["netns"], "tc", "qdisc", "show", "dev", device) or ""
    return not any(line.split()[2:3] == [handle] for line in shown.splitlines())


def _qdisc(step: Step) -> str:
    if _qdisc_gone(step):
        return "already"
    device, handle = name_in(step, "device"), name_in(step, "handle")
    run_tool(step["netns"], "tc", "qdisc", "del", "dev", device, "root", "handle", handle)
    return "undone"


def _table_gone(step: Step) -> bool:
    shown = run_tool(step["netns"], "nft", "list", "tables") or ""
    return ["table", "inet", name_in(step, "table")] not in [line.split() for line in shown.splitlines()]


def _table(step: Step) -> str:
    if _table_gone(step):
        return "already"
    run_tool(step["netns"], "nft", "delete", "table", "inet", name_in(step, "table"))
    return "undone"


def _chain_words(step: Step) -> Tuple[str, str, List[List[str]]]:
    command, chain = str(step["command"]), name_in(step, "chain")
    if command not in ("iptables", "ip6tables"):
        raise ValueError(f"command: {command!r} is not iptables or ip6tables")
    shown = run_tool(step["netns"], command, "-w", "5", "-S") or ""
    return command, chain, [words for words in map(str.split, shown.splitlines()) if chain in words]


def _chain(step: Step) -> str:
    command, chain, lines = _chain_words(step)
    if not lines:
        return "already"
    for words in lines:
        if words[0] == "-A" and words[-2:] == ["-j", chain]:
            run_tool(step["netns"], command, "-w", "5", "-D", *words[1:])
    run_tool(step["netns"], command, "-w", "5", "-F", chain)
    run_tool(step["netns"], command, "-w", "5", "-X", chain)
    return "undone"


NETWORK_KINDS = {
    "qdisc": StepKind(_qdisc, _qdisc_gone),
    "table": StepKind(_table, _table_gone),
    "chain": StepKind(_chain, lambda step: not _chain_words(step)[2]),
}


def permit(root: Path, programs: Dict[str, Dict[str, Any]]) -> None:
    """Put down what may be run: by name `argv`, in which `{host}` stands for the host, and `timeout_s`."""
    folder = Folder(root)
    folder.make()
    write(folder.programs, programs)


def _run_program(root: Path, name: str, host: str, beat: Callable[[], None]) -> str:
    """What a permitted program prints. OSError when it fails, hangs or is none."""
    programs = read(Folder(root).programs) or {}
    if not (NAME.match(host) and name in programs):
        raise ValueError(f"program {name!r} for host {host!r} is not permitted here")
    argv = [str(word).replace("{host}", host) for word in programs[name]["argv"]]
    end_ns = now_ns() + int(float(programs[name]["timeout_s"]) * 1e9)
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/",
        universal_newlines=True,
    ) as child:  # fmt: skip
        said = None
        while said is None:
            try:
                said = child.communicate(timeout=0.5)[0].strip()
            except subprocess.TimeoutExpired:
                beat()
                if now_ns() > end_ns:
                    child.kill()
                    raise OSError(f"{argv[0]}: no end in {programs[name]['timeout_s']} s") from None
    if child.returncode != 0:
        raise OSError(f"{argv[0]}: {said[-200:] or child.returncode}")
    return said


def program_kind(root: Optional[Path], beat: Callable[[], None]) -> StepKind:
    """The kind of step that needs to know whose keeper asks."""

    def seen(step: Step) -> bool:
        if root is None:
            raise ValueError("only a keeper runs programs")
        return _run_program(root, step["seen_by"], step["host"], beat) == str(step["says"])

    def undo(step: Step) -> str:
        if root is None:
            raise ValueError("only a keeper runs programs")
        _run_program(root, step["name"], step["host"], beat)
        return "undone"

    return StepKind(undo, seen)


def _state_of(step: Step) -> Optional[str]:
    """The state letter of the step's own process; None when it is gone, or of another boot."""
    process, found = process_in(step), stat_of(int(step["pid"]))
    if found is None or found[1] != process.start_ticks or process.boot_id != boot_id() or found[0] in "ZX":
        return None
    return found[0]


def _signalled(step: Step, number: int) -> str:
    return "undone" if send(process_in(step), number) else "already"


def _ours(step: Step) -> bool:
    """Whether the file of the step is there and is the one that we made."""
    try:
        found = os.lstat(step["path"])
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISREG(found.st_mode):
        return False
    return found.st_size == 0 if step["inode"] is None else found.st_ino == step["inode"]


def _unlink(step: Step) -> str:
    if not _ours(step):
        return "already"
    path = Path(step["path"])
    path.unlink()
    sync_folder(path.parent)
    return "undone"


KINDS: Dict[str, StepKind] = {
    "cont": StepKind(lambda step: _signalled(step, signal.SIGCONT), lambda step: _state_of(step) != "T"),
    "kill": StepKind(lambda step: _signalled(step, signal.SIGKILL), lambda step: _state_of(step) is None),
    "remove": StepKind(_unlink, lambda step: not _ours(step)),
    "nothing": StepKind(lambda _: "already", lambda _: True),
    **NETWORK_KINDS,
}


def _kind_of(step: Step, root: Optional[Path], beat: Callable[[], None]) -> StepKind:
    return program_kind(root, beat) if step["kind"] == "program" else KINDS[step["kind"]]


def undo_step(
    step: Step, beat: Callable[[], None] = lambda: None, root: Optional[Path] = None
) -> Dict[str, Any]:
    """Undo one step and look whether it is. Whatever goes wrong is in the result, nothing is raised.

    `root` is the folder of the keeper whose host permits the programs.
    """
    result, reason = "failed", None
    beat()
    try:
        kind = _kind_of(step, root, beat)
        result = kind.undo(step)
        if not within(2.0, lambda: kind.verify(step)):
            result, reason = "failed", "still in effect 2 s after the undo"
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
        result, reason = "failed", f"{type(error).__name__}: {error}"
    return {"step": step, "result": result, "reason": reason}


def verify_step(step: Step, root: Optional[Path] = None) -> Dict[str, Any]:
    """Whether nothing of a step's effect is left; looks only."""
    try:
        undone = _kind_of(step, root, lambda: None).verify(step)
        return {"step": step, "undone": undone, "reason": None}
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
        return {"step": step, "undone": False, "reason": f"{type(error).__name__}: {error}"}
