"""What a node process answers to drills, without a server: what two questions at once do to each other."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

from broken_host import OURS, BrokenHost, state

from homeostat.drills.node.responder import DrillResponder
from real_parts import eventually

VICTIM = f"{OURS}-answers"


def injectors() -> list[int]:
    """The `inject` processes that we have begun."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in children}
    return [
        pid
        for pid, words in commands.items()
        if b"homeostat.drills.node.injector" in words and b"inject" in words
    ]


async def test_no_undo_overtakes_its_inject(host: BrokenHost, tmp_path: Path) -> None:
    """A tool that was refused or gave up while the injector still loads undoes at once."""
    victim = host.victim(VICTIM)
    answers = DrillResponder("n1", host.config, tmp_path / "asked")
    given = host.order("node_freeze", {"command_line": f"^{VICTIM} 600$"})
    record: dict[str, Any] = json.loads(given.read_text())

    async def said(verb: str) -> dict[str, Any]:
        found: dict[str, Any] = await answers.answer({"ask": "verb", "verb": verb, "record": record})
        return found

    record["plan"] = await said("plan")
    injecting = asyncio.create_task(said("inject"))
    await eventually(injectors)
    (pid,) = injectors()
    os.kill(pid, signal.SIGSTOP)
    undoing = asyncio.create_task(said("undo"))
    try:
        done, _ = await asyncio.wait({undoing}, timeout=3)
        assert not done, "nothing to undo is known yet, and will be"
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (await undoing)["undone"]
    await asyncio.gather(injecting, return_exceptions=True)  # the keeper may have ended it
    assert host.open_faults() == [] and state(victim) in "RS"
