"""What happens while a drill runs, on standard error: a line a step, and on a terminal a live one."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol, Self


class Progress(Protocol):
    """Who is told of each step."""

    def say(self, text: str) -> None:
        """One step, in words."""
        ...


class Silent:
    """Nobody is told."""

    def say(self, text: str) -> None:
        """Nothing."""


class OnStderr:
    """Lines with the seconds since the start; on a terminal, with a sign that it goes on. `with`."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._status = None
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True, highlight=False).status("")

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def say(self, text: str) -> None:
        """A line of its own."""
        line = f"{time.monotonic() - self._began_s:7.1f} s  {text}"
        if self._status is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._status.console.print(line, markup=False)
            self._status.update(text)
