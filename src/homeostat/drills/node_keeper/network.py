"""What injectors put into a network stack is taken out again: queueing disciplines, tables, chains of ours.

Each is known by a name or handle of our own, so that nothing of the host's is touched, and is looked for
before it is removed. A network namespace is known by its inode: one that is gone took everything with it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import List, Optional, Tuple

from .steps import Kind, Step, name_in

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
    if not any(device == name for name in _devices(step["netns"])):
        return True
    shown = run_tool(step["netns"], "tc", "qdisc", "show", "dev", device) or ""
    return not any(line.split()[2:3] == [handle] for line in shown.splitlines())


def _devices(netns: Optional[int]) -> List[str]:
    shown = run_tool(netns, "ip", "-o", "link", "show") or ""
    return [line.split(":")[1].strip().split("@")[0] for line in shown.splitlines()]


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


def _chain_gone(step: Step) -> bool:
    return not _chain_words(step)[2]


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


KINDS = {
    "qdisc": Kind(_qdisc, _qdisc_gone),
    "table": Kind(_table, _table_gone),
    "chain": Kind(_chain, _chain_gone),
}
