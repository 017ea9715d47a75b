"""Lines for the person at the terminal, who may have paused it: writing must never stop the supervisor.

Lines wait in a bounded buffer until the terminal takes them; when it does not, the oldest are dropped and
counted. A reader that went away is not an error.
"""

from __future__ import annotations

import os
import select
from collections import deque

_LINES_MAX = 1000
_CHUNK = select.PIPE_BUF


class Screen:
    """One output file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()
        self._dropped = 0
        self._open = True
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def say(self, line: str) -> None:
        """Show one line now, or as soon as the terminal takes it."""
        body = line.encode(errors="backslashreplace") + b"\n"
        if len(self._lines) >= _LINES_MAX:
            self._lines.popleft()
            self._dropped += 1
        self._lines.append(body)
        self.flush()

    def flush(self) -> None:
        """Write what can be written without waiting."""
        while self._open and (self._lines or self._dropped) and self._writable():
            if self._dropped:
                self._lines.appendleft(f"... {self._dropped} lines not shown\n".encode())
                self._dropped = 0
            line = self._lines.popleft()
            try:
                written = os.write(self._descriptor, line[:_CHUNK])
            except BlockingIOError:
                self._lines.appendleft(line)
                return
            except OSError:
                self._open = False
                return
            if written < len(line):
                self._lines.appendleft(line[written:])

    @property
    def waiting(self) -> bool:
        """Whether lines wait for the terminal."""
        return self._open and bool(self._lines)

    def _writable(self) -> bool:
        ready = self._poll.poll(0)
        return bool(ready) and bool(ready[0][1] & (select.POLLOUT | select.POLLERR | select.POLLHUP))
