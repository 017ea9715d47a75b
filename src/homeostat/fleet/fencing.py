"""Fencing: makes sure that nothing runs on a dead host any more, before any of its guests starts elsewhere.

A host that is silent may still run its guests; two copies of one guest destroy its data. So there must be a
receipt. It is given by a person (`manual`), or by a program that exits 0 (`command`: a power switch, IPMI).
What is not a receipt: silence, a timeout, any other exit code. The loop that asks for it is in
`recovery.after_death`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass

from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import Outcome
from homeostat.fleet.settings import FencingSettings
from homeostat.kernel.processes import die_with_parent
from homeostat.ports import ActFailed, ActUnknown, Fence, Fenced, FenceResult

FENCE = "fence"
"""The act's name at the gate and in the journal."""


RECEIPT_BYTES_MAX = 2000
HOST = "{host}"


@dataclass(frozen=True, slots=True)
class FenceAttempt:
    """An intended act of fencing. `action` is unique for ever."""

    host: HostId
    action: str
    deadline_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class FenceOutcome:
    """How an attempt ended. `said` is the receipt when it is ok, else why not.

    `died_ns` is the death that it was for, None when that is not known: a receipt is for that one only.
    """

    action: str
    driver: str
    outcome: Outcome
    took_ms: float
    said: str
    died_ns: int | None = None


class CommandFence:
    """Runs a program; its exit code 0 is the receipt, its output the receipt's text."""

    name = "command"

    def __init__(self, argv: list[str], deadline_s: float) -> None:
        self._argv, self._deadline_s = tuple(argv), deadline_s

    async def fence(self, host: str) -> FenceResult:
        """See `Fence`. The program gets no input and its own session; at the deadline all of it is killed."""
        argv = [word.replace(HOST, host) for word in self._argv]
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(),  # or it could switch off a host that came back meanwhile
            )
        except OSError as error:
            return ActFailed(f"{argv[0]}: {error.strerror or error}")
        try:
            async with asyncio.timeout(self._deadline_s):
                said, _ = await process.communicate()
        except TimeoutError:
            return ActUnknown(f"{argv[0]} did not end within {self._deadline_s:g} s")
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        text = " ".join(said[:RECEIPT_BYTES_MAX].decode(errors="replace").split())
        if process.returncode == 0:
            return Fenced(text or f"{argv[0]} exited 0")
        return ActFailed(f"{argv[0]} ended with {process.returncode}: {text}")


def make_fence(settings: FencingSettings) -> Fence | None:
    """The driver, None when only a person can give a receipt."""
    return None if settings.driver == "manual" else CommandFence(settings.argv, settings.deadline_s)
